# SPDX-License-Identifier: Apache-2.0
"""``heddle bench`` on the Verilated card: its figures, and that it sees every difference."""

import json

import numpy as np
import pytest

from cardsim.functional import FunctionalCard
from cardsim.rtl import RtlCard
from heddle import bench, cli, measure
from heddle.layout import Layout
from heddle.options import Options
from heddle.runtime import Runtime
from heddle.shapes import find_shape
from rtl_gen.spec.config import TINY

pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("card tiny")]

SMALL = ["--shape", "2:128:997"]


def run(tmp_path, *arguments):
    path = tmp_path / "bench.json"
    assert cli.run(["bench", "--cards", "rtl:tiny", *SMALL, "--json", str(path), *arguments]) == 0
    return json.loads(path.read_text())


def test_figures_of_whole_steps(tmp_path, capsys):
    found = run(tmp_path, "--pattern", "2:4", "--context", "20", "--new", "2")
    assert {name: found[name] for name in (
        "backend", "config", "cards", "pattern", "activation", "cache", "context", "new", "full",
        "clock_mhz", "text", "equal_to_sim")} == {
        "backend": "rtl", "config": "tiny", "cards": 1, "pattern": "2:4", "activation": "a16",
        "cache": "int16", "context": 20, "new": 2, "full": True, "clock_mhz": 100, "text": None,
        "equal_to_sim": True}
    assert found["command"] == ("heddle bench --cards rtl:tiny --shape 2:128:997 --pattern 2:4 "
                                f"--context 20 --new 2 --json {tmp_path / 'bench.json'}")
    assert len(found["token_ids"]) == 2
    cycles = found["cycles_total"]
    assert found["cycles_per_token"] == cycles / 2
    assert found["tokens_per_second_card"] == pytest.approx(100e6 / (cycles / 2))
    # By hand: 2 layers of 12 · 128² weights, half of them with 3 bits for each pair, and the head.
    needed = found["needed_bytes_per_token"]
    assert needed["weights"] == 2 * 12 * 128 * 128 / 2 + 997 * 128
    assert needed["metadata"] == 2 * 12 * 128 * 128 / 4 * 3 / 8
    assert needed["cache"] == 2 * 2 * 20.5 * 128 * 2
    useful = needed["weights"] + needed["metadata"] + needed["cache"]
    assert found["useful_bytes_per_token"] == useful
    # The port is the slower one at 100 MHz: 1.6 bytes a ns and channel.
    assert found["hbm_useful_utilisation"] == pytest.approx(useful * 2 / (cycles * 4 * 16))
    nominal = cycles * 10 * 4 * 14.375
    assert found["hbm_nominal_utilisation"] == pytest.approx(useful * 2 / nominal)
    assert useful + needed["constants"] < found["hbm_bytes_per_token"]
    assert 0.3 < found["hbm_useful_utilisation"] < found["hbm_read_utilisation"] < 1
    assert set(found["stall_cycles"]) == {"weights", "dependency", "epilogue", "idle"}
    assert 0 < sum(found["stall_cycles"].values()) < cycles
    assert "tokens/s of the card" in capsys.readouterr().out


def test_layers_alone_and_slower_memory(tmp_path):
    quick, slow, steep = (run(tmp_path, "--layers", "1", "--cache", "int8", "--activation", "a8",
                              "--context", "33", *more)
                          for more in ((), ("--latency", "2000"), ("--clock", "2000")))
    assert (quick["full"], quick["token_ids"], quick["shape"]["layers"]) == (False, [], 1)
    assert quick["needed_bytes_per_token"]["weights"] == 12 * 128 * 128
    assert quick["needed_bytes_per_token"]["cache"] == 2 * 33 * 128
    assert slow["cycles_total"] > quick["cycles_total"] + 200
    # 1.6 bytes a ns come through the port at 100 MHz, 13.1 of 32 from memory at 2 GHz.
    assert steep["clock_mhz"] == 2000
    assert steep["cycles_total"] > 1.5 * quick["cycles_total"]
    rate = steep["useful_bytes_per_token"] / (steep["cycles_total"] / 2) / 4
    assert steep["hbm_useful_utilisation"] == pytest.approx(rate / 13.1, rel=1e-3)


