# SPDX-License-Identifier: Apache-2.0
"""Runs of instructions that are one large operation: carried out together, with the same result.

Programs work on slices and row blocks so that hardware overlaps them.  Here every NumPy call costs
the same for one slice as for eight, so three kinds of runs are found and taken in one go:

* MATMULs that accumulate the same rows over neighbouring inputs;
* MATMULs of neighbouring rows, with the QUANTs of neighbouring slices between them: first all
  products, then all slices, which is the same where no product reads what a slice writes, nor
  overwrites what a slice reads;
* CACHEs of neighbouring heads.
"""

from collections.abc import Callable, Iterator
from typing import Any

from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.formats import PATTERNS
from rtl_gen.spec.isa import COUNTER_MAX, COUNTERS

from .program import Instruction, Operands, Registers, check

Fields = dict[str, int]
#: The longest run.
MOST = 64
#: Fields that may differ between the members of a run, besides those that say where things lie.
_FREE = {"wait", "signal", "fence"}


class Batch:
    """A run and its handlers.

    Parameters
    ----------
    config : CardConfig
    members : list of Instruction
    parts : list of (handler, list of Instruction)
        What to do, in order; the instructions are those whose operands the handler takes.
    """

    def __init__(self, config: CardConfig, members: list[Instruction],
                 parts: list[tuple[Any, list[Instruction]]]) -> None:
        self.config, self.members, self.parts = config, members, parts
        self._positions = tuple({each.position for each in members})
        self._registers = tuple({
            each.fields[name] for each in members for name in ("address_reg", "index_reg")
            if each.fields.get(name)})
        #: By these registers: where the run is legal up to, and all operands.
        self._known: dict[tuple[int, ...], tuple[int, list[tuple[Operands, ...]]]] = {}
        #: Per counter that it uses: what must be there first, the peak, and what is left.
        self._counters = []
        for counter in range(COUNTERS):
            low = peak = level = 0
            for each in members:
                level -= counter in each.wait
                low = min(low, level)
                level += counter in each.signal
                peak = max(peak, level)
            if low or peak or level:
                self._counters.append((counter, -low, COUNTER_MAX - peak, level))

    def admit(self, registers: Registers, counters: list[int],
              program_words: int) -> list[tuple[Operands, ...]] | None:
        """Take and give all counters; the operands, or None with no effect if one may not run."""
        # What is legal at one position is legal at all below.
        position = max(registers[number] for number in self._positions)
        key = tuple([registers[number] for number in self._registers])
        legal, operands = self._known.get(key, (-1, []))
        if position > legal:
            legal = self.config.context
            for each in self.members:
                found = each.resolve(registers) if each.resolve else each.operands
                if check(self.config, each, position, found, program_words):
                    return None
                legal = min(legal, each.legal[found])
            operands = [tuple(each.resolve(registers) if each.resolve else each.operands
                              for each in products) for _, products in self.parts]
            self._known[key] = legal, operands
        for counter, least, most, _ in self._counters:
            if not least <= counters[counter] <= most:
                return None
        for counter, _, _, change in self._counters:
            counters[counter] += change
        return operands

    def __call__(self, registers: Registers, operands: list[tuple[Operands, ...]]) -> None:
        for (handler, _), taken in zip(self.parts, operands, strict=True):
            handler(registers, *taken)


def find(config: CardConfig, following: Iterator[Instruction],
         bind: Callable[[str, list[Fields]], Any]) -> Batch | None:
    """The run at the beginning of ``following``, if it is worth taking at once."""
    first = next(following, None)
    if first is None or first.error or first.name not in ("MATMUL", "QUANT", "CACHE"):
        return None
    if first.name == "CACHE" or (first.name == "MATMUL" and not first.fields["last"]):
        extends = _next_head if first.name == "CACHE" else _next_inputs
        members = [first]
        for each in following:
            if len(members) == MOST or each.error or each.name != first.name \
                    or not extends(config, members, each.fields):
                break
            members.append(each)
        if len(members) < 2:
            return None
        handler = bind(first.name, [each.fields for each in members])
        return Batch(config, members, [(handler, members if first.name == "MATMUL" else [])])
    return _rows_and_slices(config, first, following, bind)


