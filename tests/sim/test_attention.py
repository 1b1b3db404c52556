# SPDX-License-Identifier: Apache-2.0
"""CACHE, K and V in memory, softmax: attention on the functional card against the definition."""

import numpy as np
import pytest

from cardsim import numerics as nx
from heddle.card import CardError
from rtl_gen.spec.config import HEAD, SMALL, TINY, U280
from rtl_gen.spec.isa import LENGTHS, POSITIONS
from tests.sim.bench import Bench, bits

K, V, X, OUT = 0x1000, 0x8000, 0, 0x20000
BASE = -36


class Attention:
    """One head of a sequence: what the card holds, and what it must make of it.

    Sequences after the first join the bench of that.
    """

    def __init__(self, config, rng, wide, *, heads=3, head=1, sequence=0, bench=None):
        self.bench, self.sequence = bench or Bench(config), sequence
        self.k_beat, self.v_beat = K + 0x400 * sequence, V + 0x400 * sequence
        self.config, self.wide, self.head, self.heads = config, wide, head, heads
        self.rng = rng
        self.head_words = HEAD // config.channels
        self.keys, self.values = [], []     # (digits, scale) by position
        # Garbage in memory, and on chip where no position has been: it must not matter.
        for channel in range(config.channels):
            for beat in (self.k_beat, self.v_beat):
                self.bench.put(beat, rng.integers(0, 256, 1 << 14, np.uint8), channel)
        if bench:
            return
        self.bench.card.state.scales[:] = rng.integers(0, 1 << 32, (256, config.channels)
                                                       ).repeat(len(
                                                           self.bench.card.state.scales) // 256, 0)

    def step(self, *, digits=1, two_beat=1, tokens=1, store=False):
        """Queries, keys and values of the next tokens; returns results and what they must be."""
        program, registers = self.prepare(digits=digits, two_beat=two_beat, tokens=tokens,
                                          store=store)
        self.status = self.bench.run(*program, registers=registers)
        return self.results()

    def prepare(self, *, digits=1, two_beat=1, tokens=1, store=False):
        """Instructions of the next tokens: those before the scores, the scores, and the rest; and
        their registers."""
        c, position, rng = self.config, len(self.keys), self.rng
        rows = -(-(position + tokens) // c.channels)
        program, queries = [], []
        self.q, self.k, self.v = rng.normal(size=(3, tokens, HEAD)).astype(np.float32)
        common = {"head": self.head, "kv_base": 7 + 64 * self.sequence,
                  "kv_heads": self.heads, "wide": self.wide, "sequence": self.sequence}
        rows_reg, beats_reg = 7 + 2 * self.sequence, 8 + 2 * self.sequence
        act, out = 4 + 32 * self.sequence, 0x100 * (1 + self.sequence)
        flags = {"digits": digits, "two_beat": two_beat, "exponent": BASE}
        for token in range(tokens):
            x = X + 0x100 * (self.sequence + token)
            words = np.stack([self.q[token], self.k[token], self.v[token]])
            self.bench.put_words(x, words.reshape(-1, c.channels))
            program += [
                ("LOAD", {"address": x, "rows": 1, "words": 3 * self.head_words}),
                ("QUANT", {"a": 0, "words": self.head_words, "act": act, "token": token, **flags}),
                *(("CACHE", {"a": (1 + kind) * self.head_words, "kind": kind, "token": token,
                             **common}) for kind in (0, 1))]
            queries.append(nx.quantise(self.q[token], 1 + digits, BASE))
            self.keys.append(nx.kv_quantise(self.k[token], self.wide))
            self.values.append(nx.kv_quantise(self.v[token], self.wide))
        if store and tokens == 1:
            program.append(("STORE", {"address": OUT + 0x100, "words": self.heads, "source": 1,
                                      "src": 7 + 64 * self.sequence,
                                      "sequence": self.sequence}))
        scores = {"address": self.k_beat, "rows_reg": rows_reg,
                  "beats": max(1, HEAD // c.beat_bytes), "first": 1, "last": 1, "act": act,
                  "columns": tokens, "merge": 1, "scale": 2, "dest": 2 + 2 * self.sequence,
                  "dst": act + 4, **common, **flags}
        mixed = {"address": self.v_beat, "rows": self.head_words, "beats_reg": beats_reg,
                 "k_outer": 1, "first": 1, "last": 1, "act": act + 4, "columns": tokens,
                 "merge": 2, "divide": 2 + 2 * self.sequence, "dst": out,
                 "dst_stride": self.head_words, **common, **flags}
        if two_beat and not self.wide:
            # `two_beat` with `k_outer` needs `wide`: the copy is then left alone.
            mixed["two_beat"] = 0
            scores["two_beat"] = 0
            for name, fields in program:
                if name == "QUANT":
                    fields["two_beat"] = 0
        self._current = digits, queries
        program += [("MATMUL", scores), ("MATMUL", mixed), ("STORE", {
            "address": self._out, "words": tokens * self.head_words, "src": out})]
        return program, {
            POSITIONS[self.sequence]: position, LENGTHS[self.sequence]: position + 1,
            rows_reg: rows, beats_reg: -(-(position + tokens) // c.beat_bytes)}

    @property
    def _out(self):
        return OUT + 0x200 * self.sequence

    def results(self):
        """Results of the tokens that were prepared last, and what they must be."""
        digits, queries = self._current
        tokens, position = len(queries), len(self.keys) - len(queries)
        found = self.bench.get_words(self._out, tokens * self.head_words).reshape(tokens, HEAD)
        expected = [self._expected(query, position + token + 1, digits)
                    for token, query in enumerate(queries)]
        return found, np.array(expected)

    def _expected(self, query, length, digits):
        keys = np.array([q for q, _ in self.keys[:length]]).astype(object)
        scores = nx.mul(nx.cvt(keys @ query.q.astype(object), query.exponent),
                        np.array([s for _, s in self.keys[:length]], np.float32))
        lanes, width = self.config.channels, self.config.beat_bytes
        words = np.zeros((-(-length // lanes), lanes), np.float32)
        words.ravel()[:length] = scores
        p, _, r = nx.softmax(words, length)
        y = np.zeros(-(-length // width) * width, np.float32)
        y[:length] = nx.mul(p.ravel()[:length],
                            np.array([s for _, s in self.values[:length]], np.float32))
        blocks = [nx.quantise(part, 1 + digits, BASE) for part in y.reshape(-1, width)]
        weights = np.concatenate([part.q.astype(object) << part.exponent - BASE
                                  for part in blocks])[:length]
        values = np.array([q for q, _ in self.values[:length]]).astype(object)
        return nx.mul(nx.cvt(weights @ values, BASE), r)


@pytest.mark.parametrize("wide", [0, 1])
@pytest.mark.parametrize("config", [TINY, SMALL, U280], ids=lambda c: c.name)
def test_a_growing_sequence(config, wide):
    """One token after another: each reads what the ones before it have written back."""
    attention = Attention(config, np.random.default_rng(wide), wide)
    for _ in range(2 * config.beat_bytes + 5):
        found, expected = attention.step()
        assert (bits(found) == bits(expected)).all()
        assert attention.status["sticky"] == 0


@pytest.mark.parametrize(("digits", "tokens"), [(0, 4), (0, 3), (1, 2)])
def test_several_tokens_see_only_what_came_before(digits, tokens):
    attention = Attention(TINY, np.random.default_rng(tokens), 0)
    for _ in range(7):
        found, expected = attention.step(digits=digits, two_beat=0, tokens=tokens)
        assert (bits(found) == bits(expected)).all()


@pytest.mark.parametrize("wide", [0, 1])
def test_sequences_have_positions_of_their_own(wide):
    """Batched decode: a token each of four sequences that grow from different lengths on."""
    rng = np.random.default_rng(wide)
    first = Attention(TINY, rng, wide)
    every = [first, *(Attention(TINY, rng, wide, sequence=sequence, bench=first.bench)
                      for sequence in (1, 2, 3))]
    for longer, attention in enumerate(every[1:], 1):
        for _ in range(5 * longer):
            attention.step()
    for _ in range(20):
        prepared = [attention.prepare() for attention in every]
        registers = {}
        for _, own in prepared:
            registers |= own
        # All queries, keys and values; all scores; all values.
        ends = (-3, -2, None)
        program = [each for start, end in zip((0, *ends[:2]), ends, strict=True)
                   for part, _ in prepared for each in part[start:end]]
        assert not first.bench.run(*program, registers=registers)["sticky"]
        for attention in every:
            found, expected = attention.results()
            assert (bits(found) == bits(expected)).all(), attention.sequence


def test_fresh_k_and_v_are_written_back():
    attention = Attention(TINY, np.random.default_rng(3), 1)
    for position in range(6):
        attention.step(store=position == 5)
    (q, scale), (v, vscale) = attention.keys[5], attention.values[5]
    bench = attention.bench
    # Position 5: row 1 of lane 1; 4 beats of 16 elements, high digits first.
    row = bench.get(K + 8, 128, 1, np.int8).reshape(4, 2, 16).astype(int)
    assert (row[:, 0] * 256 + row[:, 1] == q.reshape(4, 16)).all()
    for lane in range(4):
        block = bench.get(V, 16 * 2 * 16, lane, np.int8).reshape(16, 2, 16)[:, :, 5].astype(int)
        assert (block[:, 0] * 256 + block[:, 1] == v[lane::4]).all()
    # Scales of position 5: the row of its lane's scale memory, entry of head 1.
    entry = bench.get(OUT + 0x100, 4, 1)
    assert entry[1] == bits(scale) >> 16 | bits(vscale) & 0xFFFF0000
    assert entry[3] == 0
    assert not bench.get(OUT + 0x100, 4, 2).any()


@pytest.mark.parametrize("head", [0, 1, 2])
def test_heads_keep_the_keys_of_a_position_in_different_channels(head):
    attention = Attention(SMALL, np.random.default_rng(head), 0, head=head)
    for _ in range(11):
        attention.step(two_beat=0)
    for position, (key, _) in enumerate(attention.keys):
        # Rows of 64 elements are two beats; heads in turn begin with lane 0 and lane 4 of eight.
        beat, lane = K + 2 * (position // 8), (position + 4 * (head % 2)) % 8
        assert (attention.bench.get(beat, HEAD, lane, np.int8) == key).all(), position


def test_softmax_of_nothing_is_refused():
    attention = Attention(TINY, np.random.default_rng(4), 0)
    with pytest.raises(CardError, match="LEN must be"):
        attention.bench.run(("QUANT", {"words": 16, "act": 0}), ("MATMUL", {
            "rows": 1, "beats": 4, "first": 1, "last": 1, "columns": 1, "dest": 1, "scale": 2}),
            registers={2: 0})


def test_numbers_that_are_none_stay_behind_the_mask():
    """Positions beyond the length: neither their scores nor their scales raise anything."""
    attention = Attention(TINY, np.random.default_rng(5), 0)
    attention.bench.card.state.scales[:] = 0x7FC0FF80       # NaN and -infinity
    found, expected = attention.step()
    assert (bits(found) == bits(expected)).all()
    assert attention.status["sticky"] == 0


def test_a_score_that_is_no_number_is_noticed():
    attention = Attention(TINY, np.random.default_rng(6), 0)
    attention.step()
    attention.keys[0] = attention.keys[0][0], np.float32(np.inf)
    state = attention.bench.card.state
    state.scales[7 + 1, 0] = state.scales[7 + 1, 0] & 0xFFFF0000 | 0x7F80
    found, expected = attention.step()
    assert (bits(found) == bits(expected)).all()
    assert attention.status["sticky"] == 1
