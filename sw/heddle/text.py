# SPDX-License-Identifier: Apache-2.0
"""Text from tokens as they come, up to a stop text."""

from collections.abc import Sequence

from .errors import UserError
from .tokenizer import BROKEN, Tokenizer

#: Stop texts of one request.
MOST_STOPS = 16


class Text:
    """The text of tokens that come one by one.

    A character whose bytes are incomplete waits, and so does what may be the beginning of a stop
    text.  Where a stop text appears the text ends, without it.

    Parameters
    ----------
    tokenizer : Tokenizer
    stops : sequence of str
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._tokens: list[int] = []
        self._held = ""
        #: Whether a stop text ended it.
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain now."""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        if text.endswith(BROKEN):
            return ""
        self._tokens = []
        return self._certain(text)

    def end(self) -> str:
        """What has waited; no token comes any more."""
        text = self._certain(self._tokenizer.decode(self._tokens)) if self._tokens else ""
        if not self.stopped:
            text, self._held = text + self._held, ""
        self._tokens = []
        return text

    def _certain(self, more: str) -> str:
        if self.stopped:
            return ""
        text = self._held + more
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[:min(places)]
        held = max((count for stop in self._stops for count in range(1, len(stop))
                    if text.endswith(stop[:count])), default=0)
        text, self._held = text[:len(text) - held], text[len(text) - held:]
        return text


def stop_texts(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """The stop texts of an argument, each of which must have a character."""
    found = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
    if len(found) > MOST_STOPS:
        raise UserError(f"stop must be at most {MOST_STOPS} texts, not {len(found)}")
    for text in found:
        if not isinstance(text, str) or not text:
            raise UserError(f"a stop text must have at least one character, not be {text!r}")
    return found
