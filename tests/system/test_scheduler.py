# SPDX-License-Identifier: Apache-2.0
"""Continuous batching: what a sequence gets does not depend on what runs beside it."""

import random

import pytest

import heddle
from heddle.card import CardError
from heddle.request import Finish
from heddle.scheduler import PIECE, Scheduler
from tests.sw import models

PROMPT = "the threads, and"


@pytest.fixture(scope="module", params=["a16", "a8"])
def model(request, folder):
    with heddle.load(folder, activation=request.param) as opened:
        assert len(opened.scheduler.slots) == {"a16": 2, "a8": 4}[request.param]
        yield opened


@pytest.fixture
def scheduler(model):
    """A scheduler of the test's own: nothing of another test runs on it."""
    return Scheduler(model.runtime)


HOWS = [
    {}, {"temperature": 1.5, "top_k": 20}, {"temperature": 1.0},
    {"temperature": 2.0, "top_p": 0.9},
    {"repetition_penalty": 1.3}, {"logprobs": 3},
    {"temperature": 1.0, "top_k": 5, "logprobs": 2},
    {"frequency_penalty": 0.5, "presence_penalty": 0.2, "temperature": 0.7},
    {"logprobs": 0, "echo": True}]


def random_request(model, rng, number):
    how = rng.choice(HOWS)
    length = rng.choice([1, 2, 3, 5, 9, 17, 40, 60])
    prompt = [rng.randrange(1, 300) for _ in range(length)]
    return model.request(prompt, max_new_tokens=rng.randrange(1, 20), seed=number, **how)


def outcome(sequence):
    return sequence.finish, sequence.new, sequence.foretold


def run(scheduler, *sequences):
    steps = 0
    while any(sequence.finish is None for sequence in sequences):
        scheduler.step()
        steps += 1
        assert steps < 2_000
    return steps


def alone(scheduler, request):
    assert scheduler.idle
    sequence = scheduler.submit(request)
    run(scheduler, sequence)
    assert scheduler.idle
    return outcome(sequence)


def test_sequences_that_come_and_go_are_what_they_are_alone(model, scheduler):
    rng = random.Random("come and go")
    requests = [random_request(model, rng, number) for number in range(36)]
    want = [alone(scheduler, request) for request in requests]
    running, cancelled, left, together = [], [], list(enumerate(requests)), 0
    found = {}
    while left or not scheduler.idle:
        for _ in range(rng.randrange(3)):
            if left:
                number, request = left.pop(0)
                running.append((number, scheduler.submit(request)))
        if running and rng.random() < 0.1:
            number, victim = rng.choice(running)
            scheduler.cancel(victim)
            if victim.finish is Finish.CANCELLED and number not in cancelled:
                cancelled.append(number)
        scheduler.step()
        together += len(scheduler.running) > 1
        found |= {number: outcome(sequence) for number, sequence in running
                  if sequence.finish not in (None, Finish.CANCELLED)}
    assert len(cancelled) >= 3
    assert together > 20
    assert found.keys() == set(range(36)) - set(cancelled)
    for number, each in found.items():
        assert each == want[number], requests[number]
    # What was done before it was cancelled is right as well.
    for number, sequence in running:
        if number in cancelled:
            assert sequence.new == want[number][1][:len(sequence.new)]
    assert scheduler.ended[Finish.CANCELLED] == len(cancelled)
    assert sum(scheduler.ended.values()) == 2 * 36


def test_a_long_prompt_is_read_in_pieces_between_steps(model, scheduler):
    short = scheduler.submit(model.request([5, 6], max_new_tokens=40))
    scheduler.step()
    made = len(short.new)
    long = scheduler.submit(model.request(list(range(1, 71)), max_new_tokens=2))
    gaps = []
    while long.first is None:
        scheduler.step()
        gaps.append((len(short.new) - made, long.position))
        made = len(short.new)
    size = model.runtime.layout.tokens
    # The short one has a token a step, while the long one reads a piece and a token of its column.
    assert [gap for gap, _ in gaps] == [1] * len(gaps)
    assert [position for _, position in gaps[:2]] == [PIECE * size + 1, 2 * (PIECE * size + 1)]
    run(scheduler, short, long)


def test_waiting_is_in_order_and_slots_are_used_again(model, scheduler):
    count = len(scheduler.slots)
    sequences = [scheduler.submit(model.request([7 + k], max_new_tokens=2 + k))
                 for k in range(3 * count)]
    scheduler.step()
    assert [each.slot for each in sequences] == [*range(count), *[None] * 2 * count]
    scheduler.cancel(sequences[1])
    scheduler.cancel(sequences[count])      # still waits
    scheduler.step()
    assert sequences[count].finish is Finish.CANCELLED
    assert sequences[count].new == []
    assert sequences[count + 1].slot is not None
    run(scheduler, *sequences)
    starts = [each.started for each in sequences if each.started is not None]
    assert starts == sorted(starts)
    assert scheduler.idle


