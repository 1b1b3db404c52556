# SPDX-License-Identifier: Apache-2.0
"""The Python API: what users of other libraries expect of it."""

import inspect
import math
import threading
import time

import numpy as np
import pytest

import heddle
from heddle.generation import Output
from heddle.reference import log_probabilities
from heddle.request import Sequence
from tests.sw import models

PROMPT = "the threads, and"


def test_prompts_of_different_lengths_get_their_own_texts(model):
    prompts = [PROMPT, "a", "", "over and under, over and under, so the cloth", [5, 6, 7]]
    for how in ({}, {"do_sample": True, "top_k": 30}):
        together = model.generate(prompts, max_new_tokens=12, seed=3, **how)
        alone = [model.generate([prompt], max_new_tokens=12, seed=3 + number, **how)[0]
                 for number, prompt in enumerate(prompts)]
        assert together == alone
        for made, prompt in zip(together, prompts, strict=True):
            assert len(made.token_ids) == 12
            assert made == made.text == model.tokenizer.decode(made.token_ids)
            assert isinstance(made, str)
            if isinstance(prompt, str):
                assert made.prompt == prompt
                assert list(made.prompt_token_ids) == model.encode(prompt)
    assert model.generate([]) == []
    one, = model.generate([PROMPT], max_new_tokens=12)
    assert model.generate(PROMPT, max_new_tokens=12) == one


def test_how_tokens_are_drawn(model):
    greedy = model.generate(PROMPT, max_new_tokens=10)
    assert model.generate(PROMPT, max_new_tokens=10, do_sample=False) == greedy
    drawn = model.generate(PROMPT, max_new_tokens=10, do_sample=True, seed=1)
    assert drawn == model.generate(PROMPT, max_new_tokens=10, temperature=1.0, seed=1)
    assert drawn != greedy
    assert model.generate(PROMPT, max_new_tokens=10, do_sample=True, top_k=1, seed=1) == greedy


def test_a_repetition_penalty_is_that_of_the_reference(model, reference):
    tokens, new = model.encode(PROMPT), []
    for _ in range(12):
        logits = reference.logits([*tokens, *new])[-1].copy()
        for token in {*tokens, *new}:
            logits[token] *= 1.5 if logits[token] < 0 else 1 / 1.5
        new.append(int(logits.argmax()))
    made = model.generate(PROMPT, max_new_tokens=12, repetition_penalty=1.5)
    assert list(made.token_ids) == new
    assert made != model.generate(PROMPT, max_new_tokens=12)


def test_other_penalties_count_the_new_text_alone(model, reference):
    tokens, new = model.encode(PROMPT), []
    for _ in range(12):
        logits = reference.logits([*tokens, *new])[-1].copy()
        for token in set(new):
            logits[token] -= 0.7 + 0.4 * new.count(token)
        new.append(int(logits.argmax()))
    made = model.generate(PROMPT, max_new_tokens=12, presence_penalty=0.7, frequency_penalty=0.4)
    assert list(made.token_ids) == new


def test_log_probabilities_are_those_of_the_reference(model, reference):
    for how in ({}, {"temperature": 1.5, "seed": 4}, {"temperature": 1.5, "seed": 4, "top_k": 9},
                {"repetition_penalty": 1.5}):
        made = model.generate(PROMPT, max_new_tokens=8, logprobs=4, **how)
        whole = [*made.prompt_token_ids, *made.token_ids]
        want = log_probabilities(reference.logits(whole))[len(made.prompt_token_ids) - 1:-1]
        assert [token.id for token in made.logprobs] == list(made.token_ids)
        for token, row in zip(made.logprobs, want, strict=True):
            assert token.logprob == pytest.approx(row[token.id], abs=3e-3)
            best = np.argsort(-row)[:4]
            assert [each for each, _ in token.best] == best.tolist()
            np.testing.assert_allclose([value for _, value in token.best], row[best], atol=3e-3)
    assert model.generate(PROMPT, max_new_tokens=2).logprobs is None
    assert model.generate(PROMPT, max_new_tokens=2, logprobs=0).logprobs[0].best == ()


def test_a_stop_text_ends_the_text(model):
    whole = model.generate(PROMPT, max_new_tokens=30)
    assert whole.finish_reason == "length"
    for stop in (whole[5:8], whole[20:21], ["no such text", whole[11:14]]):
        first = min(place for each in ([stop] if isinstance(stop, str) else stop)
                    if (place := whole.find(each)) >= 0)
        made = model.generate(PROMPT, max_new_tokens=30, stop=stop)
        assert made == whole[:first]
        assert made.finish_reason == "stop"
        assert len(made.token_ids) < 30
        assert made.token_ids == whole.token_ids[:len(made.token_ids)]
        assert "".join(model.stream(PROMPT, max_new_tokens=30, stop=stop)) == made


