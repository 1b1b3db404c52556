# SPDX-License-Identifier: Apache-2.0
"""Two pictures of a run: a roofline with published systems, and where the cycles of a layer go."""

import dataclasses
import itertools
import json
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .account import Account
from .labels import MATRICES

#: Bytes per second of the board that most published systems use.
_BOARD = 460e9
_PUBLISHED = pathlib.Path(__file__).with_name("published.json")
#: Colours: of matrices, in their order; of all else that memory moves; of what is lost.
_MATRIX = dict(zip(MATRICES, ("#08306b", "#2171b5", "#4292c6", "#6baed6", "#238b45", "#74c476",
                              "#54278f"), strict=True))
_OTHER = ("#807dba", "#9e9ac8", "#bcbddc", "#dadaeb")
_LOST = ("#d94801", "#fd8d3c", "#a63603", "#fdbe85", "#7f2704")
#: A wait for weights is no loss where memory is the limit.
_MEMORY_BOUND = "#d9d9d9"
#: Parts of a bar below this share are drawn as one.
_LEAST = 0.004
#: How close two points, and two names, may be: logarithms, and shares of a bar.
_NEAR, _APART = 0.12, 0.028
#: Place of the second bar, with room for the names of the first.
_RIGHT = 1.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """This card on the roofline.

    Attributes
    ----------
    name : str
    tokens_per_second : float
    bytes_per_token : float
        Read from memory, of all channels.
    bandwidth_gbps : float
        What memory can deliver, all channels together.
    nominal_gbps : float
        What it delivers by its data sheet.
    compute_tokens_per_second : float
        What the engine reaches with all of its columns at work in every cycle.
    """

    name: str
    tokens_per_second: float
    bytes_per_token: float
    bandwidth_gbps: float
    nominal_gbps: float
    compute_tokens_per_second: float


def published() -> list[dict[str, Any]]:
    """Published systems with their figures and where these are from."""
    found: list[dict[str, Any]] = json.loads(_PUBLISHED.read_text(encoding="utf-8"))
    return found


def draw(path: pathlib.Path, point: Point, layer: Account, title: str) -> None:
    """Write the picture as PNG.

    Parameters
    ----------
    path : pathlib.Path
    point : Point
    layer : Account
        Of whole layers.
    title : str
    """
    # Slow to import, and of use here only.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    _roofline(left, point)
    _bars(right, layer)
    figure.suptitle(title, fontsize=13)
    # Neither time nor version: equal runs give equal files.
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _roofline(axes: Any, point: Point) -> None:
    systems = published()
    sizes = [1e6 * one["weight_megabytes"] for one in systems] + [point.bytes_per_token]
    rates = [one["tokens_per_second"] for one in systems] + [point.tokens_per_second]
    x = np.geomspace(min(sizes) / 4, 2.5 * max(sizes), 200)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(min(rates) / 4, 12 * max(*rates, 1e9 * point.bandwidth_gbps / max(sizes)))
    for share in (1, 0.5, 0.25, 0.1):
        axes.plot(x, share * _BOARD / x, ":", color="#999999", linewidth=0.9,
                  label=f"{_BOARD / 1e9:.0f} GB/s of a U280: all, a half, a quarter, a tenth"
                  if share == 1 else None)
    axes.plot(x, 1e9 * point.nominal_gbps / x, "--", color="#08306b", linewidth=1.2,
              label=f"this card's memory on paper: {point.nominal_gbps:.4g} GB/s")
    axes.plot(x, np.minimum(1e9 * point.bandwidth_gbps / x, point.compute_tokens_per_second), "-",
              color="#08306b", linewidth=1.6,
              label=f"attainable: {point.bandwidth_gbps:.4g} GB/s, multipliers for "
                    f"{point.compute_tokens_per_second:,.0f} tokens/s")
    axes.plot(point.bytes_per_token, point.tokens_per_second, "*", color="#d94801", markersize=18,
              linestyle="", label=point.name, zorder=5)
    for kind, marker in (("board", "o"), ("simulation", "^"), ("estimate", "s")):
        mine = [one for one in systems if one["measured"] == kind]
        label = {"board": "measured on a board", "simulation": "simulated",
                 "estimate": "estimated"}[kind]
        axes.plot([1e6 * one["weight_megabytes"] for one in mine],
                  [one["tokens_per_second"] for one in mine], marker, color="#444444",
                  markersize=6, linestyle="", label=f"published, {label}")
    _number(axes, systems)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("bytes read from memory for a token (published systems: weights alone)")
    axes.set_ylabel("tokens/s of one sequence")
    axes.set_title("Attainable and reached", fontsize=11)
    axes.grid(visible=True, which="major", color="#eeeeee")
    axes.legend(fontsize=8, loc="upper right", framealpha=0.95)


