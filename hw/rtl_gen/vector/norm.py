# SPDX-License-Identifier: Apache-2.0
"""Mean and reciprocal deviation of a vector from its sum and that of its squares."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..emit import Leaf
from ..fp32 import Add, Mul, Rsqrt
from ..spec.config import CardConfig
from .delay import delay

#: A vector to be normed.
NORM = data.StructLayout({"valid": 1, "token": 2, "set": 1, "inv": 32, "eps": 32})


def norms_layout(config: CardConfig) -> data.ArrayLayout:
    """Mean and reciprocal deviation, by set and token."""
    pair = data.StructLayout({"mean": 32, "rstd": 32})
    return data.ArrayLayout(data.ArrayLayout(pair, config.tokens), 2)


class Norm(wiring.Component):
    """``rstd = rsqrt_near(max(power − mean², +0) + eps)``, for several tokens at once.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    i : ``In(NORM)``
        A vector whose mean and power will come; its token is not busy.
    total, power, token, product
        For a cycle: the mean, later the mean of the squares, of a token.
    busy, done : ``Out(tokens)``
        Vectors under way; for a cycle: its norm is there.
    norms : ``Out``
        By set and token.
    nonfinite : ``Out(1)``
        For a cycle: an infinity or NaN was read or made.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "i": In(NORM), "total": In(1), "power": In(1), "token": In(2), "product": In(32),
            "busy": Out(config.tokens), "done": Out(config.tokens),
            "norms": Out(norms_layout(config)), "nonfinite": Out(1)})

    def elaborate(self, platform):
        m = Module()
        tokens = self.config.tokens

        def per_token(name, shape):
            return Array(Signal(shape, name=f"{name}_{t}", reset_less=True) for t in range(tokens))

        means, parts, eps, sets = (per_token(name, shape) for name, shape in (
            ("mean", 32), ("square", 32), ("eps", 32), ("set", 1)))
        with m.If(self.i.valid):
            m.d.sync += [eps[self.i.token].eq(self.i.eps), sets[self.i.token].eq(self.i.set)]
        with m.If(self.total):
            m.d.sync += means[self.token].eq(self.product)

        # The power comes after the mean, perhaps a cycle: it waits for the mean's square.
        names = ("square", "difference", "variance")
        square, difference, variance = units = (Leaf(Mul()), Leaf(Add()), Leaf(Add()))
        for name, unit in zip(names, units, strict=True):
            m.submodules[name] = unit
            m.d.comb += unit.en.eq(1)
        squared = delay(m, self.total, Mul.LATENCY, "squared", reset_less=False)
        whose = delay(m, self.token, Mul.LATENCY, "whose")
        m.d.comb += [square.a.eq(self.product), square.b.eq(self.product)]
        with m.If(squared):
            m.d.sync += parts[whose].eq(square.o)

        at = Mul.LATENCY
        power = delay(m, self.product, at, "power_value")
        arrived = delay(m, self.power, at, "power", reset_less=False)
        token = delay(m, self.token, at, "power_token")
        part = parts[token]
        m.d.comb += [difference.a.eq(power), difference.b.eq(Cat(part[:31], ~part[31]))]
        subtracted = delay(m, arrived, Add.LATENCY, "subtracted", reset_less=False)
        token = delay(m, token, Add.LATENCY, "subtracted_token")
        # Rounding may leave less than nothing.
        m.d.comb += [variance.a.eq(Mux(difference.o[31], 0, difference.o)),
                     variance.b.eq(eps[token])]
        ready = delay(m, subtracted, Add.LATENCY, "ready", reset_less=False)
        token = delay(m, token, Add.LATENCY, "ready_token")

        m.submodules.root = root = Leaf(Rsqrt())
        m.d.comb += [root.en.eq(1), root.a.eq(variance.o)]
        rooted = delay(m, ready, Rsqrt.LATENCY, "rooted", reset_less=False)
        token = delay(m, token, Rsqrt.LATENCY, "rooted_token")
        m.d.comb += self.done.eq(rooted << token)
        m.d.sync += self.nonfinite.eq(Cat(
            unit.nonfinite & seen for unit, seen in (
                (square, squared), (difference, subtracted), (variance, ready), (root, rooted))
        ).any())
        kept = Signal(norms_layout(self.config), reset_less=True)
        for k in range(2):
            for t in range(tokens):
                with m.If(self.done[t] & (sets[t] == k)):
                    m.d.sync += [kept[k][t].mean.eq(means[t]), kept[k][t].rstd.eq(root.o)]
        m.d.comb += self.norms.eq(kept)
        m.d.sync += self.busy.eq(
            (self.busy | (self.i.valid << self.i.token)[:tokens]) & ~self.done)
        return m