def test_streams_take_turns(model):
    want = model.generate([PROMPT, "a"], max_new_tokens=12)
    first, second = (model.stream(prompt, max_new_tokens=12) for prompt in (PROMPT, "a"))
    texts = ["", ""]
    for _ in range(4):
        texts[0] += next(first)
        texts[1] += next(second)
    assert model.generate("b", max_new_tokens=3) == model.generate("b", max_new_tokens=3)
    texts[0] += "".join(first)
    texts[1] += "".join(second)
    assert texts == want
    assert [first.generation, second.generation] == want


def test_an_abandoned_stream_leaves_the_cards_usable(model):
    want = model.generate(PROMPT, max_new_tokens=12)
    for end in ("close", "with", "forgotten", "never begun"):
        stream = model.stream("a", max_new_tokens=60)
        if end != "never begun":
            next(stream)
            assert not model.scheduler.idle
        if end == "close":
            stream.close()
        elif end == "with":
            with stream:
                pass
        del stream
        assert model.scheduler.idle
        assert model.generate(PROMPT, max_new_tokens=12) == want


def test_a_text_is_scored(model, reference):
    text = models.TEXT[:120]
    tokens = model.encode(text)
    want = log_probabilities(reference.logits(tokens)[:-1])[np.arange(len(tokens) - 1), tokens[1:]]
    found = model.score(text)
    np.testing.assert_allclose(found.log_probabilities, want, atol=3e-3)
    assert found.tokens == len(tokens) - 1
    assert found.log_likelihood == pytest.approx(want.sum(), abs=0.05)
    assert found.perplexity == pytest.approx(math.exp(-want.mean()), rel=1e-3)
    assert list(found.best_token_ids) == reference.logits(tokens)[:-1].argmax(axis=1).tolist()
    # Behind something else, from the first token on.
    before, after = text[:40], text[40:]
    given = [*model.encode(before), *model.encode(after)]
    count = len(model.encode(after))
    want = log_probabilities(reference.logits(given)[:-1])[np.arange(len(given) - 1), given[1:]]
    np.testing.assert_allclose(model.score(after, given=before).log_probabilities, want[-count:],
                               atol=3e-3)


def test_a_long_text_is_scored_in_windows_that_leave_nothing_out(model, reference):
    text = models.TEXT * 2
    tokens = model.encode(text)
    assert len(tokens) > 200
    found, want = model.score(text), []
    for start in range(0, len(tokens) - 1, 89):
        part = tokens[start:start + 90]
        rows = log_probabilities(reference.logits(part)[:-1])
        want += rows[np.arange(len(part) - 1), part[1:]].tolist()
    assert found.tokens == len(tokens) - 1
    assert found.windows == math.ceil((len(tokens) - 1) / 89)
    np.testing.assert_allclose(found.log_probabilities, want, atol=3e-3)


