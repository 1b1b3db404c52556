# SPDX-License-Identifier: Apache-2.0
"""Host side of Heddle: from a checkpoint to text.

>>> import heddle
>>> model = heddle.load("sw/models/shakespeare-gpt2", cards="sim:tiny")       # doctest: +SKIP
>>> for piece in model.stream("Romeo.\\n", max_new_tokens=64, temperature=0.8):    # doctest: +SKIP
...     print(piece, end="", flush=True)
"""

import importlib.metadata

from .card import CardError
from .errors import RunError, UserError
from .evaluate import Score
from .generation import Generation, Stream
from .model import Model, load
from .request import Finish, Token
from .sampling import Sampling

__all__ = ["CardError", "Finish", "Generation", "Model", "RunError", "Sampling", "Score", "Stream",
           "Token", "UserError", "load"]

__version__ = importlib.metadata.version("heddle-fpga")
