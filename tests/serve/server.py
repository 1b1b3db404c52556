# SPDX-License-Identifier: Apache-2.0
"""A real server in a thread, for tests."""

import contextlib
import socket
import threading
import time

import heddle
from heddle.serve import Limit, create
from heddle.serve import server as server_of


@contextlib.contextmanager
def serving(model, **how):
    """A server of ``model`` on a free port; yields its address and application.

    The server ends with the block, the model stays open.
    """
    app = create(model, name="threads", **how)
    running = server_of(app, grace=5)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", app
        finally:
            running.should_exit = True
            thread.join()
    assert not app.state.engine._thread.is_alive()


def settled(app, seconds=20.0):
    """Wait until nothing runs or waits; requests that were cancelled end a step later."""
    end = time.monotonic() + seconds
    while app.state.engine.count:
        assert time.monotonic() < end, f"{app.state.engine.count} requests do not end"
        time.sleep(0.01)
    assert app.state.engine.scheduler.idle


@contextlib.contextmanager
def loaded(folder, cards="sim:tiny", **options):
    """Two copies of a model: one to serve, one to ask for lone runs."""
    with heddle.load(folder, cards=cards, **options) as served, \
            heddle.load(folder, cards="sim:tiny", **options) as alone:
        yield served, alone


def limit(**how):
    """What a server accepts."""
    return Limit(**how)
