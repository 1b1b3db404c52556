# SPDX-License-Identifier: Apache-2.0
"""Text to tokens and back, also piece by piece."""

import pathlib
from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from .errors import UserError

#: What a decoder puts where the bytes are no character (yet).
BROKEN = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """The tokenizer of a model folder: ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``."""

    def __init__(self, folder: str | pathlib.Path) -> None:
        folder = pathlib.Path(folder)
        whole, parts = folder / "tokenizer.json", (folder / "vocab.json", folder / "merges.txt")
        try:
            if whole.exists():
                self._inner = tokenizers.Tokenizer.from_file(str(whole))
            elif all(path.exists() for path in parts):
                self._inner = tokenizers.Tokenizer(models.BPE.from_file(*map(str, parts)))
                self._inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
                self._inner.decoder = decoders.ByteLevel()
            else:
                raise UserError(f"{whole} is missing")
        # The library raises bare exceptions.
        except Exception as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"the tokenizer in {folder} cannot be read: {error}") from None

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; :class:`UserError` if half a surrogate pair is in it."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"a text must have whole characters, not {text[error.start]!r} at "
                            f"place {error.start}") from None
        return list(self._inner.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, special ones left out."""
        return str(self._inner.decode(list(tokens)))

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of tokens as they come; a character whose bytes are incomplete waits.

        The pieces joined equal :meth:`decode` of all tokens.
        """
        waiting: list[int] = []
        for token in tokens:
            waiting.append(token)
            text = self.decode(waiting)
            if not text.endswith(BROKEN):
                yield text
                waiting = []
        if waiting:
            yield self.decode(waiting)
