# SPDX-License-Identifier: Apache-2.0
"""Estimate GPT-2 on rings of 1, 2, 4 and 8 u280 cards; writes docs/scaling.md and docs/scaling.png.

    python sw/tools/scaling.py          ten minutes on two cores
    python sw/tools/scaling.py --kept   estimates nothing: the page of what build/scaling holds
"""

import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from heddle.errors import RunError
from heddle.measure import commit

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHAPES = {"gpt2-124m": "GPT-2 124M", "gpt2-345m": "GPT-2 345M", "gpt2-774m": "GPT-2 774M",
          "gpt2-1.5b": "GPT-2 1.5B"}
CARDS = (1, 2, 4, 8)
#: Those of the published systems, for the picture and the table: tokens/s of the fewest over those
#: of the most cards.
PUBLISHED = (
    ("DFX", "GPT-2 345M, [64:64], 1 to 4 U280, FP16", 4, 2.23, "Hong et al., MICRO 2022 (arXiv 2209.10797)"),
    ("LoopLynx", "GPT-2 345M, a decode step, 1 to 4 nodes on U50, W8A8", 4, 2.58, "arXiv 2504.09561"))

#: New tokens/s of 64 tokens in and 64 out, prompt included: DFX, FP16, by model and cards.
DFX = {("gpt2-345m", 1): 93.10, ("gpt2-345m", 2): 146.25, ("gpt2-345m", 4): 207.56,
       ("gpt2-1.5b", 4): 72.68}

Figures = dict[str, Any]
#: Model, cards, and whether it is a prompt and a text instead of one step.
Point = tuple[str, int, bool]

PAGE = """\
# Scaling

<!-- Written by sw/tools/scaling.py (make scaling). -->

Whole decode steps of GPT-2 on rings of `u280` cards by the [estimator](estimator.md). `tests/cosim/test_estimate.py` holds it within 3 % of Verilated rings of 2, 4 and 8 `tiny` cards and of single `u280` cards; of a ring
of four `u280` cards it was 1.6 % off ([rings](rings.md#how-fast-it-is)); eight of them were never simulated.
2:4, 8-bit weights, 16-bit activations, K and V of 8 bits, 128 positions in memory, 200 MHz, links of 0.54 µs and 12.1 GB/s. Nothing here was simulated whole; what was,
is in [rings](rings.md). Commit {commit}.

![tokens per second over cards, and over those of one card](scaling.png)

{steps}

The gain is over one card; `split` is the layout that was [chosen](rings.md#what-may-be-whole). What a step must wait for the links grows with the cards, while what a card reads shrinks: from some
number of cards on, more of them are slower.

## Published systems

{published}

64 tokens in, 64 out, new tokens over the time of all ([64:64]), next to DFX (FP16, dense; 1.5B with width 1,536, as here):

{texts}

Sparse weights of 8 bits leave a fast card little to share: of 345M, four of these cards gain no more than four slower ones do, at twelve times their tokens/s.

## Every run

```
{commands}
```
"""


def command(shape: str, cards: int, text: bool) -> list[str]:
    """The arguments of ``heddle`` for one point.

    >>> command("gpt2-124m", 2, False)[:3]
    ['estimate', '--cards', 'u280*2']
    """
    work = ["--prompt", "64", "--new", "64"] if text else ["--context", "128"]
    return ["estimate", "--cards", f"u280*{cards}" if cards > 1 else "u280", "--shape", shape,
            "--pattern", "2:4", "--cache", "int8", *work]


def kept(point: Point, folder: pathlib.Path) -> pathlib.Path:
    """Where the figures of a point are."""
    shape, cards, text = point
    return folder / f"{shape}-{cards}{'-text' * text}.json"


