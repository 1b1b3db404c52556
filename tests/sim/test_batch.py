# SPDX-License-Identifier: Apache-2.0
"""Runs of instructions that the functional card takes at once: one by one they give the same."""

import numpy as np
import pytest

from cardsim.functional import FunctionalCard, batch, card
from heddle.card import CardStopped
from heddle.pack.patterns import pack_stream
from rtl_gen.spec.config import TINY
from rtl_gen.spec.formats import PATTERNS
from rtl_gen.spec.registers import Error
from tests.sim.bench import Bench, bits

WEIGHTS, OUT = 0x1000, 0x20000
ONE = {"first": 1, "last": 1, "columns": 1, "digits": 1, "two_beat": 1, "exponent": -30,
       "pattern": PATTERNS[1].code, "scale": 1, "bias": 1}


@pytest.fixture
def taken(monkeypatch):
    """Lengths of the runs that were found; ``taken.clear`` first, ``taken.off`` finds none."""
    class Found(list):
        on = True

    found = Found()

    def look(*arguments):
        result = batch.find(*arguments) if found.on else None
        if result is not None:
            found.append(len(result.members))
        return result

    monkeypatch.setattr(card, "find", look)
    return found


class Layer:
    """64 outputs of 128 inputs in row blocks, each followed by the slice that it completes."""

    def __init__(self, seed, *, patterned=True):
        rng = np.random.default_rng(seed)
        self.x, self.gamma, self.old = rng.normal(size=(3, 32, 4)).astype(np.float32)
        self.blocks = []
        pattern = PATTERNS[1 if patterned else 0]
        for k in range(4):
            w = rng.integers(-127, 128, (16, 128))
            if patterned:
                w.reshape(16, -1, 4)[..., [k % 4, 3 - k % 4 and k - 1]] = 0
            aux = rng.uniform(0.001, 0.01, (16, 2)).astype(np.float32)
            self.blocks.append(pack_stream(w.astype(np.int8), pattern, TINY, aux.view(np.uint32)))

    def bench(self):
        bench = Bench(TINY, FunctionalCard(TINY))
        for k, values in enumerate((self.x, self.gamma, self.old)):
            bench.put_words(0x40 * k, bits(values))
        for k, stream in enumerate(self.blocks):
            for channel in range(4):
                bench.put(WEIGHTS + 0x100 * k, stream[channel], channel)
        return bench

    def program(self, *, act=0, source=None, residual=0):
        """Slices of x, then four row blocks, each with the slice of its rows."""
        stats = {"stats": 1}
        common = {"digits": 1, "two_beat": 1, "exponent": -30, "gamma": 1}
        program = [("LOAD", {"rows": 1, "words": 32}),
                   ("LOAD", {"address": 0x40, "rows": 1, "words": 32, "dst": 32}),
                   ("LOAD", {"address": 0x80, "rows": 1, "words": 32, "dst": 64})]
        program += [("QUANT", {"a": 8 * k, "b": 32 + 8 * k, "words": 8, "act": act + 2 * k,
                               **common}) for k in range(4)]
        for k in range(4):
            program.append(("MATMUL", ONE | {
                "address": WEIGHTS + 0x100 * k, "rows": 4, "beats": 4, "act": act,
                "dst": 64 + 4 * k, "residual": residual}))
            program.append(("QUANT", {
                "a": 64 + 4 * k if source is None else source, "b": 32 + 4 * k, "words": 4,
                "act": 40 + k, "word": 4 * k, **common, **stats}))
        program += [("NORM", {"words": 16, "inv": int(bits(1 / 64)), "eps": int(bits(1e-5))}),
                    ("STORE", {"address": OUT, "words": 32, "src": 64})]
        return program


def outcome(bench, program, **more):
    status = bench.run(*program, **more)
    state = bench.card.state
    return (status["instructions"], status["sticky"], bench.get_words(OUT, 32, np.uint32).tolist(),
            state.planes.tolist(), state.exponents.tolist(), bits(state.norms).tolist(),
            bits(state.word_sums).tolist())


@pytest.mark.parametrize("residual", [0, 1])
def test_row_blocks_and_their_slices(residual, taken):
    layer = Layer(residual)
    program = layer.program(residual=residual)
    together = outcome(layer.bench(), program)
    assert taken == [4, 8]
    taken.on = False
    assert outcome(layer.bench(), program) == together


