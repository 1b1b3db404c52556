# SPDX-License-Identifier: Apache-2.0
"""The server as the OpenAI client sees it."""

import asyncio
import json
import pathlib
import random
import re
import threading

import httpx
import openai
import pytest

from heddle.request import Finish
from tests.serve import server

PROMPT = "the threads, and"


def test_a_text_is_that_of_a_lone_run(client, alone):
    for how, ours in ((
            {"temperature": 0}, {}), (
            {"temperature": 1.5, "seed": 3}, {"temperature": 1.5, "seed": 3}), (
            {"temperature": 0.7, "seed": 4, "top_p": 0.9, "frequency_penalty": 0.5},
            {"temperature": 0.7, "seed": 4, "top_p": 0.9, "frequency_penalty": 0.5}), (
            {"temperature": 1.5, "seed": 5, "extra_body": {"top_k": 8, "repetition_penalty": 1.2}},
            {"temperature": 1.5, "seed": 5, "top_k": 8, "repetition_penalty": 1.2})):
        want = alone.generate(PROMPT, max_new_tokens=12, **ours)
        made = client.completions.create(model="threads", prompt=PROMPT, max_tokens=12, **how)
        assert made.choices[0].text == want
        assert made.choices[0].finish_reason == want.finish_reason == "length"
        count = len(want.prompt_token_ids)
        assert (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens) \
            == (count, 12, count + 12)
        assert (made.object, made.model) == ("text_completion", "threads")
        stream = list(client.completions.create(
            model="threads", prompt=PROMPT, max_tokens=12, stream=True,
            stream_options={"include_usage": True}, **how))
        assert "".join(each.choices[0].text for each in stream[:-1]) == want
        assert [each.choices[0].finish_reason for each in stream[:-1]] == [
            *[None] * (len(stream) - 2), "length"]
        assert len(stream) > 3
        assert stream[-1].choices == []
        assert stream[-1].usage == made.usage
        assert len({each.id for each in stream}) == 1


def test_several_prompts_and_texts(client, alone):
    prompts = [PROMPT, "over"]
    made = client.completions.create(model="threads", prompt=prompts, n=2, max_tokens=6, seed=7,
                                     temperature=1.5)
    want = [alone.generate(prompt, max_new_tokens=6, temperature=1.5, seed=7 + number)
            for number, prompt in enumerate([PROMPT, PROMPT, "over", "over"])]
    assert [each.index for each in made.choices] == [0, 1, 2, 3]
    assert [each.text for each in made.choices] == want
    assert made.usage.prompt_tokens == sum(len(alone.encode(prompt)) for prompt in prompts)
    assert made.usage.completion_tokens == 24
    # As tokens, and as a stream.
    ids = [alone.encode(prompt) for prompt in prompts]
    stream = client.completions.create(model="threads", prompt=ids, n=2, max_tokens=6, seed=7,
                                       temperature=1.5, stream=True)
    texts = [""] * 4
    for each in stream:
        texts[each.choices[0].index] += each.choices[0].text
    assert texts == want
    one = client.completions.create(model="threads", prompt=ids[0], max_tokens=6, seed=7,
                                    temperature=1.5)
    assert one.choices[0].text == want[0]
    assert client.completions.create(model="threads", prompt="", max_tokens=3,
                                     temperature=0).choices[0].text \
        == alone.generate("", max_new_tokens=3)


def test_the_python_of_the_page(served, capsys, alone, monkeypatch):
    monkeypatch.chdir(pathlib.Path(__file__).resolve().parents[2])
    page = pathlib.Path("docs", "serve.md").read_text(encoding="utf-8")
    code, own = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    names = {}
    exec(own, names)
    assert names["app"].state.engine.most == 2 + 16
    names["app"].state.engine.close()
    names["model"].close()
    code = code.replace("http://127.0.0.1:8000", served[0]).replace("shakespeare-gpt2", "threads")
    exec(code.replace("max_tokens=64", "max_tokens=64, seed=1"), {})
    want = alone.generate("ROMEO.\n", max_new_tokens=64, temperature=1.0, seed=1)
    assert capsys.readouterr().out == want


