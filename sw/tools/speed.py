# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of the functional card, with a model of a published shape.

    python sw/tools/speed.py gpt2-124m --cards sim:u280 --pattern 2:4

Weights are random: neither speed nor memory depends on them.  Everything is measured in a process
of its own, so that nothing that was loaded before counts.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from heddle.card import CardError, open_cards
from heddle.cli.common import write_json
from heddle.errors import RunError, UserError
from heddle.image import Block, Images
from heddle.layout import Layout
from heddle.options import ACTIVATIONS, Options
from heddle.prune import pattern_of
from heddle.runtime import Runtime
from heddle.shapes import SHAPES, RandomSource, find_shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured."""

    shape: str
    cards: str
    pattern: str
    activation: str
    #: Positions in memory at the first token that counts, and tokens that count.
    context: int
    tokens: int
    tokens_per_second: float
    #: The same if nothing else ran on the machine's cores.
    tokens_per_cpu_second: float
    #: To make the weights, quantise, pack and write them.
    seconds_to_load: float
    #: The most that the process had in memory, loading included, beyond what it had before the
    #: model: Python with all its imports.
    resident_bytes: int
    import_bytes: int
    #: What was written to the card's memory before the first command.
    image_bytes: int

    @property
    def ratio(self) -> float:
        """Resident over image bytes."""
        return self.resident_bytes / self.image_bytes


def _memory(name: str) -> int:
    """Bytes that the system counts for this process, as VmRSS or (the most so far) VmHWM."""
    for line in pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise RunError(f"/proc/self/status must have a line {name}: memory is measured on Linux alone")


def _measure(shape: str, cards: str, pattern: str, activation: str, context: int,
             tokens: int) -> Speed:
    """Measure in this process."""
    if context < 1 or tokens < 1:
        raise UserError(f"context and tokens must be at least 1, not {context} and {tokens}")
    pruning, found = pattern_of(pattern), find_shape(shape)
    try:
        card = open_cards(cards)[0]
    except ValueError as error:
        raise UserError(str(error)) from None
    before, start, written = _memory("VmRSS"), time.monotonic(), 0
    runtime = Runtime(card, Layout(card.config, found, Options(activation=activation), pruning))

    def counted() -> Iterator[Block]:
        nonlocal written
        for block in Images(runtime.layout, RandomSource(found, pruning=pruning)).blocks():
            written += block.data.nbytes
            yield block

    runtime.load(counted())
    loaded = time.monotonic()
    given = np.random.default_rng(0).integers(found.vocabulary, size=context).tolist()
    runtime.run(given, 0, context, silent=context)
    begun, busy = time.monotonic(), time.process_time()
    runtime.run(given[-1:], context, tokens)
    seconds, busy = time.monotonic() - begun, time.process_time() - busy
    return Speed(
        shape=shape, cards=cards, pattern=pattern, activation=activation, context=context,
        tokens=tokens, tokens_per_second=tokens / seconds, tokens_per_cpu_second=tokens / busy,
        seconds_to_load=loaded - start, resident_bytes=_memory("VmHWM") - before,
        import_bytes=before, image_bytes=written)


def measure(shape: str, *, cards: str = "sim:u280", pattern: str = "dense",
            activation: str = "a16", context: int = 64, tokens: int = 32) -> Speed:
    """Measure in a process of its own.

    Parameters
    ----------
    shape : str
        As :func:`~heddle.shapes.find_shape` takes it.
    cards, pattern, activation : str
    context : int
        Positions of the prompt, which is read first and does not count.
    tokens : int
        Decode steps.

    Raises
    ------
    RunError
        The process failed; what it said.
    """
    done = subprocess.run(
        [sys.executable, __file__, shape, "--cards", cards, "--pattern", pattern, "--activation",
         activation, "--context", str(context), "--tokens", str(tokens), "--here"],
        capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(done.stderr.strip())
    return Speed(**json.loads(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("shape", help=f"{', '.join(SHAPES)}, or layers:width:vocabulary")
    parser.add_argument("--cards", default="sim:u280")
    parser.add_argument("--pattern", default="dense", help="dense or N:M")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="a16")
    parser.add_argument("--context", type=int, default=64, help="positions of the prompt")
    parser.add_argument("--tokens", type=int, default=32, help="decode steps that count")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file")
    parser.add_argument("--here", action="store_true",
                        help="measure in this process, and print the figures as JSON")
    options = vars(parser.parse_args())
    path, here = options.pop("json"), options.pop("here")
    try:
        found = _measure(**options)
    except UserError as error:
        print(f"speed: {error}", file=sys.stderr)
        return 2
    except (RunError, CardError) as error:
        print(f"speed: {error}", file=sys.stderr)
        return 1
    if here:
        print(json.dumps(dataclasses.asdict(found)))
        return 0
    print(f"{found.shape} {found.pattern} on {found.cards}: {found.tokens_per_second:.1f} tokens/s "
          f"({found.tokens_per_cpu_second:.1f} in a second of CPU time), loaded in "
          f"{found.seconds_to_load:.1f} s, {found.resident_bytes / 1e6:.0f} MB in memory at most "
          f"beyond {found.import_bytes / 1e6:.0f} MB of Python, {found.ratio:.2f} times the image "
          f"of {found.image_bytes / 1e6:.0f} MB")
    write_json(path, dataclasses.asdict(found) | {"memory_ratio": found.ratio})
    return 0


if __name__ == "__main__":
    sys.exit(main())
