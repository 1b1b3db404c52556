# SPDX-License-Identifier: Apache-2.0
"""Position metadata of a value beat to the index of the candidate that each of its slots takes."""

import itertools

from amaranth import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..emit import Leaf
from ..spec.config import CardConfig
from ..spec.formats import PATTERNS

#: Beats of metadata are kept in quarters of four units.
QUADS = 4
#: Units that one value beat can own.
UNITS = 8


def lookup(function, *inputs) -> Value:
    """One bit: ``function(*numbers)`` of a few unsigned values; one LUT up to six input bits."""
    inputs = [Value.cast(value) for value in inputs]
    table = 0
    for number, point in enumerate(itertools.product(
            *(range(1 << len(value)) for value in reversed(inputs)))):
        table |= int(function(*reversed(point))) << number
    address = Cat(*inputs)
    return Const(table, 1 << len(address)).bit_select(address, 1)


def _choices(n: int, m: int) -> list[tuple[int, ...]]:
    """The choices by number; numbers that no stream holds repeat the last."""
    known = list(itertools.combinations(range(m), n))
    return known + known[-1:] * ((1 << (len(known) - 1).bit_length()) - len(known))


def _place(nibble: int, ordinal: int) -> int:
    """Position of the ``ordinal``-th one of four bits; 3 where there is none."""
    ones = [place for place in range(4) if nibble >> place & 1]
    return ones[ordinal] if ordinal < len(ones) else 3


def _half(bits: list[Value], first: Value, both: Value, above: Value, k: int) -> Value:
    """Position (4 bits) of the k-th one, k < 4, among 16 bits of which eight are ones.

    With so many ones it lies in one of the first three nibbles, at 8 + k at most.  ``first`` is the
    number of ones in the first of them (3 bits), ``both`` that in the first two modulo 4, and
    ``above`` is whether the latter is above k.
    """
    nibbles = [Cat(*bits[at:at + 4]) for at in range(0, 12, 4)]
    # Where it is in the second nibble, k ones or fewer are in the first.
    needed = first[:(0, 1, 2, 2)[k]]
    in_third = ~above
    in_second = lookup(lambda high, ones: not high and ones <= k, in_third, first)
    low = []
    for bit in range(2):
        zeroth = lookup(lambda nibble, bit=bit: _place(nibble, k) >> bit & 1, nibbles[0])
        second = lookup(lambda nibble, ones, bit=bit: _place(nibble, k - ones & 3) >> bit & 1,
                        nibbles[1], needed)
        third = lookup(
            lambda nibble, ones, bit=bit: min(k, _place(nibble, k - ones & 3)) >> bit & 1,
            nibbles[2], both)
        if k == 1 and bit == 0:
            # Seven ones or eight follow: it is the first or second of this nibble.
            third = lookup(lambda one, ones: not (one and ones), nibbles[2][0], both[0])
        low.append(Mux(in_third, third, Mux(in_second, second, zeroth)))
    return Cat(*low, in_second, in_third)


class EightOfSixteen(wiring.Component):
    """Indices of the ones, ascending, among 16 bits of which exactly eight are ones.

    The k-th one lies at k to k + 8: the position modulo 8 and whether it is k + 8 tell which
    (``formats.index``).  Combinational.  The upper four are found from the other end.

    Members
    -------
    bits : ``In(16)``
    index : ``Out(ArrayLayout(unsigned(4), 8))``
    """

    leaf_name = "eight_of_sixteen"

    def __init__(self):
        super().__init__({"bits": In(16), "index": Out(data.ArrayLayout(unsigned(4), 8))})

    def elaborate(self, platform):
        m = Module()
        bits = list(self.bits)
        counts = []
        for at in range(0, 16, 4):
            nibble = Cat(*bits[at:at + 4])
            counts.append(Cat(*(lookup(lambda ones, bit=bit: ones.bit_count() >> bit & 1, nibble)
                                for bit in range(3))))
        total = counts[0] + counts[1]
        for k in range(8):
            above = lookup(lambda a, b, k=k: a + b > k, counts[0], counts[1])
            if k < 4:
                position = _half(bits, counts[0], total[:2], above, k)
            else:
                # Seen from the end there are 8 - total ones in the first two nibbles.
                count = Cat(total[0], total[0] ^ total[1])
                position = ~_half(bits[::-1], counts[3], count, ~above, 7 - k)
            last = lookup(lambda place, k=k: place == k + 8, position)
            m.d.comb += self.index[k].eq(Cat(position[:3], last))
        return m