def test_what_may_be_left_out_may_be_null_or_empty(client, alone):
    """And at temperature 0 nothing is drawn, whatever would limit the choice."""
    made = client.completions.create(
        model="threads", prompt=PROMPT, max_tokens=None, n=None, stop=None, logprobs=None,
        suffix="", temperature=0, top_p=0.5, extra_body={"top_k": 5})
    assert made.choices[0].text == alone.generate(PROMPT, max_new_tokens=16)


def test_stop_texts(client, alone):
    whole = alone.generate(PROMPT, max_new_tokens=30)
    stop = [whole[9:12], "no such text"]
    want = alone.generate(PROMPT, max_new_tokens=30, stop=stop)
    assert 0 < len(want) < len(whole)
    made = client.completions.create(model="threads", prompt=PROMPT, max_tokens=30, temperature=0,
                                     stop=stop)
    assert (made.choices[0].text, made.choices[0].finish_reason) == (want, "stop")
    stream = list(client.completions.create(model="threads", prompt=PROMPT, max_tokens=30,
                                            temperature=0, stop=stop[0], stream=True))
    assert "".join(each.choices[0].text for each in stream) == want
    assert stream[-1].choices[0].finish_reason == "stop"


def test_log_probabilities_and_echo(client, alone):
    want = alone.generate(PROMPT, max_new_tokens=5, logprobs=3)
    made = client.completions.create(model="threads", prompt=PROMPT, max_tokens=5, temperature=0,
                                     logprobs=3)
    found = made.choices[0].logprobs
    assert found.token_logprobs == [token.logprob for token in want.logprobs]
    assert "".join(found.tokens) == want
    assert found.text_offset == [len("".join(found.tokens[:k])) for k in range(5)]
    for best, token in zip(found.top_logprobs, want.logprobs, strict=True):
        assert set(best.values()) <= {value for _, value in token.best}
    # The prompt's own, as tools for evaluation ask for them.
    score = alone.score(PROMPT)
    for count, stream in ((0, False), (5, False), (5, True)):
        how = {"model": "threads", "prompt": PROMPT, "max_tokens": count, "temperature": 0,
               "logprobs": 1, "echo": True}
        if stream:
            events = list(client.completions.create(**how, stream=True))
            text = "".join(each.choices[0].text for each in events)
            logprobs = [value for each in events if each.choices[0].logprobs
                        for value in each.choices[0].logprobs.token_logprobs]
        else:
            choice = client.completions.create(**how).choices[0]
            text, logprobs = choice.text, choice.logprobs.token_logprobs
        assert text == PROMPT + (want if count else "")
        assert logprobs[0] is None
        assert tuple(logprobs[1:1 + score.tokens]) == score.log_probabilities
        assert len(logprobs) == 1 + score.tokens + count
    assert client.completions.create(model="threads", prompt=PROMPT, max_tokens=2, temperature=0,
                                     echo=True).choices[0].text.startswith(PROMPT)


def test_offsets_are_places_in_the_text(client):
    """Also behind characters of several tokens, whose parts have one place."""
    prompt = "na\u00efve \u2603 threads"
    found = client.completions.create(model="threads", prompt=prompt, max_tokens=0, temperature=0,
                                      logprobs=1, echo=True).choices[0].logprobs
    assert list(zip(found.tokens, found.text_offset, strict=True)) == [
        ("na\ufffd", 0), ("\ufffd", 2), ("v", 3), ("e", 4), (" ", 5), ("\ufffd", 6),
        ("\ufffd", 6), ("\ufffd", 6), (" th", 7), ("read", 10), ("s", 14)]


