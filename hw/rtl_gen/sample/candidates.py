# SPDX-License-Identifier: Apache-2.0
"""The best k of all logits seen, in order."""

from amaranth import Array, Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..fp32 import key

#: Bits of a token number.
TOKEN_BITS = 20


class Candidates(wiring.Component):
    """A sorted list of the ``depth`` best (logit, token) pairs.

    Larger logits in the order of ``key`` come first, equal ones by smaller token number.  A word of
    logits is
    looked through for lanes that beat the last of the list; each such lane is put in its place.

    Parameters
    ----------
    lanes : int
        Logits of a word.
    depth : int
        Length of the list.

    Members
    -------
    clear : ``In(1)``
        Forget all.
    i : ``In(stream.Signature({logits: lanes x 32, valid: lanes, token: 20}))``
        A word; ``token`` is that of lane 0.  Taken when all its lanes are in their place: one cycle
        to begin, two per
        lane that enters the list, one to end.
    index : ``In(range(depth))``
    token, logit, present : Out
        The entry at ``index``, in the same cycle; stable while ``i`` is idle.
    """

    leaf_name = "candidates"

    def __init__(self, *, lanes: int, depth: int):
        self.lanes, self.depth = lanes, depth
        super().__init__({
            "clear": In(1),
            "i": In(stream.Signature(data.StructLayout({
                "logits": data.ArrayLayout(32, lanes), "valid": lanes, "token": TOKEN_BITS}))),
            "index": In(range(depth)),
            "token": Out(TOKEN_BITS), "logit": Out(32), "present": Out(1)})

    def elaborate(self, platform):
        m = Module()

        # An entry is one number to compare: present, key, inverted token; larger is better.
        width = 1 + 32 + TOKEN_BITS
        rank = [Signal(width, name=f"rank_{k}") for k in range(self.depth)]
        logit = [Signal(32, name=f"logit_{k}", reset_less=True) for k in range(self.depth)]

        # Lanes of the word that are not yet looked at and beat the end of the list.
        seen = Signal(self.lanes)
        lane_rank = Array(
            Cat(~(self.i.p.token + k)[:TOKEN_BITS], key(self.i.p.logits[k]), self.i.p.valid[k])
            for k in range(self.lanes))
        beats = Signal(self.lanes)
        looked = Signal()       # `beats` belongs to the word at `i` and the list as it is

        new_rank, new_logit = Signal(width, reset_less=True), Signal(32, reset_less=True)
        better = Signal(self.depth)
        chosen = Signal(range(self.lanes))
        for k in reversed(range(self.lanes)):
            with m.If(beats[k]):
                m.d.comb += chosen.eq(k)

        with m.FSM():
            with m.State("look"):
                m.d.sync += beats.eq(Cat(
                    self.i.p.valid[k] & ~seen[k] & (lane_rank[k] > rank[-1])
                    for k in range(self.lanes)))
                m.d.sync += looked.eq(self.i.valid)
                with m.If(looked):
                    m.d.sync += looked.eq(0)
                    with m.If(beats.any()):
                        m.d.sync += [
                            new_rank.eq(lane_rank[chosen]),
                            new_logit.eq(Array(self.i.p.logits)[chosen]),
                            seen.eq(seen | (1 << chosen))]
                        m.next = "compare"
                    with m.Else():
                        m.d.comb += self.i.ready.eq(1)
                        m.d.sync += seen.eq(0)
            with m.State("compare"):
                m.d.sync += better.eq(Cat(new_rank > old for old in rank))
                m.next = "insert"
            with m.State("insert"):
                # Entries from the first worse one on move down by one.
                for k in range(self.depth):
                    with m.If(better[k]):
                        above = better[k - 1] if k else 0
                        with m.If(above):
                            m.d.sync += [rank[k].eq(rank[k - 1]), logit[k].eq(logit[k - 1])]
                        with m.Else():
                            m.d.sync += [rank[k].eq(new_rank), logit[k].eq(new_logit)]
                m.next = "look"
        with m.If(self.clear):
            m.d.sync += [old.eq(0) for old in rank]

        shown = Signal(width)
        m.d.comb += [
            shown.eq(Array(rank)[self.index]), self.logit.eq(Array(logit)[self.index]),
            self.token.eq(~shown[:TOKEN_BITS]), self.present.eq(shown[-1])]
        return m
