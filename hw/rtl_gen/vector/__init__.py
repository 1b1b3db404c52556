# SPDX-License-Identifier: Apache-2.0
"""The vector unit with its storage: scratchpad, scales of K and V, quantiser; LayerNorm alone."""

from .layernorm import LayerNorm
from .quantise import SliceQuantiser
from .scales import Scales
from .scratchpad import Scratchpad
from .vector import Vector

__all__ = ["LayerNorm", "Scales", "Scratchpad", "SliceQuantiser", "Vector"]
