# SPDX-License-Identifier: Apache-2.0
"""``heddle trace``: slices, counters, accounts and pictures of a run on the Verilated card."""

import gzip
import itertools
import json
from collections import defaultdict

import pytest

from heddle.cli import run

pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("card tiny")]

ARGUMENTS = ["trace", "--cards", "rtl:tiny", "--shape", "3:128:500", "--pattern", "2:4",
             "--context", "20", "--new", "2"]
#: Tracks with one slice for every executed instruction.
QUEUES = {"dispatch", "memory", "engine", "vector"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("trace")
    assert run([*ARGUMENTS, "-o", str(found)]) == 0
    return found


@pytest.fixture(scope="module")
def trace(folder):
    with gzip.open(folder / "trace.json.gz") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def counters(trace):
    """The status record's."""
    return trace["otherData"]


def of(trace, phase, **wanted):
    return [event for event in trace["traceEvents"] if event["ph"] == phase
            and all(event[key] == value for key, value in wanted.items())]


def test_events_are_what_the_format_asks_for(trace):
    """Chrome's trace event format: complete events, counters, metadata."""
    assert {event["ph"] for event in trace["traceEvents"]} == {"X", "C", "M"}
    tracks = {(event["pid"], event["tid"]) for event in of(trace, "M", name="thread_name")}
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str)
        assert event["name"]
        assert isinstance(event["args"], dict)
        if event["ph"] != "M":
            assert event["ts"] >= 0
        if event["ph"] == "X":
            assert (event["pid"], event["tid"]) in tracks
            assert event["dur"] > 0
        if event["ph"] == "C":
            assert all(isinstance(value, int) for value in event["args"].values())


def test_every_instruction_has_a_slice(trace, counters):
    slices = [event for event in of(trace, "X") if event["cat"] in QUEUES]
    assert len(slices) == counters["instructions"]
    names = {event["name"] for event in slices}
    assert {"qkv", "keys", "values", "out", "up", "down", "head", "QUANT", "NORM", "CACHE",
            "SAMPLE", "LOOP", "HALT", "LOAD scales", "LOAD embedding", "STORE scales",
            "STORE logits"} <= names
    product = next(event for event in slices if event["name"] == "down")
    assert product["args"]["instruction"].startswith("MATMUL")
    assert product["args"]["section"] == "MLP"
    assert product["args"]["beats"] > product["args"]["operands"]["rows"]
    # Two steps of three layers have as many products each.
    number = {name: sum(event["name"] == name for event in slices) for name in names}
    assert number["keys"] == number["values"] == 2 * 3 * 2
    assert number["down"] % 6 == 0


def test_slices_of_a_track_do_not_overlap(trace, counters):
    tracks = defaultdict(list)
    for event in of(trace, "X"):
        tracks[event["cat"]].append((event["ts"], event["ts"] + event["dur"]))
    assert set(tracks) == {*QUEUES, "epilogue", "softmax", "engine waits"}
    for name, found in tracks.items():
        found.sort()
        for (_, end), (start, _) in itertools.pairwise(found):
            assert end <= start + 1e-9, name
        assert found[-1][1] <= counters["cycles"] / 100 + 1e-9


def test_instructions_go_through_their_stages_in_order(trace):
    for event in of(trace, "X"):
        if event["cat"] in QUEUES - {"dispatch"}:
            args = event["args"]
            assert args["dispatched"] < args["offered"] <= args["taken"] < args["done"]
            assert 100 * event["ts"] >= args["taken"] - 1e-6


def test_samples_add_up_to_the_status_record(trace, counters):
    def total(kind, track):
        return sum(event["args"][kind] for event in of(trace, "C", name=track))

    engine = {kind: total(kind, "engine, cycles")
              for kind in ("fires", "weights", "rows", "dependency", "idle", "starting")}
    assert engine["fires"] == counters["engine_cycles"]
    assert engine["weights"] == counters["stall_weights"]
    assert engine["rows"] == counters["stall_epilogue"]
    assert engine["dependency"] == counters["stall_dependency"]
    assert engine["idle"] == counters["stall_idle"]
    assert sum(engine.values()) == counters["cycles"]
    everything = "all channels, beats and cycles"
    # Control's own beats are no reads of the program.
    assert 0 <= total("read", everything) - counters["read_beats"] < 100
    for kind in ("read", "written", "late"):
        assert total(kind, everything) == sum(
            total(kind, f"channel {channel:02}") for channel in range(4)) > 0


