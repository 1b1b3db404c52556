# SPDX-License-Identifier: Apache-2.0
"""What the server refuses, and that nothing is lost under load."""

import asyncio
import contextlib
import gc
import http.client
import json
import random
import socket
import threading
import time

import httpx
import openai
import pytest
import schemathesis

from heddle.serve import run
from heddle.serve.limits import Bodies
from tests.serve import server

UNIONS = {"prompt": "prompt must be a text, a list of texts, a list of tokens or a list of such "
                    "lists, none of them empty and at most 128 prompts"}
GOOD = {"model": "threads", "prompt": "the threads", "max_tokens": 2, "temperature": 0}


def post(address, body, **how):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{address}/v1/completions", content=content,
                      headers={"content-type": "application/json"} | how, timeout=60)


#: Values that some field refuses, by field.
WRONG = {
    "model": [None, 3, [], {}, True, 1.5],
    "prompt": [3, 1.5, True, {}, [None], [[]], [], [1.5], ["a", 1], [1, "a"], [[1], "a"], [-1],
               [[-1]], [10**9], [2**70], [[300]], ["a"] * 129, "\ud800", ["\udfff"], [[[1]]],
               "word " * 300, [5] * 90],
    "max_tokens": [-1, 0, 10**6, 2**70, "3", 1.5, [], {}, True],
    "temperature": [-0.1, 2.1, "1", [], {}, float("nan"), float("inf"), -float("inf"), 1e300, True],
    "top_p": [0, -1, 1.1, "1", [], float("nan"), float("inf")],
    "top_k": [0, -1, "1", 1.5, [], 2**70 * -1],
    "n": [0, -1, 17, 10**9, "1", 1.5, [], True],
    "best_of": [0, 2, 17, "1", 1.5, []],
    "stream": ["yes", 1, 0, [], {}, "true"],
    "stream_options": [3, [], {"more": 1}, {"include_usage": "x"}, "a", {"include_usage": True}],
    "logprobs": [-1, 6, "1", 1.5, True, []],
    "echo": ["yes", 1, []],
    "stop": ["", [""], [3], ["a"] * 5, {}, 3, [None], ["a", ""]],
    "presence_penalty": [-2.1, 2.1, "1", float("nan"), []],
    "frequency_penalty": [-2.1, 2.1, "1", float("inf"), []],
    "repetition_penalty": [0, -1, 11, "1", float("nan")],
    "seed": [2**63, -(2**63) - 1, "1", 1.5, [], True],
    "suffix": ["a", 3], "logit_bias": [{"50256": -100}, 3, []], "user": [3, []],
    "messages": [[]], "__proto__": [{}], "": ["a"], "Model": ["threads"],
}
FIELDS = [(name, value) for name, values in WRONG.items() for value in values]

#: Bodies that are no request at all.
BODIES = [
    b"", b"{", b"}", b"null", b"[]", b"3", b'"a"', b"\xff\xfe", b"{}", b"[" * 100_000,
    b'{"a":' * 50_000, b'{"model": "threads", "prompt": "a"', b"\x00", b"NaN",
    b"{'model': 'threads'}",
    b'{"model": "threads", "prompt": "\\ud800"}', b'{"model": "threads", "max_tokens": 1e400}',
    b'{"model": "threads", "seed": ' + b"9" * 5000 + b"}", "{\"model\": \"ä\"}".encode("latin-1"),
    b"model=threads&prompt=a", b"--x\r\n\r\n--x--"]


def test_there_are_enough_kinds():
    assert len(FIELDS) + len(BODIES) >= 140


@pytest.mark.parametrize(("name", "value"), FIELDS, ids=lambda value: repr(value)[:40])
def test_a_wrong_field_is_named(served, name, value):
    answer = post(served[0], GOOD | {name: value})
    assert answer.status_code in ((400, 404) if name == "model" else (400,)), answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].strip()
    assert "\n" not in error["message"]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body)[:40])
