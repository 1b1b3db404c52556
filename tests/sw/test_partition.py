# SPDX-License-Identifier: Apache-2.0
"""How a model is split over the cards of a ring, and what the cards send each other."""

import dataclasses
import doctest
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

import heddle
from heddle import cli, gather, partition
from heddle.compile import Compiler
from heddle.explain import explain
from heddle.gather import Complete, Gather
from heddle.layout import layouts
from heddle.options import Options
from heddle.partition import VECTORS, cut, share
from heddle.parts import LAG
from heddle.program import Builder
from heddle.shapes import find_shape
from heddle.useful import useful_bytes
from rtl_gen.spec.config import CONFIGS, TINY, U280
from rtl_gen.spec.isa import RECEIVES, SENDS
from tests.sw import models


def test_examples():
    for module in (partition, gather):
        assert doctest.testmod(module).failed == 0


@given(st.integers(0, 100), st.sampled_from([1, 2, 4, 8]))
def test_shares_are_even(total, cards):
    parts = share(total, cards)
    assert [word for part in parts for word in part] == list(range(total))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(("shape", "cards"), [("2:320:1500", 4), ("2:192:997", 2)])
def test_cards_need_together_what_one_needs(shape, cards):
    """Heads are split unevenly, 5 on 4 and 3 on 2."""
    def needs(cards):
        config = dataclasses.replace(TINY, cards=cards)
        return [useful_bytes(layout, 100)
                for layout in layouts(config, find_shape(shape), Options(), (2, 4))]

    (one,), several = needs(1), needs(cards)
    for name in ("weights", "cache"):
        assert sum(getattr(part, name) for part in several) == getattr(one, name)
    assert len({part.cache for part in several}) == 2
    # Codes of a part are rounded up to bytes.
    assert 0 <= sum(part.metadata for part in several) - one.metadata < 4 * 2 * cards


@given(st.integers(0, 50), st.integers(0, 60), st.sets(st.integers(0, 120)), st.integers(1, 20))
def test_pieces_end_at_marks(start, size, marks, most):
    whole = range(start, start + size)
    pieces = cut(whole, marks, most)
    assert [word for piece in pieces for word in piece] == list(whole)
    assert all(0 < len(piece) <= most for piece in pieces)
    ends = {piece.stop for piece in pieces}
    assert {mark for mark in marks if start < mark < start + size} <= ends


def messages(builder, card, cards):
    """What a gather emits, as (what, way, words): a SEND goes to way 0 (next) or 1
    (previous); a RECEIVE comes from there: way 0 is what the card before sent to its next one."""
    found = []
    for name, fields in builder._plain:
        if name in SENDS:
            found.append(("send", 1 - SENDS.index(name), (fields["src"], fields["words"])))
        else:
            found.append(("receive", RECEIVES.index(name), (fields["dst"], fields["words"])))
    return found


@given(st.sampled_from([2, 4, 8]), st.integers(1, 4), st.data())
def test_gathers_bring_every_word_to_every_card_once(cards, lag, data):
    """The cards' instructions are carried out with queues between them: all of them end, each
    message is the one that is awaited, and a card sends only what it has."""
    pieces, at = [], 0
    for _ in range(cards):
        sizes = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
        mine = []
        for size in sizes:
            mine.append(range(at, at + size))
            at += size
        pieces.append(mine)
    everything = range(at)
    programs = []
    for card in range(cards):
        builder, arrived = Builder(dataclasses.replace(TINY, cards=cards)), []
        gathered = Gather(builder, card, pieces, address=lambda word: word, stride=0, columns=1,
                          lag=lag, arrived=arrived.extend)
        if data.draw(st.booleans()):
            gathered.have(pieces[card][-1].stop)
        else:
            for piece in pieces[card]:
                gathered.have(piece.stop)
        gathered.finish()
        assert sorted(arrived) == list(everything)
        programs.append(deque(messages(builder, card, cards)))
    links = {(card, way): deque() for card in range(cards) for way in range(2)}
    has = [{word for piece in mine for word in piece} for mine in pieces]
    while any(programs):
        moved = False
        for card, program in enumerate(programs):
            while program:
                what, way, (first, size) = program[0]
                words = set(range(first, first + size))
                if what == "send":
                    assert words <= has[card]
                    links[(card + (-1 if way else 1)) % cards, way].append((first, size))
                else:
                    if not links[card, way]:
                        break
                    assert links[card, way].popleft() == (first, size)
                    assert not words & has[card]
                    has[card] |= words
                program.popleft()
                moved = True
        assert moved, "the cards wait for each other"
    assert has == [set(everything)] * cards


