# SPDX-License-Identifier: Apache-2.0
"""What random programs are made of: short runs of instructions that belong together."""

import dataclasses
import random
from typing import Any

import numpy as np

from heddle.pack.patterns import pack_stream
from rtl_gen.spec import isa
from rtl_gen.spec.config import HEAD, CardConfig
from rtl_gen.spec.formats import PATTERNS
from rtl_gen.spec.isa import ScalarFn, VectorFn
from tests.ledger import Ledger

#: Beats where things lie.  Each image is written there in every channel.
DATA, SCALES, KEYS, VALUES, WEIGHTS, OUT, LOGS = 0, 0x800, 0x1000, 0x2000, 0x4000, 0x10000, 0x14000
#: Scratchpad words in use, positions that K and V have room for.
WORDS, POSITIONS = 256, 64
#: Exponent base of everything.
BASE = -40


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Head:
    """One head of one sequence, while it is attended to."""

    sequence: int
    act: int                #: plane block of the queries
    result: int
    rows_reg: int
    beats_reg: int
    fields: dict[str, int]  #: of both products

    def dst(self, config: CardConfig) -> int:
        """Plane block of the probabilities."""
        return self.act + HEAD // config.beat_bytes

    def queries(self, config: CardConfig) -> tuple[str, int, int]:
        return "planes", self.act, self.dst(config)

    def probabilities(self, config: CardConfig) -> tuple[str, int, int]:
        return "planes", self.dst(config), self.dst(config) - -POSITIONS // config.beat_bytes

    @property
    def sums(self) -> tuple[str, int, int]:
        return "softmax", 4 * self.result, 4 * self.result + 4


