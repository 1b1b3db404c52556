# SPDX-License-Identifier: Apache-2.0
"""How a model runs on a card."""

import dataclasses

from .errors import UserError
from .partition import WHOLE

ACTIVATIONS = ("a16", "a8")
CACHES = ("int16", "int8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Choices that the compiler leaves to the user.

    16-bit activations, K and V are the default: they keep the best token of FP32 wherever weights
    of 8 bits do, and weights are most of what a decode step reads.
    """

    #: Digits of activations: "a16" or "a8".
    activation: str = "a16"
    #: K and V in memory: "int16" or "int8".
    cache: str = "int16"
    #: N:M pattern of the layers' matrices, "dense", or None for the model's own.
    pattern: str | None = None
    #: Longest context; None for the model's, as far as the card reaches.
    context: int | None = None
    #: How matrices lie on the cards of a ring: "outputs", each split along its outputs;
    #: "whole:out,up" and so on, those named whole on every card; "auto", as
    #: :mod:`heddle.choose` says.  It changes no result.
    split: str = "auto"

    def __post_init__(self) -> None:
        for name, choice in (("activation", ACTIVATIONS), ("cache", CACHES)):
            value = getattr(self, name)
            if value not in choice:
                raise UserError(f"{name} must be {' or '.join(choice)}, not {value!r}")
        if self.context is not None and self.context < 1:
            raise UserError(f"context must be at least 1, not {self.context}")
        if self.split not in ("auto", "outputs"):
            kind, _, names = self.split.partition(":")
            if kind != "whole" or not set(names.split(",")) <= set(WHOLE):
                raise UserError(f"split must be auto, outputs, or whole: and some of "
                                f"{', '.join(WHOLE)}, as in whole:out,up, not {self.split!r}")

    @property
    def whole(self) -> frozenset[str] | None:
        """Matrices that every card of a ring has whole; None if they are to be chosen."""
        if self.split == "auto":
            return None
        return frozenset(filter(None, self.split.partition(":")[2].split(",")))

    @property
    def digits(self) -> int:
        """The ``digits`` field of instructions."""
        return int(self.activation == "a16")

    @property
    def wide(self) -> int:
        """The ``wide`` field of instructions on K and V."""
        return int(self.cache == "int16")
