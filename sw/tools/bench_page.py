# SPDX-License-Identifier: Apache-2.0
"""docs/benchmarks.md from the figures of its rows."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from bench_rows import APART, FEW, LONG, MAIN, MORE, PATTERNS, SHAPES, SLOW, TOKENS, Row, short
from bench_speed import Speeds

Figures = dict[str, Any]
PUBLISHED = pathlib.Path(__file__).parents[1] / "heddle/tracing/published.json"

PAGE = """\
# Benchmarks

<!-- Written by sw/tools/benchmarks.py (make bench). -->

What GPT-2 costs on the Verilated `u280` card with the timing model of its HBM ([simulators](simulators.md)): clock cycles that were counted, not
estimated. In every row the hidden state, all logits, result records, K and V are those of the functional card, bit for bit; a run where one bit
differs ends the benchmark. Weights are random ([cli](cli.md)). Commit{commits}, configuration digest {digests}, contract {contracts};
[every run](#every-run) has its command. {form}

Unless a row says something else: one card, 200 MHz, 8-bit weights, 16-bit activations (A16), K and V of 8 bits, 128 positions in memory, one token a step.
K and V have 8 bits here because with 16 the 2:4 model reads {wide_mb:.1f} MB a step, and with that many bytes no card at this clock gets beyond
{wide_limit:,.0f} tokens/s; rows with 16 bits are below.

{verdict}

## Whole decode steps of GPT-2 345M

With LM head, sampling, and all logits written to memory. The limit is what memory allows for all bytes that the step reads. Useful are weights, metadata, K and V that the
result needs, over what the slower of port and memory delivers in the same cycles. Stalls are cycles in which the engine waited, of all; while it waits for `weights`,
memory is the limit.

{steps}

### Slower memory

Read latency of {slow} ns instead of 128{latency_layers}.

{latency}

## Patterns

Cycles of one layer of GPT-2 345M among others: the difference of {more} and {few} layers, divided by {between}. The ratio of bytes is that of weights and metadata; the
achieved one that of cycles.

{patterns}

## Prefill

One pass over several tokens of a prompt against one decode step, both of so many layers, without LM head. The engine is busy when all its columns
multiply.

{prefill}

## Batches

Independent sequences that share a step, A8, whole steps of GPT-2 345M. The gain is tokens/s of all sequences over those of one, with the shortest of the contexts. Their new K,
one beat of every head and sequence, go to C/T channels if all are at one position, and to more if they are not, as in service.

{batches}

## Other shapes

{shapes_note}

{shapes}

## Several cards

[Scaling](scaling.md) has all four sizes of GPT-2 on rings of 1, 2, 4 and 8 cards, estimated, next to published systems; `make scaling` writes it. [Rings](rings.md#how-fast-it-is) has what was simulated.

## Speed of the simulators

{speed}

## Published systems

{published}

Figures of Heddle are simulated cycles at the clock stated, of a card that has not been placed and routed; the others are as their sources give them.

## Every run

```
{commands}
```

Two commands that differ in nothing give the same cycles on every machine. `make bench` measures most of them, `python sw/tools/benchmarks.py --variants` the other whole steps of GPT-2 345M too, `--long` all with whole models everywhere;
figures of an unchanged commit are kept in `build/bench`, a JSON file a row. *Estimated* are the cycles that [`heddle estimate`](estimator.md) gives with the same flags, without
a simulation, and how far they are from those that were counted.

{runs}
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """One figure that has to hold."""

    what: str
    value: float
    bound: float
    #: Whether the value must be at most the bound, instead of at least.
    most: bool = False
    unit: str = ""

    @property
    def good(self) -> bool:
        return self.value <= self.bound if self.most else self.value >= self.bound

    def __str__(self) -> str:
        way = "at most" if self.most else "at least"
        return (f"{self.what}: {self.value:,.4g}{self.unit} "
                f"({way} {self.bound:,g}{self.unit})")


#: Where a part's rows are not there.
ABSENT = "Not measured in this run."


def part(text: Callable[..., str], *arguments: Any) -> str:
    """A part of the page, or that its rows are not there."""
    try:
        return text(*arguments)
    except KeyError:
        return ABSENT


def table(head: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> str:
    """Markdown; columns from number ``left`` on hold figures."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def percent(value: float, digits: int = 1) -> str:
    """
    >>> percent(0.9714)
    '97.1 %'
    """
    return f"{100 * value:.{digits}f} %"


def limit(found: Figures) -> float:
    """Tokens/s if memory moved all bytes that were read without a pause."""
    rate = found["useful_bytes_per_token"] * found["tokens_per_second_card"] \
        / found["hbm_useful_utilisation"]
    return float(rate / found["hbm_bytes_per_token"])


def stalls(found: Figures) -> list[str]:
    """Shares of the cycles, by cause."""
    return [percent(count / found["cycles_total"]) for count in found["stall_cycles"].values()]


STALLS = ("weights", "dependency", "epilogue", "idle")


def steps(rows: dict[str, Figures]) -> str:
    """Whole decode steps."""
    lines = []
    for what, tail in (("", ""), ("225 MHz", "-225"), ("context 1,024 − 1", "-long"),
                       ("16-bit K and V", "-int16")):
        for pattern in MAIN:
            name = f"step-{short(pattern)}{tail}"
            if tail and name not in rows:       # a variant
                continue
            found = rows[name]
            lines.append([
                pattern, what, f"{found['cycles_total']:,}",
                f"**{found['tokens_per_second_card']:,.0f}**", f"{limit(found):,.0f}",
                percent(found["hbm_useful_utilisation"]),
                percent(found["hbm_nominal_utilisation"]), *stalls(found)])
    return table(("pattern", "", "cycles", "tokens/s", "limit", "useful", "of 460 GB/s", *STALLS),
                 lines, 2)


def drop(rows: dict[str, Figures], pattern: str) -> float:
    """Share of tokens/s that slower memory costs."""
    slow = rows[f"latency-{short(pattern)}"]
    name = f"step-{short(pattern)}" if slow["full"] else f"layers-{short(pattern)}-{MORE}"
    return float(1 - rows[name]["cycles_total"] / slow["cycles_total"])


def latency(rows: dict[str, Figures]) -> str:
    return table(("pattern", "cycles", f"tokens/s lost at {SLOW} ns"), [
        (pattern, f"{rows[f'latency-{short(pattern)}']['cycles_total']:,}",
         percent(drop(rows, pattern), 2)) for pattern in MAIN])


def layer(rows: dict[str, Figures], pattern: str) -> tuple[float, float, float]:
    """Cycles of one layer; its bytes of weights and metadata; its useful utilisation."""
    few, more = (rows[f"layers-{short(pattern)}-{layers}"] for layers in (FEW, MORE))

    def between(number: str) -> float:
        return float(more[number] - few[number]) / (MORE - FEW)

    needed = (sum(found["needed_bytes_per_token"][name] for name in ("weights", "metadata"))
              for found in (more, few))
    cycles = between("cycles_total")
    rate = more["useful_bytes_per_token"] / more["cycles_total"] / more["hbm_useful_utilisation"]
    return (cycles, (next(needed) - next(needed)) / (MORE - FEW),
            between("useful_bytes_per_token") / cycles / rate)


def achieved(rows: dict[str, Figures], pattern: str) -> tuple[float, float]:
    """Dense over this pattern: bytes, and cycles."""
    dense, sparse = layer(rows, "dense"), layer(rows, pattern)
    return dense[1] / sparse[1], dense[0] / sparse[0]


def patterns(rows: dict[str, Figures]) -> str:
    lines = []
    for pattern in PATTERNS:
        cycles, size, useful = layer(rows, pattern)
        bytes_ratio, cycle_ratio = achieved(rows, pattern)
        lines.append((pattern, f"{cycles:,.0f}", f"{size / 1e6:.2f}", percent(useful),
                      f"{bytes_ratio:.3f}", f"{cycle_ratio:.3f}",
                      percent(cycle_ratio / bytes_ratio)))
    return table(("pattern", "cycles a layer", "MB of weights", "useful", "dense bytes over these",
                  "dense cycles over these", "achieved"), lines)


def prefill_ratio(rows: dict[str, Figures], pattern: str, activation: str) -> float:
    """Cycles of a pass over those of a decode step."""
    name = f"{short(pattern)}-{activation}"
    return float(rows[f"prefill-{name}"]["cycles_total"] / rows[f"decode-{name}"]["cycles_total"])


def prefill(rows: dict[str, Figures]) -> str:
    lines = []
    for pattern in MAIN:
        for activation, tokens in TOKENS.items():
            name = f"{short(pattern)}-{activation}"
            if pattern != "dense" and f"prefill-{name}" not in rows:
                continue
            step, made = (rows[f"{kind}-{name}"] for kind in ("decode", "prefill"))
            lines.append((pattern, activation.upper(), str(tokens), str(made["shape"]["layers"]),
                          f"{step['cycles_total']:,}",
                          f"{made['cycles_total']:,}",
                          f"{prefill_ratio(rows, pattern, activation):.3f}",
                          percent(made["mac_utilisation"])))
    return table(("pattern", "activations", "tokens a pass", "layers",
                  "cycles of a decode step", "cycles of a pass", "ratio", "engine busy"), lines, 2)


def gain(rows: dict[str, Figures], context: int, batch: str = "") -> float:
    """Tokens/s of a batch over those of one sequence."""
    one, four = (rows[name]["tokens_per_second_card"] for name in (
        f"batch-1-{context}", batch or f"batch-{TOKENS['a8']}-{context}"))
    return float(four / one)


def batches(rows: dict[str, Figures]) -> str:
    lines = []
    for label, context, name in (
            ("128", 128, "batch-1-128"), ("128", 128, f"batch-{TOKENS['a8']}-128"),
            ("128 to 131", 128, APART), (f"{LONG:,}", LONG, f"batch-1-{LONG}"),
            (f"{LONG:,}", LONG, f"batch-{TOKENS['a8']}-{LONG}")):
        if name == APART and name not in rows:      # a variant
            continue
        found = rows[name]
        lines.append((label, str(found["batch"]), f"{found['cycles_total']:,}",
                      f"{found['tokens_per_second_card']:,.0f}",
                      f"{gain(rows, context, name):.2f}" if found["batch"] > 1 else "1",
                      percent(found["hbm_useful_utilisation"]), *stalls(found)))
    return table(("context", "sequences", "cycles of a step", "tokens/s", "gain", "useful",
                  *STALLS), lines)


def shapes(rows: dict[str, Figures]) -> str:
    lines = []
    for shape in SHAPES:
        for pattern in MAIN:
            if shape == SHAPES[-1] and f"{shape}-{short(pattern)}" not in rows:
                continue
            found = rows[f"{shape}-{short(pattern)}"]
            what = f"{found['shape']['layers']} layers" + ", LM head" * found["full"]
            lines.append((f"`{shape}`", what, pattern, f"{found['cycles_total']:,}",
                          f"{found['tokens_per_second_card']:,.0f}" if found["full"] else "",
                          percent(found["hbm_useful_utilisation"]), *stalls(found)))
    return table(("shape", "", "pattern", "cycles", "tokens/s", "useful", *STALLS), lines, 3)


def published(rows: dict[str, Figures]) -> str:
    """This card among published systems of one card that ran the same model, and others."""
    lines = [(f"**Heddle**, {pattern}, K and V of 8 bits", "U280", "GPT-2 345M", "W8A16",
              "simulation", f"**{rows[f'step-{short(pattern)}']['tokens_per_second_card']:,.0f}**",
              f"`{rows[f'step-{short(pattern)}']['row']}`") for pattern in MAIN]
    lines += [(one["system"], one["device"], one["model"], one["format"], one["measured"],
               f"{one['tokens_per_second']:,.4g}", one["source"])
              for one in json.loads(PUBLISHED.read_text(encoding="utf-8"))]
    made = table(("system", "board", "model", "format", "figure from", "tokens/s", "source"),
                 lines, 5)
    return made.replace("---: | ---: |", "---: | --- |", 1)


def targets(rows: dict[str, Figures]) -> list[Target]:
    """All figures that have to hold, of the rows that are there."""
    made: list[Target] = []

    def hold(what: str, value: Callable[[], float], bound: float, *, most: bool = False,
             unit: str = "") -> None:
        with contextlib.suppress(KeyError):
            made.append(Target(what, value(), bound, most, unit))

    def figure(row: str, name: str) -> float:
        return float(rows[row][name])

    def share(pattern: str) -> float:
        ratio, got = achieved(rows, pattern)
        return 100 * got / ratio

    for pattern, least in zip(MAIN, (1080, 1650), strict=True):
        step = f"step-{short(pattern)}"
        hold(f"{pattern}, tokens/s", partial(figure, step, "tokens_per_second_card"), least)
        hold(f"{pattern}, useful", lambda step=step: 100 * figure(step, "hbm_useful_utilisation"),
             95, unit=" %")
        hold(f"{pattern}, lost at {SLOW} ns", lambda of=pattern: 100 * drop(rows, of), 2, most=True,
             unit=" %")
    hold("2:4 over dense, of the ratio of bytes", partial(share, "2:4"), 95, unit=" %")
    for pattern in MAIN:
        for activation in TOKENS:
            hold(f"{pattern}, prefill pass over decode step, {activation.upper()}",
                 partial(prefill_ratio, rows, pattern, activation), 1.1, most=True)
    for activation in TOKENS:
        hold(f"dense, engine busy in prefill, {activation.upper()}",
             lambda of=activation: 100 * figure(f"prefill-dense-{of}", "mac_utilisation"), 90,
             unit=" %")
    tokens = TOKENS["a8"]
    for context, part_of in ((128, 0.9), (LONG, 0.6)):
        hold(f"gain of a batch of {tokens}, context {context:,}", partial(gain, rows, context),
             part_of * tokens)
    if errors := [abs(error(found)) for found in rows.values() if "estimated_cycles" in found]:
        hold("largest error of an estimate", lambda: 100 * max(errors), 3, most=True, unit=" %")
    return made


def error(found: Figures) -> float:
    """Of the estimate, of the cycles that were counted.

    >>> error({"cycles_total": 200, "estimated_cycles": 198})
    -0.01
    """
    return float(found["estimated_cycles"] / found["cycles_total"] - 1)


def headline(rows: dict[str, Figures]) -> str:
    """The figures that README shows."""
    lines = []
    for pattern in MAIN:
        found = rows[f"step-{short(pattern)}"]
        lines.append((f"GPT-2 345M, {pattern}", f"{found['tokens_per_second_card']:,.0f}",
                      percent(found["hbm_useful_utilisation"]), f"`{found['row']}`"))
    if four := rows.get(f"batch-{TOKENS['a8']}-128"):
        lines.append(("the same, dense A8, four sequences at once",
                      f"{four['tokens_per_second_card']:,.0f}",
                      percent(four["hbm_useful_utilisation"]), f"`{four['row']}`"))
    return table(("whole decode steps at 200 MHz", "tokens/s", "useful HBM rate", "command"),
                 lines).replace("---: |\n", "--- |\n", 1)


def speed(speeds: Speeds | None) -> str:
    if speeds is None:
        return ABSENT
    return (f"On {speeds.machine}. The load was {speeds.load:.1f} when this part began: other work "
            "on the machine makes these figures worse, and no others.\n\n"
            + table(("what", "figure"), speeds.lines()))


def page(wanted: Sequence[Row], rows: dict[str, Figures], speeds: Speeds | None, *,
         long: bool) -> str:
    """All of docs/benchmarks.md.

    The rows of whole steps must be there; other parts say where theirs are not.
    """
    wanted = [row for row in wanted if row.name in rows]
    def values(name: str) -> str:
        every = dict.fromkeys(str(rows[row.name][name])[:12].rstrip() for row in wanted)
        return ", ".join(f"`{value}`" for value in every)

    several = len({rows[row.name]["commit"] for row in wanted}) > 1
    missed = [target for target in targets(rows) if not target.good]
    held = [target for target in targets(rows) if target.good]
    verdict = "Targets that hold: " + "; ".join(map(str, held)) + "."
    if missed:
        verdict += "\n\n**Targets that are missed:** " + "; ".join(map(str, missed)) + "."
    wide, slow = rows["step-2-4-int16"], rows["latency-dense"]
    few = slow["shape"]["layers"]
    return PAGE.format(
        commits=f"{'s' * several} {values('commit')}",
        digests=values("configuration_digest"), contracts=values("contract_digest"),
        form="This is the long form." if long else
        "This is the short form: where it says so, the first layers stand for a model.",
        wide_mb=wide["hbm_bytes_per_token"] / 1e6, wide_limit=limit(wide), verdict=verdict,
        steps=steps(rows), slow=SLOW, latency=part(latency, rows), few=FEW, more=MORE,
        between=MORE - FEW,
        latency_layers="" if slow["full"] else f", {few} layers alone: the start of a pass, which "
        "pays the most, weighs more here than in a whole step",
        patterns=part(patterns, rows), prefill=part(prefill, rows),
        batches=part(batches, rows),
        shapes_note="Whole decode steps." if long else
        "Of the larger ones, a few layers; the start of the pass counts.",
        shapes=part(shapes, rows), speed=speed(speeds),
        published=published(rows), commands="\n".join(dict.fromkeys(rows[row.name]["row"] for row in wanted)),
        runs=table(("run", "cycles", "estimated", "error", "equal to `sim`", "commit"), [
            (f"`{row.name}`", f"{rows[row.name]['cycles_total']:,}",
             f"{rows[row.name]['estimated_cycles']:,}", f"{100 * error(rows[row.name]):+.2f} %",
             "yes" if rows[row.name]["equal_to_sim"] else "no",
             f"`{rows[row.name]['commit'][:12]}`") for row in wanted]))
