# SPDX-License-Identifier: Apache-2.0
"""How a model runs on a card."""

import dataclasses

from .errors import UserError

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

    def __post_init__(self) -> None:
        for name, choice in (("activation", ACTIVATIONS), ("cache", CACHES)):
            value = getattr(self, name)
            if value not in choice:
                raise UserError(f"{name} must be {' or '.join(choice)}, not {value!r}")
        if self.context is not None and self.context < 1:
            raise UserError(f"context must be at least 1, not {self.context}")

    @property
    def digits(self) -> int:
        """The ``digits`` field of instructions."""
        return int(self.activation == "a16")

    @property
    def wide(self) -> int:
        """The ``wide`` field of instructions on K and V."""
        return int(self.cache == "int16")
