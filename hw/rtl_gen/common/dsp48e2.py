# SPDX-License-Identifier: Apache-2.0
"""UltraScale+ DSP48E2 (UG579) by name: what is built when Verilog is generated with ``dsp48``."""

from amaranth import Cat, ClockSignal, Const, Instance, Module, Signal, Value

#: Bits of the operands of the multiplier, signed, and of the sum.
A_BITS, B_BITS, P_BITS = 27, 18, 48


def multiply_add(m: Module, name: str, *, a: Value, b: Value, d: Value | None = None,
                 take_a: Value | int = 1, take_d: Value | int = 0, c: Value | int = 0,
                 before: Value | None = None, en: Value | int = 1) -> tuple[Signal, Signal]:
    """``(a if take_a, + d if take_d) * b``, three cycles later, plus ``c`` or the cascade.

    Parameters
    ----------
    m : Module
    name : str
        Of the instance and its signals.
    a, d : signed, 27 bits
    b : signed, 18 bits
    c : signed, 48 bits
        Of the cycle before the sum.
    before : Value, optional
        Cascade of another one, whose sum is of the cycle before, in the place of ``c``.
    en : Value
        All registers hold while it is 0.

    Returns
    -------
    p, cascade : Signal, 48 bits
    """
    operands = {"A": Signal(30), "B": Signal(B_BITS), "D": Signal(A_BITS), "C": Signal(P_BITS)}
    p, cascade = (Signal(P_BITS, name=f"{name}_{port}") for port in ("p", "cascade"))
    m.d.comb += [
        signal.eq(Const(0, 1) if value is None else value)
        for signal, value in zip(operands.values(), (a, b, d, c), strict=True)]
    zeros = ("CEA1", "CEAD", "CEB1", "CEC", "CARRYIN", "RSTA", "RSTALLCARRYIN", "RSTALUMODE",
             "RSTB", "RSTC", "RSTCTRL", "RSTD", "RSTINMODE", "RSTM", "RSTP")
    ones = ("CEALUMODE", "CECTRL", "CECARRYIN")
    enables = ("CEA2", "CEB2", "CED", "CEINMODE", "CEM", "CEP")
    m.submodules[name] = Instance(
        "DSP48E2", p_AMULTSEL="AD", p_BMULTSEL="B", p_USE_MULT="MULTIPLY",
        p_AREG=1, p_ACASCREG=1, p_BREG=1, p_BCASCREG=1, p_CREG=0, p_DREG=1, p_ADREG=0,
        p_INMODEREG=1, p_MREG=1, p_PREG=1,
        i_CLK=ClockSignal(), **{f"i_{port}": value for port, value in operands.items()},
        i_PCIN=Const(0, P_BITS) if before is None else before,
        i_ALUMODE=Const(0, 4), i_CARRYINSEL=Const(0, 3),
        i_INMODE=Cat(Const(0, 1), ~Value.cast(take_a)[0], Value.cast(take_d)[0], Const(0, 2)),
        # The product, and C or PCIN.
        i_OPMODE=Const(0b000_000_101 | (0b011 if before is None else 0b001) << 4, 9),
        **{f"i_{port}": Const(0, 1) for port in zeros},
        **{f"i_{port}": Const(1, 1) for port in ones},
        **{f"i_{port}": Value.cast(en)[0] for port in enables}, o_P=p, o_PCOUT=cascade)
    return p, cascade