class Writer:
    """Writes one random program, phrase by phrase."""

    def __init__(self, config: CardConfig, rng: random.Random, wild: bool, given: int) -> None:
        self.config, self.rng, self.wild, self.given = config, rng, wild, given
        self.np = np.random.default_rng(rng.getrandbits(64))
        self.ledger = Ledger()
        self.images: list[tuple[int, bytes]] = []
        self.weights = WEIGHTS
        self.norms: set[tuple[int, int]] = set()
        self.roots: set[tuple[int, int]] = set()
        self.heads = rng.randrange(1, 4)
        self.wide = rng.randrange(2)
        self.cached: set[tuple[int, int]] = set()
        self.logs = LOGS

    # ---- Helpers. ----

    def span(self, most: int, least: int = 1) -> tuple[int, int]:
        """First scratchpad word and number of words."""
        words = self.rng.randrange(least, most + 1)
        return self.rng.randrange(0, WORDS - words + 1), words

    def floats(self, shape: Any) -> Any:
        """FP32 numbers of mixed size; with everything among them if the program is wild."""
        x = (self.np.normal(size=shape) * 2.0 ** self.np.integers(-6, 7, shape)).astype("<f4")
        if self.wild:
            odd = np.array([0, 1 << 31, 1, 0x00800000, 0x7F800000, 0xFF800000, 0x7FC00000,
                            0x7F7FFFFF, 0x0D800000], np.uint32).view("<f4")
            x = np.where(self.np.random(shape) < 0.02, self.np.choice(odd, shape), x)
        return x.astype("<f4")

    def image(self, beat: int, columns: Any) -> None:
        """Write one array per channel at a beat; ``columns`` is [C, ...]."""
        for channel, column in enumerate(columns):
            address = channel * self.config.channel_bytes + beat * self.config.beat_bytes
            self.images.append((address, np.ascontiguousarray(column).tobytes()))

    def beats(self, words: int) -> int:
        return -(-4 * words // self.config.beat_bytes)

    def columns(self) -> tuple[int, int, int]:
        """digits, two_beat and a number of tokens that the card's columns have room for."""
        digits, two_beat = self.rng.randrange(2), self.rng.randrange(2)
        room = self.config.tokens >> digits >> two_beat
        if not room:
            return 1, 0, 1
        return digits, two_beat, self.rng.randrange(1, room + 1)

    # ---- Phrases. ----

    def start(self) -> None:
        """Everything that is read later is defined: scratchpad, scalars, scales of K and V."""
        lanes = self.config.channels
        self.image(DATA, self.floats((lanes, WORDS)))
        self.load(0, WORDS, DATA)
        for d in range(16):
            self.ledger.add("SCALAR", [], [("scalar", d, d + 1)], fn=ScalarFn.SET, d=d,
                            imm=int(self.floats(1).view("<u4")[0]))
        rows = POSITIONS // lanes * self.heads
        scale = (self.np.uniform(0.5, 2, (2, lanes, rows)) * 0.01).astype("<f4").view("<u4") >> 16
        self.image(SCALES, scale[0] | scale[1] << 16)
        self.ledger.add("LOAD", [("hbm", SCALES, SCALES + self.beats(rows))],
                        [("scales", 0, rows)], address=SCALES, rows=1, words=rows, target=1)
        for beat in (KEYS, VALUES):
            size = self.heads * POSITIONS * HEAD * 2 // lanes
            self.image(beat, self.np.integers(-127, 128, (lanes, size), np.int8))

    def load(self, first: int, words: int, beat: int) -> None:
        self.ledger.add("LOAD", [("hbm", beat, beat + self.beats(words))],
                        [("scratch", first, first + words)], address=beat, rows=1, words=words,
                        dst=first)

    def some_load(self) -> None:
        rows, words = self.rng.randrange(1, 4), self.rng.randrange(1, 20)
        beat = self.rng.choice([DATA, LOGS]) + self.rng.randrange(4)
        first = self.rng.randrange(WORDS - rows * words)
        end = beat + rows * self.beats(words)
        fields = {"address": beat, "rows": rows}
        if self.rng.randrange(2):
            # Register 15 holds 2: the same rows and the same place, another way.
            fields = {"address": beat - 6, "rows_reg": 15, "index_reg": 15, "stride": 3}
            end = beat + 2 * self.beats(words)
            if beat < 6:
                fields["address"] += 1 << 32
        self.ledger.add("LOAD", [("hbm", beat, end)], [("scratch", first, first + 3 * words)],
                        words=words, dst=first, **fields)

    def some_store(self) -> None:
        if self.rng.randrange(4):
            first, words = self.span(24)
            self.ledger.add("STORE", [("scratch", first, first + words)],
                            [("hbm", self.logs, self.logs + self.beats(words))],
                            address=self.logs, words=words, src=first)
            self.logs = LOGS + (self.logs - LOGS + self.rng.randrange(8)) % 64
        else:
            self.ledger.add("STORE", [("scales", 0, 1 << 20)],
                            [("hbm", OUT, OUT + self.beats(self.heads))], address=OUT,
                            words=self.heads, source=1, src=0,
                            sequence=self.rng.randrange(4))

    def some_vector(self) -> None:
        fn = VectorFn(self.rng.randrange(len(VectorFn)))
        words = self.rng.randrange(1, 25)
        a, b, dst = (self.rng.randrange(WORDS - words + 1) for _ in range(3))
        # Reading behind one's own writing depends on the pipeline: apart, or the same words.
        if abs(a - dst) < words:
            a = dst
        if abs(b - dst) < words:
            b = dst
        s = self.rng.randrange(16)
        reads = [("scratch", a, a + words), ("scratch", b, b + words), ("scalar", s, s + 1)]
        writes = [("scalar", s, s + 1)] if fn >= VectorFn.SUM else [("scratch", dst, dst + words)]
        self.ledger.add("VECTOR", reads, writes, fn=fn, dst=dst, a=a, b=b, words=words, s=s)

    def some_scalar(self) -> None:
        d, a, b = (self.rng.randrange(16) for _ in range(3))
        self.ledger.add("SCALAR", [("scalar", a, a + 1), ("scalar", b, b + 1)],
                        [("scalar", d, d + 1)], fn=self.rng.randrange(len(ScalarFn)), d=d, a=a, b=b,
                        imm=int(self.floats(1).view("<u4")[0]))

    def some_control(self) -> None:
        rng = self.rng
        self.ledger.add("ADDI", rd=rng.choice([0, 12, 13]), rs=rng.randrange(32),
                        imm=rng.randrange(-1 << 31, 1 << 31))
        self.ledger.add("SHRI", rd=13, rs=12, imm=rng.randrange(32))
        if self.given:
            # Register 15 holds 2.
            rs, number = rng.choice([0, 15]), rng.randrange(self.given)
            self.ledger.add("GIVEN", rd=rng.choice([0, 12, 13]), rs=rs,
                            imm=number - 2 if rs else number)
        self.ledger.add("ADDI", rd=14, imm=rng.randrange(1, 4))
        here = len(self.ledger.steps)
        self.ledger.add("NOP")
        self.ledger.add("LOOP", rd=14, target=here)

    def quantise(self, inputs: int, covered: int, digits: int, two_beat: int, tokens: int,
                 act: int, stats: bool = False) -> None:
        """Fill ``inputs`` elements of the planes for every token, in slices."""
        lanes = self.config.vector_lanes
        longest = 16 * self.config.beat_bytes
        size = min(longest, covered * self.rng.randrange(1, 4), inputs)
        size = max(covered, size // covered * covered)
        slices = -(-inputs // size)
        for token in range(tokens):
            for k in range(slices):
                words = min(size, inputs - k * size) // lanes
                block = act + k * size // self.config.beat_bytes
                a = self.rng.randrange(WORDS - words + 1)
                b = self.rng.randrange(WORDS - words + 1)
                gamma = self.rng.randrange(2)
                word = k * size // lanes
                writes = [("planes", block, block - -words * lanes // self.config.beat_bytes)]
                if stats:
                    first = self.config.norm_words * token + word
                    writes.append(("sums of words", first, first + words))
                self.ledger.add("QUANT", [("scratch", a, a + words), ("scratch", b, b + words)],
                                writes, a=a, words=words, gamma=gamma, b=b, act=block,
                                exponent=BASE, digits=digits, two_beat=two_beat, token=token,
                                stats=int(stats), word=word if stats else 0)

    def some_product(self) -> None:
        """Activations, weights of any pattern, any epilogue; perhaps in two chunks."""
        config, rng = self.config, self.rng
        lanes, width = config.channels, config.beat_bytes
        pattern = rng.choice([p for p in PATTERNS if p.m in (1, *config.group_sizes)])
        digits, two_beat, tokens = self.columns()
        covered = width * pattern.ratio
        slice_unit = width * min(pattern.ratio, 4)
        chunks = rng.choice([1, 1, 2, 3])
        k_outer = int(pattern.m == 1 and chunks > 1 and not two_beat and rng.randrange(2))
        beats = rng.randrange(1, 4)
        inputs = chunks * beats * covered
        if inputs // lanes > WORDS or inputs > 16 * 64 * slice_unit:
            chunks, beats, k_outer = 1, 1, 0
            inputs = covered
        act = 4 * rng.randrange(max(1, min(32, (config.plane_blocks - inputs // width) // 4)))
        norm, stats_set = 0, rng.randrange(2)
        words = inputs // lanes
        use_norm = rng.randrange(2) and words <= config.norm_words
        self.quantise(inputs, slice_unit, digits, two_beat, tokens, act, bool(use_norm))
        if use_norm:
            norm = 1 + stats_set
            for token in range(tokens):
                self.ledger.add("NORM", [("sums of words", config.norm_words * token,
                                          config.norm_words * token + words)],
                                [("norms", 4 * stats_set + token, 4 * stats_set + token + 1)],
                                words=words, set=stats_set, token=token,
                                inv=int(np.float32(1 / inputs).view("<u4")),
                                eps=int(np.float32(1e-5).view("<u4")))
        rows = rng.randrange(1, 9)
        acc_row = rng.randrange(config.acc_rows - rows)
        stride = rng.choice([rows, rows + 1])
        dst = rng.randrange(WORDS - stride * tokens - rows)
        epilogue = {"scale": rng.randrange(2), "norm": norm, "bias": rng.randrange(2),
                    "gelu": rng.randrange(3), "residual": rng.randrange(2)}
        ready = [k for k in range(isa.SUMS) if all((k, t) in self.roots for t in range(tokens))]
        if ready and rng.randrange(2):
            epilogue["divide"] = 1 + rng.choice(ready)
        aux = (epilogue["scale"] == 1) + (norm > 0) + epilogue["bias"]
        for chunk in range(chunks):
            last = chunk == chunks - 1
            weights = self._weights(rows * lanes, beats * covered, pattern)
            constants = self.floats((rows * lanes, aux)) if last and aux else None
            outer = int(k_outer and not last)
            stream = pack_stream(weights, pattern, config,
                                 None if constants is None else constants.view("<u4"),
                                 k_outer=bool(outer))
            self.image(self.weights, stream)
            first_block = act + chunk * beats * covered // width
            reads = [("hbm", self.weights, self.weights + stream.shape[1]),
                     ("planes", first_block, first_block + beats * covered // width)]
            writes = []
            fields = {"address": self.weights, "rows": rows, "beats": beats,
                      "pattern": pattern.code, "k_outer": outer, "first": int(chunk == 0),
                      "last": int(last), "acc_row": acc_row, "act": first_block, "exponent": BASE,
                      "digits": digits, "two_beat": two_beat, "columns": tokens}
            if last:
                fields |= epilogue | {"dst": dst, "dst_stride": stride}
                out = ("scratch", dst, dst + stride * (tokens - 1) + rows)
                writes.append(out)
                reads += [out, ("norms", 0, 8), ("softmax", 0, 4 * isa.SUMS)]
            self.ledger.add("MATMUL", reads, writes, **fields)
            self.weights += stream.shape[1] + rng.randrange(3)

    def _weights(self, rows: int, inputs: int, pattern: Any) -> Any:
        w = self.np.integers(-127, 128, (rows, inputs))
        if pattern.m > 1:
            groups = w.reshape(rows, -1, pattern.m)
            rank = self.np.random(groups.shape).argsort(-1).argsort(-1)
            kept = self.np.integers(0, pattern.n + 1, groups.shape[:2])
            w = (groups * (rank < kept[..., None])).reshape(rows, inputs)
        return w.astype(np.int8)

    def some_attention(self) -> None:
        """One head of the current tokens of one sequence, or of one token each of several."""
        rng, config = self.rng, self.config
        digits, two_beat, tokens = self.columns()
        if two_beat and not self.wide:
            two_beat = 0
        if tokens == 1 or rng.randrange(2):
            sequences = [rng.randrange(config.tokens - tokens + 1)]
        else:
            sequences = rng.sample(range(config.tokens), rng.randrange(2, config.tokens + 1))
            tokens = 1
        head = rng.randrange(self.heads)
        common = {"first": 1, "last": 1, "exponent": BASE, "digits": digits, "two_beat": two_beat,
                  "columns": tokens, "head": head, "kv_heads": self.heads, "wide": self.wide}
        results = rng.sample(range(isa.SUMS), len(sequences))
        heads = [_Head(sequence=sequence, act=rng.randrange(8) + 32 * k, result=result,
                       rows_reg=24 + 2 * k, beats_reg=25 + 2 * k, fields=common)
                 for k, (sequence, result) in enumerate(zip(sequences, results, strict=True))]
        for attend in (self._current, self._scores, self._values):
            for one in heads:
                attend(one)

    def _current(self, one: "_Head") -> None:
        """Queries, keys and values of the current tokens; the registers of rows and blocks."""
        config, rng, f = self.config, self.rng, one.fields
        for token in range(f["columns"]):
            a = rng.randrange(WORDS - config.head_words)
            self.ledger.add("QUANT", [("scratch", a, a + config.head_words)],
                            [("planes", one.act, one.act + HEAD // config.beat_bytes)], a=a,
                            words=config.head_words, act=one.act, exponent=BASE,
                            digits=f["digits"], two_beat=f["two_beat"], token=token)
            for kind in range(2):
                a = rng.randrange(WORDS - config.head_words)
                self.ledger.add("CACHE", [("scratch", a, a + config.head_words)],
                                [("scales", 0, 1 << 20), ("fresh", 0, 1)], a=a, kind=kind,
                                head=f["head"], token=token, wide=f["wide"],
                                kv_heads=f["kv_heads"], sequence=one.sequence)
        for rd, unit in ((one.rows_reg, config.channels), (one.beats_reg, config.beat_bytes)):
            self.ledger.add("ADDI", rd=rd, rs=isa.POSITIONS[one.sequence],
                            imm=f["columns"] + unit - 1)
            self.ledger.add("SHRI", rd=rd, rs=rd, imm=unit.bit_length() - 1)

    def _area(self, beat: int, head: int) -> tuple[str, int, int]:
        """Where K or V of a head lies; all sequences share it."""
        size = POSITIONS * HEAD * (1 + self.wide) // self.config.channels // self.config.beat_bytes
        return "hbm", beat + head * size, beat + (head + 1) * size

    def _scores(self, one: "_Head") -> None:
        config, f = self.config, one.fields
        area = self._area(KEYS, f["head"])
        self.ledger.add("MATMUL", [area, one.queries(config), ("fresh", 0, 1),
                                   ("scales", 0, 1 << 20)],
                        [area, one.probabilities(config), one.sums],
                        address=area[1], rows_reg=one.rows_reg, beats=config.head_beats,
                        act=one.act, merge=1, scale=2, dest=1 + one.result, dst=one.dst(config),
                        sequence=one.sequence, **f)
        self.roots |= {(one.result, token) for token in range(f["columns"])}

    def _values(self, one: "_Head") -> None:
        config, f = self.config, one.fields
        area, words = self._area(VALUES, f["head"]), config.head_words
        out = self.rng.randrange(WORDS - f["columns"] * words)
        scratch = ("scratch", out, out + f["columns"] * words)
        self.ledger.add("MATMUL", [area, one.probabilities(config), ("fresh", 0, 1), one.sums,
                                   scratch],
                        [area, scratch], address=area[1], rows=words, beats_reg=one.beats_reg,
                        k_outer=1, act=one.dst(config), merge=2, divide=1 + one.result, dst=out,
                        dst_stride=words, sequence=one.sequence, **f)

    def some_sample(self) -> None:
        """A row of logits for each of some columns, in one or two blocks."""
        lanes, count = self.config.channels, self.rng.choice([1, 2])
        token = self.rng.randrange(1 << 20)
        columns = self.rng.choice([1, self.rng.randrange(1, self.config.tokens + 1)])
        for k in range(count):
            words, stride = self.rng.randrange(1, 17), self.rng.randrange(65)
            size = stride * (columns - 1) + words
            first = self.rng.randrange(WORDS - size + 1)
            valid = words * lanes if k < count - 1 else \
                self.rng.randrange((words - 1) * lanes + 1, words * lanes + 1)
            self.ledger.add("SAMPLE", [("scratch", first, first + size)], [], a=first, words=words,
                            count=valid, token=token, first=int(k == 0), last=int(k == count - 1),
                            columns=columns, stride=stride,
                            k=self.rng.choice([0, 1, 5, self.config.top_k]))
            token = (token + valid) % (1 << 20)


#: Kinds of phrases by how often they come.
PHRASES = {"some_load": 2, "some_store": 2, "some_vector": 4, "some_scalar": 2,
           "some_control": 1, "some_product": 4, "some_attention": 3, "some_sample": 1}
