# SPDX-License-Identifier: Apache-2.0
"""``make bench``: its rows can be run, what it computes of them, and that the page is of them."""

import dataclasses
import json
import pathlib

import bench_estimates
import bench_page
import bench_rows
import bench_speed
import benchmarks
import pytest
from bench_rows import Row, measure, measure_all, rows
from bench_speed import Speeds

from heddle import cli
from heddle.cli import benching
from heddle.errors import RunError, UserError
from heddle.layout import Layout
from heddle.prune import pattern_of

ROOT = pathlib.Path(benchmarks.__file__).resolve().parents[2]
TINY = ("--cards", "rtl:tiny", "--shape", "1:64:300", "--context", "3")


@pytest.mark.parametrize(("long", "variants", "steps"), [
    (False, None, 9), (False, True, 15), (True, None, 23)])
def test_every_row_is_a_bench_that_fits_the_card(long, variants, steps, monkeypatch):
    seen = []

    def keep(bench, **_):
        seen.append(bench)
        raise UserError("seen")

    monkeypatch.setattr(benching.Bench, "run", keep)
    wanted = rows(long, variants=variants)
    assert len({row.name for row in wanted}) == len(wanted)
    for row in wanted:
        assert cli.run(["bench", *row.arguments]) == 2
    assert len(seen) == len(wanted)
    whole = 0
    for bench in seen:
        assert bench.cards == "rtl:u280"
        layout = Layout(bench.spec().config, bench.shape, bench.options,
                        pattern_of(bench.options.pattern))
        assert bench.workload.positions <= layout.context
        assert bench.workload.batch <= layout.sequences
        assert bench.workload.prompt in (0, layout.tokens)
        whole += bench.workload.full
    assert whole == steps


