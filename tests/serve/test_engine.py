# SPDX-License-Identifier: Apache-2.0
"""The thread that runs the cards, without HTTP."""

import queue

import pytest

from heddle.request import Finish
from heddle.serve.engine import Engine


@pytest.fixture
def engine(models_):
    made = Engine(models_[0], queue=4)
    yield made
    made.close()


def events_of(engine, requests, whole):
    posted = queue.SimpleQueue()
    engine.submit(requests, (), posted.put, whole=whole)
    found = {index: [] for index in range(len(requests))}
    while not all(each and each[-1].finish for each in found.values()):
        event = posted.get(timeout=60)
        found[event.index].append(event)
    return found


def test_whole_texts_are_one_event_with_what_streams_tell_in_many(engine, models_):
    requests = [models_[0].request([5, 6], max_new_tokens=count, logprobs=1, echo=True)
                for count in (20, 9)]
    streamed, whole = (events_of(engine, requests, each) for each in (False, True))
    for index, count in enumerate((20, 9)):
        event, = whole[index]
        assert event.finish is Finish.LENGTH
        assert event.first
        assert len(event.pieces) == count
        assert len(streamed[index]) > 1
        assert event.pieces == sum((each.pieces for each in streamed[index]), ())
        assert event.foretold == streamed[index][0].foretold
        assert len(event.foretold) == 1
        assert [each.first for each in streamed[index]] \
            == [True] + [False] * (len(streamed[index]) - 1)