@pytest.mark.parametrize(("activation", "prompt", "passes"), [
    ("a8", 9, [(0, 4, 0), (1, 4, 0), (5, 4, 1)]), ("a16", 4, [(0, 2, 0), (2, 2, 1)]),
    ("a8", 3, [(0, 1, 0), (1, 1, 0), (2, 1, 1)])])
def test_a_prompt_and_what_follows(tmp_path, activation, prompt, passes):
    found = run(tmp_path, "--prompt", str(prompt), "--new", "3", "--activation", activation)
    assert (found["context"], found["prompt"], found["new"]) == (0, prompt, 3)
    assert len(found["token_ids"]) == 3
    assert found["prefill_passes"] == len(passes)
    assert found["prefill_tokens_per_pass"] == passes[0][1]
    cycles = found["cycles_total"]
    # Three passes and two decode steps of the same weights, roughly.
    assert 0.4 * cycles < found["prefill_cycles"] < 0.8 * cycles
    assert found["output_tokens_per_second"] == pytest.approx(3 * 100e6 / cycles)
    assert found["cycles_per_token"] == pytest.approx(cycles / (prompt + 2))
    heads = sum(head for *_, head in passes) + 2
    total = (len(passes) + 2) * 2 * 12 * 128 * 128 + heads * 997 * 128
    needed = found["needed_bytes_per_token"]
    assert needed["weights"] == pytest.approx(total / (prompt + 2))
    cached = sum(position for position, *_ in passes) + prompt + prompt + 1
    assert needed["cache"] == pytest.approx(2 * 2 * cached * 128 * 2 / (prompt + 2))


def test_passes_of_a_prompt_fill_the_columns(tmp_path):
    one, four = (run(tmp_path, "--layers", "1", "--activation", "a8", "--context", "8",
                     *more) for more in ((), ("--prompt", "8")))
    assert (four["token_ids"], four["output_tokens_per_second"]) == ([], None)
    assert four["prefill_cycles"] == four["cycles_total"]
    assert four["prefill_passes"] == 2
    assert four["cycles_total"] / 2 < 2 * one["cycles_total"]
    assert four["mac_utilisation"] > 2 * one["mac_utilisation"]


@pytest.mark.parametrize("more", [[], ["--layers", "1"]])
def test_batches_share_the_weights(tmp_path, more):
    """Four sequences of 41, 34, 27 and 20 positions, and one of 41; two steps."""
    common = ["--activation", "a8", "--context", "41", "--new", "2", *more]
    one, four = run(tmp_path, *common), run(tmp_path, *common, "--batch", "4", "--spread", "7")
    assert four["equal_to_sim"]
    assert (four["batch"], four["spread"]) == (4, 7)
    assert [len(tokens) for tokens in four["token_ids"]] == ([0] * 4 if more else [2] * 4)
    cycles = four["cycles_total"]
    assert four["cycles_per_token"] == cycles / 8
    assert four["tokens_per_second_card"] == pytest.approx(8 * 100e6 / cycles)
    # By hand: a step's weights, and K and V of the four sequences (a position more in the second).
    layers = 1 if more else 2
    needed = four["needed_bytes_per_token"]
    assert needed["weights"] * 4 == layers * 12 * 128 * 128 + (0 if more else 997 * 128)
    assert needed["cache"] * 4 == 2 * layers * (41 + 34 + 27 + 20 + 2) * 128 * 2
    assert four["useful_bytes_per_token"] == needed["weights"] + needed["cache"]
    assert four["mac_utilisation"] > 1.5 * one["mac_utilisation"]
    assert one["cycles_total"] < cycles < 3 * one["cycles_total"]