def test_a_failed_sequence_does_not_end_its_neighbours(tmp_path):
    tensors = models.tensors(layers=1, width=128, vocabulary=300, context=60, head=True)
    tensors["wte.weight"][7] *= 1e9
    with heddle.load(models.write(tmp_path, tensors), activation="a8") as model:
        good = model.request([3, 4, 5], max_new_tokens=12)
        scheduler = model.scheduler
        want = alone(scheduler, good)
        assert 7 not in [token.id for token in want[1]]
        for bad in ([7], [5, 7, 6], [9] * 30 + [7], [9] * 30 + [7] + [9] * 9):
            first = scheduler.submit(good)
            scheduler.step()
            failing = scheduler.submit(model.request(bad, max_new_tokens=5))
            second = scheduler.submit(good)
            run(scheduler, first, failing, second)
            assert isinstance(failing.error, heddle.RunError)
            assert failing.finish is Finish.ERROR
            assert outcome(first) == outcome(second) == want


def test_tokens_before_a_failure_are_the_same_alone_and_beside_others(tmp_path):
    """Alone, a command makes several tokens; it fails as a whole."""
    tensors = models.tensors(layers=1, width=128, vocabulary=300, context=60, head=True)
    folder = models.write(tmp_path / "good", tensors)
    with heddle.load(folder, activation="a8") as model:
        made = next(made for made in (
            alone(model.scheduler, model.request([first, 4], max_new_tokens=8))[1]
            for first in range(3, 200)) if len({token.id for token in made[:4]}) == 4)
    tensors["wte.weight"][made[3].id] *= 1e9        # fails when it is read
    with heddle.load(models.write(tmp_path / "bad", tensors), activation="a8") as model:
        scheduler = model.scheduler
        for first in range(3, 200):
            request = model.request([first, 4], max_new_tokens=8)
            lone = scheduler.submit(request)
            run(scheduler, lone)
            if lone.error is not None and len(lone.new) > 1:
                break
        other = scheduler.submit(model.request([5] * 20, max_new_tokens=30))
        beside = scheduler.submit(request)
        run(scheduler, beside)
        scheduler.cancel(other)
        assert isinstance(lone.error, heddle.RunError)
        assert outcome(beside) == outcome(lone)
        assert lone.new == made[:len(lone.new)]
        assert 1 < len(lone.new) < 8


def test_a_failed_card_ends_what_runs_and_not_what_waits(model, scheduler, monkeypatch):
    requests = [model.request([5 + k, 6], max_new_tokens=9) for k in range(6)]
    want = [alone(scheduler, request) for request in requests]
    sequences = [scheduler.submit(request) for request in requests]
    scheduler.step()
    ran = scheduler.running
    resets = []
    card = model.runtime.card
    reset = type(card).reset
    with monkeypatch.context() as patch:
        def fails(*arguments):
            raise CardError("gone")

        patch.setattr(card, "run", fails)
        patch.setattr(card, "reset", lambda: (resets.append(1), reset(card)))
        assert scheduler.step() == ran
    assert resets == [1]
    for sequence in ran:
        assert sequence.finish is Finish.ERROR
        assert str(sequence.error) == "gone"
    waited = [k for k, each in enumerate(sequences) if each not in ran]
    assert waited
    run(scheduler, *sequences)
    assert [outcome(sequences[k]) for k in waited] == [want[k] for k in waited]


def test_cards_that_cannot_be_reset_end_everything(model, scheduler, monkeypatch):
    sequences = [scheduler.submit(model.request([5], max_new_tokens=9)) for _ in range(6)]
    card = model.runtime.card

    def fails(*arguments):
        raise CardError("gone for good")

    with monkeypatch.context() as patch:
        patch.setattr(card, "run", fails)
        patch.setattr(card, "reset", fails)
        with pytest.raises(CardError, match="gone for good"):
            scheduler.step()
        assert all(each.finish is Finish.ERROR for each in sequences)
        again = scheduler.submit(model.request([5], max_new_tokens=2))
        with pytest.raises(CardError, match="gone for good"):
            scheduler.step()
        assert again.finish is Finish.ERROR
    last = scheduler.submit(model.request([5], max_new_tokens=2))
    run(scheduler, last)
    assert last.finish is Finish.LENGTH


def test_an_interrupted_step_leaves_the_cards_usable(model, scheduler, monkeypatch):
    request = model.request([5, 6], max_new_tokens=20)
    want = alone(scheduler, request)
    first, second = scheduler.submit(request), scheduler.submit(request)
    scheduler.step()
    with monkeypatch.context() as patch:
        def interrupted(*arguments):
            raise KeyboardInterrupt

        patch.setattr(model.runtime.card, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scheduler.step()
    third = scheduler.submit(request)
    run(scheduler, first, second, third)
    for each in (first, second):
        assert str(each.error) == "a step of the cards was interrupted; ask again"
    assert outcome(third) == want
