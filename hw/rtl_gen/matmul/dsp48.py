# SPDX-License-Identifier: Apache-2.0
"""Two products in one DSP48E2: the two columns of a half share their weights.

``weight · (upper · 2^18 + lower)`` holds both products; a chain of eight keeps the lower sum within
18 bits as long as weights keep within ±127, as all weights, K and V do.  Each link of a chain adds
to the one before it, so its operands come a cycle later.
"""

from amaranth import Cat, ClockSignal, Const, Instance, Module, Signal, signed

from ..common import tree_sum
from .products import DOT_BITS, Products, chain
from .select import half_columns

#: Bits of the lower sum, and where the upper one starts.
LOWER = 18


def _multiply_add(m: Module, name: str, weight, lower, upper, before):
    """One DSP48E2: its sum (48 bits), and the cascade to the next."""
    a, b, d, p, cascade = (
        Signal(30), Signal(18), Signal(27), Signal(48, name=f"{name}_p"),
        Signal(48, name=f"{name}_cascade"))
    m.d.comb += [
        a.eq(lower.as_signed()), b.eq(weight.as_signed()),
        d.eq(Cat(Const(0, LOWER), upper).as_signed())]
    enables = dict.fromkeys((
        "CEA2", "CEALUMODE", "CEB2", "CECTRL", "CED", "CEINMODE", "CEM", "CEP", "CECARRYIN"), 1)
    unused = dict.fromkeys((
        "CEA1", "CEAD", "CEB1", "CEC", "CARRYIN", "RSTA", "RSTALLCARRYIN", "RSTALUMODE", "RSTB",
        "RSTC", "RSTCTRL", "RSTD", "RSTINMODE", "RSTM", "RSTP"), 0)
    m.submodules[name] = Instance(
        "DSP48E2", p_AMULTSEL="AD", p_BMULTSEL="B", p_USE_MULT="MULTIPLY",
        p_AREG=1, p_ACASCREG=1, p_BREG=1, p_BCASCREG=1, p_DREG=1, p_ADREG=0, p_MREG=1, p_PREG=1,
        i_CLK=ClockSignal(), i_A=a, i_B=b, i_C=Const(0, 48), i_D=d,
        i_PCIN=Const(0, 48) if before is None else before,
        i_ALUMODE=Const(0, 4), i_CARRYINSEL=Const(0, 3),
        i_INMODE=Const(0b00100, 5),                                     # D + A2
        i_OPMODE=Const(0b000_000_101 | (before is not None) << 4, 9),   # product, and PCIN
        **{f"i_{port}": Const(1, 1) for port in enables},
        **{f"i_{port}": Const(0, 1) for port in unused}, o_P=p, o_PCOUT=cascade)
    return p, cascade


class Dsp48Products(Products):
    """:class:`Products` whose operands of link p of the chains come p cycles after the first."""

    def elaborate(self, platform):
        m = Module()
        slots, columns = self.config.beat_bytes, half_columns(self.config)
        chains = slots // chain(self.config)
        lower, upper = [], []
        for first in range(chains):
            before = None
            for slot in range(first, slots, chains):
                digits = self.digits.word_select(slot, 8 * columns)
                p, before = _multiply_add(
                    m, f"dsp_{slot}", self.weights.word_select(slot, 8), digits[:8],
                    digits[8:] if columns == 2 else Const(0, 8), before)
            lower.append(p[:LOWER].as_signed())
            # A negative lower sum has borrowed from the upper one.
            upper.append(p[LOWER:2 * LOWER].as_signed() + p[LOWER - 1])
        for column, sums in enumerate((lower, upper)[:columns]):
            halves = []
            for k in range(2):
                half = Signal(signed(DOT_BITS), name=f"half_{column}_{k}", reset_less=True)
                m.d.sync += half.eq(tree_sum(sums[k::2]))
                halves.append(half)
            dot = Signal(signed(DOT_BITS), name=f"dot_{column}", reset_less=True)
            m.d.sync += dot.eq(halves[0] + halves[1])
            m.d.comb += self.dots.word_select(column, DOT_BITS).eq(dot)
        return m