def estimate(point: Point, folder: pathlib.Path) -> Figures:
    """The figures of one point, also left in ``folder``.

    Raises
    ------
    RunError
        The estimator failed; what it said.
    """
    path = kept(point, folder)
    done = subprocess.run(
        [sys.executable, "-m", "heddle", *command(*point), "--json", str(path)],
        capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"heddle {' '.join(command(*point))} ended with status "
                       f"{done.returncode}: {done.stderr.strip()}")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def page(found: Mapping[Point, Figures], version: str) -> str:
    """The text of docs/scaling.md."""
    lines = ["| model | cards | split | cycles a step | tokens/s | gain | useful |",
             "| --- | ---: | --- | ---: | ---: | ---: | ---: |"]
    for shape, name in SHAPES.items():
        one = found[shape, 1, False]["cycles_total"]
        for cards in CARDS:
            each = found[shape, cards, False]
            split = f"`{each['split']}`" if cards > 1 else ""
            lines.append(
                f"| {name} | {cards} | {split} | "
                f"{each['cycles_total']:,} | "
                f"{each['tokens_per_second_card']:,.0f} | {one / each['cycles_total']:.2f} | "
                f"{100 * each['hbm_useful_utilisation']:.1f} % |")
    ours = found["gpt2-1.5b", 1, False]["cycles_total"] \
        / found["gpt2-1.5b", 4, False]["cycles_total"]
    rows = [f"| **Heddle** | GPT-2 1.5B, a decode step, 1 to 4 U280, 2:4, W8A16, estimated | "
            f"**{ours:.2f}** | above |"]
    for text, what in ((False, "a decode step"), (True, "[64:64]")):
        fewest, most = (found["gpt2-345m", cards, text]["cycles_total"] for cards in (1, 4))
        rows.append(f"| **Heddle** | GPT-2 345M, {what}, the same | **{fewest / most:.2f}** | "
                    "here |")
    rows += [f"| {name} | {what} | {gain:.2f} | {source} |"
             for name, what, _, gain, source in PUBLISHED]
    texts = ["| model | cards | Heddle, estimated | DFX | times |",
             "| --- | ---: | ---: | ---: | ---: |"]
    for (shape, cards), theirs in DFX.items():
        rate = found[shape, cards, True]["output_tokens_per_second"]
        texts.append(f"| {SHAPES[shape]} | {cards} | **{rate:,.0f}** | {theirs} | "
                     f"{rate / theirs:.1f} |")
    return PAGE.format(
        texts="\n".join(texts),
        commit=version, steps="\n".join(lines),
        published="\n".join(["| system | what | gain of 4 | source |", "| --- | --- | ---: | --- |",
                             *rows]),
        commands="\n".join("heddle " + " ".join(
            f"'{word}'" if "*" in word else word for word in command(*point)) for point in found))


def draw(found: Mapping[Point, Figures], path: pathlib.Path) -> None:
    """The picture: tokens/s, and the gain over one card."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (rate, gain) = plt.subplots(1, 2, figsize=(10, 4), dpi=110)
    for shape, name in SHAPES.items():
        rates = [found[shape, cards, False]["tokens_per_second_card"] for cards in CARDS]
        rate.plot(CARDS, rates, marker="o", label=name)
        gain.plot(CARDS, [value / rates[0] for value in rates], marker="o", label=name)
    gain.plot(CARDS, CARDS, color="grey", linestyle=":", label="ideal")
    for name, _, cards, value, _ in PUBLISHED:
        gain.plot([cards], [value], marker="x", linestyle="none", color="black")
        gain.annotate(name, (cards, value), textcoords="offset points", xytext=(6, -4))
    for axes, title in ((rate, "tokens/s, one sequence"), (gain, "gain over one card")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(CARDS, [str(cards) for cards in CARDS])
        axes.set_xlabel("cards")
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    gain.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", action="store_true", help="the page of what build/scaling holds")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default: 2)")
    options = parser.parse_args()
    folder = ROOT / "build/scaling"
    folder.mkdir(parents=True, exist_ok=True)
    points = [(shape, cards, False) for shape in SHAPES for cards in CARDS]
    points += [(*point, True) for point in DFX]
    found: dict[Point, Figures] = {}
    try:
        if options.kept:
            for point in points:
                path = kept(point, folder)
                if not path.exists():
                    raise RunError(f"{path} is missing: run without --kept first")
                found[point] = json.loads(path.read_text(encoding="utf-8"))
        else:
            with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
                results = [pool.submit(estimate, point, folder) for point in points]
                for point, result in zip(points, results, strict=True):
                    found[point] = result.result()
                    print(f"heddle {' '.join(command(*point))}: "
                          f"{found[point]['cycles_total']:,} cycles", flush=True)
    except RunError as error:
        print(f"scaling: {error}", file=sys.stderr)
        return 1
    version = next(iter(found.values())).get("commit") or commit()
    (ROOT / "docs/scaling.md").write_text(page(found, str(version)), encoding="utf-8")
    draw(found, ROOT / "docs/scaling.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
