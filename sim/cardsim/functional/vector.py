# SPDX-License-Identifier: Apache-2.0
"""VECTOR, SCALAR, QUANT, NORM and CACHE."""

from typing import Any

import numpy as np

from cardsim import numerics as nx
from rtl_gen.spec.config import HEAD
from rtl_gen.spec.isa import POSITIONS, ScalarFn, VectorFn

from .arithmetic import F32, HIGH, LOW, RAW, Checked, tame, tame_scalar
from .state import PlaneWriter, State

Fields = dict[str, int]
Registers = list[int]
#: Exponents from here up leave every subnormal number at zero when quantising.
QUICK_BASE = -90


class Vector:
    """Element by element over scratchpad words, or a reduction into a scalar."""

    def __init__(self, state: State, f: Fields) -> None:
        def words(name: str) -> Any:
            return slice(f[name], f[name] + f["words"])

        self.state, self.fn, self.s = state, VectorFn(f["fn"]), f["s"]
        self.dst, self.source = words("dst"), words("a")
        self.a, self.b = state.scratch[words("a")], state.scratch[words("b")]
        self.out = state.scratch[self.dst]

    def __call__(self, registers: Registers) -> None:
        state, fn = self.state, self.fn
        if fn == VectorFn.COPY:
            state.words[self.dst] = state.words[self.source]
            return
        result = None if state.wild else self._raw()
        if result is None:
            checked = Checked()
            result = self._checked(checked)
            state.stick(nonfinite=checked.nonfinite)
            if fn < VectorFn.SUM and not tame(result):
                state.wild = True
        if fn >= VectorFn.SUM:
            state.scalars[self.s] = result
        else:
            self.out[:] = result

    def _calculate(self, ar: Any) -> Any:
        a, b, s = self.a, self.b, self.state.scalars[self.s]
        match self.fn:
            case VectorFn.ADD:
                return ar.add(a, b)
            case VectorFn.SUB:
                return ar.sub(a, b)
            case VectorFn.MUL:
                return ar.mul(a, b)
            case VectorFn.MAX:
                return ar.maximum(a, b)
            case VectorFn.ADDS:
                return ar.add(a, s)
            case VectorFn.MULS:
                return ar.mul(a, s)
            case VectorFn.EXP:
                return ar.exp(a)
            case VectorFn.GELU_TANH | VectorFn.GELU_ERF:
                return ar.gelu(a, self.fn - VectorFn.GELU_TANH)
            case _:
                return ar.word_sum(a)

    def _checked(self, checked: Checked) -> Any:
        if self.fn == VectorFn.MADD:
            return checked.add(checked.mul(self.a, self.state.scalars[self.s]), self.b)
        if self.fn == VectorFn.MAXIMUM:
            checked.see(self.a)
            return nx.greatest(self.a)
        return self._calculate(checked)

    def _raw(self) -> Any:
        """The result, or None where only the checked way is sure."""
        fn = self.fn
        if fn in (VectorFn.MADD, VectorFn.ADDS, VectorFn.MULS) and \
                not tame_scalar(self.state.scalars[self.s]):
            return None
        if fn == VectorFn.EXP and not self.a.max() <= nx.EXP_HIGH:
            return None
        if fn == VectorFn.MADD:
            product = self.a * self.state.scalars[self.s]
            if not tame(product):
                return None
            result = product + self.b
        elif fn == VectorFn.MAXIMUM:
            result = self.a.max()
        else:
            result = self._calculate(RAW)
        if not tame(result):
            return None
        # NumPy's maximum of zeros of both signs is either.
        if fn in (VectorFn.MAX, VectorFn.MAXIMUM) and not np.all(result):
            return None
        return result


class Scalar:
    """One operation on scalar registers."""

    def __init__(self, state: State, f: Fields) -> None:
        self.state, self.fn = state, ScalarFn(f["fn"])
        self.d, self.a, self.b = f["d"], f["a"], f["b"]
        self.imm = nx.from_bits(f["imm"])

    def __call__(self, registers: Registers) -> None:
        scalars, checked = self.state.scalars, Checked()
        a, b = scalars[self.a], scalars[self.b]
        match self.fn:
            case ScalarFn.SET:
                scalars.view(np.uint32)[self.d] = nx.bits(self.imm)
            case ScalarFn.ADD:
                scalars[self.d] = checked.add(a, b)
            case ScalarFn.SUB:
                scalars[self.d] = checked.sub(a, b)
            case ScalarFn.MUL:
                scalars[self.d] = checked.mul(a, b)
            case ScalarFn.MAX:
                scalars[self.d] = checked.maximum(a, b)
            case ScalarFn.RCP:
                scalars[self.d] = checked.rcp(a)
            case ScalarFn.RSQRT:
                scalars[self.d] = checked.rsqrt(a)
        self.state.stick(nonfinite=checked.nonfinite)