def test_a_body_that_is_no_request(served, body):
    answer = post(served[0], body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


def test_other_paths_methods_and_types(served):
    address, _ = served
    for method, path, status in (
            ("GET", "/nope", 404), ("GET", "/v1/completions", 405), ("DELETE", "/v1/models", 405),
            ("POST", "/v1/chat/completions", 404), ("GET", "/v1/models/..%2f..%2fetc", 404),
            ("GET", "/v1/models/%00", 404), ("PUT", "/metrics", 405), ("POST", "/healthz", 405),
            ("GET", "/v1/models/" + "a" * 10_000, 404), ("TRACE", "/", 405)):
        answer = httpx.request(method, address + path)
        assert answer.status_code == status, (method, path)
        assert answer.json()["error"]["message"]
    answer = post(address, GOOD, **{"content-type": "text/plain"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        "the body must be a JSON object, sent with Content-Type: application/json")
    assert post(address, GOOD).status_code == 200


def test_sentences(served):
    for more, sentence in (
            ({"max_tokens": 90, "prompt": [5, 6]},
             "prompt (2 tokens) and new tokens (90) must fit the context of 90"),
            ({"best_of": 3}, "best_of must equal n (1), not 3"),
            ({"stream_options": {}}, "stream_options must be left out unless stream is true"),
            ({"prompt": [300]}, "a token must be in 0..299, not 300"),
            ({"prompt": [-1]}, UNIONS["prompt"]), ({"prompt": [[]]}, UNIONS["prompt"]),
            ({"stop": ""}, "stop must be a text of at least one character, or up to 4 of them"),
            ({"suffix": "a"}, "suffix is not supported: leave it out"),
            ({"logit_bias": {"5": 100}}, "logit_bias is not supported: leave it out"),
            ({"max_tokens": 0}, "max_tokens must be at least 1, not 0")):
        message = post(served[0], GOOD | more).json()["error"]["message"]
        assert message == sentence


@pytest.mark.parametrize(("body", "sentence"), [
    (b'{"model": ', "the body must be JSON: Expecting value"),
    (b"\xff", "the body must be JSON in UTF-8"),
    (b'{"seed": ' + b"9" * 5000 + b"}", "the body must be JSON in UTF-8")])
def test_sentences_of_bodies(served, body, sentence):
    error = post(served[0], body).json()["error"]
    assert (error["message"], error["param"]) == (sentence, None)


def test_fuzzed_requests_never_fail(served):
    """Requests that the API's own description gives rise to, right and wrong ones."""
    address, app = served
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    seen = []

    def one(case):
        # What it asks for may be much; what it is answered counts.
        answer = case.call(timeout=60)
        seen.append(answer.status_code)
        assert answer.status_code < 500, case.as_curl_command()
        case.validate_response(answer, checks=[
            schemathesis.checks.not_a_server_error,
            schemathesis.specs.openapi.checks.status_code_conformance,
            schemathesis.specs.openapi.checks.content_type_conformance,
            schemathesis.specs.openapi.checks.response_schema_conformance])

    import hypothesis
    for operation in schema.get_all_operations():
        case = operation.ok()
        strategy = case.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE) \
            | case.as_strategy() if case.body else case.as_strategy()
        hypothesis.settings(max_examples=60, deadline=None, database=None, derandomize=True,
                            suppress_health_check=list(hypothesis.HealthCheck))(
            hypothesis.given(case=strategy)(lambda case: one(case)))()
    assert len(seen) > 100
    assert {200, 400} <= set(seen)
    server.settled(app)


def test_large_bodies(served):
    address, _ = served
    most = 1 << 20
    answer = post(address, b"x" * (most + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == f"the body must have at most {most} bytes"

    def chunks():       # without a length
        for _ in range(40):
            yield b"x" * 50_000

    answer = httpx.post(f"{address}/v1/completions", content=chunks(),
                        headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert f"the body must have at most {most} bytes" in answer.json()["error"]["message"]
    assert post(address, GOOD).status_code == 200


def test_a_body_that_does_not_come(models_):
    with server.serving(models_[0], limit=server.limit(body_seconds=0.3)) as (address, _):
        def slowly():
            yield b'{"model": '
            time.sleep(1)
            yield b'"threads"}'

        answer = httpx.post(f"{address}/v1/completions", content=slowly(),
                            headers={"content-type": "application/json"})
        assert answer.status_code == 408
        assert "the body must come within 0.3 s" in answer.json()["error"]["message"]
        assert post(address, GOOD).status_code == 200


def test_a_key(models_):
    with server.serving(models_[0], key="open sesame") as (address, _):
        for given in ({}, {"authorization": "open sesame"}, {"authorization": "Bearer open sesam"},
                      {"authorization": "Bearer"}, {"authorization": "Basic open sesame"},
                      {"authorization": "Bearer open sesame2"}):
            answer = post(address, GOOD, **given)
            assert answer.status_code == 401, given
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert httpx.get(f"{address}/metrics", headers=given).status_code == 401
        # A stranger's body is not read.
        assert post(address, b"x" * (1 << 21)).status_code == 401
        assert post(address, GOOD, authorization="Bearer open sesame").status_code == 200
        with openai.OpenAI(base_url=f"{address}/v1", api_key="open sesame") as client:
            assert client.completions.create(**GOOD).choices[0].text
        with openai.OpenAI(base_url=f"{address}/v1", api_key="close", max_retries=0) as client, \
                pytest.raises(openai.AuthenticationError):
            client.completions.create(**GOOD)
        assert httpx.get(f"{address}/healthz").status_code == 200
        assert httpx.get(address).status_code == 200


def test_a_time_limit(models_, monkeypatch):
    model, release = models_[0], threading.Event()
    with server.serving(model, limit=server.limit(seconds=0.3)) as (address, app):
        run = model.runtime.card.run
        monkeypatch.setattr(model.runtime.card, "run",
                            lambda *arguments: (release.wait(20), run(*arguments))[1])
        sentence = "the text took longer than the server's limit of 0.3 s"
        answer = post(address, GOOD)
        assert answer.status_code == 503
        assert answer.json()["error"] | {"type": None} == {
            "message": sentence, "type": None, "param": None, "code": "timeout"}
        assert sentence in post(address, GOOD | {"stream": True}).text
        release.set()
        server.settled(app)
        assert post(address, GOOD).status_code == 200


def test_more_than_the_queue_holds_is_refused(models_, monkeypatch):
    model, release = models_[0], threading.Event()
    with server.serving(model, limit=server.limit(queue=2)) as (address, app):
        run = model.runtime.card.run
        monkeypatch.setattr(model.runtime.card, "run",
                            lambda *arguments: (release.wait(20), run(*arguments))[1])
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(post(address, GOOD)))
                   for _ in range(6)]
        for thread in threads:
            thread.start()
        while app.state.engine.count < 6:
            pass
        answer = post(address, GOOD)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["message"].startswith("the server accepts 6 texts at a time")
        release.set()
        for thread in threads:
            thread.join()
        assert [each.status_code for each in answers] == [200] * 6
        # More than could ever run are another matter: to try again would not help.
        answer = post(address, GOOD | {"n": 7})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == (
            "prompts times n must be at most 6 on this server, not 7")
        assert app.state.engine.count == 0


def connect(address):
    return socket.create_connection(address.removeprefix("http://").split(":"), timeout=20)


def answer_of(connection):
    """Everything up to the end of an answer."""
    got = b""
    while b"}" not in got:
        more = connection.recv(4096)
        assert more, got
        got += more
    return got


def test_connections_that_ask_for_nothing_are_closed(models_, monkeypatch):
    monkeypatch.setattr(run, "HEAD_SECONDS", 0.5)
    with server.serving(models_[0]) as (address, _):
        for head in (b"", b"G", b"POST /v1/completions HTTP/1.1\r\nhost: a\r\n"):
            with connect(address) as stranger:
                stranger.sendall(head)
                assert stranger.recv(100) == b""
        with connect(address) as stranger:
            stranger.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
            assert b" 200 " in answer_of(stranger)
            time.sleep(0.8)     # idle between requests: that has a limit of its own
            stranger.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nG")
            assert b" 200 " in answer_of(stranger)
            assert stranger.recv(100) == b""
        # What takes long to answer is no such connection.
        assert post(address, GOOD | {"max_tokens": 80}).status_code == 200


def test_more_connections_than_there_may_be(models_, monkeypatch):
    monkeypatch.setattr(run, "MOST_CONNECTIONS", 5)
    with server.serving(models_[0]) as (address, _), contextlib.ExitStack() as stack:
        kept = [stack.enter_context(connect(address)) for _ in range(5)]
        assert httpx.get(f"{address}/healthz").status_code == 503
        kept[0].close()
        time.sleep(0.2)
        assert httpx.get(f"{address}/healthz").status_code == 200


@pytest.mark.parametrize("head", [
    b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n",
    b"POST /v1/models HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n"
    b"content-type: application/json\r\n\r\n5000000\r\n"])
@pytest.mark.parametrize("key", [None, "open sesame"])
def test_a_refused_body_is_not_taken(models_, head, key):
    """Not even by a server that throws it away."""
    with server.serving(models_[0], key=key) as (address, app), connect(address) as stranger:
        stranger.sendall(head)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 28:
                sent += stranger.send(bytes(1 << 16))
        assert sent < 1 << 26
        assert httpx.get(f"{address}/healthz").status_code == 200
        server.settled(app)


def test_a_body_that_still_comes_when_the_server_ends(models_):
    answers = []
    with server.serving(models_[0]) as (address, _):
        slow = connect(address)
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n"
                     b"content-type: application/json\r\n\r\n{")
        thread = threading.Thread(target=lambda: answers.append(answer_of(slow)))
        thread.start()
        time.sleep(0.2)
    thread.join()
    slow.close()
    assert b" 503 " in answers[0]
    assert b"the server is closing" in answers[0]


def test_bodies_are_given_up_in_the_moment_in_which_one_is_late():
    async def both():
        bodies, loop = Bodies(), asyncio.get_running_loop()
        waits = [asyncio.create_task(bodies.next(asyncio.Event().wait, loop.time() + seconds))
                 for seconds in (0.01, 60)]
        await asyncio.sleep(0)
        done = loop.create_future()
        loop.call_later(0.02, lambda: done.set_result(bodies.give_up()))
        time.sleep(0.05)        # both times are over when the loop looks again
        await asyncio.wait_for(done, 10)
        return await asyncio.gather(*waits, return_exceptions=True)

    assert [type(found) for found in asyncio.run(both())] == [TimeoutError, TimeoutError]


def test_an_idle_connection_outlives_the_clients(models_):
    """A client that reuses its connection after five seconds, as httpx does, loses nothing."""
    with server.serving(models_[0]) as (address, _):
        client = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
        client.connect()
        client.auto_open = 0    # never a second connection
        for wait in (0.0, 5.5):
            time.sleep(wait)
            client.request("POST", "/v1/completions", json.dumps(GOOD),
                           {"content-type": "application/json"})
            assert json.load(client.getresponse())["choices"]
        client.close()


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.slow
def test_two_hundred_requests(models_):
    """None is lost: each has its text, or 429 and is asked for again."""
    model, alone = models_
    rng = random.Random("two hundred")
    plans = [{"model": "threads", "seed": number, "temperature": rng.choice([0, 1.0]),
              "prompt": [rng.randrange(1, 300) for _ in range(rng.choice([1, 2, 4, 20]))],
              "max_tokens": rng.randrange(1, 10), "stream": rng.random() < 0.3}
             for number in range(200)]
    with server.serving(model, limit=server.limit(queue=12)) as (address, app):
        refused = [0]

        async def load(plans):
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(base_url=address, timeout=300, limits=limits) as client:
                async def one(plan):
                    while True:
                        answer = await client.post("/v1/completions", json=plan)
                        if answer.status_code != 429:
                            return answer
                        refused[0] += 1
                        await asyncio.sleep(0.2 + rng.random())

                return await asyncio.gather(*(one(plan) for plan in plans))

        asyncio.run(load(plans[:50]))       # everything that is made once is made
        server.settled(app)
        gc.collect()
        before = resident()
        refused[0] = 0
        answers = asyncio.run(load(plans))
        server.settled(app)
        gc.collect()
        grown = resident() - before
        assert app.state.engine.count == 0
    assert refused[0] > 20
    assert [answer.status_code for answer in answers] == [200] * 200
    for plan, answer in zip(plans, answers, strict=True):
        if plan["stream"]:
            text = "".join(json.loads(block.removeprefix("data: "))["choices"][0]["text"]
                           for block in answer.text.split("\n\n")[:-2])
        else:
            text = answer.json()["choices"][0]["text"]
        assert text == alone.generate([plan["prompt"]], max_new_tokens=plan["max_tokens"],
                                      seed=plan["seed"], temperature=plan["temperature"])[0]
    assert grown < 20e6, f"{grown / 1e6:.1f} MB stay"
