# SPDX-License-Identifier: Apache-2.0
"""What a card says of its commands: result records, counters, numbers that cannot be trusted."""

import dataclasses

import numpy as np
import numpy.typing as npt

from rtl_gen.spec import registers
from rtl_gen.spec.registers import Sticky

from .card import Status
from .errors import RunError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A result record: what the card says of one step's logits."""

    #: The best token, and its logit.
    token: int
    logit: float
    #: log Σ exp of all logits.
    log_sum: float
    #: Logit of the token given for the next step; None if there was none.
    target_logit: float | None
    #: Best tokens, best first, and their logits.
    candidates: npt.NDArray[np.uint32]
    candidate_logits: npt.NDArray[np.float32]


def add(totals: dict[str, int], counters: dict[str, int]) -> None:
    """Add counters to totals, by name."""
    for name, value in counters.items():
        totals[name] = totals.get(name, 0) + value


@dataclasses.dataclass
class Totals:
    """Counters of all commands since the last reset, by their names in the status record."""

    steps: int = 0
    counters: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, status: Status, steps: int) -> None:
        self.steps += steps
        add(self.counters, status.counters)


def result_of(words: npt.NDArray[np.uint32], candidates: int) -> Result:
    """The record in ``words`` [n], with so many candidates."""
    fixed = dict(zip(registers.RESULT, words, strict=False))

    def fp32(name: str) -> float:
        return float(fixed[name].view(np.float32))

    start = len(registers.RESULT)
    pairs = words[start:start + 2 * candidates].reshape(-1, 2)
    pairs = pairs[pairs[:, 0] != registers.NO_TARGET]
    return Result(
        token=int(fixed["token"]), logit=fp32("logit"),
        log_sum=fp32("max") + float(np.log(fp32("sum"))),
        target_logit=None if fixed["target"] == registers.NO_TARGET else fp32("target_logit"),
        candidates=pairs[:, 0].copy(), candidate_logits=pairs[:, 1].copy().view(np.float32))


def judge(status: Status) -> None:
    """:class:`RunError` if the numbers of a command are not to be trusted."""
    if status["sticky"] & Sticky.NONFINITE:
        raise RunError("the model computed a NaN or an infinity: its weights or activations are "
                       "too large for FP32")
    if status["sticky"] & Sticky.RANGE:
        raise RunError("an activation was too large to be quantised: the model's activations are "
                       "larger than those of any GPT-2 that this compiler knows")