def test_wild_numbers_are_taken_together_too(taken):
    layer = Layer(3)
    layer.old[3, 1], layer.x[5, 2] = np.inf, 1e-42
    program = layer.program(residual=1)
    together = outcome(layer.bench(), program)
    assert taken == [4, 8]
    assert together[1] & 1
    taken.on = False
    assert outcome(layer.bench(), program) == together


@pytest.mark.parametrize("hazard", [{"source": 68}, {"source": 66}, {"act": 38}])
def test_what_depends_on_its_order_stays_apart(hazard, taken):
    """Slices of rows that come later; products of planes that slices overwrite."""
    layer = Layer(4, patterned=False)
    program = layer.program(residual=1, **hazard)
    for name, fields in program:
        if name == "MATMUL":
            fields |= {"pattern": 0, "beats": 8}
    apart = outcome(layer.bench(), program)
    assert max(taken) < 8
    taken.on = False
    assert outcome(layer.bench(), program) == apart


def test_inputs_that_add_up(taken):
    rng = np.random.default_rng(5)
    bench = Bench(TINY)
    x = rng.normal(size=(32, 4)).astype(np.float32)
    bench.put_words(0, bits(x))
    program = [("LOAD", {"rows": 1, "words": 32})]
    program += [("QUANT", {"a": 8 * k, "words": 8, "act": 2 * k, "exponent": -30, "digits": 1})
                for k in range(4)]
    w = rng.integers(-127, 128, (16, 128)).astype(np.int8)
    for k in range(4):
        stream = pack_stream(w[:, 32 * k:32 * k + 32], PATTERNS[0], TINY, k_outer=k < 3)
        for channel in range(4):
            bench.put(WEIGHTS + 0x100 * k, stream[channel], channel)
        program.append(("MATMUL", {
            "address": WEIGHTS + 0x100 * k, "rows": 4, "beats": 2, "act": 2 * k, "first": k == 0,
            "last": k == 3, "k_outer": k < 3, "columns": 1, "digits": 1, "exponent": -30,
            "acc_row": 9, "dst": 64}))
    program.append(("STORE", {"address": OUT, "words": 32, "src": 64}))
    together = outcome(bench, program)
    assert taken == [4, 3]
    taken.on = False
    bench.card.reset()
    assert outcome(bench, program) == together


def test_heads_of_k_and_v(taken):
    rng = np.random.default_rng(6)
    bench = Bench(TINY)
    bench.put_words(0, bits(rng.normal(size=(64, 4))))
    program = [("LOAD", {"rows": 1, "words": 64})]
    program += [("CACHE", {"a": 16 * k, "kind": k % 2, "head": k // 2, "wide": 1, "kv_heads": 2})
                for k in range(4)]
    bench.run(*program, registers={1: 6, 2: 7})
    state = bench.card.state
    together = state.fresh.copy(), state.scales.copy()
    assert taken == [4]
    taken.on = False
    bench.card.reset()
    bench.run(*program, registers={1: 6, 2: 7})
    state = bench.card.state
    assert (state.fresh == together[0]).all()
    assert (state.scales == together[1]).all()
    assert state.fresh.any()
    assert state.scales[2:4, 2].all()


def test_a_member_that_may_not_run_is_found(taken):
    """Waits, counters and rules within a run: the same status as one by one."""
    layer = Layer(7)
    program = layer.program()
    for place, fields in ((8, {"wait": 4}), (9, {"dst": 8190}), (10, {"words": 0})):
        for on in (True, False):
            taken.on = on
            bad = [(name, dict(f)) for name, f in program]
            bad[place][1].update(fields)
            bench = layer.bench()
            with pytest.raises(CardStopped) as caught:
                bench.run(*bad)
            status = caught.value.status
            assert status["pc"] == status["instructions"] == place
            assert status.error == (Error.WATCHDOG if "wait" in fields else Error.ILLEGAL_OPERAND)
    # Signals and waits among members, and to the outside.
    for on in (True, False):
        taken.on = on
        good = [(name, dict(f)) for name, f in program]
        good[7][1]["signal"] = 0b110
        good[8][1].update(wait=0b010, signal=0b100)
        good[10][1]["wait"] = 0b100
        bench = layer.bench()
        bench.run(*good, ("NOP", {"wait": 0b100}))
        with pytest.raises(CardStopped, match="WATCHDOG"):
            bench.run(*good, ("NOP", {"wait": 0b100}), ("NOP", {"wait": 0b100}))
