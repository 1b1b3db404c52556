# SPDX-License-Identifier: Apache-2.0
"""Text to tokens and back."""

import pytest

from heddle.errors import UserError
from heddle.tokenizer import Tokenizer
from tests.sw import models

TEXT = "naïve – 線 🧵 threads\n"


@pytest.fixture
def folder(tmp_path):
    models.tokenizer(300).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_text_survives(folder):
    tokenizer = Tokenizer(folder)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert tokenizer.encode("") == []


def test_pieces_are_whole_characters(folder):
    tokenizer = Tokenizer(folder)
    pieces = list(tokenizer.pieces(iter(tokenizer.encode(TEXT))))
    assert "".join(pieces) == TEXT
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert len(pieces) > 5


def test_half_a_character_at_the_end_is_shown_as_such(folder):
    tokenizer = Tokenizer(folder)
    tokens = tokenizer.encode("a線")[:-1]
    assert "".join(tokenizer.pieces(tokens)) == tokenizer.decode(tokens)


def test_the_two_old_files_make_the_same_tokenizer(folder, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    models.tokenizer(300).model.save(str(old))
    assert Tokenizer(old).encode(TEXT) == Tokenizer(folder).encode(TEXT)


def test_no_tokenizer(tmp_path):
    with pytest.raises(UserError) as caught:
        Tokenizer(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'tokenizer.json'} is missing"
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"^the tokenizer in .* cannot be read: "):
        Tokenizer(tmp_path)