def test_the_model_is_listed(client):
    assert [each.id for each in client.models.list()] == ["threads"]
    assert client.models.retrieve("threads").id == "threads"
    for call in (lambda: client.models.retrieve("other"),
                 lambda: client.completions.create(model="other", prompt="a")):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.body["message"] == "the model must be 'threads', not 'other'"
        assert caught.value.code == "model_not_found"


async def many(address, app, alone, count, seed, most):
    """Requests of random lengths at the same time, a third of them given up."""
    rng = random.Random(seed)
    plans = []
    for number in range(count):
        prompt = [rng.randrange(1, 300) for _ in range(rng.choice([1, 3, 8, 20, 50]))]
        plans.append({"prompt": prompt, "max_tokens": rng.randrange(2, most), "seed": number,
                      "temperature": rng.choice([0, 0.8, 1.5]), "stream": rng.random() < 0.5,
                      "cancel": number % 3 == 2, "wait": rng.random() * 0.2})
    finished = {}

    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0,
                                  timeout=300) as client:
        async def one(number, plan):
            await asyncio.sleep(plan["wait"])
            how = {key: plan[key] for key in ("prompt", "max_tokens", "seed", "temperature")}
            if plan["cancel"]:
                how["max_tokens"] = 90 - len(how["prompt"])
            if plan["stream"]:
                text = ""
                async with await client.completions.create(model="threads", stream=True, **how
                                                           ) as stream:
                    async for each in stream:
                        text += each.choices[0].text
                        if plan["cancel"]:
                            return
                finished[number] = text
                return
            asked = asyncio.ensure_future(client.completions.create(model="threads", **how))
            if plan["cancel"]:
                await asyncio.sleep(0.1)
                asked.cancel()
                return
            finished[number] = (await asked).choices[0].text

        await asyncio.gather(*(one(*each) for each in enumerate(plans)))
    server.settled(app)
    assert finished.keys() == {number for number in range(count) if number % 3 != 2}
    for number, text in finished.items():
        plan = plans[number]
        assert text == alone.generate(
            [plan["prompt"]], max_new_tokens=plan["max_tokens"], seed=number,
            temperature=plan["temperature"])[0], plan


def test_concurrent_requests_are_what_they_are_alone(served, alone):
    address, app = served
    before = app.state.engine.scheduler.ended[Finish.CANCELLED]
    asyncio.run(many(address, app, alone, 16, "sixteen", 30))
    assert app.state.engine.scheduler.ended[Finish.CANCELLED] - before >= 3


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.xdist_group("card tiny")
def test_the_same_on_the_verilated_card(folder):
    with server.loaded(folder, cards="rtl:tiny", activation="a8") as (model, alone), \
            server.serving(model) as (address, app):
        asyncio.run(many(address, app, alone, 16, "verilated", 8))
        # And what a newcomer sees first.
        with openai.OpenAI(base_url=f"{address}/v1", api_key="none") as client:
            made = client.completions.create(model="threads", prompt=PROMPT, max_tokens=6,
                                             temperature=0)
        assert made.choices[0].text == alone.generate(PROMPT, max_new_tokens=6)
        text = httpx.get(f"{address}/metrics").text
        use = next(float(line.split()[1]) for line in text.splitlines()
                   if line.startswith("heddle_card_hbm_read_utilisation{"))
        assert 0.05 < use < 1


def test_a_client_that_goes_away_frees_its_slot(served):
    address, app = served
    engine = app.state.engine
    body = {"model": "threads", "prompt": "a", "max_tokens": 80, "temperature": 0}
    for stream in (True, False):
        before = engine.scheduler.ended[Finish.CANCELLED]
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/v1/completions", json=body | {"stream": stream, "n": 8},
                       timeout=0.15)
        server.settled(app)
        assert engine.scheduler.ended[Finish.CANCELLED] > before


