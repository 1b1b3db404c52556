# SPDX-License-Identifier: Apache-2.0
"""Models on the Verilated card and on the functional one: records, logits and memory, bit by bit.

The functional card reads a text up to the position where it becomes interesting; its memory goes
to the Verilated card, and both go on from there.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

import heddle
from cardsim.rtl import Timing
from heddle.results import Result
from rtl_gen.spec.registers import STATUS
from tests.sw import models

pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("card tiny")]

DEMO = pathlib.Path(__file__).resolve().parents[2] / "sw" / "models" / "shakespeare-gpt2"
PROMPT = "ROMEO.\nBut, soft! what light through yonder window breaks? "
#: Tokens that both cards read by themselves: one command each, then one command for all.
ALONE, TOGETHER = 2, 2


@pytest.fixture(scope="module")
def awkward(tmp_path_factory):
    """Five heads, and a vocabulary and an inner width that nothing divides."""
    found = models.tensors(layers=2, width=320, inner=1001, vocabulary=997, context=41, head=True,
                           seed="both cards")
    return models.write(tmp_path_factory.mktemp("awkward"), found, activation_function="gelu")


def words(card, layout):
    """Memory [channels, 32-bit words] that a model uses, but for the status record: cycles are
    in it."""
    config, memory = layout.config, layout.memory
    size = memory.used * config.beat_bytes
    rows = np.stack([np.frombuffer(card.read(channel * config.channel_bytes, size), "<u4").copy()
                     for channel in range(config.channels)])
    first = memory.status * config.beat_bytes // 4
    rows[0, first:first + len(STATUS)] = 0
    return rows


def plain(result: Result) -> tuple:
    """A record as a value that can be compared."""
    return (result.token, result.logit, result.log_sum, result.target_logit,
            result.candidates.tolist(), result.candidate_logits.tolist())


def outcome(runtime, tokens, first):
    """Logits, records and memory after ``tokens`` from position ``first`` on."""
    logits, results = models.steps(runtime, tokens[:ALONE], first)
    results += runtime.run(tokens[ALONE:], first + ALONE, TOGETHER, silent=1)
    return logits, [plain(result) for result in results], words(runtime.card, runtime.layout)


@pytest.mark.parametrize(("which", "start", "options", "stall"), [
    ("awkward", 0, {"pattern": "dense"}, 0),
    # The first block of values and the first of lane rows end here.
    ("awkward", 14, {"pattern": "2:4"}, 250),
    ("awkward", 30, {"pattern": "2:16", "activation": "a8", "cache": "int8"}, 600),
    # The end of the context.
    ("demo", 252, {"pattern": "dense"}, 0),
    ("demo", 47, {"pattern": "2:4"}, 100)],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else str(value))
def test_both_cards_give_the_same(awkward, which, start, options, stall):
    folder = {"awkward": awkward, "demo": DEMO}[which]
    with contextlib.ExitStack() as stack:
        sim, rtl = (stack.enter_context(heddle.load(folder, cards=cards, **options, **how))
                    for cards, how in (("sim:tiny", {}),
                                       ("rtl:tiny", {"timing": Timing(stall_permille=stall)})))
        count = start + ALONE + TOGETHER
        ids = (sim.encode(PROMPT) * count)[:count]
        if start:
            sim.runtime.run(ids[:start], 0, start, silent=start)
        size = sim.runtime.layout.config.channel_bytes
        used = sim.runtime.layout.memory.used * sim.runtime.layout.config.beat_bytes
        for channel in range(sim.runtime.layout.config.channels):
            rtl.runtime.card.write(channel * size, sim.runtime.card.read(channel * size, used))
        before = words(sim.runtime.card, sim.runtime.layout)
        want, found = (outcome(model.runtime, ids[start:], start) for model in (sim, rtl))
        assert rtl.runtime.totals.counters["cycles"] > 0
    assert len(set(want[0][0].tolist())) > 100
    assert found[1] == want[1]
    np.testing.assert_array_equal(found[0].view(np.uint32), want[0].view(np.uint32))
    # Keys, values, scales, logits, records: all that was written, and nothing else.
    assert np.count_nonzero(want[2] != before) > 1000
    np.testing.assert_array_equal(found[2], want[2])


@pytest.mark.parametrize(("options", "stall"), [
    ({"pattern": "dense", "activation": "a16"}, 0), ({"pattern": "2:4", "activation": "a8"}, 300),
    ({"pattern": "dense", "activation": "a8", "cache": "int8"}, 100)],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else str(value))
def test_passes_of_several_tokens_give_the_same(awkward, options, stall):
    """On both cards the bits of one token after another, all memory included."""
    with contextlib.ExitStack() as stack:
        one, sim, rtl = (stack.enter_context(heddle.load(awkward, cards=cards, **options, **how))
                         for cards, how in (("sim:tiny", {}), ("sim:tiny", {}),
                                            ("rtl:tiny", {"timing": Timing(stall_permille=stall)})))
        size = sim.runtime.layout.tokens
        assert size == (4 if options["activation"] == "a8" else 2)
        # Passes that begin anywhere in a lane row, and one whose tokens overlap another's.
        ids = (sim.encode(PROMPT) * 3)[:2 * size + 2 + size // 2]
        first = one.runtime.run(ids[:1], 0, 1, silent=1)
        for model in (sim, rtl):
            assert model.runtime.run(ids[:1], 0, 1, silent=1) == first
        want = one.runtime.run(ids[1:], 1, len(ids) - 1, silent=len(ids) - 2, candidates=4,
                               store_logits=True)[-1]
        for model in (sim, rtl):
            found = model.runtime.read(ids[1:], 1, candidates=4, store_logits=True)
            assert plain(found) == plain(want)
            np.testing.assert_array_equal(model.runtime.logits().view(np.uint32),
                                          one.runtime.logits().view(np.uint32))
        keys = slice(sim.runtime.layout.memory.cache * sim.runtime.layout.config.beat_bytes // 4,
                     None)
        found = [words(model.runtime.card, model.runtime.layout) for model in (one, sim, rtl)]
    np.testing.assert_array_equal(found[2], found[1])
    np.testing.assert_array_equal(found[1][:, keys], found[0][:, keys])


@pytest.mark.parametrize(("options", "stall"), [
    ({"pattern": "dense", "activation": "a16"}, 200),
    ({"pattern": "2:4", "activation": "a8", "cache": "int8"}, 0)],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else str(value))
def test_batches_give_the_same(awkward, options, stall):
    """Sequences of different lengths: logits, records and memory of both cards."""
    found = []
    for cards, how in (("sim:tiny", {}), ("rtl:tiny", {"timing": Timing(stall_permille=stall)})):
        with heddle.load(awkward, cards=cards, **options, **how) as model:
            runtime, ids = model.runtime, model.encode(PROMPT)
            count = runtime.layout.sequences
            assert count == (4 if options["activation"] == "a8" else 2)
            lengths = (6, 1, 4, 3)[:count]
            tokens = [runtime.read(ids[:length], 0, slot=slot).token
                      for slot, length in enumerate(lengths)]
            results = runtime.batch(tokens, lengths, candidates=4, store_logits=True)
            found.append(([plain(result) for result in results],
                          [runtime.logits(slot) for slot in range(count)],
                          words(runtime.card, runtime.layout)))
    assert found[0][0] == found[1][0]
    for sim, rtl in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(rtl.view(np.uint32), sim.view(np.uint32))
    np.testing.assert_array_equal(found[1][2], found[0][2])


def test_the_command_line_says_the_same_of_both(tmp_path):
    """Whole processes, from a prompt to JSON; the Verilated card knows what it cost, too."""
    found = {}
    for backend in ("sim", "rtl"):
        path = tmp_path / f"{backend}.json"
        done = subprocess.run(
            [sys.executable, "-m", "heddle", "run", DEMO, "--cards", f"{backend}:tiny",
             "--prompt", "O!", "--max-new-tokens", "3", "--temperature", "0.8", "--top-k", "40",
             "--seed", "5", "--json", path],
            capture_output=True, text=True, check=False, env=os.environ)
        assert done.returncode == 0, done.stderr
        found[backend] = json.loads(path.read_text())
        assert done.stdout == found[backend]["text"] + "\n"
    sim, rtl = found["sim"], found["rtl"]
    for name in ("text", "token_ids", "prompt_token_ids", "steps"):
        assert sim[name] == rtl[name], name
    assert len(rtl["token_ids"]) == 3
    assert (sim["cycles_total"], rtl["backend"], rtl["config"]) == (None, "rtl", "tiny")
    assert rtl["cycles_per_token"] * rtl["steps"] == pytest.approx(rtl["cycles_total"])
    # Some 3.5 million weights a pass; the two tokens of the prompt share one.
    assert rtl["steps"] == 4
    assert rtl["hbm_bytes_per_token"] > 3e6 * 3 / 4
    assert 0.3 < rtl["hbm_read_utilisation"] < 1


def test_an_interrupted_text_leaves_the_card_usable(awkward):
    """Ctrl-C while the card computes: its answer is not taken for that to the next call."""
    with heddle.load(awkward, cards="rtl:tiny") as model:
        card, want = model.runtime.card, model.generate("over", max_new_tokens=3)
        begun = card.cycles
        model.generate("over and under, over and under", max_new_tokens=9)
        whole = card.cycles - begun
        for delay in (0.02, 0.3):
            begun = card.cycles
            signal.setitimer(signal.ITIMER_REAL, delay)
            before = signal.signal(signal.SIGALRM, signal.default_int_handler)
            try:
                with pytest.raises(KeyboardInterrupt):
                    model.generate("over and under, over and under", max_new_tokens=9)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
            # The command is given up, not waited for.
            assert card.cycles - begun < whole
            assert model.scheduler.idle
            assert model.generate("over", max_new_tokens=3) == want