def _same(a: Fields, b: Fields, places: set[str]) -> bool:
    """Whether two instructions differ in ``places`` at most."""
    return all(value == b[name] for name, value in a.items()
               if name not in places and name not in _FREE)


def _next_head(config: CardConfig, members: list[Instruction], f: Fields) -> bool:
    last = members[-1].fields
    return f["a"] == last["a"] + config.head_words and _same(last, f, {"a", "kind", "head"})


def _fixed(f: Fields) -> bool:
    """A product of weights whose size is known."""
    return not (f["merge"] or f["rows_reg"] or f["beats_reg"] or f["dest"] or f["scale"] == 2)


def _next_inputs(config: CardConfig, members: list[Instruction], f: Fields) -> bool:
    last = members[-1].fields
    return (not f["first"] and not f["last"] and _fixed(f) and _fixed(last)
            and f["act"] == last["act"] + last["beats"] * PATTERNS[last["pattern"]].ratio
            and _same(last, f, {"address", "beats", "act", "first"}))


def _rows_and_slices(config: CardConfig, first: Instruction, following: Iterator[Instruction],
                     bind: Callable[[str, list[Fields]], Any]) -> Batch | None:
    members: list[Instruction] = []
    products: list[Instruction] = []
    slices: list[Instruction] = []
    each: Instruction | None = first
    while each is not None and len(members) < MOST and not each.error:
        f = each.fields
        if each.name == "MATMUL" and _next_rows([m.fields for m in products], f) \
                and not any(_meets(config, f, m.fields) for m in slices):
            products.append(each)
        elif each.name == "QUANT" and _next_slice(config, [m.fields for m in slices], f):
            slices.append(each)
        else:
            break
        members.append(each)
        each = next(following, None)
    if len(products) < 2 and len(slices) < 2:
        return None
    parts = [(bind("MATMUL", [m.fields for m in products]), products)] if products else []
    if slices:
        parts.append((bind("QUANT", [m.fields for m in slices]), []))
    return Batch(config, members, parts)


def _next_rows(before: list[Fields], f: Fields) -> bool:
    if not (f["last"] and f["columns"] == 1 and _fixed(f)):
        return False
    if not before:
        return True
    last = before[-1]
    alone = f["first"] and not f["k_outer"]
    return (f["dst"] == last["dst"] + last["rows"]
            and bool(alone or f["acc_row"] == last["acc_row"] + last["rows"])
            and _same(last, f, {"address", "rows", "acc_row", "dst"}))


def _blocks(config: CardConfig, f: Fields) -> int:
    return -(-f["words"] * config.vector_lanes // config.beat_bytes)


def _next_slice(config: CardConfig, before: list[Fields], f: Fields) -> bool:
    if not before:
        return True
    last = before[-1]
    return (last["words"] * config.vector_lanes % config.beat_bytes == 0
            and f["a"] == last["a"] + last["words"]
            and (not f["gamma"] or f["b"] == last["b"] + last["words"])
            and f["act"] == last["act"] + _blocks(config, last)
            and (not f["stats"] or f["word"] == last["word"] + last["words"])
            and _same(last, f, {"a", "b", "act", "word"}))


def _meets(config: CardConfig, product: Fields, part: Fields) -> bool:
    """Whether a product reads what a slice before it writes, or overwrites what that one reads."""
    def overlap(a: int, count_a: int, b: int, count_b: int) -> bool:
        return a < b + count_b and b < a + count_a

    reads = product["beats"] * PATTERNS[product["pattern"]].ratio
    return (overlap(product["act"], reads, part["act"], _blocks(config, part))
            or overlap(product["dst"], product["rows"], part["a"], part["words"])
            or bool(part["gamma"]
                    and overlap(product["dst"], product["rows"], part["b"], part["words"])))