class Quant:
    """Quantises slices into the planes; keeps the sums of their words for the norm.

    Parameters
    ----------
    state : State
    words : list of dict
        Fields of instructions that differ in where their slices lie only, one behind the other.
    """

    def __init__(self, state: State, words: list[Fields]) -> None:
        config, f, count = state.config, words[0], len(words)
        self.state, self.f, self.count = state, f, count
        length, lanes = f["words"], config.vector_lanes

        def slices(first: int) -> Any:
            return state.scratch[first:first + count * length].reshape(count, length, lanes)

        self.a = slices(f["a"])
        self.gamma = slices(f["b"]) if f["gamma"] else None
        self.writer = PlaneWriter(
            state, f["act"], -(-length * lanes // config.beat_bytes), count, digits=f["digits"],
            two_beat=f["two_beat"], token=f["token"], base=f["exponent"])
        self.quick = f["exponent"] >= QUICK_BASE
        self.sums = state.word_sums[f["token"], :, f["word"]:f["word"] + count * length]

    def __call__(self, registers: Registers) -> None:
        if self.state.wild or not self.quick or not self._run(RAW):
            checked = Checked()
            self._run(checked)
            self.state.stick(nonfinite=checked.nonfinite)

    def _run(self, ar: Any) -> bool:
        """Carry the instruction out; False, without any effect, if ``ar`` cannot be relied on."""
        a, writer = self.a, self.writer
        y = a if self.gamma is None else ar.mul(a, self.gamma)
        sums = self._sum_up(ar) if self.f["stats"] else None
        if ar is RAW:
            if self.f["stats"] and sums is None:
                return False
            y = y.reshape(self.count, -1)
            largest = np.maximum.reduce(np.abs(y), axis=1)
            if not all(amax < nx.LARGEST for amax in largest.tolist()):
                return False
            exponents, over = writer.exponents_of(largest)
            q = np.rint(y * np.ldexp(F32(1), np.negative(exponents))[:, None])
            if over:
                q = np.clip(q, -writer.limit, writer.limit)
        else:
            ar.see(y)
            found = [nx.quantise(part.ravel(), 1 + writer.digits, writer.base) for part in y]
            q, exponents = np.array([part.q for part in found]), [part.exponent for part in found]
            over = any(part.out_of_range for part in found)
        writer.put(q, exponents)
        if sums is not None:
            self.sums[:] = sums
        if over:
            self.state.stick(out_of_range=True)
        return True

    def _sum_up(self, ar: Any) -> Any:
        """Sums of words, and of their squares [2, words]; None if ``ar`` is not sure."""
        squares = ar.mul(self.a, self.a)
        sums = np.stack([ar.tree(self.a).ravel(), ar.tree(squares).ravel()])
        if ar is RAW and not (tame(squares) and np.maximum.reduce(np.abs(sums), axis=None) <= HIGH):
            return None
        return sums


class Norm:
    """Mean and reciprocal deviation from the sums of a vector's words."""

    def __init__(self, state: State, f: Fields) -> None:
        self.state, lanes = state, state.config.vector_lanes
        words, rows = f["words"], -(-f["words"] // lanes)
        self.sums = state.word_sums[f["token"], :, :words]
        #: As many at a time as a word has elements; the last ones are filled up with zeros.
        self.rows = np.zeros((2, rows * lanes), F32)
        self.parts, self.into = self.rows.reshape(2, rows, lanes), self.rows[:, :words]
        self.out = state.norms[f["set"], f["token"]]
        self.inv, self.eps = (F32(nx.from_bits(f[name])) for name in ("inv", "eps"))

    def __call__(self, registers: Registers) -> None:
        self.into[:] = self.sums
        if not tame(self.sums) or not self._run(RAW):
            checked = Checked()
            self._run(checked)
            self.state.stick(nonfinite=checked.nonfinite)

    def _run(self, ar: Any) -> bool:
        mean, power = ar.mul(ar.word_sum(self.parts), self.inv)
        square = ar.mul(mean, mean)
        variance = ar.sub(power, square)
        if np.signbit(variance):
            variance = F32(0)
        rstd = ar.rsqrt_near(ar.add(variance, self.eps))
        if ar is RAW and not (tame_scalar(mean) and tame_scalar(power) and tame_scalar(square)
                              and tame_scalar(variance) and tame_scalar(self.eps)
                              and LOW <= rstd <= HIGH):
            return False
        self.out[:] = mean, rstd
        return True


class Cache:
    """Quantises heads of K or V into the fresh buffers, their scales into the scale memory.

    Parameters
    ----------
    state : State
    words : list of dict
        Fields of instructions that differ in kind and head only; their heads lie one behind the
        other.
    """

    def __init__(self, state: State, words: list[Fields]) -> None:
        self.state, self.words, f = state, words, words[0]
        size = state.config.head_words
        self.a = state.scratch[f["a"]:f["a"] + len(words) * size].reshape(len(words), HEAD)
        self.wide, self.limit = bool(f["wide"]), nx.LIMIT[1 + f["wide"]]
        self.fresh = [state.fresh[f["kind"], f["sequence"] + f["token"], f["head"]]
                      for f in words]

    def __call__(self, registers: Registers) -> None:
        y = self.a
        a = np.maximum.reduce(np.abs(y), axis=1) * F32(1 / self.limit)
        if not self.state.wild and np.minimum.reduce(a) >= LOW:
            scale = nx.round_up_bf16(a)
            q = np.rint(y * (F32(1) / scale)[:, None]).astype(np.int16)
            np.minimum(q, self.limit, out=q)
            np.maximum(q, -self.limit, out=q)
        else:
            self.state.stick(nonfinite=nx.nonfinite(y))
            found = [nx.kv_quantise(part, self.wide) for part in y]
            q = np.array([part for part, _ in found], np.int16)
            scale = np.array([part for _, part in found], F32)
        low = q.astype(np.int8)
        high = (q - low) >> 8
        raw = (scale.view(np.uint32) >> np.uint32(16)).tolist()
        for k, f in enumerate(self.words):
            self.fresh[k][0], self.fresh[k][1] = high[k], low[k]
            self._store(f, registers, raw[k])

    def _store(self, f: Fields, registers: Registers, raw: int) -> None:
        """Put a scale's 16 bits into its half of its entry."""
        position = registers[POSITIONS[f["sequence"]]] + f["token"]
        row, lane = divmod(position, self.state.config.channels)
        entry = f["kv_base"] + row * f["kv_heads"] + f["head"]
        held = int(self.state.scales[entry, lane])
        self.state.scales[entry, lane] = \
            held & 0xFFFF | raw << 16 if f["kind"] else held & 0xFFFF0000 | raw