@pytest.mark.parametrize("cards", [1, 2, 4, 8])
@pytest.mark.parametrize(("config", "shape"), [
    (U280, "1:1536:1024"), (U280, "1:1600:1024"), (TINY, "1:512:997"), (TINY, "1:576:1500")])
def test_products_take_slices_as_a_gather_brings_them(config, shape, cards):
    for layout in layouts(dataclasses.replace(config, cards=cards), find_shape(shape),
                          Options(split="outputs"), (2, 4)):
        lanes = layout.config.vector_lanes
        for matrix, name in VECTORS.items():
            slices = layout.vectors[name]
            pieces = [layout.pieces(matrix, card) for card in range(cards)]
            complete, found = Complete([range(part.start // lanes, part.stop // lanes)
                                        for part in slices]), []
            brings = Gather(Builder(layout.config), layout.card, pieces, address=lambda word: word,
                            stride=0, columns=1, lag=LAG,
                            arrived=lambda words: found.extend(complete.add(words)))   # noqa: B023
            brings.have(pieces[layout.card][-1].stop)
            brings.finish()
            assert found == layout.order(matrix)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.randoms())
def test_ranges_are_complete_when_their_last_word_comes(sizes, rng):
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    complete = Complete([range(start, start + size)
                         for start, size in zip(starts, sizes, strict=True)])
    words, seen, told = list(range(sum(sizes))), set(), []
    rng.shuffle(words)
    for word in words:
        seen.add(word)
        for number in complete.add(range(word, word + 1)):
            told.append(number)
            assert set(range(starts[number], starts[number] + sizes[number])) <= seen
    assert sorted(told) == list(range(len(sizes)))


@pytest.mark.parametrize(("config", "shape", "cards"), [
    ("u280", "gpt2-1.5b-1600", 4), ("u280", "gpt2-124m", 8), ("tiny", "2:192:997", 2)])
def test_every_row_is_on_one_card(config, shape, cards):
    shape = find_shape(shape)
    placed = layouts(dataclasses.replace(CONFIGS[config], cards=cards), shape,
                     Options(split="outputs"))
    lanes = placed[0].config.channels
    for name, outputs in (("qkv", 3 * shape.width), ("out", shape.width), ("up", shape.inner),
                          ("down", shape.width), ("head", shape.vocabulary)):
        rows = [row for layout in placed for row in layout.rows_of[name]]
        assert sorted(rows) == list(range(-(-outputs // lanes)))
        assert sum(layout.matrices[name].outputs for layout in placed) == outputs
    used = [layout.memory.used for layout in placed]
    assert max(used) < 1.3 * min(used)


def test_a_model_that_needs_four_cards():
    """It is refused with the megabytes that a channel would have to have."""
    small = dataclasses.replace(U280, channel_bytes=1 << 25)
    shape = find_shape("gpt2-1.5b")
    with pytest.raises(heddle.UserError,
                       match=r"MB of each of the 32 HBM channels .* at least [0-9]+"):
        layouts(small, shape, Options(cache="int8"))
    layouts(dataclasses.replace(small, cards=4), shape, Options(cache="int8"))


def test_what_a_card_sends():
    """Each card sends what it has to both neighbours, and passes half of each neighbour's on."""
    config = dataclasses.replace(U280, cards=4)
    shape = dataclasses.replace(find_shape("gpt2-345m"), layers=2)
    for layout in layouts(config, shape, Options(split="outputs")):
        found = explain(layout, Compiler(layout).program())
        vectors = shape.layers * (3 * shape.width + shape.inner) * 4
        logits = 4 * -(-shape.vocabulary // config.channels) * config.channels
        for size in found["sends"].values():
            # A card away: a quarter; what half of the opposite card's part is: an eighth.
            assert size == pytest.approx((vectors + logits) * 3 / 8, rel=0.02)


def test_compile_explains(tmp_path, capsys):
    found = models.tensors(layers=1, width=192, vocabulary=300, context=40, seed="explain")
    folder = models.write(tmp_path, found)
    assert cli.run(["compile", str(folder), "--cards", "sim:tiny*2", "--explain",
                    "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "0–1" in said
    assert "2–2" in said
    assert (tmp_path / "out" / "card1" / "program.bin").exists()
