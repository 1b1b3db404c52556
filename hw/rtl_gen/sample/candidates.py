# SPDX-License-Identifier: Apache-2.0
"""The best k of all logits seen, in order, of several columns."""

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram
from ..fp32 import key
from ..softmax.maxima import number

#: Bits of a token number.
TOKEN_BITS = 20
#: An entry as one number to compare, larger is better: inverted token, key, present.
RANK = data.StructLayout({"token": TOKEN_BITS, "key": 32, "present": 1})


def logit_of(rank: Value) -> Value:
    """The logit whose ``key`` is in a rank."""
    bits = rank[TOKEN_BITS:TOKEN_BITS + 32]
    return Mux(bits[31], Cat(bits[:31], Const(0, 1)), ~bits)


class Candidates(wiring.Component):
    """A sorted list of the ``depth`` best (logit, token) pairs of each column.

    Larger logits in the order of ``key`` come first, equal ones by smaller token number.  A word of
    logits is looked through for lanes that beat the last of the column's list; each such lane is
    put in its place.  One list is at hand, in registers; a memory has all of them, and that of a
    word which changes it is fetched on the way.

    Parameters
    ----------
    lanes : int
        Logits of a word.
    depth : int
        Length of a list.
    columns : int

    Members
    -------
    clear : ``In(1)``
        Forget all.
    i : ``In(stream.Signature({logits: lanes x 32, valid: lanes, token: 20, column: number}))``
        A word; ``token`` is that of lane 0.  Taken when all its lanes are in their place: two
        cycles to look at it, two per lane that enters the list.
    show : ``In(1)``, shown : ``In(number(columns))``
        Bring a column's list to the outputs, :attr:`SHOW` cycles later; only while ``i`` is idle.
    next : ``In(1)``
        Go to the next entry.
    token, logit, present : Out
        An entry of the list that is shown, the best one first.
    """

    leaf_name = "candidates"
    SHOW = 2

    def __init__(self, *, lanes: int, depth: int, columns: int):
        self.lanes, self.depth, self.columns = lanes, depth, columns
        super().__init__({
            "clear": In(1),
            "i": In(stream.Signature(data.StructLayout({
                "logits": data.ArrayLayout(32, lanes), "valid": lanes, "token": TOKEN_BITS,
                "column": number(columns)}))),
            "show": In(1), "shown": In(number(columns)), "next": In(1),
            "token": Out(TOKEN_BITS), "logit": Out(32), "present": Out(1)})

    def elaborate(self, platform):
        m = Module()
        width, column = RANK.size, self.i.p.column

        # The list at hand, and whose it is.  A change is written to the memory a cycle later.
        rank = [Signal(width, name=f"rank_{k}", reset_less=True) for k in range(self.depth)]
        owner, known, changed = Signal.like(column), Signal(), Signal()
        m.submodules.lists = lists = Ram(
            width * self.depth, depth=max(2, self.columns), style="distributed")
        # Of each column: whether its list in the memory is one, and the last entry of it.
        blank = Array(Signal(name=f"blank_{c}", init=1) for c in range(self.columns))
        least = Array(Signal(width, name=f"least_{c}") for c in range(self.columns))
        m.d.comb += [
            lists.write_en.eq(changed), lists.write_addr.eq(owner), lists.write_data.eq(Cat(rank)),
            lists.read_en.eq(1), lists.read_addr.eq(Mux(self.show, self.shown, column))]
        with m.If(changed):
            m.d.sync += [blank[owner].eq(0), least[owner].eq(rank[-1])]
        fetched_blank = Signal()
        m.d.sync += [changed.eq(0), fetched_blank.eq(blank[lists.read_addr])]

        # Lanes of the word that beat the end of the list: by their logit, or with the same one by
        # their token.  They are put in their place one after the other; one that no longer beats
        # the list by then is better than none of its entries.
        here = Signal()
        m.d.comb += here.eq(known & (owner == column))
        last = Signal(RANK)
        m.d.comb += last.eq(Mux(here, rank[-1], least[column]))
        ahead = Signal(signed(TOKEN_BITS + 1))      # by so much the last one's token is larger
        earlier = Signal(range(self.lanes + 1))     # lanes whose token is smaller
        m.d.comb += [
            ahead.eq((~last.token)[:TOKEN_BITS] - self.i.p.token),
            earlier.eq(Mux(ahead < 0, 0, Mux(ahead > self.lanes, self.lanes, ahead)))]
        keys = [Signal(32, name=f"key_{k}") for k in range(self.lanes)]
        m.d.comb += [bits.eq(key(logit)) for bits, logit in zip(keys, self.i.p.logits, strict=True)]
        beats, left = Signal(self.lanes), Signal(self.lanes)
        looked = Signal()       # `beats` belongs to the word at `i`
        better = Signal(self.depth)
        chosen, lane = Signal(range(self.lanes)), Signal(range(self.lanes))
        new = Signal(width)
        m.d.comb += new.eq(Cat(~(self.i.p.token + lane)[:TOKEN_BITS], Array(keys)[lane], 1))
        for k in reversed(range(self.lanes)):
            with m.If(beats[k]):
                m.d.comb += chosen.eq(k)
        m.d.comb += left.eq(beats & (beats - 1))    # without the lowest

        fetch, insert, showing = Signal(), Signal(), Signal()
        m.d.sync += showing.eq(self.show)
        with m.FSM():
            with m.State("look"):
                m.d.sync += beats.eq(Cat(
                    self.i.p.valid[k] & (Cat(earlier > k, keys[k], 1) >
                                         Cat(Const(0, 1), last.key, last.present))
                    for k in range(self.lanes)))
                m.d.sync += looked.eq(self.i.valid)
                with m.If(looked):
                    m.d.sync += looked.eq(0)
                    with m.If(beats.any()):
                        m.d.sync += [
                            lane.eq(chosen), beats.eq(left), owner.eq(column), known.eq(1)]
                        m.d.comb += fetch.eq(~here)
                        m.next = "compare"
                    with m.Else():
                        m.d.comb += self.i.ready.eq(1)
            with m.State("compare"):
                m.d.sync += better.eq(Cat(new > old for old in rank))
                m.next = "insert"
            with m.State("insert"):
                m.d.comb += insert.eq(1)
                m.d.sync += [changed.eq(1), lane.eq(chosen), beats.eq(left)]
                with m.If(beats.any()):
                    m.next = "compare"
                with m.Else():
                    m.d.comb += self.i.ready.eq(1)
                    m.next = "look"
        with m.If(self.clear):
            m.d.sync += [*(one.eq(1) for one in blank), *(one.eq(0) for one in least)]
        with m.If(self.clear | self.show):
            m.d.sync += known.eq(0)

        # Entries from the first worse one on move down by one; those that are shown move up.
        fetched = lists.read_data
        with m.If((fetch | showing) & fetched_blank):
            m.d.sync += Cat(rank).eq(0)
        for k, old in enumerate(rank):
            above, below = rank[k - 1] if k else new, rank[k + 1] if k + 1 < self.depth else old
            places = Cat(fetched.word_select(k, width), new, above, below)
            which = Signal(2, name=f"which_{k}")
            with m.If(self.next):
                m.d.comb += which.eq(3)
            with m.Elif(insert):
                m.d.comb += which.eq(1 + (better[k - 1] if k else 0))
            with m.If(((fetch | showing) & ~fetched_blank) | self.next | (insert & better[k])):
                m.d.sync += old.eq(places.word_select(which, width))

        top = Signal(RANK)
        m.d.comb += [
            top.eq(rank[0]), self.token.eq(~top.token), self.logit.eq(logit_of(rank[0])),
            self.present.eq(top.present)]
        return m
