# SPDX-License-Identifier: Apache-2.0
"""Text from tokens as they come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.errors import UserError
from heddle.text import MOST_STOPS, Text, stop_texts
from heddle.tokenizer import Tokenizer
from tests.sw import models


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t")
    models.tokenizer(300).save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


def written(tokenizer, tokens, stops=()):
    """Pieces until the text ends."""
    text, pieces = Text(tokenizer, stops), []
    for token in tokens:
        pieces.append(text.add(token))
        if text.stopped:
            return pieces, True
    return [*pieces, text.end()], text.stopped


def test_pieces_are_the_text_and_characters_stay_whole(tokenizer):
    words = "naïve – the “threads” 🧵"
    tokens = tokenizer.encode(words)
    pieces, stopped = written(tokenizer, tokens)
    assert "".join(pieces) == words
    assert not stopped
    assert "" in pieces     # a character of several tokens
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_a_broken_end_is_shown_as_such(tokenizer):
    tokens = tokenizer.encode("a🧵")[:-1]
    pieces, _ = written(tokenizer, tokens)
    assert "".join(pieces) == tokenizer.decode(tokens)
    assert pieces[-1].endswith("\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(("stops", "want"), [
    (("threads",), "the "), (("the",), ""), (("e t",), "th"), (("thq", "rea"), "the th"),
    (("nowhere",), None), (("s, and over",), "the thread"), (("r", "threads"), "the th"),
    (("r.",), "the threads, and ove")])
def test_the_text_ends_before_a_stop_text(tokenizer, stops, want):
    words = "the threads, and over."
    pieces, stopped = written(tokenizer, tokenizer.encode(words), stops)
    assert "".join(pieces) == (words if want is None else want)
    assert stopped == (want is not None)


def test_what_may_begin_a_stop_text_waits(tokenizer):
    text = Text(tokenizer, ["ab!"])
    a, b, c = (tokenizer.encode(x)[0] for x in "abc")
    assert [text.add(token) for token in (c, a, b, c, a, b)] == ["c", "", "", "abc", "", ""]
    assert text.end() == "ab"
    assert text.add(c) == "c"


@given(words=st.text("ab ", min_size=1, max_size=30),
       stops=st.lists(st.text("ab ", min_size=1, max_size=4), min_size=1, max_size=3))
def test_no_stop_text_is_ever_shown_and_nothing_is_lost(tokenizer, words, stops):
    pieces, stopped = written(tokenizer, tokenizer.encode(words), stops)
    found = "".join(pieces)
    assert not any(stop in found for stop in stops)
    assert words.startswith(found)
    assert stopped == any(stop in words for stop in stops)
    assert stopped or found == words


def test_stop_texts_of_an_argument():
    assert stop_texts(None) == ()
    assert stop_texts("a") == ("a",)
    assert stop_texts(["a", "bc"]) == ("a", "bc")
    for wrong in ("", ["a", ""], [3]):
        with pytest.raises(UserError, match="a stop text must have at least one character, not be"):
            stop_texts(wrong)
    with pytest.raises(UserError, match=f"stop must be at most {MOST_STOPS} texts, not 17"):
        stop_texts(["a"] * 17)


def test_of_several_stop_texts_in_one_token_the_first_place_counts():
    class Words:
        def decode(self, tokens):
            return "".join(["one two three"][token] for token in tokens)

    for stops in (["three", "two"], ["two", "three"]):
        text = Text(Words(), stops)
        assert text.add(0) == "one "
        assert text.stopped
