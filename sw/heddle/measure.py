# SPDX-License-Identifier: Apache-2.0
"""Opens cards for a workload, runs it on them, and says what it cost."""

import contextlib
import dataclasses
import pathlib
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rtl_gen.spec.config import CardConfig

from .bench import Meter, Workload, compare, fill_cache, store_hidden
from .card import Card, CardSpec, Timed, open_cards, parse_cards
from .choose import Machine, split_name
from .errors import UserError
from .image import Images, Once
from .layout import Layout, layouts
from .options import Options
from .prune import pattern_of
from .report import cycle_figures
from .runtime import Runtime
from .shape import Shape
from .shapes import RandomSource

#: The card that results are held against.
REFERENCE = "sim"


def _nothing(*_: object) -> None:
    pass


class _Outcome(NamedTuple):
    """New tokens by sequence, and counters by card: of the prompt, and of everything."""

    tokens: list[list[int]]
    prefill: list[dict[str, int]]
    counters: list[dict[str, int]]

    @property
    def slowest(self) -> int:
        """The card that took the most cycles: the others waited for it."""
        return max(range(len(self.counters)),
                   key=lambda card: self.counters[card].get("cycles", 0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """A workload on a random model on a card, or on the cards of a ring.

    Attributes
    ----------
    cards : str
        ``backend:config*count``.
    shape : Shape
    options : Options
        Its context is left out: memory is laid out for the model's.
    workload : Workload
    seed : int
        Of weights, K, V and tokens.
    card_options : dict
        For the backend; only cards that count cycles have any.
    machine : Machine, optional
        Rates that the choice of a ring's layout depends on.
    """

    cards: str
    shape: Shape
    options: Options
    workload: Workload
    seed: int = 0
    card_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    machine: Machine | None = None

    def spec(self) -> CardSpec:
        """The cards, or :class:`UserError`."""
        try:
            spec = parse_cards(self.cards)
        except ValueError as error:
            raise UserError(str(error)) from None
        if spec.backend == REFERENCE and self.card_options:
            raise UserError(f"{', '.join(self.card_options)} must be left out on {REFERENCE}, "
                            "which counts no cycles")
        return spec

    def run(self, progress: Callable[[int, int], None] = _nothing,
            say: Callable[[str], None] = _nothing,
            watch: Callable[[Runtime], None] = _nothing) -> dict[str, Any]:
        """Run it on the card and on the functional one, compare, and return figures for JSON.

        Parameters
        ----------
        progress : callable
            Called with (parts loaded, parts).
        say : callable
            Is told in a few words what takes long.
        watch : callable
            Is given the runtime of the card that is measured, before it does anything.

        Raises
        ------
        UserError
            The model or the workload does not fit the card.
        RunError
            The cards differ.
        heddle.card.CardError
            A card failed.
        """
        spec, placed = self.spec(), self.layouts(self.spec().config)
        layout = placed[0]
        reference = f"{REFERENCE}:{spec.config.name}" + f"*{spec.count}" * (spec.count > 1)
        names = list(dict.fromkeys((self.cards, reference)))
        options = [{}, {}] if spec.backend == REFERENCE else [{**self.card_options, "say": say}, {}]
        with contextlib.ExitStack() as stack:
            runtimes: list[Runtime] = []
            meters = []
            for name, how in zip(names, options, strict=False):
                meters.append([Meter(card) for card in _open(name, how)])
                runtimes.append(Runtime(meters[-1], placed))
                stack.callback(runtimes[-1].close)
            watch(runtimes[0])
            self._load(runtimes, progress)
            outcomes: list[_Outcome] = []
            passes = [*self.workload.prefill(layout), *self.workload.decode()]
            for number, runtime in enumerate(runtimes):
                say(f"running on {names[number]}")
                rng = self._rng(0)
                for meter, part in zip(meters[number], placed, strict=True):
                    for slot, positions in enumerate(self.workload.lengths):
                        fill_cache(meter, part, positions, rng, slot)
                outcomes.append(self._carry_out(meters[number], runtime))
                store_hidden(runtime, max(part.tokens for part in passes))
            if len(runtimes) == 2:
                say("comparing")
                for part, ours, theirs in zip(placed, *meters, strict=True):
                    compare((ours, theirs), (names[0], names[1]), part)
            return self._figures(placed, meters[0], outcomes[0], equal=len(meters) == 2 or None)

    def _load(self, runtimes: list[Runtime], progress: Callable[[int, int], None]) -> None:
        """Write the model, laid out once, to all cards."""
        source = RandomSource(self.shape, self.seed, runtimes[0].layout.pruning)
        once = Once(source) if len(runtimes[0].cards) > 1 else source
        images = [Images(layout, once) for layout in runtimes[0].layouts]
        for runtime in runtimes:
            runtime.reserve()
        for number in range(images[0].stages):
            for card, image in enumerate(images):
                for block in image.stage(number):
                    for runtime in runtimes:
                        runtime.load([block], card)
            progress(number + 1, images[0].stages)

    def cost(self, cards: Sequence[Card]) -> dict[str, Any]:
        """Figures for JSON of the workload on cards that compute nothing, but count cycles: they
        are given no model.

        Raises
        ------
        UserError
            The model or the workload does not fit the card.
        """
        placed, meters = self.layouts(cards[0].config), [Meter(card) for card in cards]
        return self._figures(placed, meters, self._carry_out(meters, Runtime(meters, placed)), None)

    def layouts(self, config: CardConfig) -> list[Layout]:
        """Where everything lies on such cards, or :class:`UserError` if it does not fit."""
        machine = self.machine or Machine(clock_mhz=self.card_options.get("clock_mhz"))
        placed = layouts(config, self.shape, self.options,
                         pattern_of(self.options.pattern or "dense"), machine)
        layout = placed[0]
        if self.workload.positions > layout.context:
            raise UserError(f"context and new tokens must fit the context of {layout.context}, "
                            f"not need {self.workload.positions} positions")
        if self.workload.batch > layout.sequences:
            raise UserError(f"batch must be at most {layout.sequences} for this model and these "
                            f"options on {config.name}, not {self.workload.batch}")
        return placed

    def _carry_out(self, meters: Sequence[Meter], runtime: Runtime) -> _Outcome:
        def counters() -> list[dict[str, int]]:
            return [dict(meter.counters) for meter in meters]

        prefill = counters()
        tokens = self.workload.run(runtime, self._rng(1), lambda: prefill.__setitem__(
            slice(None), counters()))
        return _Outcome(tokens, prefill, counters())

    def _rng(self, number: int) -> np.random.Generator:
        # Apart from the model's, which take three numbers.
        return np.random.default_rng([self.seed, number])

    def _figures(self, placed: Sequence[Layout], meters: Sequence[Meter], outcome: _Outcome,
                 equal: bool | None) -> dict[str, Any]:
        slowest = outcome.slowest
        layout, meter = placed[slowest], meters[slowest]
        config, work, identity = layout.config, self.workload, meter.identity()
        timed = meter.card if isinstance(meter.card, Timed) else None
        clock = timed.clock_mhz if timed else float(config.clock_mhz)
        counters, prefill = outcome.counters[slowest], work.prefill(layout)
        read_of = outcome.prefill[slowest]
        # Columns of the prompt's passes and of decode steps, by what the engine did in each.
        one, beats = 1 + layout.options.digits, max(1, counters["engine_beats"])
        more = one * (prefill[0].tokens - 1) if prefill else 0
        columns = one * work.batch + more * read_of.get("engine_beats", 0) / beats
        figures = cycle_figures(config, counters, work.tokens, clock, columns)
        cycles = figures["cycles_total"]
        read = read_of["cycles"] if prefill and cycles else None
        return {
            "text": None,
            "token_ids": outcome.tokens if work.batch > 1 else outcome.tokens[0],
            "backend": self.cards.partition(":")[0], "config": config.name, "cards": len(placed),
            "shape": dataclasses.asdict(self.shape), "pattern": layout.pattern.name,
            "pruning": "{}:{}".format(*layout.pruning), "activation": self.options.activation,
            "cache": self.options.cache,
            "split": split_name(layout.parts.whole) if len(placed) > 1 else None,
            "context": work.context, "prompt": work.prompt,
            "new": work.new, "batch": work.batch, "spread": work.spread, "full": work.full,
            "seed": self.seed, "clock_mhz": clock, **figures,
            "prefill_passes": len(prefill), "prefill_tokens_per_pass":
                prefill[0].tokens if prefill else None, "prefill_cycles": read,
            "output_tokens_per_second":
                work.new * clock * 1e6 / cycles if read and work.full else None,
            **_memory(placed, work, timed, cycles, clock),
            "link": _link(outcome.counters, cycles) if len(placed) > 1 else None,
            "equal_to_sim": equal,
            "simulation_seconds": meter.seconds,
            "simulated_cycles_per_second":
                counters["cycles"] / meter.seconds if counters["cycles"] else None,
            "contract_digest": f"{identity.contract:#010x}",
            "configuration_digest": f"{identity.configuration:#010x}", "commit": commit()}


def _link(counters: Sequence[dict[str, int]], cycles: int | None) -> dict[str, Any]:
    """What the ring cost, by card: cycles in which the engine, or memory, waited for a link."""
    stalls, idle = ([each.get(name, 0) for each in counters]
                    for name in ("stall_link", "idle_link"))
    return {"stall_cycles": stalls, "idle_cycles": idle,
            "idle_share": max(idle) / cycles if cycles else None}


def _memory(placed: Sequence[Layout], work: Workload, timed: Timed | None, cycles: int | None,
            clock_mhz: float) -> dict[str, Any]:
    """Bytes that the workload needs on all cards, and which share of what memory could deliver they
    are on the card where it is least."""
    channels = placed[0].config.channels
    needs = [work.needs(layout) for layout in placed]
    parts = {name: sum(getattr(part, name) for passes in needs for part in passes) / work.tokens
             for name in ("weights", "metadata", "cache", "constants")}
    by_card = [sum(part.useful for part in passes) for passes in needs]
    found: dict[str, Any] = {"needed_bytes_per_token": parts,
                             "useful_bytes_per_token": sum(by_card) / work.tokens}
    useful = min(by_card)
    ratios = ("hbm_useful_utilisation", "hbm_nominal_utilisation")
    if timed is None or cycles is None:
        return {**found, **dict.fromkeys(ratios)}
    nanoseconds = cycles * 1000 / clock_mhz
    rates = timed.channel_gbps, timed.nominal_gbps
    return {**found, **{name: useful / (nanoseconds * channels * rate)
                        for name, rate in zip(ratios, rates, strict=True)}}


def _open(name: str, options: dict[str, Any]) -> Sequence[Card]:
    try:
        return open_cards(name, **options)
    except ValueError as error:
        raise UserError(str(error)) from None


def commit() -> str | None:
    """The commit that this code was checked out from, ``+`` behind it if it was changed since; None
    if it was not checked out."""
    def git(*arguments: str) -> str | None:
        with contextlib.suppress(OSError):
            done = subprocess.run(["git", "-C", str(pathlib.Path(__file__).parent), *arguments],
                                  capture_output=True, text=True, check=False)
            return done.stdout.strip() if done.returncode == 0 else None
        return None

    head = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return head and head + "+" * bool(changed)
