# SPDX-License-Identifier: Apache-2.0
"""``heddle serve``: text over HTTP."""

import contextlib
import ipaddress
import os
import pathlib
import signal
import socket
from collections.abc import Iterator
from typing import Annotated

import typer

from ..errors import UserError
from . import common
from .common import ERR, OUT

#: Where the key may be, besides a file.
KEY = "HEDDLE_API_KEY"


def _key(path: pathlib.Path | None) -> str | None:
    """The key that clients must show."""
    text = os.environ.get(KEY) if path is None else common.read_text(path)
    if text is None:
        return None
    if not (text := text.strip()) or not text.isascii() or not text.isprintable():
        raise UserError(f"the key in {path or KEY} must have printable ASCII characters alone, "
                        "and at least one")
    return text


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens; the port is free once it is closed."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # The number says it in fewer words, if it is not that of a name that was not found.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UserError(f"{host} port {port} must be free to listen on: {why}") from None


@contextlib.contextmanager
def _quiet_end() -> Iterator[None]:
    """The server raises the signal that ended it again, when it has ended: once is enough."""
    before = {each: signal.signal(each, lambda *_: None)
              for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def serve(
    model: common.ModelFolder,
    cards: common.Cards = "sim:tiny",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(
        help="What clients call the model [default: the folder's name].")] = None,
    key_file: Annotated[pathlib.Path | None, typer.Option(
        "--api-key-file", metavar="FILE",
        help=f"File with the key that clients must show [default: ${KEY}, or none].")] = None,
    queue: Annotated[int, typer.Option(
        min=0, help="Requests that may wait; more are answered 429.")] = 64,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request's body.")] = 1 << 20,
    timeout: Annotated[float, typer.Option(
        min=0.001, help="Seconds that a request may take, waiting included.")] = 600.0,
    grace: Annotated[int, typer.Option(
        min=0, help="Seconds that running requests get at the end.")] = 30,
    pattern: common.Pattern = None,
    activation: common.Activation = "a16",
    cache: common.Cache = "int16",
    context: common.Context = None,
    split: common.Split = "auto",
) -> None:
    """Serve a model over HTTP, as the OpenAI API does: /v1/completions, /v1/models.

    There are /healthz, /metrics for Prometheus, /docs with the whole API, and a page to try the
    model on at /.  Ctrl-C or SIGTERM ends it when running requests have ended.

    Example: heddle serve sw/models/shakespeare-gpt2 --cards sim:tiny --port 8000
    """
    try:
        from ..serve import Limit, create, server
    except ModuleNotFoundError as error:
        raise UserError(f"heddle serve needs the package {error.name}: "
                        "pip install '.[serve]' in a copy of the repository") from None
    key = _key(key_file)
    if not _loopback(host) and key is None:
        ERR.print(f"Anybody who reaches {host} can use the cards: --api-key-file keeps strangers "
                  "out.", style="yellow", soft_wrap=True)
    with _listening(host, port) as listener, common.loaded(
            model, cards, pattern=pattern, activation=activation, cache=cache, context=context,
            split=split) as opened:
        called = name or model.resolve().name
        app = create(opened, name=called, key=key,
                     limit=Limit(queue=queue, body=max_body, seconds=timeout))
        running = server(app, grace=grace)
        at = listener.getsockname()
        where = f"[{at[0]}]" if ":" in at[0] else at[0]
        with _quiet_end():
            OUT.print(f"{called} on {cards}: http://{where}:{at[1]}")
            running.run(sockets=[listener])
    ERR.print("The server has ended.", style="dim")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)
