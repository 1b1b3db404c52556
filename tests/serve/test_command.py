# SPDX-License-Identifier: Apache-2.0
"""``heddle serve``: from the command line to its end."""

import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from heddle import cli

BODY = {"model": "threads", "prompt": "a", "max_tokens": 80, "temperature": 0, "stream": True}


@contextlib.contextmanager
def command(folder, *options, **environment):
    """The command in a process; yields it and the server's address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "heddle", "serve", str(folder), "--port", "0", "--name", "threads",
         *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | environment)
    try:
        line = process.stdout.readline()
        yield process, re.fullmatch(r"threads on sim:tiny: (http://\S+)\n", line)[1]
    finally:
        process.kill()
        process.communicate()


def test_requests_that_run_are_finished_at_the_end(folder):
    with command(folder) as (process, address):
        texts = []

        def ask():
            texts.append(httpx.post(f"{address}/v1/completions", json=BODY, timeout=60).text)

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        while "heddle_requests_running 2.0" not in httpx.get(f"{address}/metrics").text:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert err.splitlines()[-1] == "The server has ended."
        assert "Traceback" not in err
        assert len(texts) == 5
        for text in texts:
            assert text.endswith("data: [DONE]\n\n")
            assert '"finish_reason":"length"' in text
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_what_takes_longer_than_the_grace_is_given_up_and_told(folder, end):
    with command(folder, "--grace", "0") as (process, address):
        ask = functools.partial(httpx.stream, "POST", f"{address}/v1/completions", timeout=60)
        whole = []

        def plain():
            with ask(json=BODY | {"n": 16, "stream": False}) as answer:
                whole.append((answer.status_code, json.loads(answer.read())["error"]))

        with ask(json=BODY | {"n": 16}) as answer:
            pieces = answer.iter_text()
            next(pieces)
            thread = threading.Thread(target=plain)
            thread.start()
            while not re.search("^heddle_requests_waiting (1[6-9]|[23])", httpx.get(
                    f"{address}/metrics").text, re.MULTILINE):
                time.sleep(0.01)
            process.send_signal(end)
            last = "".join(pieces)
        thread.join()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err.splitlines()[-1] == "The server has ended."
    assert "Traceback" not in err
    assert "[DONE]" not in last
    told, = (json.loads(line[6:])["error"] for line in last.splitlines() if "error" in line)
    assert whole == [(503, told)]
    assert told["code"] == "closing"


def test_a_key_from_a_file_or_the_environment(folder, tmp_path):
    (tmp_path / "key").write_text("open sesame\n")
    for options, environment in ((("--api-key-file", str(tmp_path / "key")), {}),
                                 ((), {"HEDDLE_API_KEY": "open sesame"})):
        with command(folder, *options, **environment) as (_, address):
            assert httpx.get(f"{address}/v1/models").status_code == 401
            assert httpx.get(f"{address}/v1/models", headers={
                "authorization": "Bearer open sesame"}).json()["data"][0]["id"] == "threads"


def test_it_binds_to_loopback_unless_told_otherwise(folder):
    with command(folder) as (_, address):
        assert address.startswith("http://127.0.0.1:")
    with command(folder, "--host", "0.0.0.0") as (process, address):
        assert httpx.get(address.replace("0.0.0.0", "127.0.0.1")).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert "Anybody who reaches 0.0.0.0 can use the cards: --api-key-file keeps" in err


def test_bad_input_has_status_2_and_a_sentence(folder, tmp_path, capsys, monkeypatch):
    def said(*arguments):
        assert cli.run(["serve", str(folder), *arguments]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "odd").write_text("clé\n")
    for name in ("empty", "odd"):
        assert said("--api-key-file", str(tmp_path / name)) == (
            f"heddle: the key in {tmp_path / name} must have printable ASCII characters alone, "
            "and at least one")
    assert said("--api-key-file", str(tmp_path / "none")) == (
        f"heddle: {tmp_path / 'none'} cannot be read: No such file or directory")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert said("--port", str(port)) == (
            f"heddle: 127.0.0.1 port {port} must be free to listen on: Address already in use")
    assert "must be free to listen on" in said("--host", "no.such.host.invalid")
    assert "port" in said("--port", "70000")
    for missing in ("uvicorn", "fastapi"):
        with monkeypatch.context() as patch:
            for name in [name for name in sys.modules if name.startswith("heddle.serve")]:
                patch.delitem(sys.modules, name)
            patch.setitem(sys.modules, missing, None)
            assert said() == (f"heddle: heddle serve needs the package {missing}: pip install "
                              "'.[serve]' in a copy of the repository")
