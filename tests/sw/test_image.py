# SPDX-License-Identifier: Apache-2.0
"""What lies in memory: every part in its place, none over another."""

import tracemalloc

import numpy as np
import pytest

from heddle.checkpoint import Checkpoint
from heddle.errors import UserError
from heddle.image import Images, Pruned, heads_together, row_constants, stripe
from heddle.layout import Layout
from heddle.options import Options
from heddle.pack.patterns import unpack_stream
from heddle.prune import prune_rows
from heddle.quantise import quantise_rows
from heddle.shape import Shape
from heddle.shapes import RandomSource
from rtl_gen.spec.config import SMALL, TINY, U280
from tests.sw import models


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    found = models.tensors(layers=2, width=128, inner=200, vocabulary=290, context=12)
    return Checkpoint(models.write(tmp_path_factory.mktemp("m"), found))


def test_heads_are_brought_together():
    rows = np.arange(3 * 128, dtype=np.float32)
    mixed = heads_together(rows)
    assert mixed[:64].tolist() == list(range(64))
    assert mixed[64:128].tolist() == list(range(128, 192))
    assert mixed[192:256].tolist() == list(range(64, 128))
    assert heads_together(rows[:, None] * [1, 2]).shape == (384, 2)


def test_vectors_are_striped_over_the_channels(checkpoint):
    layout = Layout(TINY, checkpoint.shape, Options())
    vectors = np.random.default_rng(1).standard_normal((3, 128)).astype(np.float32)
    lanes = stripe(vectors, layout)
    assert lanes.shape == (4, 3, 128)
    words = lanes.view("<f4")
    for element in (0, 1, 5, 127):
        np.testing.assert_array_equal(words[element % 4, :, element // 4], vectors[:, element])


def test_constants_of_rows():
    rng = np.random.default_rng(2)
    w, gamma, beta = rng.standard_normal((5, 30)), rng.standard_normal(30), rng.standard_normal(30)
    bias, factor = rng.standard_normal(5).astype(np.float32), np.full(5, 0.125, np.float32)
    rows = quantise_rows(w)
    exact = rows.q * rows.scale.astype(float)[:, None]
    np.testing.assert_allclose(
        row_constants(rows, bias=bias, gamma=gamma, beta=beta, factor=factor),
        np.stack([rows.scale, exact @ gamma, bias + exact @ beta], axis=1) / 8, rtol=1e-6)
    np.testing.assert_array_equal(
        row_constants(rows, bias=bias, gamma=None, beta=None, factor=None),
        np.stack([rows.scale, bias], axis=1))


@pytest.mark.parametrize(("config", "pruning"), [
    (TINY, (1, 1)), (SMALL, (2, 4)), (U280, (1, 16)), (TINY, (3, 8))])
def test_every_block_has_a_place_of_its_own(checkpoint, config, pruning):
    layout = Layout(config, checkpoint.shape, Options(), pruning)
    used = np.zeros(layout.memory.used, int)
    seen = []
    source = Pruned(checkpoint, pruning)
    for block in Images(layout, source).blocks(lambda *counts: seen.append(counts)):
        channels, beats, size = block.data.shape
        assert (channels, size) == (config.channels, config.beat_bytes)
        used[block.address:block.address + beats] += 1
    assert used.max() == 1
    assert seen == [(k, 4) for k in range(1, 5)]
    # What the card or the host writes later is left out.
    assert not used[:layout.memory.embedding].any()
    assert not used[layout.memory.logits:layout.memory.layers].any()
    assert not used[layout.memory.cache:].any()
    assert used[layout.memory.layers:layout.memory.cache].all()


def test_a_model_is_never_held_as_a_whole():
    """One matrix in FP32 and as signed bytes, and what a block of its rows needs."""
    shape = Shape(layers=8, width=256, inner=1024, vocabulary=24000, context=64)
    images = Images(Layout(TINY, shape, Options()), RandomSource(shape))
    largest = 4 * shape.vocabulary * shape.width
    tracemalloc.start()
    try:
        total = sum(block.data.nbytes for block in images.blocks())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total > 1.4 * largest
    assert peak < 1.8 * largest


def test_the_weights_of_a_layer_can_be_read_back(checkpoint):
    pruning = (2, 4)
    layout = Layout(TINY, checkpoint.shape, Options(), pruning)
    memory = layout.memory
    image = np.zeros((4, memory.used, 16), np.uint8)
    for block in Images(layout, Pruned(checkpoint, pruning)).blocks():
        image[:, block.address:block.address + block.data.shape[1]] = block.data
    layer = checkpoint.layer(1)
    for name, weights in (("up", layer.up), ("qkv", heads_together(layer.qkv)),
                          ("out", layer.out)):
        want = quantise_rows(prune_rows(weights, *pruning))
        matrix = layout.matrices[name]
        base = memory.layers + memory.layer_stride + memory.matrices[name]
        got = np.zeros_like(want.q)
        for piece, after in zip(matrix.pieces, [*matrix.pieces[1:], None], strict=True):
            rows = min(piece.rows * 4, matrix.outputs - piece.row * 4)
            end = matrix.beats if after is None else after.offset
            inputs = slice(piece.beat * 32, min((piece.beat + piece.beats) * 32, matrix.inputs))
            part, aux = unpack_stream(
                image[:, base + piece.offset:base + end], rows, inputs.stop - inputs.start,
                layout.pattern, TINY, matrix.constants if piece.last else 0)
            place = slice(piece.row * 4, piece.row * 4 + rows)
            got[place, inputs] = part
            if piece.last:
                scale = want.scale[place] * np.float32(
                    [0.125 if name == "qkv" and row % 192 < 64 else 1
                     for row in range(place.start, place.stop)])
                np.testing.assert_array_equal(aux[:, 0].view(np.float32), scale)
        np.testing.assert_array_equal(got, want.q)


def test_a_model_that_claims_a_pattern_must_keep_it(checkpoint):
    with pytest.raises(UserError) as caught:
        Pruned(checkpoint, (2, 4), noted=True).layer(0)
    assert str(caught.value) == ("h.0.attn.c_attn.weight must obey 2:4, but row 0 has more than 2 "
                                 "weights in group 0")
