# SPDX-License-Identifier: Apache-2.0
"""Opens cards for a workload, runs it on them, and says what it cost."""

import contextlib
import dataclasses
import pathlib
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rtl_gen.spec.config import CardConfig

from .bench import Meter, Workload, compare, fill_cache, store_hidden
from .card import Card, CardSpec, Timed, open_cards, parse_cards
from .errors import UserError
from .image import Images
from .layout import Layout
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
    """New tokens by sequence, and counters: of the prompt, and of everything."""

    tokens: list[list[int]]
    prefill: dict[str, int]
    counters: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """A workload on a random model on a card.

    Attributes
    ----------
    cards : str
        ``backend:config``.
    shape : Shape
    options : Options
        Its context is left out: memory is laid out for the model's.
    workload : Workload
    seed : int
        Of weights, K, V and tokens.
    card_options : dict
        For the backend; only cards that count cycles have any.
    """

    cards: str
    shape: Shape
    options: Options
    workload: Workload
    seed: int = 0
    card_options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def spec(self) -> CardSpec:
        """The cards, or :class:`UserError`."""
        try:
            spec = parse_cards(self.cards)
        except ValueError as error:
            raise UserError(str(error)) from None
        if spec.count > 1:
            raise UserError(f"a bench must run on one card, not {spec.count}")
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
        spec, layout = self.spec(), self._layout(self.spec().config)
        names = list(dict.fromkeys((self.cards, f"{REFERENCE}:{spec.config.name}")))
        options = [{}, {}] if spec.backend == REFERENCE else [{**self.card_options, "say": say}, {}]
        with contextlib.ExitStack() as stack:
            meters = []
            for name, how in zip(names, options, strict=False):
                meters.append(Meter(_open(name, how)))
                stack.callback(meters[-1].close)
            runtimes = [Runtime(meter, layout) for meter in meters]
            watch(runtimes[0])
            source = RandomSource(self.shape, self.seed, layout.pruning)
            for block in Images(layout, source).blocks(progress):
                for runtime in runtimes:
                    runtime.load([block])
            outcomes: list[_Outcome] = []
            passes = [*self.workload.prefill(layout), *self.workload.decode()]
            for meter, runtime in zip(meters, runtimes, strict=True):
                say(f"running on {names[len(outcomes)]}")
                rng = self._rng(0)
                for slot, positions in enumerate(self.workload.lengths):
                    fill_cache(meter, layout, positions, rng, slot)
                outcomes.append(self._carry_out(meter, runtime))
                store_hidden(meter.card, layout, max(part.tokens for part in passes))
            if len(meters) == 2:
                say("comparing")
                compare((meters[0], meters[1]), (names[0], names[1]), layout)
            return self._figures(layout, meters[0], outcomes[0], equal=len(meters) == 2 or None)

    def cost(self, card: Card) -> dict[str, Any]:
        """Figures for JSON of the workload on a card that computes nothing, but counts cycles: it
        is given no model.

        Raises
        ------
        UserError
            The model or the workload does not fit the card.
        """
        layout, meter = self._layout(card.config), Meter(card)
        return self._figures(layout, meter, self._carry_out(meter, Runtime(meter, layout)), None)

    def _layout(self, config: CardConfig) -> Layout:
        """Where everything lies on such a card, or :class:`UserError` if it does not fit."""
        layout = Layout(config, self.shape, self.options,
                        pattern_of(self.options.pattern or "dense"))
        if self.workload.positions > layout.context:
            raise UserError(f"context and new tokens must fit the context of {layout.context}, "
                            f"not need {self.workload.positions} positions")
        if self.workload.batch > layout.sequences:
            raise UserError(f"batch must be at most {layout.sequences} for this model and these "
                            f"options on {config.name}, not {self.workload.batch}")
        return layout

    def _carry_out(self, meter: Meter, runtime: Runtime) -> _Outcome:
        prefill: dict[str, int] = {}
        tokens = self.workload.run(runtime, self._rng(1), lambda: prefill.update(meter.counters))
        return _Outcome(tokens, prefill, meter.counters)

    def _rng(self, number: int) -> np.random.Generator:
        # Apart from the model's, which take three numbers.
        return np.random.default_rng([self.seed, number])

    def _figures(self, layout: Layout, meter: Meter, outcome: _Outcome,
                 equal: bool | None) -> dict[str, Any]:
        config, work, identity = layout.config, self.workload, meter.identity()
        timed = meter.card if isinstance(meter.card, Timed) else None
        clock = timed.clock_mhz if timed else float(config.clock_mhz)
        counters, prefill = outcome.counters, work.prefill(layout)
        # Columns of the prompt's passes and of decode steps, by what the engine did in each.
        one, beats = 1 + layout.options.digits, max(1, counters["engine_beats"])
        more = one * (prefill[0].tokens - 1) if prefill else 0
        columns = one * work.batch + more * outcome.prefill.get("engine_beats", 0) / beats
        figures = cycle_figures(config, counters, work.tokens, clock, columns)
        cycles = figures["cycles_total"]
        read = outcome.prefill["cycles"] if prefill and cycles else None
        return {
            "text": None,
            "token_ids": outcome.tokens if work.batch > 1 else outcome.tokens[0],
            "backend": self.cards.partition(":")[0], "config": config.name, "cards": 1,
            "shape": dataclasses.asdict(self.shape), "pattern": layout.pattern.name,
            "pruning": "{}:{}".format(*layout.pruning), "activation": self.options.activation,
            "cache": self.options.cache, "context": work.context, "prompt": work.prompt,
            "new": work.new, "batch": work.batch, "spread": work.spread, "full": work.full,
            "seed": self.seed, "clock_mhz": clock, **figures,
            "prefill_passes": len(prefill), "prefill_tokens_per_pass":
                prefill[0].tokens if prefill else None, "prefill_cycles": read,
            "output_tokens_per_second":
                work.new * clock * 1e6 / cycles if read and work.full else None,
            **_memory(layout, work, timed, cycles, clock),
            "equal_to_sim": equal,
            "simulation_seconds": meter.seconds,
            "simulated_cycles_per_second":
                counters["cycles"] / meter.seconds if counters["cycles"] else None,
            "contract_digest": f"{identity.contract:#010x}",
            "configuration_digest": f"{identity.configuration:#010x}", "commit": commit()}


def _memory(layout: Layout, work: Workload, timed: Timed | None, cycles: int | None,
            clock_mhz: float) -> dict[str, Any]:
    """Bytes that the workload needs, and which share of what memory could deliver they are."""
    passes, channels = work.needs(layout), layout.config.channels
    parts = {name: sum(getattr(part, name) for part in passes) / work.tokens
             for name in ("weights", "metadata", "cache", "constants")}
    useful = sum(part.useful for part in passes)
    found: dict[str, Any] = {"needed_bytes_per_token": parts,
                             "useful_bytes_per_token": useful / work.tokens}
    ratios = ("hbm_useful_utilisation", "hbm_nominal_utilisation")
    if timed is None or cycles is None:
        return {**found, **dict.fromkeys(ratios)}
    nanoseconds = cycles * 1000 / clock_mhz
    rates = timed.channel_gbps, timed.nominal_gbps
    return {**found, **{name: useful / (nanoseconds * channels * rate)
                        for name, rate in zip(ratios, rates, strict=True)}}


def _open(name: str, options: dict[str, Any]) -> Card:
    try:
        return open_cards(name, **options)[0]
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
