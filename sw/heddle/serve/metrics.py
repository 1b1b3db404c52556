# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told of a server."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..request import Finish, Sequence
from .engine import Engine

#: Seconds, from an FPGA's token to a simulation's.
SECONDS = (.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 120, 300, float("inf"))


class _State(Collector):
    """What is read when it is asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        engine, scheduler = self._engine, self._engine.scheduler
        yield GaugeMetricFamily("heddle_slots", "Requests that can run at a time.",
                                len(scheduler.slots))
        running = len(scheduler.running)
        yield GaugeMetricFamily("heddle_requests_running", "Requests that have a slot.", running)
        yield GaugeMetricFamily("heddle_requests_waiting", "Requests that wait for a slot.",
                                max(0, engine.count - running))
        yield GaugeMetricFamily("heddle_queue_limit", "Requests that may be there at a time.",
                                engine.most)
        yield CounterMetricFamily("heddle_busy_seconds", "Time in which the cards had work.",
                                  engine.busy)
        tokens = CounterMetricFamily("heddle_tokens", "Tokens read (prompts and texts) and made.",
                                     labels=["kind"])
        tokens.add_metric(["read"], scheduler.read)
        tokens.add_metric(["made"], scheduler.made)
        yield tokens
        yield CounterMetricFamily("heddle_steps", "Steps of sequences on the cards.",
                                  engine.model.runtime.totals.steps)
        yield from self._cards()

    def _cards(self) -> Iterable[Metric]:
        runtime = self._engine.model.runtime
        names = {"cycles": "Cycles of all commands.", "read_beats": "Beats read from memory.",
                 "write_beats": "Beats written to memory.",
                 "engine_beats": "Beats that the matmul engine took."}
        for name, what in names.items():
            family = CounterMetricFamily(f"heddle_card_{name}", what, labels=["card"])
            for card, totals in enumerate(runtime.by_card):
                if name in totals:
                    family.add_metric([str(card)], totals[name])
            yield family
        channels = runtime.layout.config.channels
        use = GaugeMetricFamily(
            "heddle_card_hbm_read_utilisation",
            "Beats read over what all channels could deliver, in all commands.", labels=["card"])
        for card, totals in enumerate(runtime.by_card):
            if totals.get("cycles"):
                use.add_metric([str(card)],
                               totals["read_beats"] / (totals["cycles"] * channels))
        yield use


class Counted:
    """Counts the answers of an ASGI application that are errors."""

    def __init__(self, app: ASGIApp, *, metrics: "Metrics") -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                self._metrics.errors.labels(str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, noting)


class Metrics:
    """Counters and histograms of a server's requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("heddle_requests", "Ended requests, by how they ended.",
                                ["finish"], registry=self.registry)
        self.errors = Counter("heddle_errors", "Answers that are errors, by status.", ["status"],
                              registry=self.registry)
        self._wait, self._first, self._each, self._whole = (
            Histogram(f"heddle_{name}_seconds", what, buckets=SECONDS, registry=self.registry)
            for name, what in (
                ("queue", "From submission to a slot."),
                ("time_to_first_token", "From submission to the first new token."),
                ("time_per_token", "Between new tokens of a request, on average."),
                ("request", "From submission to the end.")))
        for finish in Finish:
            self.requests.labels(finish.value)

    def watch(self, engine: Engine) -> None:
        """Show an engine's state, too."""
        self.registry.register(_State(engine))

    def ended(self, sequence: Sequence, finish: Finish) -> None:
        """Note a request that has ended."""
        self.requests.labels(finish.value).inc()
        if sequence.started is not None:
            self._wait.observe(sequence.started - sequence.submitted)
        if sequence.ended is not None:
            self._whole.observe(sequence.ended - sequence.submitted)
        if sequence.first is not None:
            self._first.observe(sequence.first - sequence.submitted)
            if sequence.ended is not None and len(sequence.new) > 1:
                self._each.observe((sequence.ended - sequence.first) / (len(sequence.new) - 1))

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self.registry)
