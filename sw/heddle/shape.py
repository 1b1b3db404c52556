# SPDX-License-Identifier: Apache-2.0
"""The shape of a GPT-2: all that the compiler needs to know of a model."""

import dataclasses

from rtl_gen.spec.config import HEAD

from .errors import UserError

#: GELU forms as the ``gelu`` field of an instruction names them.
GELU_TANH, GELU_ERF = 1, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a GPT-2; every head has ``rtl_gen.spec.config.HEAD`` elements."""

    layers: int
    width: int
    #: Elements of the hidden vector between the two matrices of the MLP.
    inner: int
    vocabulary: int
    context: int
    epsilon: float = 1e-5
    gelu: int = GELU_TANH
    #: Whether scores are divided by the root of the head's size.
    scaled: bool = True

    def __post_init__(self) -> None:
        for name in ("layers", "width", "inner", "vocabulary", "context"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.width % HEAD:
            raise UserError(f"the width must be a multiple of {HEAD}, the size of a head, "
                            f"not {self.width}")
        if not 0 <= self.epsilon < 1:
            raise UserError(f"layer_norm_epsilon must be at least 0 and below 1, "
                            f"not {self.epsilon}")

    @property
    def heads(self) -> int:
        return self.width // HEAD

    @property
    def weights(self) -> int:
        """Weights of the matrices that a decode step multiplies with, LM head included."""
        per_layer = self.width * (4 * self.width + 2 * self.inner)
        return self.layers * per_layer + self.vocabulary * self.width
