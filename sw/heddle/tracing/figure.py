# SPDX-License-Identifier: Apache-2.0
"""Two pictures of a run: a roofline with published systems, and where the cycles of a layer go."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from .account import Account
from .labels import MATRICES

_PUBLISHED = pathlib.Path(__file__).with_name("published.json")
#: Colours of what moves, from one family; of what is lost, from another.
_USEFUL = ("#08306b", "#2171b5", "#4292c6", "#6baed6", "#9ecae1", "#c6dbef", "#3f007d", "#807dba")
_LOST = ("#7f2704", "#d94801", "#fd8d3c", "#fdbe85", "#a63603", "#e6550d")
#: Parts of a bar below this share are drawn as one.
_LEAST = 0.004


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

    figure = Figure(figsize=(14, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.55, 1))
    _roofline(left, point)
    _bar(right, layer)
    figure.suptitle(title, fontsize=13)
    # Neither time nor version: equal runs give equal files.
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _roofline(axes: Any, point: Point) -> None:
    systems = published()
    sizes = [1e6 * one["weight_megabytes"] for one in systems] + [point.bytes_per_token]
    rates = [one["tokens_per_second"] for one in systems] + [point.tokens_per_second]
    x = np.geomspace(min(sizes) / 2, 2 * max(sizes), 200)
    lines: list[tuple[Any, str, str, str | None]] = [(1e9 * point.nominal_gbps / x, "#08306b", "--",
              f"this card's memory, nominal {point.nominal_gbps:.0f} GB/s"),
             (np.minimum(1e9 * point.bandwidth_gbps / x, point.compute_tokens_per_second),
              "#08306b", "-",
              f"this card, attainable: {point.bandwidth_gbps:.4g} GB/s, "
              f"{point.compute_tokens_per_second:,.0f} tokens/s of multipliers")]
    lines += [(1e9 * share * 460 / x, "#999999", ":", None) for share in (1, 0.5, 0.25, 0.1)]
    for y, colour, style, label in lines:
        axes.plot(x, y, style, color=colour, label=label, linewidth=1.4 if label else 0.9)
    for share in (1, 0.5, 0.25, 0.1):
        axes.annotate(f"{100 * share:.0f} % of 460 GB/s", (x[12], 4.6e11 * share / x[12]),
                      fontsize=7, color="#777777", rotation=-32, rotation_mode="anchor",
                      va="bottom")
    markers = {"board": ("o", "measured on a board"), "simulation": ("^", "simulated"),
               "estimate": ("s", "estimated")}
    seen = set()
    for one in systems:
        marker, label = markers[one["measured"]]
        axes.plot(1e6 * one["weight_megabytes"], one["tokens_per_second"], marker, color="#555555",
                  markersize=6, linestyle="", label=None if label in seen else label)
        seen.add(label)
    axes.plot(point.bytes_per_token, point.tokens_per_second, "*", color="#d94801", markersize=17,
              linestyle="", label=point.name, zorder=5)
    _names(axes, [(f"{one['system']} {one['format']}\n{one['model']}, {one['device']}",
                   1e6 * one["weight_megabytes"], one["tokens_per_second"]) for one in systems])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(min(rates) / 2.5, 4 * max(*rates, 1e9 * point.bandwidth_gbps / max(sizes)))
    axes.set_xlabel("bytes read from memory for a token (published systems: weights alone)")
    axes.set_ylabel("tokens/s, one sequence")
    axes.set_title("Attainable and reached", fontsize=11)
    axes.grid(visible=True, which="major", color="#eeeeee")
    axes.legend(fontsize=8, loc="upper right")


def _names(axes: Any, labels: list[tuple[str, float, float]]) -> None:
    """Text beside points: of points that lie close, the upper one's goes up."""
    for text, x, y in labels:
        above = sum(abs(np.log(x / ox)) < 0.25 and 0 < np.log(y / oy) < 0.35
                    for _, ox, oy in labels)
        below = sum(abs(np.log(x / ox)) < 0.25 and -0.35 < np.log(y / oy) <= 0
                    for _, ox, oy in labels) - 1
        place = (6, 9) if above else (6, -17) if below else (8, -6)
        axes.annotate(text, (x, y), textcoords="offset points", xytext=place, fontsize=7,
                      color="#333333")


def _bar(axes: Any, layer: Account) -> None:
    moved = _ordered(layer.moved)
    lost: dict[str, float] = {}
    for wait, cycles in layer.lost.items():
        lost[wait.cause] = lost.get(wait.cause, 0) + cycles
    waited: dict[str, float] = {}
    for wait, cycles in layer.waited.items():
        waited[f"waits: {wait.cause}"] = waited.get(f"waits: {wait.cause}", 0) + cycles
    rest = {f"lost: {cause}": cycles for cause, cycles in lost.items()}
    _stack(axes, 0, layer, moved, rest)
    _stack(axes, 1, layer, _ordered(layer.fired), waited)
    axes.set_xticks([0.42, 1.42], ["memory\n(all channels)", "engine"])
    axes.set_xlim(-0.35, 2.75)
    axes.set_ylim(0, layer.cycles * 1.01)
    axes.set_ylabel("cycles")
    axes.set_title(f"One layer: {layer.cycles:,.0f} cycles"
                   + (f" (mean of {layer.layers})" if layer.layers > 1 else ""), fontsize=11)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _ordered(found: Mapping[str, float]) -> dict[str, float]:
    """Matrices in a layer's order, then the rest."""
    return {name: found[name] for name in (*MATRICES, *found) if name in found}


def _stack(axes: Any, place: float, layer: Account, useful: Mapping[str, float],
           lost: Mapping[str, float]) -> None:
    """One bar with its parts named beside it; parts too thin to be seen are put together."""
    bottom, free = 0.0, 0.0
    for found, colours, rest in ((useful, _USEFUL, "others"), (lost, _LOST, "lost: others")):
        seen = {name: cycles for name, cycles in found.items()
                if cycles >= _LEAST * layer.cycles}
        if thin := sum(found.values()) - sum(seen.values()):
            seen[rest] = thin
        for number, (name, cycles) in enumerate(seen.items()):
            axes.bar(place, cycles, 0.32, bottom, color=colours[number % len(colours)],
                     edgecolor="white", linewidth=0.5)
            # Names keep their distance where parts are thin.
            height = max(bottom + cycles / 2, free)
            axes.annotate(f"{name} {100 * cycles / layer.cycles:.1f} %",
                          (place + 0.16, bottom + cycles / 2), (place + 0.21, height),
                          fontsize=8, va="center",
                          arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6})
            free = height + 0.027 * layer.cycles
            bottom += cycles