def figures(cycles, **more):
    """Of a row at 200 MHz, whose useful bytes are half of what memory delivers in its cycles."""
    useful = cycles * 32 * 64 / 2
    return {"cycles_total": cycles, "estimated_cycles": cycles + cycles // 50,
            "tokens_per_second_card": 200e6 / cycles,
            "hbm_useful_utilisation": 0.5, "hbm_nominal_utilisation": 0.4,
            "useful_bytes_per_token": useful, "hbm_bytes_per_token": 1.25 * useful,
            "mac_utilisation": 0.25, "batch": 1, "full": True, "shape": {"layers": 24},
            "needed_bytes_per_token": {"weights": useful, "metadata": 0},
            "stall_cycles": dict.fromkeys(bench_page.STALLS, cycles // 10), "equal_to_sim": True,
            "commit": "0123456789abcdef", "configuration_digest": "0x12345678",
            "contract_digest": "0x9abcdef0"} | more


@pytest.fixture
def found():
    """Every row with 100,000 cycles, but those that a test below looks at."""
    made = {row.name: figures(100_000, row=row.command) for row in rows(variants=True)}
    for pattern in bench_rows.PATTERNS:
        made[f"layers-{bench_rows.short(pattern)}-2"] = figures(40_000)
    made["latency-dense"] = figures(100_000, full=False, shape={"layers": 6})
    made["layers-dense-6"] = figures(99_000)
    made["layers-dense-2"] = figures(39_000)
    made["layers-2-4-6"] = figures(60_000)
    made["layers-2-4-2"] = figures(30_000)
    made["prefill-dense-a8"] = figures(107_000, mac_utilisation=0.93)
    made["prefill-2-4-a8"] = figures(111_000, mac_utilisation=0.93)
    batch = figures(110_000, tokens_per_second_card=4 * 200e6 / 110_000, batch=4)
    made["batch-4-128"] = dict(batch)
    made["batch-4-1023"] = figures(110_000, batch=4)
    made[bench_rows.APART] = batch | {"tokens_per_second_card": 4 * 200e6 / 120_000}
    for row in rows(variants=True):
        made[row.name]["row"] = row.command
    return made


def test_what_is_computed(found):
    # Twice the useful bytes fit into the cycles, and 1.25 times them are read.
    assert bench_page.limit(figures(100_000)) == pytest.approx(2000 * 2 / 1.25)
    assert bench_page.drop(found, "dense") == pytest.approx(0.01)
    assert bench_page.layer(found, "dense")[0] == 15_000
    assert bench_page.layer(found, "dense")[1:] == pytest.approx((15_000 * 1024, 0.5))
    assert bench_page.achieved(found, "2:4") == pytest.approx((2, 2))
    assert bench_page.prefill_ratio(found, "dense", "a8") == pytest.approx(1.07)
    assert bench_page.gain(found, 128) == pytest.approx(4 / 1.1)
    assert bench_page.gain(found, 128, bench_rows.APART) == pytest.approx(4 / 1.2)


def test_targets_that_are_missed_are_named(found):
    held = {target.what: target.good for target in bench_page.targets(found)}
    assert held.pop("dense, engine busy in prefill, A8")
    assert held.pop("dense, prefill pass over decode step, A8")
    assert not held.pop("2:4, prefill pass over decode step, A8")
    assert not held.pop("dense, engine busy in prefill, A16")
    assert held.pop("dense, tokens/s")
    assert not held.pop("dense, useful")
    assert held.pop("gain of a batch of 4, context 128")
    assert not held.pop("gain of a batch of 4, context 1,023")
    assert held.pop(f"dense, lost at {bench_rows.SLOW} ns")
    assert held.pop("2:4 over dense, of the ratio of bytes")
    assert held.pop("largest error of an estimate")
    assert len(held) == 5
    found["step-dense"]["estimated_cycles"] = 96_900
    worst = bench_page.targets(found)[-1]
    assert (worst.what, worst.good) == ("largest error of an estimate", False)
    assert worst.value == pytest.approx(3.1)


SPEEDS = Speeds(machine="2 cores of a kind", load=1.25, cycles_per_second={"tiny": 81234.5},
                generate_seconds={"tiny": 1.5}, build_seconds={"tiny": 20.4}, functional=[
                    {"shape": "gpt2-124m", "pattern": "dense", "tokens_per_second": 7.26,
                     "tokens_per_cpu_second": 4.1, "resident_bytes": 300e6, "image_bytes": 240e6}])


def test_the_page_says_what_was_measured(found):
    text = bench_page.page(rows(variants=True), found, SPEEDS, long=False)
    for part in (
            "| 2:4 | 225 MHz | 100,000 | **2,000** | 3,200 | 50.0 % | 40.0 % | 10.0 % |",
            "| 2:4 | 7,500 | 7.68 | 50.0 % | 2.000 | 2.000 | 100.0 % |",
            "| dense | A8 | 4 | 24 | 100,000 | 107,000 | 1.070 | 93.0 % |",
            "| 128 | 4 | 110,000 | 7,273 | 3.64 | 50.0 % |",
            "| 128 to 131 | 4 | 110,000 | 6,667 | 3.33 | 50.0 % |",
            "`0123456789ab`, configuration digest `0x12345678`, contract `0x9abcdef0`",
            "6 layers alone", "2 cores of a kind. The load was 1.2 ", "81,234 cycles/s",
            "7.3 tokens/s (4.1 in a second of CPU time), 1.25 images of 240 MB", "20 s",
            "| `step-dense` | 100,000 | 102,000 | +2.00 % | yes | `0123456789ab` |",
            "dense, useful: 50 % (at least 95 %)", "| DFX | U280 | GPT-2 345M | FP16 | board |"):
        assert part in text, part
    for block in text.split("\n\n"):     # every line of a table has as many cells
        if block.startswith("| "):
            assert len({line.count(" | ") for line in block.splitlines()}) == 1, block
    assert all(f"\n{row.command}\n" in text for row in rows(variants=True))


def test_parts_without_rows_say_so(found):
    for name in ("batch-4-128", "prefill-dense-a8", "layers-2-4-2"):
        del found[name]
    text = bench_page.page(rows(variants=True), found, None, long=False)
    for part, there in (("Patterns", 0), ("Prefill", 0), ("Batches", 0), ("Other shapes", 1),
                        ("Whole decode steps of GPT-2 345M", 1), ("Speed of the simulators", 0)):
        below = text.partition(f"\n## {part}\n")[2].partition("\n## ")[0]
        assert (bench_page.ABSENT in below) != there, part
    assert "prefill-dense-a8" not in text
    named = {target.what for target in bench_page.targets(found)}
    assert "dense, prefill pass over decode step, A16" in named
    assert not named & {"dense, prefill pass over decode step, A8",
                        "dense, engine busy in prefill, A8",
                        "2:4 over dense, of the ratio of bytes",
                        "gain of a batch of 4, context 128"}
    del found[bench_rows.APART]
    found["batch-4-128"] = figures(110_000, batch=4)
    assert "128 to 131" not in bench_page.batches(found)


def test_kept_figures_are_those_of_their_commands(tmp_path):
    one, other = rows()[:2]
    for row, command in ((one, one.command), (other, "heddle bench")):
        (tmp_path / f"{row.name}.json").write_text(json.dumps({"row": command, "commit": "a+"}))
    assert list(bench_rows.kept(rows(), tmp_path)) == [one.name]
    assert bench_speed.kept_speeds(tmp_path) is None
    (tmp_path / "speed.json").write_text(
        json.dumps(dataclasses.asdict(SPEEDS) | {"commit": "a+"}))
    assert bench_speed.kept_speeds(tmp_path) == SPEEDS


@pytest.mark.cosim
@pytest.mark.xdist_group("card tiny")
def test_a_row_is_measured_once_a_commit(tmp_path, monkeypatch):
    row = Row("small", TINY)
    monkeypatch.setattr(bench_rows, "commit", lambda: "abc")
    first = measure(row, tmp_path)
    assert (first["equal_to_sim"], first["row"]) == (True, row.command)
    assert first["cycles_total"] > 1000
    path = tmp_path / "small.json"
    kept = json.loads(path.read_text()) | {"commit": "abc", "cycles_total": 7}
    path.write_text(json.dumps(kept))
    assert measure(row, tmp_path)["cycles_total"] == 7
    # Not of another commit, of changed files, or of another command.
    for head, other in (("abd", row), ("abc+", row), ("abc", Row("small", (*TINY, "--seed", "1")))):
        path.write_text(json.dumps(kept | {"commit": head if head.endswith("+") else "abc"}))
        monkeypatch.setattr(bench_rows, "commit", lambda head=head: head)
        assert measure(other, tmp_path)["cycles_total"] > 1000


def test_rows_have_estimates():
    row, other = Row("small", TINY), Row("far", (*TINY, "--new", "2000"))
    found = bench_estimates.with_estimates([row, other], {"small": {"cycles_total": 1}}, 2)
    assert list(found) == ["small"]
    assert found["small"]["cycles_total"] == 1
    assert 1000 < found["small"]["estimated_cycles"] < 10_000
    with pytest.raises(RunError, match=r"the estimate of .* ended with status 2: heddle: context"):
        bench_estimates.estimate(other)


def test_a_row_that_fails_ends_it_all(tmp_path):
    lines = []
    with pytest.raises(RunError, match=r"ended with status 2: heddle: context and new tokens must"):
        measure_all([Row("far", (*TINY, "--new", "2000"))], tmp_path, 2, lines.append)
    with pytest.raises(RunError, match="must have been compared with the functional card"):
        measure_all([Row("sim", ("--cards", "sim:tiny", *TINY[2:]))], tmp_path, 2, lines.append)
    assert not lines
    assert not list(tmp_path.glob("*.json"))


def test_readme_has_a_place_for_figures():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    made = benchmarks.renewed(text, "FIGURES")
    assert made.count("FIGURES") == 1
    assert benchmarks.renewed(made, "other") == benchmarks.renewed(text, "other")
    with pytest.raises(RunError, match="must have"):
        benchmarks.renewed("nothing", "FIGURES")


def test_the_page_in_docs_is_of_these_rows():
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    known = {row.command for row in (*rows(variants=True), *rows(long=True))}
    shown = {line for line in text.splitlines() if line.startswith("heddle bench ")}
    assert shown, "run make bench"
    assert shown <= known, "run make bench: docs/benchmarks.md has rows that are no more"
    for pattern in ("dense", "2:4"):
        assert f"heddle bench --shape gpt2-345m --pattern {pattern} --cache int8" in shown
