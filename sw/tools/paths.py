# SPDX-License-Identifier: Apache-2.0
"""Longest paths between registers in a netlist of UltraScale+ cells, module by module.

Yosys times UltraScale+ with the cells of an older family, and nothing open places or routes it; so
this adds up a typical delay for every cell, the way to it included.  A module's result has what its
parent needs: how late each output comes, how early each input is needed, and the ways straight
through.  A path that runs through many modules is therefore found like any other, and each module
is read once.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

#: Nanoseconds.  Typical of speed grade -2, as docs/resources.md says.
LUT = 0.40              # with the way to it
CARRY_IN = 0.15         # from a LUT of the same slice into the carry chain, and out of it
CARRY_WAY = 0.45        # the same from elsewhere, past the slice's LUT
CARRY = 0.025           # four bits of a carry chain
MUXF = 0.10             # multiplexer behind the LUTs of a slice
WAY = 0.30              # the way to a pin that is not behind a LUT of the same slice
CLOCK_TO_Q = 0.10
SETUP = 0.10
SHIFT_TO_Q = 0.60       # shift registers and memories made of LUTs
RAM_TO_Q = 1.00         # block and UltraRAM without output register
RAM_SETUP = 0.20
DSP_TO_Q = 0.30
DSP = 1.84              # a product without the multiplier's register: 1 / 544 MHz

Bit = int | str
_REGISTER = re.compile(r"FD[RSCP]E(_1)?")
_LUT_MEMORY = re.compile(r"RAM\d+.*|SRL(16E|C16E|C32E)")
_BLOCK_MEMORY = re.compile(r"(RAMB|URAM).*")


class Step(NamedTuple):
    """The way to a net, newest step first."""

    before: "Step | None"
    what: str       # cell type, or where the path starts, or what ends it


@dataclasses.dataclass(frozen=True)
class Path:
    """A path; ``delay`` in nanoseconds."""

    delay: float
    steps: Step | None

    def __lt__(self, other: "Path") -> bool:
        return self.delay < other.delay

    def then(self, delay: float, what: str) -> "Path":
        """The path that goes on through something."""
        return Path(self.delay + delay, Step(self.steps, what))

    def join(self, after: "Path") -> "Path":
        """The path that goes on along another one."""
        steps = self.steps
        for what in after.words():
            steps = Step(steps, what)
        return Path(self.delay + after.delay, steps)

    def words(self) -> list[str]:
        """Start, cells and end in order."""
        found, step = [], self.steps
        while step is not None:
            found.append(step.what)
            step = step.before
        return found[::-1]

    @property
    def levels(self) -> int:
        """Cells of logic on the path: a carry chain counts once."""
        count, last = 0, ""
        for word in self.words():
            if word in ("LUT", "MUXF", "DSP", "CARRY"):
                count += word != "MUXF" and (word, last) != ("CARRY", "CARRY")
                last = word
        return count


@dataclasses.dataclass
class Timing:
    """What a parent needs to know of a module; bits of ports are (name, index).

    Attributes
    ----------
    worst : Path or None
        The longest path between registers that is not within one of its children.
    early : dict
        From an input to the registers behind it.
    late : dict
        From registers to an output.
    through : dict
        From an input straight to an output, by (input, output).
    """

    worst: Path | None = None
    early: dict[tuple[str, int], Path] = dataclasses.field(default_factory=dict)
    late: dict[tuple[str, int], Path] = dataclasses.field(default_factory=dict)
    through: dict[tuple[tuple[str, int], tuple[str, int]], Path] = dataclasses.field(
        default_factory=dict)


@dataclasses.dataclass
class _Graph:
    """Nets joined by logic; ``starts`` and ``ends`` are at registers."""

    arcs: dict[Bit, list[tuple[Bit, Path]]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list))
    starts: list[tuple[Bit, Path]] = dataclasses.field(default_factory=list)
    ends: list[tuple[Bit, Path]] = dataclasses.field(default_factory=list)


def analyse(module: dict[str, Any], children: dict[str, Timing], name: str) -> Timing:
    """Timing of a module.

    Parameters
    ----------
    module : dict
        From ``write_json`` of Yosys, after ``synth_xilinx``.
    children : dict
        Timing of the modules that it instantiates, by cell type.
    name : str
        Of the module, for the names of starts and ends.

    Raises
    ------
    ValueError
        If a cell is unknown or logic feeds itself.
    """
    graph, names = _Graph(), _net_names(module)
    for cell in module["cells"].values():
        _add(graph, cell, children, lambda bit: f"{name}: {names.get(bit, '?')}")
    order = _order(graph, name)
    inputs, outputs = (
        [((port, index), bit) for port, entry in module["ports"].items()
         if entry["direction"] == direction
         for index, bit in enumerate(entry["bits"]) if isinstance(bit, int)]
        for direction in ("input", "output"))

    arrival: dict[Bit, Path] = {}
    for bit, path in graph.starts:
        _keep(arrival, bit, path)
    for bit in order:
        if (path := arrival.get(bit)) is not None:
            for target, arc in graph.arcs[bit]:
                _keep(arrival, target, path.join(arc))
    needed: dict[Bit, Path] = {}
    for bit, path in graph.ends:
        _keep(needed, bit, path)
    for bit in reversed(order):
        for target, arc in graph.arcs[bit]:
            if (path := needed.get(target)) is not None:
                _keep(needed, bit, arc.join(path))

    found = Timing()
    full = [arrival[bit].join(path) for bit, path in graph.ends if bit in arrival]
    found.worst = max(full, default=None)
    found.early = {port: needed[bit] for port, bit in inputs if bit in needed}
    found.late = {port: arrival[bit] for port, bit in outputs if bit in arrival}
    found.through = _through(graph, order, inputs, outputs)
    return found


def _keep(paths: dict[Bit, Path], bit: Bit, path: Path) -> None:
    if (before := paths.get(bit)) is None or before < path:
        paths[bit] = path


def _through(graph: _Graph, order: list[Bit], inputs: list[Any], outputs: list[Any]
             ) -> dict[Any, Path]:
    """Paths from input to output, along the nets that lie between the two."""
    leads = {bit for _, bit in outputs}
    for bit in reversed(order):
        if any(target in leads for target, _ in graph.arcs[bit]):
            leads.add(bit)
    ways: dict[Bit, dict[Any, Path]] = {
        bit: {port: Path(0, None)} for port, bit in inputs if bit in leads}
    for bit in order:
        for target, arc in graph.arcs[bit]:
            if target in leads and bit in ways:
                known = ways.setdefault(target, {})
                for port, path in ways[bit].items():
                    if port not in known or known[port].delay < path.delay + arc.delay:
                        known[port] = path.join(arc)
    return {(source, port): path for port, bit in outputs
            for source, path in ways.get(bit, {}).items()}


def _order(graph: _Graph, name: str) -> list[Bit]:
    """Nets so that all arcs point forward."""
    incoming: collections.Counter[Bit] = collections.Counter(
        target for arcs in graph.arcs.values() for target, _ in arcs)
    nets = set(graph.arcs) | set(incoming)
    order = [bit for bit in nets if not incoming[bit]]
    for bit in order:
        for target, _ in graph.arcs.get(bit, ()):
            incoming[target] -= 1
            if not incoming[target]:
                order.append(target)
    if len(order) < len(nets):
        raise ValueError(f"{name} has a loop of logic without a register")
    return order


def _net_names(module: dict[str, Any]) -> dict[Bit, str]:
    """A readable name of every net that has one."""
    found: dict[Bit, str] = {}
    # The last one wins: names without a number that tells them from others, and short ones.
    for name, entry in sorted(module["netnames"].items(),
                              key=lambda item: ("$" not in item[0], -len(item[0]))):
        if not entry["hide_name"]:
            for index, bit in enumerate(entry["bits"]):
                found[bit] = f"{name}[{index}]" if len(entry["bits"]) > 1 else name
    return found


def _pins(cell: dict[str, Any], direction: str) -> Iterator[tuple[str, int, Bit]]:
    """(port, index, net) of all pins that are not constant."""
    for port, bits in cell["connections"].items():
        if cell["port_directions"][port] == direction:
            yield from ((port, k, bit) for k, bit in enumerate(bits) if isinstance(bit, int))


def _shown_by(pin: str) -> re.Pattern[str] | None:
    """The outputs of a memory or shift register of LUTs that an address pin selects."""
    if match := re.fullmatch(r"ADDR([A-H])", pin):
        return re.compile(f"DO{match[1]}[01]?")
    if re.fullmatch(r"DPRA\d?", pin):
        return re.compile("DPO")
    return re.compile("SPO|O|Q") if re.fullmatch(r"A\d?", pin) else None


def _add(graph: _Graph, cell: dict[str, Any], children: dict[str, Timing], label: Any) -> None:
    """Arcs, starts and ends of a cell."""
    kind = cell["type"]
    inputs, outputs = (list(_pins(cell, direction)) for direction in ("input", "output"))
    inputs = [pin for pin in inputs if not re.fullmatch(r"C|CLK|W?CLK.*", pin[0])]
    shown = label(outputs[0][2]) if outputs else label(None)

    def arcs(sources: Any, targets: Any, delay: float, what: str) -> None:
        for _, _, source in sources:
            graph.arcs[source] += [
                (target, Path(delay, Step(None, what))) for _, _, target in targets]

    def start(delay: float, what: str) -> None:
        graph.starts += [(bit, Path(delay, Step(None, f"{what} {label(bit)}")))
                         for _, _, bit in outputs]

    def end(pins: Any, delay: float, what: str) -> None:
        graph.ends += [(bit, Path(delay, Step(None, f"{what} {shown}, pin {port}")))
                       for port, _, bit in pins]

    if (timing := children.get(kind)) is not None:
        nets = {pin[:2]: pin[2] for pin in inputs + outputs}
        graph.starts += [(nets[port], path) for port, path in timing.late.items() if port in nets]
        graph.ends += [(nets[port], path) for port, path in timing.early.items() if port in nets]
        for (source, target), path in timing.through.items():
            if source in nets and target in nets:
                graph.arcs[nets[source]].append((nets[target], path))
    elif re.fullmatch(r"LUT[1-6]", kind):
        arcs(inputs, outputs, LUT, "LUT")
    elif kind in ("INV", "BUFG", "IBUF", "OBUF"):      # the mapper folds them into what they feed
        arcs(inputs, outputs, 0, "INV")
    elif re.fullmatch(r"MUXF[789]", kind):
        for pin in inputs:
            arcs([pin], outputs, WAY + MUXF if pin[0] == "S" else MUXF, "MUXF")
    elif kind in ("CARRY4", "CARRY8"):
        for pin in inputs:
            delay = {"S": CARRY_IN, "DI": CARRY_WAY, "CYINIT": CARRY_WAY}.get(pin[0], CARRY)
            arcs([pin], [out for out in outputs if pin[0] in ("CI", "CYINIT") or out[1] >= pin[1]],
                 delay, "CARRY")
    elif _REGISTER.fullmatch(kind):
        start(CLOCK_TO_Q, "register")
        end([pin for pin in inputs if pin[0] == "D"], SETUP, "register")
        end([pin for pin in inputs if pin[0] != "D"], WAY + SETUP, "register")
    elif _BLOCK_MEMORY.fullmatch(kind):
        start(RAM_TO_Q, "block memory")
        end(inputs, WAY + RAM_SETUP, "block memory")
    elif _LUT_MEMORY.fullmatch(kind):
        start(SHIFT_TO_Q, "LUT memory")
        end(inputs, WAY + SETUP, "LUT memory")
        for pin in inputs:
            if (shown_by := _shown_by(pin[0])) is not None:
                arcs([pin], [out for out in outputs if shown_by.fullmatch(out[0])], LUT, "LUT")
    elif kind == "DSP48E2":
        registers = {name: int(str(cell["parameters"].get(name, "1")), 2)
                     for name in ("AREG", "BREG", "MREG", "PREG")}
        if any(registers.values()):
            start(DSP_TO_Q if registers["PREG"] else DSP, "DSP")
            end([pin for pin in inputs if not pin[0].startswith("PCIN")], WAY + RAM_SETUP, "DSP")
        else:
            arcs(inputs, outputs, WAY + DSP, "DSP")
    elif kind not in ("GND", "VCC"):
        raise ValueError(f"cells of type {kind} must be given a delay in sw/tools/paths.py")