def test_accounts_add_up_and_match(folder, trace, counters):
    found = json.loads((folder / "account.json").read_text())
    whole, layer = found["whole"], found["layer"]
    for part in (whole, layer):
        waits = {name: sum(row["cycles"] for row in part[name]) for name in ("lost", "waited")}
        assert sum(part["moved"].values()) + waits["lost"] == pytest.approx(part["cycles"])
        assert sum(part["fired"].values()) + waits["waited"] == pytest.approx(part["cycles"])
    assert whole["cycles"] == counters["cycles"]
    assert sum(whole["fired"].values()) == counters["engine_cycles"]
    assert sum(cycles for name, cycles in whole["moved"].items()
               if name not in ("writes", "command")) * 4 == pytest.approx(counters["read_beats"])
    by_cause = defaultdict(float)
    for row in whole["waited"]:
        by_cause[row["cause"]] += row["cycles"]
    assert by_cause["dependency"] == counters["stall_dependency"]
    # Three layers: the mean of the first two, with all of a layer's matrices and no others.
    assert layer["layers"] == 2
    assert set(layer["fired"]) == {"qkv", "keys", "values", "out", "up", "down"}
    for name in layer["fired"]:
        beats = sum(event["args"]["beats"] for event in of(trace, "X", cat="engine", name=name))
        assert layer["moved"][name] == pytest.approx(beats / (2 * 3), rel=0.1)


def test_equal_runs_give_equal_files(folder, tmp_path):
    assert run([*ARGUMENTS, "-o", str(tmp_path)]) == 0
    for name in ("trace.json.gz", "trace.png"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_the_picture_is_not_blank(folder):
    from matplotlib.image import imread

    pixels = imread(folder / "trace.png")
    assert pixels.shape[0] > 600
    assert pixels.shape[1] > 1200
    inked = (pixels[..., :3].min(-1) < 0.95).mean(0)
    # Something in the left and in the right half.
    assert inked[:len(inked) // 2].max() > 0.2
    assert inked[len(inked) // 2:].max() > 0.2


@pytest.mark.parametrize(("arguments", "message"), [
    (["--cards", "sim:tiny", "--summary"],
     "cards must be of a kind that has a clock, as rtl:tiny, not sim:tiny: it counts no cycles"),
    (["--cards", "rtl:tiny"], "one of --output and --summary must be given, not none"),
    (["--cards", "rtl:tiny", "--summary", "-o", "x"],
     "one of --output and --summary must be given, not both"),
    (["--cards", "rtl:tiny", "--summary", "--prompt", "x"],
     "prompt must be a number of tokens, or a text with a model, not 'x'"),
    (["sw/models/shakespeare-gpt2", "--cards", "rtl:tiny", "--summary"],
     "a prompt must be given with a model"),
    (["--cards", "rtl:tiny", "--summary", "--sample", "0"],
     "sample must be at least 1 cycle, not 0")])
def test_bad_input_is_refused_with_a_sentence(capsys, arguments, message):
    assert run(["trace", *arguments]) == 2
    assert capsys.readouterr().err == f"heddle: {message}\n"


def test_a_model_is_traced_on_its_prompt(capsys):
    assert run(["trace", "sw/models/shakespeare-gpt2", "--cards", "rtl:tiny", "--prompt", "ROMEO.",
                "--new", "1", "--pattern", "2:4", "--summary"]) == 0
    out = capsys.readouterr().out
    assert "one layer, mean of 3: " in out
    assert "the engine waited" in out


def test_a_run_is_traced_that_is_shorter_than_loading_its_program(capsys):
    assert run(["trace", "--cards", "rtl:tiny", "--shape", "1:64:100", "--layers", "1",
                "--context", "1", "--summary"]) == 0
    assert "one layer: " in capsys.readouterr().out
