# SPDX-License-Identifier: Apache-2.0
"""Models on rings of functional cards: the bits of one card, whatever the split."""

import dataclasses
import threading

import numpy as np
import pytest

import heddle
from cardsim.functional import FunctionalCard, open_cards
from heddle.card import CardError
from heddle.layout import layouts
from heddle.options import Options
from heddle.program import Program
from heddle.runtime import Runtime
from heddle.shape import Shape
from heddle.shapes import RandomSource
from rtl_gen.spec.config import CONFIGS, TINY
from tests.sw import models

#: Two heads on two cards; three on two; five on four, with a last word that is not full; eight on
#: eight, and rows of the vocabulary that nothing divides.
CASES = {"even": (128, 512, 997, 2), "three on two": (192, 768, 997, 2),
         "five on four": (320, 1001, 1500, 4), "eight": (512, 600, 1201, 8)}
#: Options and N:M.
WAYS = {"a16": ({}, (1, 1)), "2:4": ({"cache": "int8"}, (2, 4)),
        "1:8 a8": ({"activation": "a8", "cache": "int8"}, (1, 8))}


def opened(name, cards, way, config="tiny"):
    width, inner, vocabulary, _ = CASES[name]
    shape = Shape(layers=2, width=width, inner=inner, vocabulary=vocabulary, context=40)
    options, pruning = WAYS[way]
    placed = layouts(dataclasses.replace(CONFIGS[config], cards=cards), shape, Options(**options),
                     pruning)
    runtime = Runtime(open_cards(placed[0].config), placed)
    runtime.load_model(RandomSource(shape, pruning=pruning))
    return runtime


def outcome(runtime):
    """A prompt, some tokens after it, and a step of a batch: records and logits."""
    found = []
    first = runtime.read([5, 7, 11, 200, 13], 0, candidates=4, store_logits=True)
    found.append(runtime.logits())
    results = [first, *runtime.run([first.token], 5, 4, candidates=4, store_logits=True)]
    found.append(runtime.logits())
    if runtime.layout.sequences > 1:
        results += runtime.batch([3, 9], [12, 0], candidates=4, store_logits=True)
        found += [runtime.logits(sequence) for sequence in range(2)]
    return found, [(result.token, result.log_sum, result.candidates.tolist(),
                    result.candidate_logits.tolist()) for result in results]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_the_number_of_cards_changes_no_bit(name, way):
    alone, ring = opened(name, 1, way), opened(name, CASES[name][3], way)
    (logits, records), (others, found) = outcome(alone), outcome(ring)
    assert records == found
    # A model of zeros would be the same on any number of cards.
    assert len(np.unique(logits[0])) > alone.layout.shape.vocabulary / 2
    for one, other in zip(logits, others, strict=True):
        assert (one.view(np.uint32) == other.view(np.uint32)).all()
    # Every card has computed the same: any of them could be asked.
    for card in range(1, len(ring.cards)):
        ring.card, ring.layout = ring.cards[card], ring.layouts[card]
        again = ring.logits(len(others) - 3 if len(others) > 2 else 0)
        assert (again == others[-1]).all()


def test_a_model_from_a_folder(tmp_path):
    found = models.tensors(layers=2, width=192, vocabulary=300, context=60, seed="ring")
    folder = models.write(tmp_path, found)
    texts = set()
    for cards in ("sim:tiny", "sim:tiny*2", "sim:small*2"):
        with heddle.load(folder, cards=cards) as model:
            texts.add(model.generate("the threads", max_new_tokens=12))
    assert len(texts) == 1


def test_more_cards_than_heads_are_refused(tmp_path):
    found = models.tensors(layers=1, width=64, vocabulary=300, context=60, seed="ring")
    with pytest.raises(heddle.UserError, match="1 head, not 2"):
        heddle.load(models.write(tmp_path, found), cards="sim:tiny*2")


# ---- What goes wrong. ----

CONFIG = dataclasses.replace(TINY, cards=4)
SHAPE = Shape(layers=1, width=256, inner=256, vocabulary=300, context=40)


def ring():
    return Runtime(open_cards(CONFIG), layouts(CONFIG, SHAPE, Options()))


def program(*instructions):
    return Program(instructions=(*instructions, ("HALT", {})), notes={})


SEND = ("SEND_NEXT", {"words": 3, "columns": 1})
RECEIVE = ("RECEIVE_PREVIOUS", {"words": 3, "columns": 1, "dst": 8})


def test_words_go_round_the_ring():
    runtime = ring()
    loads = []
    for number, (card, layout) in enumerate(zip(runtime.cards, runtime.layouts, strict=True)):
        at = layout.memory.embedding * CONFIG.beat_bytes
        for channel in range(CONFIG.channels):
            card.write(channel * CONFIG.channel_bytes + at,
                       np.full(4, number + 1, "<u4").tobytes())
        loads.append(("LOAD", {"address": layout.memory.embedding, "rows": 1, "words": 3}))
    stores = [("STORE", {"address": layout.memory.probes, "words": 3, "src": 8})
              for layout in runtime.layouts]
    runtime.carry_out([program(load, SEND, RECEIVE, store)
                       for load, store in zip(loads, stores, strict=True)])
    for number, (card, layout) in enumerate(zip(runtime.cards, runtime.layouts, strict=True)):
        got = np.frombuffer(card.read(layout.memory.probes * CONFIG.beat_bytes, 12), "<u4")
        assert (got == (number - 1) % 4 + 1).all()


def test_a_card_that_stops_is_named_and_stops_the_others():
    runtime = ring()
    illegal = ("QUANT", {"words": 0})
    with pytest.raises(CardError, match=r"card 2 of 4: .*ILLEGAL_OPERAND"):
        runtime.carry_out([program(*[SEND, RECEIVE] if card != 2 else [illegal])
                           for card in range(4)])
    runtime.carry_out([program(SEND, RECEIVE)] * 4)


def test_a_message_of_another_length():
    runtime = ring()
    long = ("SEND_NEXT", {"words": 4, "columns": 1})
    with pytest.raises(CardError, match=r"link between card 2 and card 1 of 4 .*another length"):
        runtime.carry_out([program(long if card == 1 else SEND, RECEIVE) for card in range(4)])


def test_a_message_that_nobody_sends():
    runtime = ring()
    with pytest.raises(CardError, match=r"WATCHDOG.*RECEIVE"):
        runtime.carry_out([program(RECEIVE)] * 4)


def test_a_card_alone_has_no_links():
    card = FunctionalCard(TINY)
    runtime = Runtime(card, layouts(TINY, SHAPE, Options()))
    with pytest.raises(CardError, match=r"ILLEGAL_OPERAND.*SEND"):
        runtime.carry_out([program(SEND)])


def test_nothing_is_left_running():
    before = threading.active_count()
    test_a_message_that_nobody_sends()
    assert threading.active_count() == before