@pytest.mark.parametrize(("how", "sentence"), [
    ({"do_sample": False, "temperature": 0.5},
     "temperature must be left out without do_sample, not 0.5"),
    ({"do_sample": True, "temperature": 0}, "temperature must be above 0 with do_sample, not 0"),
    ({"logprobs": 65}, "logprobs must be in 0..64, not 65"),
    ({"logprobs": -1}, "logprobs must be in 0..64, not -1"),
    ({"stop": ""}, "a stop text must have at least one character, not be ''"),
    ({"repetition_penalty": 1e-300}, "repetition_penalty must be in 0.01..100, not 1e-300"),
    ({"repetition_penalty": None}, "repetition_penalty must be a number, not None"),
    ({"frequency_penalty": math.inf}, "frequency_penalty must be in -100..100, not inf"),
    ({"presence_penalty": -1e308}, "presence_penalty must be in -100..100, not -1e+308"),
    ({"temperature": "a"}, "temperature must be a number, not 'a'"),
    ({"temperature": 1.0, "top_k": 2.0}, "top_k must be a whole number, not 2.0"),
    ({"logprobs": 1.5}, "logprobs must be a whole number, not 1.5"),
    ({"seed": "a"}, "seed must be a whole number, not 'a'"),
    ({"max_new_tokens": None}, "max_new_tokens must be a whole number, not None"),
    ({"top_k": 4}, "top_k must be left out where the best token is taken always, not 4: give a "
                   "temperature above 0 to draw tokens"),
    ({"top_p": 0.5, "do_sample": False}, "top_p must be left out where the best token is taken "
     "always, not 0.5: give a temperature above 0 to draw tokens"),
    ({"max_new_tokens": 2.5}, "max_new_tokens must be a whole number, not 2.5"),
    ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0")])
def test_arguments_that_make_no_sense(model, how, sentence):
    for call in (model.generate, model.stream):
        with pytest.raises(heddle.UserError) as caught:
            call(PROMPT, **how)
        assert str(caught.value) == sentence
    assert model.scheduler.idle


def test_a_tokenizer_of_another_model(model, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "encode", lambda text: [1, 300])
    for call in (model.generate, model.score):
        with pytest.raises(heddle.UserError, match=r"^the tokenizer must be the model's own: token "
                                                   r"300 must be below its vocab_size of 300$"):
            call(PROMPT)


def test_card_options_that_there_are_not(folder):
    with pytest.raises(heddle.UserError, match=r"^options of sim cards must be ones that they "
                                               r"have: got an unexpected keyword argument 'wave'$"):
        heddle.load(folder, wave="x.fst")


def test_prompts_that_are_none(model):
    for prompts, sentence in (
            ([[]], "a prompt must have at least one token"),
            (5, "prompts must be a text, or a list of texts or of lists of tokens, not 5"),
            ([[300]], "a token must be in 0..299, not 300"),
            ([[-1]], "a token must be in 0..299, not -1"),
            (b"abc", "prompts must be a text, or a list of texts or of lists of tokens, not "
                     "b'abc'"),
            ([b"abc"], "a prompt must be a text or a list of tokens; several prompts are a list "
                       "of these, not b'abc'"),
            ([[5.5]], "a token must be a whole number, not 5.5"),
            ([5, 6], "a prompt must be a text or a list of tokens; several prompts are a list of "
                     "these, not 5")):
        with pytest.raises(heddle.UserError) as caught:
            model.generate(prompts)
        assert str(caught.value) == sentence
    for text, given, sentence in (
            ("a", "", "a text must have at least two tokens to be scored, or one behind given, "
                      "not 1"),
            ("a", "a b " * 60, "given (")):
        with pytest.raises(heddle.UserError) as caught:
            model.score(text, given=given)
        assert str(caught.value).startswith(sentence)
    assert model.scheduler.idle


def test_tokens_may_be_numpys(model):
    want = model.generate([[5, 6]], max_new_tokens=3)
    assert model.generate([np.array([5, 6])], max_new_tokens=3) == want
    assert model.generate(np.array([[5, 6]]), max_new_tokens=3) == want


def test_the_end_of_a_text_that_another_thread_made(model, monkeypatch):
    """What has waited for the end is not lost by a look at the moment in which it comes."""
    whole = model.generate(PROMPT, max_new_tokens=12)
    request = model.request(PROMPT, max_new_tokens=12)
    output = Output(model.scheduler, model.scheduler.submit(request), model.tokenizer,
                    (whole[-1] + "no such text",))      # begins as the text ends
    ending, end = threading.Event(), Sequence.end

    def slowly(*given):
        ending.set()
        time.sleep(0.1)
        end(*given)

    monkeypatch.setattr(Sequence, "end", slowly)

    def steps():
        while output.sequence.finish is None:
            model.scheduler.step()

    thread = threading.Thread(target=steps)
    thread.start()
    assert ending.wait(60)
    list(output.update())
    thread.join()
    list(output.update())
    assert output.text == whole


def test_a_context_that_nothing_can_be_scored_in(folder):
    with heddle.load(folder, context=1) as model:
        assert model.generate("a", max_new_tokens=1)
        with pytest.raises(heddle.UserError, match=r"^the context must be at least 2 to score a "
                                                   r"text, not 1$"):
            model.score("a text")


def test_an_error_of_one_prompt_gives_the_others_up(tmp_path):
    tensors = models.tensors(layers=1, width=64, vocabulary=300, context=60, head=True)
    tensors["wte.weight"][7] *= 1e9
    with heddle.load(models.write(tmp_path, tensors)) as model:
        with pytest.raises(heddle.RunError, match="an activation was too large"):
            model.generate([[3, 4], [7], [5]], max_new_tokens=20)
        assert model.scheduler.idle
        assert len(model.generate([[3, 4]], max_new_tokens=3)[0].token_ids) == 3


def test_everything_public_is_typed_and_described():
    for name in heddle.__all__:
        each = getattr(heddle, name)
        assert inspect.getdoc(each), name
        for attribute, member in vars(each).items() if inspect.isclass(each) else ():
            if inspect.isfunction(member) and not attribute.startswith("_"):
                assert inspect.getdoc(member), f"{name}.{attribute}"
