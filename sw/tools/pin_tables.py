# SPDX-License-Identifier: Apache-2.0
"""Pins and instantiation of the units, for the pages of `docs/units`."""

import re
import textwrap

from rtl_gen import pins, units
from rtl_gen.cli import make

#: The page of each unit that can be generated alone.
PAGES = {"engine": "engine", "epilogue": "epilogue", "channel": "channel", "reader": "reader",
         "vector": "vector", "sampler": "sampler", "softmax": "softmax", "quantise": "quantise",
         "layernorm": "layernorm", "exp": "gelu", "gelu": "gelu", "gelu_erf": "gelu",
         "memory": "memory", "control": "control", "card": "card", "link": "link",
         "exchange": "exchange"}
BEGIN, END = "<!-- pins of {}: written by sw/tools/write_docs.py -->\n", "<!-- end of pins -->\n"


def _grouped(found: list[tuple[str, str, int]]) -> list[tuple[list[str], str, int]]:
    """Names of pins that differ in a number alone, with their direction and bits."""
    groups: dict[tuple[str, str, int], list[str]] = {}
    for name, direction, bits in found:
        shape = re.sub(r"(?<=hbm)\d\d|(?<=_)\d+(?=_|$)", "#", name)
        groups.setdefault((shape, direction, bits), []).append(name)
    return [(names, direction, bits) for (_, direction, bits), names in groups.items()]


def section(unit: str) -> str:
    """Markdown: how to generate the unit, its pins, and an instance of it."""
    top, component = make(unit, "tiny", {})
    component._MustUse__used = True      # it is looked at, not elaborated
    groups = _grouped(pins.pins(component))
    asked = "--config tiny" if unit == "card" else f"--unit {unit}"
    with_what = "of `tiny`" if unit == "card" or units.UNITS[unit].parameters is None else (
        ", ".join(f"{k}={v}" for k, v in units.UNITS[unit].parameters.items()))
    rows = "\n".join(
        f"| `{names[0]}`{f' … `{names[-1]}`' if len(names) > 1 else ''} | {direction} | {bits} |"
        for names, direction, bits in groups)
    more = "    // and those that differ in their number alone\n" * any(
        len(names) > 1 for names, _, _ in groups)
    joined = textwrap.fill(", ".join(f".{names[0]}({names[0]})" for names, _, _ in groups), 110,
                           initial_indent="    ", subsequent_indent="    ",
                           break_on_hyphens=False, break_long_words=False)
    return (f"{BEGIN.format(unit)}`heddle rtl {asked} -o build/{unit}` ({with_what}) writes the "
            f"module `{top}`, and `{top}.veo` with its instance:\n\n"
            f"| pin | direction | bits |\n| --- | --- | --- |\n{rows}\n\n"
            f"```verilog\n{top} u_{unit} (\n{joined}\n{more});\n```\n{END}")


def renewed(text: str, unit: str) -> str:
    """A page's text with the unit's section made anew; the page says where by its marks."""
    begin = BEGIN.format(unit)
    if begin not in text:
        raise SystemExit(f"the page of {unit} must contain the line {begin.strip()!r}")
    before, _, rest = text.partition(begin)
    return before + section(unit) + rest.partition(END)[2]
