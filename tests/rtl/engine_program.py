# SPDX-License-Identifier: Apache-2.0
"""Random MATMULs for the engine's bench, and what must come of them."""

import numpy as np

from rtl_gen.common import layouts
from rtl_gen.spec import isa, rules
from rtl_gen.spec.config import HEAD, CardConfig
from rtl_gen.spec.formats import PATTERNS
from tests.rtl import engine_bench
from tests.rtl.engine_model import EngineModel, Job
from tests.rtl.verilated import Model, Run


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


class Program:
    """Instructions with all that they need, in an order that any interleaving must respect.

    Parameters
    ----------
    config : CardConfig
    seed : str
    garbage : bool
        Some weights are −128, as in parts of the K and V caches that nobody has written.
    singles : float
        How often a channel delivers one entry in a cycle, not two.
    """

    def __init__(self, config: CardConfig, seed: str, *, garbage: bool = True,
                 singles: float = 0.1):
        self.config, self.seed, self.garbage, self.singles = config, seed, garbage, singles
        self.rng = np.random.default_rng(list(seed.encode()))
        self.model = EngineModel(config)
        self.inputs = {"job": [], "plane_0": [], "plane_1": [], "fresh": [],
                       **{f"channel_{c}": [] for c in range(config.channels)}}
        self.expected = {"epilogue_job": [], "rows": [], "done": [],
                         **{f"write_{c}": [] for c in range(config.channels)}}
        self.jobs: list[Job] = []
        self._members = engine_bench.members(config)
        self._ends = []         # of each instruction: how much of every output is there at its end
        self._reader = {}       # what was read last by which instruction: before it may be written

    def _payload(self, name):
        return self._members[name].signature.members["payload"].shape

    def _after(self, *keys) -> dict:
        last = max((self._reader.get(key, -1) for key in keys), default=-1)
        ended = [job.last for job in self.jobs[:last + 1]]
        return {"done": ended.count(0), "last": ended.count(1)}

    def _digits(self, *shape) -> np.ndarray:
        return self.rng.integers(-128, 128, shape)

    def write_planes(self, *, act: int, blocks: int, columns: int, digits: int, two_beat: int,
                     exponent: int) -> None:
        """Fill blocks for all tokens."""
        config, rng = self.config, self.rng
        for token in range(columns):
            for block in range(act, act + blocks):
                scale = min(exponent + int(rng.choice([0, 31, rng.integers(32)])), 127)
                for part in range(config.beat_bytes // config.vector_lanes):
                    word = {"block": block, "part": part, "low": self._digits(config.vector_lanes),
                            "high": self._digits(config.vector_lanes), "exponent": scale,
                            "digits": digits, "two_beat": two_beat, "token": token}
                    name = f"plane_{rng.integers(2)}"
                    self.inputs[name].append(bits(self._payload(name), {
                        "what": word, "after": self._after(("block", block))}))
                    self.model.write_plane(word)

    def write_fresh(self, *, kind: int, head: int, columns: int) -> None:
        """Fill one head of all tokens."""
        lanes = self.config.vector_lanes
        for token in range(columns):
            for part in range(HEAD // lanes):
                word = {"kind": kind, "token": token, "head": head, "part": part,
                        "low": self._digits(lanes), "high": self._digits(lanes)}
                self.inputs["fresh"].append(bits(self._payload("fresh"), {
                    "what": word, "after": self._after(("head", head))}))
                self.model.write_fresh(word)

    def matmul(self, *, rows: int, beats: int, pos: int = 0, address: int = 0, keep: bool = False,
               **fields: int) -> Job:
        """Add an instruction, with activations (and fresh K and V) of its own unless ``keep``."""
        config, rng = self.config, self.rng
        pattern = PATTERNS[fields.get("pattern", 0)]
        fields = {field.name: 0 for field in isa.fields("MATMUL")} | {
            "columns": 1, "opcode": isa.FORMATS["MATMUL"][0]} | fields
        values = fields | {"rows": rows, "beats": beats, "pos": pos, "address": address}
        broken = [rule for rule, holds in rules.RULES["MATMUL"] if not holds(config, values)]
        assert not broken or fields["dest"], broken
        blocks = beats * pattern.ratio
        if not keep:
            self.write_planes(act=fields["act"], blocks=blocks, **{
                name: fields[name] for name in ("columns", "digits", "two_beat", "exponent")})
        if fields["merge"] and not keep:
            self.write_fresh(kind=fields["merge"] - 1, head=fields["head"],
                             columns=fields["columns"])

        entries = rows * beats * pattern.entries << fields["wide"]
        shape = config.channels, entries, config.beat_bytes
        weights = rng.integers(-127, 128, shape)
        if self.garbage:
            weights[rng.random(shape) < 0.05] = -128
        index = np.broadcast_to(np.arange(config.beat_bytes) % 4, shape)
        if pattern.ratio > 1:
            index = rng.integers(16, size=shape)
        job = Job(fields=fields, rows=rows, beats=beats, address=address, pos=pos, weights=weights,
                  index=index)
        for block in range(fields["act"], fields["act"] + blocks):
            self._reader["block", block] = len(self.jobs)
        if fields["merge"]:
            self._reader["head", fields["head"]] = len(self.jobs)
        self.jobs.append(job)

        word = isa.encode("MATMUL", **{
            name: value for name, value in fields.items() if name != "opcode"})
        full = {"word": word, "rows": rows, "beats": beats, "address": address, "pos": pos,
                "len": pos + 1, "sequence": len(self.jobs)}
        self.inputs["job"].append(bits(self._payload("job"), {"job": full, "needs": {
            "planes": [len(self.inputs["plane_0"]), len(self.inputs["plane_1"])],
            "fresh": len(self.inputs["fresh"])}}))
        for c in range(config.channels):
            self.inputs[f"channel_{c}"].append((weights[c], index[c]))

        out, written = self.model.run(job)
        row_layout = self._payload("rows")
        self.expected["rows"] += [
            bits(row_layout, {"acc": [int(a) % (1 << 80) for a in acc], "token": token,
                              "last_token": last_token, "last_row": last_row})
            for acc, token, last_token, last_row in out]
        if fields["last"]:
            self.expected["epilogue_job"].append(bits(layouts.JOB, full))
        else:
            self.expected["done"].append(fields["signal"])
        for c in range(config.channels):
            self.expected[f"write_{c}"] += [
                beat << 32 | where for where, beat in written[c]]
        self._ends.append({name: len(what) for name, what in self.expected.items()})
        return job

    def entries(self) -> int:
        """Entries of each channel in all instructions."""
        return sum(job.weights.shape[1] for job in self.jobs)

    def _channel(self, chunks) -> np.ndarray:
        """Payloads of a channel: mostly two entries at a time."""
        weights = np.concatenate([w for w, _ in chunks]).astype(np.int8).view(np.uint8)
        index = np.concatenate([i for _, i in chunks]).astype(np.uint8)
        entries = np.concatenate([weights, index[:, ::2] | index[:, 1::2] << 4], axis=1)
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
        inputs = {name: self._channel(what) if name.startswith("channel") else what
                  for name, what in self.inputs.items()}
        cycles = int((2000 + 8 * sum(map(len, self.inputs.values())) + 8 * self.entries()
                      + 4 * sum(map(len, self.expected.values()))) / (1 - stall)) * 4
        run = verilated.run(
            inputs, {name: len(what) for name, what in self.expected.items()}, stall=stall,
            seed=self.seed, cycles=cycles)
        for name, what in self.expected.items():
            for number, (got, wanted) in enumerate(zip(run.outputs[name], what, strict=True)):
                assert got == wanted, f"{name} {number}: {got:#x}, not {wanted:#x}"
        for job, end in zip(self.jobs, self._ends, strict=True):
            report = "rows" if job.last else "done"
            when = run.cycles[report][end[report] - 1]
            late = [name for name, count in end.items() if name.startswith("write") and count
                    and run.cycles[name][count - 1] > when]
            assert not late, f"{late} after the end of the instruction"
        assert 2 * run.high["pairs"] + run.high["singles"] == self.entries()
        assert not run.high["lost"]
        return run


#: Blocks for each way of using the columns that are filled once and read again and again.
REGION = 16


def shuffle(program: Program, count: int) -> None:
    """Add ``count`` random instructions: chunks of several products side by side, others between.

    Most find their activations in place, so that instructions follow one another at once.
    """
    config, rng = program.config, program.rng
    some = lambda high: int(rng.integers(high))     # noqa: E731
    shapes = [(digits, two_beat) for digits in range(2) for two_beat in range(2)
              if 1 << digits << two_beat <= config.tokens]
    regions = {}
    for number, (digits, two_beat) in enumerate(shapes):
        regions[digits, two_beat] = number * REGION, some(100) - 50
        program.write_planes(
            act=number * REGION, blocks=REGION, columns=config.tokens >> digits >> two_beat,
            digits=digits, two_beat=two_beat, exponent=regions[digits, two_beat][1])
    for kind in range(2):
        program.write_fresh(kind=kind, head=0, columns=config.tokens)
    opened = []     # products of which more chunks come: (first row, rows, tokens)
    for _ in range(count):
        fields = {"signal": some(1 << 16), "exponent": some(120) - 60, "head": some(config.heads)}
        if opened and rng.random() < 0.6:
            acc_row, rows, columns = opened.pop(some(len(opened)))
        else:
            columns, rows = 1 + some(config.tokens), 1 + some(rng.choice([2, 3, 8]))
            acc_row = some(config.acc_rows - rows)
            fields["first"] = 1
        fits = [(digits, two_beat) for digits, two_beat in shapes
                if columns << digits << two_beat <= config.tokens]
        fields["digits"], fields["two_beat"] = fits[some(len(fits))]
        fields["last"] = some(2)
        dense = rng.random() < 0.6
        if dense:
            fields["wide"] = some(2)
            if fields["wide"] or not fields["two_beat"]:
                fields["k_outer"] = some(2)
            fields["merge"] = some(3)
            beats = 1 + some(5)
        else:
            fields["pattern"] = 1 + some(len(PATTERNS) - 1)
            beats = 1 + some(4)
        taken = any(a < acc_row + rows and acc_row < a + n for a, n, _ in opened)
        if fields.get("first") and taken:
            # Only rows that are finished at once leave the bank as it is.
            fields |= {"last": 1, "k_outer": 0}
        if not fields["last"]:
            opened.append((acc_row, rows, columns))
        else:
            fields |= {"scale": some(3), "norm": some(3), "bias": some(2), "gelu": some(3)}
        pos = 0
        if fields.get("merge") == 1:
            beats = min(beats, config.head_beats)
            pos = some(rows * config.channels + 1)
        elif fields.get("merge") == 2:
            rows_of_head = config.head_words
            beats = 1 + some(3)
            pos = some(beats * config.beat_bytes)
            if rows > rows_of_head:
                fields["merge"] = 0
        if rng.random() < 0.5:
            pos = max(0, pos - columns)
        ratio = PATTERNS[fields.get("pattern", 0)].ratio
        keep = rng.random() < 0.8
        if keep:
            beats = min(beats, REGION // ratio)
            start, fields["exponent"] = regions[fields["digits"], fields["two_beat"]]
            fields["head"] = 0
            room = REGION
        else:
            start = len(shapes) * REGION
            room = config.plane_blocks - start if rng.random() < 0.2 else 2 * REGION
            beats = min(beats, room // ratio)
        act = some(room - beats * ratio + 1) // min(ratio, 4) * min(ratio, 4)
        program.matmul(
            rows=rows, beats=beats, pos=pos, address=some(1 << 20), columns=columns,
            acc_row=acc_row, act=start + act, keep=keep, **fields)