def test_every_sequence_of_a_batch_is_compared(monkeypatch, capsys):
    """Hidden state, logits, K and V of the last sequence; a wrong bit of them ends the bench."""
    layout = Layout(TINY, find_shape("2:128:997"), Options(activation="a8"))
    memory = layout.memory
    read, wrong, seen = RtlCard.read, {}, set()

    def turn(self, address, size):
        data = bytearray(read(self, address, size))
        for at, what in wrong.items():
            if address <= at < address + size:
                seen.add(what) if any(data[at - address:at - address + 64]) else None
                data[at - address] ^= 1
        return bytes(data)

    monkeypatch.setattr(RtlCard, "read", turn)
    for beat, what in ((memory.probes + 3 * memory.vector, "hidden state"),
                       (memory.logits + 3 * memory.row, "logits"),
                       (memory.cache + 3 * memory.slot, "K and V")):
        wrong.clear()
        wrong[TINY.channel_bytes + beat * TINY.beat_bytes] = what
        assert cli.run(["bench", "--cards", "rtl:tiny", *SMALL, "--context", "5", "--batch", "4",
                        "--activation", "a8"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"heddle: the {what} must be equal bit for bit")
        if what != "K and V":
            assert "element 1 of column 3 is" in error
    assert seen == {"hidden state", "logits", "K and V"}


def test_a_difference_ends_the_bench(monkeypatch, capsys):
    """Whatever the card has one wrong bit in."""
    layout = Layout(TINY, find_shape("2:128:997"), Options())
    memory = layout.memory
    read, wrong = RtlCard.read, {}

    def turn(self, address, size):
        data = bytearray(read(self, address, size))
        for at in wrong:
            if address <= at < address + size:
                data[at - address] ^= 1
        return bytes(data)

    monkeypatch.setattr(RtlCard, "read", turn)
    for beat, what in ((memory.probes, "the hidden state must be equal bit for bit on rtl:tiny and "
                                       "sim:tiny, but element 2 of column 0 is "),
                       (memory.logits, "the logits must be"), (memory.cache, "the K and V must")):
        wrong.clear()
        wrong[2 * TINY.channel_bytes + beat * TINY.beat_bytes] = 1
        assert cli.run(["bench", "--cards", "rtl:tiny", *SMALL, "--context", "5"]) == 1
        assert capsys.readouterr().err.startswith(f"heddle: {what}")


def test_what_is_compared_is_there(monkeypatch):
    """Hidden state, all logits, and K and V of every layer are in what `compare` reads."""
    seen = {}

    def keep(cards, names, layout):
        runtime = Runtime(cards[0], layout)
        seen["logits"] = runtime.logits()
        seen["x"] = runtime._vector(layout.memory.probes, layout.shape.width)
        seen["layout"] = layout

    monkeypatch.setattr(measure, "compare", keep)
    made = measure.Bench(cards="rtl:tiny", shape=find_shape("2:128:997"), seed=4,
                         options=Options(pattern="dense"), workload=bench.Workload(context=9))
    figures = made.run()
    assert np.isfinite(seen["x"]).all()
    assert seen["x"].std() > 0.02
    assert np.argmax(seen["logits"]) == figures["token_ids"][0]
    assert len(np.unique(seen["logits"])) > 900
    # The logits are those of a run on the functional card alone.
    layout, card = seen["layout"], FunctionalCard(TINY)
    runtime = Runtime(card, layout)
    source = measure.RandomSource(made.shape, 4)
    runtime.load(measure.Images(layout, source).blocks())
    bench.fill_cache(card, layout, 9, made._rng(0))
    made.workload.run(runtime, made._rng(1))
    np.testing.assert_array_equal(runtime.logits().view(np.uint32),
                                  seen["logits"].view(np.uint32))
    # The filled positions matter.
    bench.fill_cache(card, layout, 9, made._rng(2))
    made.workload.run(runtime, made._rng(1))
    assert np.count_nonzero(runtime.logits() != seen["logits"]) > 900
