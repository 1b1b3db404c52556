# SPDX-License-Identifier: Apache-2.0
"""How vectors are cut into slices, and matrices into instructions."""

import dataclasses
import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle import tiling
from heddle.tiling import Slice, chunk_ends, chunks, chunks_by, coverage, slices, tile
from rtl_gen.spec.config import SLICE_BLOCKS, SMALL, TINY, U280
from rtl_gen.spec.formats import PATTERNS, stream_beats

CONFIGS = [TINY, SMALL, U280]


def test_the_examples():
    assert doctest.testmod(tiling).failed == 0


@given(st.integers(1, 8192), st.sampled_from(CONFIGS), st.sampled_from(PATTERNS),
       st.sampled_from([4, 8]))
def test_slices_cover_a_vector(width, config, pattern, least):
    cover = coverage(pattern, config)
    parts = slices(width, cover, SLICE_BLOCKS * config.beat_bytes, least)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == width
    for part in parts:
        assert part.start % cover == 0
        assert part.count <= SLICE_BLOCKS * config.beat_bytes
        assert part.count <= max(cover, width // least)
    # Every slice costs instructions: they are as long as they may be.
    for part in parts[:-1]:
        assert part.count + cover > min(width // least, SLICE_BLOCKS * config.beat_bytes)
    assert len(parts) <= 64


#: One with hardly any room for constants, too.
TIGHT = dataclasses.replace(TINY, aux_beats=16)


@given(st.integers(1, 700), st.integers(1, 40), st.sampled_from([*CONFIGS, TIGHT]),
       st.sampled_from(PATTERNS), st.integers(1, 300), st.integers(1, 400), st.data())
def test_pieces_cover_a_matrix_once(outputs, blocks, config, pattern, bank, chunked, data):
    inputs = 64 * blocks
    parts = slices(inputs, coverage(pattern, config), SLICE_BLOCKS * config.beat_bytes, 8)
    ranks = data.draw(st.none() | st.lists(st.integers(0, 3), min_size=len(parts),
                                           max_size=len(parts)))
    if ranks is None:
        ends = chunk_ends(parts, pattern, config)
        assert ends == sorted(set(ends))
        assert len(ends) <= tiling.CHUNKS
        order = chunks(parts, pattern, config)
        assert [part.stop for part in order] == ends
    else:
        order = chunks_by(ranks, parts, pattern, config)
        of_chunks = [max(rank for rank, part in zip(ranks, parts, strict=True)
                         if part.start < chunk.stop and chunk.start < part.stop)
                     for chunk in order]
        assert of_chunks == sorted(of_chunks)
    cuts = data.draw(st.lists(st.integers(0, 300), max_size=5))
    matrix = tile(config, outputs=outputs, inputs=inputs, pattern=pattern, norm=True, bias=True,
                  chunks=order, cuts=cuts, bank=bank, chunked=chunked)
    rows = -(-outputs // config.channels)
    beats = -(-inputs // (config.beat_bytes * pattern.ratio))
    seen, at = np.zeros((rows, beats), int), 0
    for piece in matrix.pieces:
        block = seen[piece.row:piece.row + piece.rows, piece.beat:piece.beat + piece.beats]
        assert block.shape == (piece.rows, piece.beats)
        block += 1
        assert piece.offset == at
        # Starts when nothing has been added up, ends when everything has.
        rows_seen = seen[piece.row:piece.row + piece.rows]
        assert piece.first == (rows_seen.sum() == block.size)
        assert piece.last == rows_seen.all()
        constants = 0
        if piece.banked:
            assert piece.row + piece.rows <= bank
        if piece.last:
            constants = matrix.constants
            assert piece.rows * constants <= config.aux_words
            assert not [cut for cut in cuts if piece.row < cut < piece.row + piece.rows]
        at += sum(stream_beats(piece.rows, constants, piece.beats, pattern, config.beat_bytes))
    assert (seen == 1).all()
    assert matrix.beats == at


def test_chunks_of_a_wide_vector_are_even():
    parts = slices(1024, 64, 1024, 8)
    assert chunk_ends(parts, PATTERNS[0], U280) == [256, 512, 768, 1024]
    assert chunk_ends(parts[:1], PATTERNS[0], U280) == [128]


@pytest.mark.parametrize("config", CONFIGS)
def test_no_chunks_without_a_bank_to_keep_them(config):
    matrix = tile(config, outputs=100, inputs=64, pattern=PATTERNS[0], norm=False, bias=True,
                  chunks=[Slice(0, 64)], cuts=[], bank=240, chunked=100)
    assert [piece.banked for piece in matrix.pieces] == [False]
