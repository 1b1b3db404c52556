# SPDX-License-Identifier: Apache-2.0
"""MATMUL: weights against the planes, the accumulator bank, the epilogue."""

from typing import Any

import numpy as np
import numpy.typing as npt

from heddle.card import CardError
from rtl_gen.spec.formats import PATTERNS
from rtl_gen.spec.isa import LENGTHS, POSITIONS

from .arithmetic import F32, HIGH, RAW, Checked, tame
from .cached import CachedRows
from .memory import Memory
from .probabilities import Probabilities
from .program import Operands
from .state import State
from .sums import Bank, Sums, multiply
from .vector import Fields, Registers
from .weights import BELOW, BESIDE, Stream, WeightCache, Weights

#: Sums of units from here up, with tame constants, cannot become subnormal in an epilogue.
QUICK_UNIT = -60
_ZERO = F32(0)


class Matmul:
    """One MATMUL word, or several that are one product.

    Parameters
    ----------
    state : State
    memory : Memory
    cache : WeightCache
    bank : Bank
    words : list of dict
        Fields of the instructions, in order.  Several differ in where their weights lie, and either
        in the rows (and in where these go), or in the inputs.
    """

    def __init__(self, state: State, memory: Memory, cache: WeightCache, bank: Bank,
                 words: list[Fields]) -> None:
        config, f = state.config, words[0]
        self.state, self.memory, self.cache, self.bank, self.f = state, memory, cache, bank, f
        self.joined = BESIDE if len(words) > 1 and words[1]["act"] != f["act"] else BELOW
        self.lanes, self.width = config.channels, config.beat_bytes
        self.tokens, self.digits = f["columns"], 1 + f["digits"]
        self.columns = f["columns"] * self.digits
        pattern = PATTERNS[f["pattern"]]
        self.constants = tuple(name for name, used in (
            ("scale", f["scale"] == 1), ("wg", f["norm"] > 0), ("bias", f["bias"])) if used)
        self.key = (f["act"], f["digits"], f["two_beat"], f["exponent"], f["columns"])
        self.probabilities = Probabilities(state, f) if f["dest"] else None
        # K and V change with every token: they are not worth keeping.
        changing = (f["merge"] or f["rows_reg"] or f["beats_reg"]) and pattern.m == 1
        self.cached = CachedRows(state, memory, f) if changing and not self.constants else None
        self._weights: dict[tuple[Operands, ...], Weights] = {}
        self._fits: tuple[int, Any] = (-1, None)

    def __call__(self, registers: Registers, *operands: Operands) -> None:
        f, rows = self.f, operands[0][0]
        weights = None
        if self.cached is not None:
            _, beats, address = operands[0]
            self._check(np.ones((beats, 1), np.bool_), beats, self.cached.seen)
            sums = self.cached(registers[POSITIONS[f["sequence"]]], rows, beats, address)
        else:
            weights = self._find(operands)
            if self.joined == BELOW and len(operands) > 1:
                rows = sum(each for each, _, _ in operands)
            self._check(weights.used, weights, weights.seen)
            sums = multiply(weights.plan, self.state, weights.used.ravel(), f["act"], self.digits,
                            self.tokens)
        if not f["first"]:
            sums = self.bank.get(f["acc_row"], rows, self.tokens, self.lanes).plus(sums)
        if not f["last"]:
            self.bank.put(f["acc_row"], rows, sums, self.lanes)
            return
        if f["merge"] == 1:
            sums = sums.turned(self.lanes, self.state.config.k_lane(0, f["head"]))
        if self.probabilities is not None:
            length = registers[LENGTHS[f["sequence"]]]
            self._attend(self.probabilities, sums, weights, length, rows)
            return
        for token in range(self.tokens):
            first = f["dst"] + token * f["dst_stride"]
            part = self.state.scratch[first:first + rows]
            result, _ = self._finish(sums, weights, token, rows, part)
            part[:] = result

    def _find(self, operands: tuple[Operands, ...]) -> Weights:
        """The weights at these places."""
        found = self._weights.get(operands)
        if found is None or not found.current:
            f = self.f
            self._weights = {key: each for key, each in self._weights.items() if each.current}
            streams = tuple(
                Stream(address, rows, beats, f["pattern"], bool(f["wide"]), bool(f["k_outer"]),
                       self.constants) for rows, beats, address in operands)
            found = self._weights[operands] = self.cache.get(streams, self.joined)
        return found

    def _attend(self, probabilities: Probabilities, sums: Sums, weights: Weights | None,
                length: int, rows: int) -> None:
        """Scores to softmax; the first token attends to ``length`` positions."""
        if not length:
            register = LENGTHS[self.f["sequence"]].name
            raise CardError(f"{register} must be at least 1 for a MATMUL to softmax, not 0")
        vscale = (self.scale_rows(rows) & np.uint32(0xFFFF0000)).view(F32).ravel()
        for token in range(self.tokens):
            valid = min(length + token, rows * self.lanes)
            scores, fine = self._finish(sums, weights, token, rows, None, valid)
            probabilities.write(token, scores.ravel()[:valid], vscale, fine)

    # ---- Exact sums. ----

    def _check(self, used: npt.NDArray[np.bool_], what: Any, seen: set[Any]) -> None:
        """Refuse planes that do not hold what this product takes them for.

        ``used`` [entries, blocks of an entry] tells which blocks meet weights other than zero,
        ``what`` stands for it, and ``seen`` holds what was found to fit.
        """
        state = self.state
        if self._fits == (state.layout, what):
            return
        act = self.f["act"]
        entries, covered = used.shape
        origin = state.origin[:self.columns, act:act + entries * covered]
        key = (self.key, entries, origin.tobytes())
        if key not in seen:
            for column in origin:
                for entry, mask in zip(column.reshape(entries, covered), used, strict=True):
                    self._check_entry(set(entry[mask].tolist()), covered)
            seen.add(key)
        self._fits = (state.layout, what)

    def _check_entry(self, numbers: set[int], covered: int) -> None:
        f = self.f
        for number in numbers:
            digits, two_beat, base, _ = self.state.named[number]
            if not number or (digits, two_beat, base) != (f["digits"], f["two_beat"],
                                                          f["exponent"]):
                found = f"with digits={digits} two_beat={two_beat} exponent={base}" \
                    if number else "blocks that were never written"
                raise CardError(
                    f"MATMUL from plane block {f['act']} must read what was written with "
                    f"digits={f['digits']} two_beat={f['two_beat']} exponent={f['exponent']}, "
                    f"not {found}")
        if len(numbers) > 1:
            raise CardError(f"MATMUL from plane block {f['act']} must find one slice in each "
                            f"group of {covered} blocks, not {len(numbers)}")

    # ---- Epilogue. ----

    def _finish(self, sums: Sums, weights: Weights | None, token: int, rows: int,
                old: npt.NDArray[np.float32] | None,
                valid: int | None = None) -> tuple[npt.NDArray[np.float32], bool]:
        """One token's rows [rows, C], and whether they are tame.

        Only the first ``valid`` elements count for the sticky bits, all of them if it is None.
        """
        values = sums.values[token]
        if not self.state.wild and sums.unit >= QUICK_UNIT and values.dtype != object \
                and sums.bound < HIGH and (weights is None or weights.tame):
            # The least nonzero magnitudes: 2^-60 of the sums, 2^-30 of the constants, whose
            # product keeps multiples of 2^-113; 2^-10 more for one factor that is known later.
            # Hence nothing before the last steps is subnormal, and those are looked at.
            start = values.astype(F32)
            start += _ZERO      # never -0
            result = self._epilogue(RAW, start.reshape(rows, self.lanes), weights, token, old)
            if result is not None:
                return result, True
        checked = Checked()
        start = Sums(values, sums.unit, sums.bound).rounded().reshape(rows, self.lanes)
        if valid is not None:
            # Masked elements are calculated as if they were zeros: they raise nothing.
            start.ravel()[valid:] = 0
        result = self._epilogue(checked, start, weights, token, old, valid)
        assert result is not None
        self.state.stick(nonfinite=checked.nonfinite)
        fine = tame(result)
        if old is not None and not fine:
            self.state.wild = True
        return result, fine

    def _epilogue(self, ar: Any, v: npt.NDArray[np.float32], weights: Weights | None, token: int,
                  old: npt.NDArray[np.float32] | None,
                  valid: int | None = None) -> npt.NDArray[np.float32] | None:
        """The steps of docs/numerics.md; None if ``ar`` is RAW and cannot be relied on."""
        f, state, raw = self.f, self.state, ar is RAW
        if not raw:
            ar.see(v)
        constants = weights.constants if weights is not None else {}
        if f["scale"] == 1:
            v = ar.mul(v, constants["scale"])
        elif f["scale"] == 2:
            scale = (self.scale_rows(len(v)) << np.uint32(16)).view(F32)
            if not raw and valid is not None:
                scale.ravel()[valid:] = 0
            v = ar.mul(v, scale)
            if raw and (f["norm"] or not tame(v)):
                return None
        if f["norm"]:
            mean, rstd = state.norms[f["norm"] - 1, token]
            if raw and (f["divide"] or not (mean == 0 or 2.0**-30 <= abs(mean) <= 2.0**30)
                        or not 2.0**-10 <= rstd <= 2.0**30):
                return None
            v = ar.mul(ar.sub(v, ar.mul(mean, constants["wg"])), rstd)
        if f["divide"]:
            r = state.softmax[f["divide"] - 1, token]
            if raw and not 2.0**-12 <= r <= 1:
                return None
            v = ar.mul(v, r)
        if f["bias"]:
            v = ar.add(v, constants["bias"])
        if f["gelu"]:
            if raw and not tame(v):
                return None
            v = ar.gelu(v, f["gelu"] - 1)
        if f["residual"]:
            v = ar.add(old, v)
        if raw and f["scale"] == 2 and v is not None and not (
                f["divide"] or f["bias"] or f["gelu"] or f["residual"]):
            return v            # looked at above
        return None if raw and not tame(v) else v

    def scale_rows(self, rows: int) -> npt.NDArray[np.uint32]:
        """Scale entries [rows, C] of this head."""
        f = self.f
        first, step = f["kv_base"] + f["head"], f["kv_heads"]
        if not step:
            return np.broadcast_to(self.state.scales[first], (rows, self.lanes))
        return self.state.scales[first:first + (rows - 1) * step + 1:step]
