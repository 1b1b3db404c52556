# SPDX-License-Identifier: Apache-2.0
"""Programs of the engine's bench, run on the engine between queues."""

import numpy as np

from cardsim.benches import engine_program
from cardsim.benches.engine_program import shuffle
from rtl_gen.common import layouts
from rtl_gen.spec.config import CardConfig
from tests.rtl import engine_bench
from tests.rtl.verilated import Model, Run

__all__ = ["Program", "bits", "shuffle"]


def bits(layout, values: dict) -> int:
    """A payload; members are integers, byte vectors or dictionaries."""
    word = 0
    for name, field in layout:
        value = values.get(name, 0)
        if isinstance(value, dict):
            value = bits(field.shape, value)
        elif isinstance(value, np.ndarray):
            value = int.from_bytes(value.astype(np.int8).tobytes(), "little")
        elif isinstance(value, (list, tuple)):
            width = field.width // len(value)
            value = sum(v << k * width for k, v in enumerate(value))
        word |= (int(value) & (1 << field.width) - 1) << field.offset
    return word


class Program(engine_program.Program):
    """A program for :class:`EngineBench`.

    Parameters
    ----------
    config, seed, garbage :
        As of the base class.
    singles : float
        How often a channel delivers one entry in a cycle, not two.
    """

    def __init__(self, config: CardConfig, seed: str, *, garbage: bool = True,
                 singles: float = 0.1):
        super().__init__(config, seed, garbage=garbage)
        self.singles = singles
        self._members = engine_bench.members(config)

    def payload(self, name: str):
        """Layout of a stream."""
        return self._members[name].signature.members["payload"].shape

    def inputs(self) -> dict[str, list[int]]:
        """What the streams carry in, but for the channels."""
        late = {"plane_0": self.planes[0], "plane_1": self.planes[1], "fresh": self.fresh}
        return {
            "job": [bits(self.payload("job"), {"job": job, "needs": needs})
                    for job, needs in self.given],
            **{name: [bits(self.payload(name), {"what": word, "after": after})
                      for word, after in words] for name, words in late.items()}}

    def expected(self) -> dict[str, list[int]]:
        """What they must carry out."""
        return {
            "epilogue_job": [bits(layouts.JOB, job) for job in self.given_on],
            "rows": [bits(self.payload("rows"), row) for row in self.rows], "done": self.done,
            **{f"write_{c}": [beat << 32 | where for where, beat in written]
               for c, written in enumerate(self.written)}}

    def _channel(self, c: int) -> np.ndarray:
        """Payloads of a channel: mostly two entries at a time."""
        weights = np.concatenate([job.weights[c] for job in self.jobs]).astype(np.int8)
        index = np.concatenate([job.index[c] for job in self.jobs]).astype(np.uint8)
        entries = np.concatenate(
            [weights.view(np.uint8), index[:, ::2] | index[:, 1::2] << 4], axis=1)
        size, payloads, at = entries.shape[1], [], 0
        rng = np.random.default_rng(list(f"{self.seed} pairs".encode()))    # alike in every run
        words = -(-(2 * size * 8 + 1) // 32)
        while at < len(entries):
            two = at + 1 < len(entries) and rng.random() >= self.singles
            payload = np.zeros(4 * words, np.uint8)
            payload[:size] = entries[at]
            if two:
                payload[size:2 * size] = entries[at + 1]
                payload[2 * size] = 1
            payloads.append(payload)
            at += 1 + two
        return np.concatenate(payloads).view(np.uint32)

    def run(self, verilated: Model, *, stall: float) -> Run:
        """Run, and compare everything that comes out."""
        inputs, expected = self.inputs(), self.expected()
        inputs |= {f"channel_{c}": self._channel(c) for c in range(self.config.channels)}
        given = sum(map(len, inputs.values())) + self.entries()
        cycles = int((2000 + 8 * given + 4 * sum(map(len, expected.values()))) / (1 - stall)) * 4
        run = verilated.run(inputs, {name: len(what) for name, what in expected.items()},
                            stall=stall, seed=self.seed, cycles=cycles)
        for name, what in expected.items():
            for number, (got, wanted) in enumerate(zip(run.outputs[name], what, strict=True)):
                assert got == wanted, f"{name} {number}: {got:#x}, not {wanted:#x}"
        for job, (rows, done, written) in zip(self.jobs, self.ends, strict=True):
            when = run.cycles["rows"][rows - 1] if job.last else run.cycles["done"][done - 1]
            late = [c for c, count in enumerate(written) if count
                    and run.cycles[f"write_{c}"][count - 1] > when]
            assert not late, f"writes of the channels {late} after the end of the instruction"
        assert 2 * run.high["pairs"] + run.high["singles"] == self.entries()
        assert not run.high["lost"]
        return run
