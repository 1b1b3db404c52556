# SPDX-License-Identifier: Apache-2.0
"""What continuous batching through the server keeps of the cards' speed.

Example: python sw/tools/serving.py sw/models/shakespeare-gpt2 --cards sim:tiny --activation a8

The cards alone: as many sequences as they have slots, of equal lengths, in lock step, with nothing
between two steps.  The server: requests of random lengths with the same mean, more than there are
slots at any time, over HTTP from a process of their own, as clients are.  Both read prompts and
make texts of the same number of tokens in all.  They take turns, and the ratios are medians of
turns: a machine's speed changes while it runs.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import json
import multiprocessing
import pathlib
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

import heddle
from heddle.model import Model
from heddle.serve import Limit, create, server


def figures(model: Model, work: Callable[[], int]) -> dict[str, float]:
    """Tokens per second, and per million cycles where cycles are counted."""
    totals = model.runtime.totals
    before, begun = totals.counters.get("cycles", 0), time.monotonic()
    tokens = work()
    seconds, cycles = time.monotonic() - begun, totals.counters.get("cycles", 0) - before
    return {"tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds,
            "tokens_per_million_cycles": tokens / cycles * 1e6 if cycles else 0.0}


def lock_step(model: Model, prompt: int, new: int, rounds: int, rng: random.Random) -> int:
    """Sequences of equal lengths on the cards alone; returns new tokens."""
    runtime, count = model.runtime, model.runtime.layout.sequences
    for _ in range(rounds):
        texts = [[rng.randrange(1, model.checkpoint.shape.vocabulary) for _ in range(prompt)]
                 for _ in range(count)]
        tokens = [runtime.read(text, 0, slot=slot) for slot, text in enumerate(texts)]
        best = [result.token for result in tokens if result is not None]
        for step in range(new - 1):
            results = runtime.batch(best, [prompt + step] * count) if count > 1 \
                else runtime.run(best, prompt + step, 1)
            best = [result.token for result in results]
    return rounds * count * new


@contextlib.contextmanager
def serving(model: Model) -> Iterator[str]:
    """A server of the model; yields its address."""
    running = server(create(model, name="model", limit=Limit(queue=1000)))
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()


def client(address: str, plans: list[dict[str, Any]], stream: bool) -> int:
    """All requests at once; returns new tokens."""
    return asyncio.run(ask(address, plans, stream))


async def ask(address: str, plans: list[dict[str, Any]], stream: bool) -> int:
    """What :func:`client` does."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=None, limits=limits) as client:
        async def one(plan: dict[str, Any]) -> int:
            answer = await client.post("/v1/completions", json=plan | {"stream": stream})
            answer.raise_for_status()
            if not stream:
                return int(answer.json()["usage"]["completion_tokens"])
            return int(json.loads(answer.text.split("\n\n")[-3].removeprefix("data: "))
                       ["usage"]["completion_tokens"])

        return sum(await asyncio.gather(*(one(plan) for plan in plans)))


def plans(model: Model, prompt: int, new: int, count: int, rng: random.Random
          ) -> list[dict[str, Any]]:
    """Requests of random lengths with the given means."""
    found = []
    for _ in range(count):
        length, texts = rng.randint(1, 2 * prompt - 1), rng.randint(1, 2 * new - 1)
        found.append({"model": "model", "temperature": 0, "max_tokens": texts, "prompt": [
            rng.randrange(1, model.checkpoint.shape.vocabulary) for _ in range(length)]})
    return found


def turn(model: Model, pool: concurrent.futures.Executor, prompt: int, new: int, rounds: int,
         seed: int) -> dict[str, dict[str, float]]:
    """Lock step, the server, and the server with streams, one after the other."""
    rng = random.Random(seed)
    found = {"lock step": figures(model, lambda: lock_step(model, prompt, new, rounds, rng))}
    for name, stream in (("server", False), ("server, streamed", True)):
        wanted = plans(model, prompt, new, rounds * len(model.scheduler.slots),
                       random.Random(1000 + seed))
        if stream:
            wanted = [plan | {"stream_options": {"include_usage": True}} for plan in wanted]
        with serving(model) as address:
            found[name] = figures(model, lambda wanted=wanted, stream=stream, address=address:
                                  pool.submit(client, address, wanted, stream).result())
    return found


def table(turns: list[dict[str, dict[str, float]]]) -> Iterator[str]:
    """A line for each way, with its part of lock step."""
    for name in turns[0]:
        line = f"{name:18} {sum(each[name]['tokens'] for each in turns):6.0f} tokens"
        for key, text in (("tokens_per_second", "a second"),
                          ("tokens_per_million_cycles", "a million cycles")):
            speeds = [each[name][key] for each in turns]
            if not all(speeds):
                continue
            ratios = [each[name][key] / each["lock step"][key] for each in turns]
            line += (f"  {statistics.median(speeds):8.1f} {text}"
                     f" = {statistics.median(ratios):.3f} of lock step")
            if len(turns) > 1:
                line += f" ({min(ratios):.3f}-{max(ratios):.3f})"
        yield line


def main() -> None:
    """Print a table, and write it as JSON if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--cards", default="sim:tiny")
    parser.add_argument("--activation", default="a8")
    parser.add_argument("--prompt", type=int, default=16, help="tokens, on average")
    parser.add_argument("--new", type=int, default=32, help="tokens, on average")
    parser.add_argument("--rounds", type=int, default=16, help="texts of each slot, on average")
    parser.add_argument("--turns", type=int, default=5, help="how often each way is measured")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    prompt, new, rounds = options.prompt, options.new, options.rounds
    spawn = multiprocessing.get_context("spawn")
    with heddle.load(options.model, cards=options.cards, activation=options.activation) as model, \
            concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        # Whatever is compiled or imported once is ready afterwards.
        lock_step(model, prompt, 4, 1, random.Random(0))
        with serving(model) as address:
            pool.submit(client, address, plans(model, 1, 1, 1, random.Random(0)), False).result()
        turns = []
        for seed in range(options.turns):
            turns.append(turn(model, pool, prompt, new, rounds, seed))
            print(f"turn {seed + 1} of {options.turns}:")
            print(*table(turns[-1:]), sep="\n", flush=True)
    if options.turns > 1:
        print(f"all {options.turns} turns, medians:", *table(turns), sep="\n")
    if options.json:
        options.json.write_text(json.dumps({"slots": len(model.scheduler.slots),
                                            "turns": turns}, indent=1) + "\n")


if __name__ == "__main__":
    main()