def _number(axes: Any, systems: list[dict[str, Any]]) -> None:
    """Numbers beside the points, one number where several lie on each other; their names below."""
    places: list[tuple[float, float, str]] = []
    for number, one in enumerate(systems, 1):
        x, y = np.log(1e6 * one["weight_megabytes"]), np.log(one["tokens_per_second"])
        near = next((k for k, (px, py, _) in enumerate(places)
                     if abs(x - px) < _NEAR and abs(y - py) < _NEAR), None)
        if near is None:
            places.append((x, y, str(number)))
        else:
            px, py, text = places[near]
            places[near] = px, py, f"{text}, {number}"
    for x, y, text in places:
        axes.annotate(text, (np.exp(x), np.exp(y)), textcoords="offset points", xytext=(7, 5),
                      fontsize=8.5, weight="bold", color="#222222")
    names = [f"{number}  {one['system']}, {one['device']}: {one['model']}, {one['format']}, "
             f"{one['tokens_per_second']:g}/s" for number, one in enumerate(systems, 1)]
    axes.text(0.015, 0.02, "\n".join(names), transform=axes.transAxes, fontsize=7.5, va="bottom",
              color="#222222", bbox={"facecolor": "white", "edgecolor": "#cccccc", "alpha": 0.9})


def _bars(axes: Any, layer: Account) -> None:
    lost: Counter[str] = Counter()
    for wait, cycles in layer.lost.items():
        lost[f"no beat: {wait.cause}"] += cycles   # type: ignore[assignment]
    waited: Counter[str] = Counter()
    for wait, cycles in layer.waited.items():
        waited[f"waits: {wait.cause}"] += cycles    # type: ignore[assignment]
    for place, useful, rest in ((0.0, layer.moved, lost), (_RIGHT, layer.fired, waited)):
        parts = _parts(useful, layer.cycles, "others moved", _OTHER)
        _stack(axes, place, layer, parts + _parts(rest, layer.cycles, "others lost", _LOST))
    axes.set_xticks([0, _RIGHT],
                    ["memory moves beats of\n(mean of all channels)", "engine works on"])
    axes.set_xlim(-0.3, _RIGHT + 0.85)
    axes.set_ylim(0, layer.cycles * 1.02)
    axes.set_ylabel("cycles")
    axes.set_title(f"One layer: {layer.cycles:,.0f} cycles"
                   + (f", mean of {layer.layers}" if layer.layers > 1 else ""), fontsize=11)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _parts(found: Mapping[str, float], whole: float, rest: str,
           colours: Sequence[str]) -> list[tuple[str, float, str]]:
    """(name, cycles, colour): matrices in a layer's order, then the others; what is too thin to be
    seen is put together."""
    ordered = {name: found[name] for name in (*MATRICES, *found) if name in found}
    seen = {name: cycles for name, cycles in ordered.items() if cycles >= _LEAST * whole}
    if thin := sum(found.values()) - sum(seen.values()):
        seen[rest] = thin
    others = itertools.cycle(colours)
    return [(name, cycles, _MATRIX.get(name)
             or (_MEMORY_BOUND if name == "waits: weights" else next(others)))
            for name, cycles in seen.items()]


def _stack(axes: Any, place: float, layer: Account, parts: list[tuple[str, float, str]]) -> None:
    """One bar with its parts named beside it."""
    ends = list(itertools.accumulate(cycles for _, cycles, _ in parts))
    middles = [end - cycles / 2 for end, (_, cycles, _) in zip(ends, parts, strict=True)]
    heights = spread(middles, _APART * layer.cycles, layer.cycles)
    for (name, cycles, colour), end, middle, height in zip(parts, ends, middles, heights,
                                                           strict=True):
        axes.bar(place, cycles, 0.34, end - cycles, color=colour, edgecolor="white", linewidth=0.4)
        axes.annotate(f"{name} {100 * cycles / layer.cycles:.1f} %", (place + 0.17, middle),
                      (place + 0.23, height), fontsize=8, va="center",
                      arrowprops={"arrowstyle": "-", "color": "#aaaaaa", "linewidth": 0.6,
                                  "shrinkA": 0, "shrinkB": 0})


def spread(wanted: Sequence[float], apart: float, most: float) -> list[float]:
    """Ascending places near the wanted ones, so far apart, none above ``most``.

    >>> spread([1, 1.5, 9.8, 9.9], 1, 10)
    [1, 2, 9, 10]
    """
    found: list[float] = []
    for place in wanted:
        found.append(max(place, found[-1] + apart) if found else place)
    limit = most
    for number in reversed(range(len(found))):
        found[number] = min(found[number], limit)
        limit = found[number] - apart
    return found