def test_errors_in_a_stream_are_events(served, client, monkeypatch):
    _, app = served
    engine = app.state.engine

    def fails(*arguments):
        from heddle.card import CardError
        raise CardError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(engine.model.runtime.card, "run", fails)
        with pytest.raises(openai.APIError, match="the cards failed: gone"):
            list(client.completions.create(model="threads", prompt="a", stream=True))
        with pytest.raises(openai.InternalServerError) as caught:
            client.completions.create(model="threads", prompt="a")
        assert caught.value.status_code == 503
        assert caught.value.body["message"] == "the cards failed: gone"
        assert caught.value.response.headers["retry-after"] == "5"
    # The cards were reset, and go on.
    assert client.completions.create(model="threads", prompt="a", max_tokens=2).choices[0].text


def test_health_and_metrics(served, client):
    address, app = served
    assert httpx.get(f"{address}/healthz").json() == {
        "status": "ok", "cards": "sim:tiny", "detail": None}

    def figures():
        text = httpx.get(f"{address}/metrics").text
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
                for line in text.splitlines() if line and not line.startswith("#")}

    server.settled(app)
    before = figures()
    client.completions.create(model="threads", prompt=PROMPT, max_tokens=7, temperature=0)
    httpx.post(f"{address}/v1/completions", json={})
    server.settled(app)
    after = figures()
    grown = {name: after[name] - before[name] for name in after if name in before}
    assert grown['heddle_tokens_total{kind="made"}'] == 7
    assert grown['heddle_requests_total{finish="length"}'] == 1
    assert grown["heddle_time_to_first_token_seconds_count"] == 1
    assert grown["heddle_time_to_first_token_seconds_sum"] > 0
    assert grown["heddle_busy_seconds_total"] > 0
    assert after['heddle_errors_total{status="400"}'] == before.get(
        'heddle_errors_total{status="400"}', 0) + 1
    assert (after["heddle_slots"], after["heddle_requests_running"],
            after["heddle_requests_waiting"], after["heddle_queue_limit"]) == (4, 0, 0, 40)


def test_health_when_the_cards_are_gone(folder, monkeypatch):
    from heddle.card import CardError

    with server.loaded(folder) as (model, _), server.serving(model) as (address, _):
        def fails(*arguments):
            raise CardError("gone for good")

        with monkeypatch.context() as patch:
            patch.setattr(model.runtime.card, "run", fails)
            patch.setattr(model.runtime.card, "reset", fails)
            body = {"model": "threads", "prompt": "a", "max_tokens": 2}
            assert httpx.post(f"{address}/v1/completions", json=body).status_code == 503
            found = httpx.get(f"{address}/healthz")
            assert found.status_code == 503
            assert found.json() == {"status": "failed", "cards": "sim:tiny",
                                    "detail": "gone for good"}
        # Somebody has mended them.
        assert httpx.post(f"{address}/v1/completions", json=body).status_code == 200
        assert httpx.get(f"{address}/healthz").status_code == 200


def test_events_have_the_form_of_the_standard(served):
    address, _ = served
    body = {"model": "threads", "prompt": "a", "max_tokens": 4, "stream": True, "temperature": 0}
    with httpx.stream("POST", f"{address}/v1/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        blocks = "".join(answer.iter_text()).split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    for block in blocks[:-2]:
        assert json.loads(block.removeprefix("data: "))["object"] == "text_completion"


def test_the_first_text_comes_before_the_last(served, client, monkeypatch):
    card, seen = served[1].state.engine.model.runtime.card, threading.Event()
    run, commands = card.run, []

    def waits(*arguments):
        commands.append(arguments)
        if len(commands) == 4:
            assert seen.wait(20), "the client saw nothing of the first commands"
        return run(*arguments)

    monkeypatch.setattr(card, "run", waits)
    for each in client.completions.create(model="threads", prompt="a", max_tokens=80,
                                          temperature=0, stream=True):
        if each.choices[0].text:
            seen.set()
    assert len(commands) > 8