class Decoder(wiring.Component):
    """Decodes one value beat a cycle; never stalls.

    All patterns of ratio 2 nest into windows of 16 candidates and 8 slots, so each is turned into
    the bitmap of its window and one circuit finds the ones of that.  The others hold positions that
    need little more than being brought to their slot.  Sources that a pattern does not use are held
    at zero by the reset of their registers, which costs no logic, and combined with OR.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    valid : ``In(1)``
    quads : ``In(ArrayLayout(2 * beat_bytes, 4))``
        Sixteen units of metadata, by position in their beat; those from ``unit`` on are the beat's
        own.  Those before it already belong to the next beat of metadata.
    unit : ``In(4)``
    pattern : ``In(4)``
        Code of the pattern.
    index : ``Out(ArrayLayout(unsigned(4), beat_bytes))``
        As ``formats.index`` has them.
    done : ``Out(1)``
        ``valid``, ``LATENCY`` cycles later, with the index.
    """

    LATENCY = 5

    def __init__(self, config: CardConfig):
        self.config = config
        width = config.beat_bytes
        super().__init__({
            "valid": In(1), "quads": In(data.ArrayLayout(2 * width, QUADS)), "unit": In(4),
            "pattern": In(4),
            "index": Out(data.ArrayLayout(unsigned(4), width)), "done": Out(1)})

    def elaborate(self, platform):
        m = Module()
        width = self.config.beat_bytes
        patterns = [p for p in PATTERNS if p.m in (1, *self.config.group_sizes)]

        def one_of(code: Value, chosen) -> Value:
            codes = [p.code for p in patterns if chosen(p)]
            return code.matches(*codes) if codes else Const(0, 1)

        # Valid and pattern of each stage, as its registers hold them.
        valid, code = [self.valid], [self.pattern]
        for stage in range(1, self.LATENCY + 1):
            valid.append(Signal(name=f"valid_{stage}"))
            code.append(Signal(4, name=f"pattern_{stage}", reset_less=True))
            m.d.sync += [valid[-1].eq(valid[-2]), code[-1].eq(code[-2])]
        m.d.comb += self.done.eq(valid[-1])

        # 1: two quads from the one in which the beat's units start.
        unit_bits = width // 2
        quad = Signal(range(QUADS))
        low = Signal(2, reset_less=True)
        near = [Signal(unit_bits, name=f"near_{i}", reset_less=True) for i in range(UNITS)]
        m.d.comb += quad.eq(self.unit[2:])
        m.d.sync += low.eq(self.unit[:2])
        for half in range(2):
            words = Cat(*(self.quads[(q + half) % QUADS] for q in range(QUADS)))
            m.d.sync += Cat(near[4 * half:4 * half + 4]).eq(words.word_select(quad, 2 * width))

        # 2: to the very unit.  Six units start at even ones, eight at quads only.
        meta = Signal(UNITS * unit_bits, reset_less=True)
        for i in range(UNITS):
            if i < 5:
                unit = Cat(near[i:i + 4]).word_select(low, unit_bits)
            elif i == 5:
                unit = Mux(low[1], near[7], near[5])
            else:
                unit = near[i]
            m.d.sync += meta[unit_bits * i:unit_bits * (i + 1)].eq(unit)

        # 3: ratio 2 as bitmaps; the rest waits.
        pairs = _choices(2, 4)
        is_pair = Signal(reset_less=True)       # of stage 2
        m.d.sync += is_pair.eq(one_of(code[1], lambda p: p.name == "2:4"))
        bitmaps, later = Signal(2 * width, reset_less=True), Signal.like(meta)
        m.d.sync += later.eq(meta)
        for place in range(2 * width):
            group = place // 4
            m.d.sync += bitmaps[place].eq(Mux(
                is_pair, lookup(lambda number, p=place % 4: p in pairs[number],
                                meta[3 * group:3 * group + 3]), meta[place]))

        # 4: positions from each kind of source, zero unless the pattern uses it.
        def source(name: str, chosen, bits: Value) -> Signal:
            held = Signal(len(bits), name=name, reset_less=True)
            used = Signal(name=f"use_{name}", reset_less=True)      # of stage 3
            m.d.sync += [used.eq(one_of(code[2], chosen)), held.eq(Mux(used, bits, 0))]
            return held

        windows = []
        for number in range(width // 8):
            m.submodules[f"window_{number}"] = window = Leaf(EightOfSixteen())
            m.d.comb += window.bits.eq(bitmaps[16 * number:16 * number + 16])
            windows.append(window.index.as_value())
        eighths = _choices(2, 8)
        pair_of_eight = Cat(*(
            lookup(lambda number, k=slot % 2, bit=bit: eighths[number][k] >> bit & 1,
                   later[5 * (slot // 2):5 * (slot // 2) + 5])
            for slot in range(width) for bit in range(3)))
        half = source("half", lambda p: p.ratio == 2, Cat(*windows))
        four = source("four", lambda p: p.units == 8, later[:4 * width])
        three = source("three", lambda p: p.name == "1:8", later[:3 * width])
        two = source("two", lambda p: p.name == "1:4", later[:2 * width])
        eight = source("eight", lambda p: p.name == "2:8", pair_of_eight)

        # Bits that follow from the slot alone: [slot mod 4][bit].
        fixed = [[Signal(name=f"fixed_{slot}_{bit}", reset_less=True) for bit in range(4)]
                 for slot in range(4)]
        for slot, bit in itertools.product(range(4), range(4)):
            m.d.sync += fixed[slot][bit].eq(one_of(code[3], lambda p, s=slot, b=bit: {
                "dense": s, "1:4": 4 * (s % 2),
            }.get(p.name, 0) >> b & 1))

        # 5: whichever is not zero.
        for slot in range(width):
            three_bits = Cat(three[3 * slot:3 * slot + 3], Const(0, 1))
            two_bits = Cat(two[2 * slot:2 * slot + 2], Const(0, 2))
            eight_bits = Cat(eight[3 * slot:3 * slot + 3], Const(0, 1))
            m.d.sync += self.index[slot].eq(
                half[4 * slot:4 * slot + 4] | four[4 * slot:4 * slot + 4] | three_bits | two_bits
                | eight_bits | Cat(*fixed[slot % 4]))
        return m
