# SPDX-License-Identifier: Apache-2.0
"""Verilog from components, every leaf module once.

Elaborating each of a card's lanes makes the Verilog, the generation and every later build as many
times larger; here a :class:`Leaf` becomes an instance of a module that is converted once.
"""

import pathlib

from amaranth import ClockDomain, ClockSignal, Instance, Module, ResetSignal, Value
from amaranth.back import verilog
from amaranth.hdl import Elaboratable
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from .spec.config import CardConfig

#: What Verilator's -Wall says of Amaranth's Verilog that is no fault; docs/rtl.md has the reasons.
WAIVED = ("DECLFILENAME", "UNUSEDSIGNAL", "PROCASSINIT", "WIDTHEXPAND", "WIDTHTRUNC",
          "CASEINCOMPLETE", "SYMRSVDWORD", "ASCRANGE")


class EmitPlatform:
    """Collects what the components of one conversion instantiate.

    Attributes
    ----------
    modules : dict
        Verilog text of finished modules, by name.
    leaves : dict
        Components still to be converted, by module name.
    dsp48 : bool
        Instantiate DSP48E2 where a component can; otherwise everything is plain Verilog.
    """

    def __init__(self, *, dsp48: bool):
        self.dsp48 = dsp48
        self.modules: dict[str, str] = {}
        self.leaves: dict[str, wiring.Component] = {}


def _ports(signature, interface):
    """(port name, value, flow as seen by the component) of all leaf members."""
    for path, member, value in signature.flatten(interface):
        yield "__".join(str(part) for part in path), Value.cast(value), member.flow


class Leaf(Elaboratable):
    """A component that is emitted as a module of its own, once for all its instances.

    Parameters
    ----------
    component : wiring.Component
        With an attribute ``leaf_name``: components of one name must be equal.

    The ports of the component are attributes of the leaf.  Without :class:`EmitPlatform`
    (simulation in Amaranth) the leaf simply contains the component.
    """

    def __init__(self, component: wiring.Component):
        self.component = component

    def __getattr__(self, name):
        if name in self.__dict__.get("component", self).signature.members:
            return getattr(self.component, name)
        raise AttributeError(name)

    @property
    def signature(self):
        return self.component.signature

    def elaborate(self, platform):
        m = Module()
        if not isinstance(platform, EmitPlatform):
            m.submodules.inside = self.component
            return m
        # Only one component of each name is converted; the others are not forgotten.
        self.component._MustUse__used = True
        name = f"heddle_{self.component.leaf_name}"
        platform.leaves.setdefault(name, self.component)
        ports = {f"{'i' if flow == In else 'o'}_{port}": value
                 for port, value, flow in _ports(self.component.signature, self.component)}
        m.submodules.instance = Instance(name, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)
        return m


class _Top(wiring.Component):
    """A component with clock and reset as ports: the Verilog is the same in every process."""

    def __init__(self, component):
        self.component = component
        super().__init__({"clk": In(1), "rst": In(1), **component.signature.members})
        for name in component.signature.members:
            setattr(self, name, getattr(component, name))

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain()
        m.d.comb += [ClockSignal().eq(self.clk), ResetSignal().eq(self.rst)]
        m.submodules.inside = self.component
        return m


def convert(component: wiring.Component, name: str, *, clocked: bool = False,
            dsp48: bool = False) -> dict[str, str]:
    """Verilog of ``component`` and of every module it needs, by module name, ``name`` first.

    Parameters
    ----------
    component : wiring.Component
    name : str
        Module name of the component.
    clocked : bool
        The component drives its own ``sync`` domain (a card top); otherwise ports ``clk`` and
        ``rst`` are added.
    dsp48 : bool
        Use the DSP48E2 of UltraScale+ by name, packed: the same results in the same cycles.
    """
    platform = EmitPlatform(dsp48=dsp48)
    texts = {name: _verilog(component if clocked else _Top(component), name, platform)}
    done: set[str] = set()
    while todo := [leaf for leaf in platform.leaves if leaf not in done]:
        for leaf in todo:
            done.add(leaf)
            texts[leaf] = _verilog(_Top(platform.leaves[leaf]), leaf, platform)
    return texts | dict(sorted(platform.modules.items()))


def _verilog(component, name: str, platform: EmitPlatform) -> str:
    return verilog.convert(
        component, name=name, platform=platform, emit_src=False, strip_internal_attrs=True)


def write(texts: dict[str, str], folder: pathlib.Path) -> list[pathlib.Path]:
    """Write one file a module; files whose text has not changed are left alone.

    Returns
    -------
    list of pathlib.Path
        The files in the order of ``texts``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in texts.items():
        path = folder / f"{name}.v"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        paths.append(path)
    return paths


def card(config: CardConfig, *, commit: int = 0, events: bool = False) -> dict[str, str]:
    """Verilog of a whole card, by module name, the card first.

    Parameters
    ----------
    config : CardConfig
    commit : int
        32 bits that name the source the card is built from, for its status record; 0 for none.
    events : bool
        With the pin ``events`` that simulations record.
    """
    from .card import Card  # a card contains leaves, which this module defines

    return convert(Card(config, commit=commit, events=events),
                   f"heddle_{config.name}", clocked=True)


def board(component: wiring.Component, *, commit: int = 0) -> dict[str, str]:
    """Verilog of a board and its card, by module name, the board ``heddle_board`` first.

    Parameters
    ----------
    component : boards.Board
        Its clock and reset become the ports ``clk`` and ``rst``.
    commit : int
        See :func:`card`.
    """
    return convert(component, "heddle_board") | card(component.config, commit=commit)
