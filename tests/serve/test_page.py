# SPDX-License-Identifier: Apache-2.0
"""The server's page, in a real browser."""

import re
import shutil
import threading
import time

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.serve import server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium (Debian and Ubuntu: apt install chromium)")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        # Chromium's sandbox wants a user that is not root; nothing but the page is opened.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=[
            "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    opened = browser.new_page()
    problems = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    yield opened
    opened.close()
    assert problems == []


def write(page, prompt, count, **more):
    for name, value in {"count": count, "temperature": 0, "prompt": prompt, **more}.items():
        page.locator(f"#{name}").fill(str(value))
    page.get_by_role("button", name="Write").click()


def figure(page, name):
    """The number that a row of the table begins with."""
    found = re.match(r"\d+", page.locator(f"#{name}-figure").inner_text())
    return int(found[0]) if found else 0


def test_a_prompt_is_written_on(page, served, alone):
    page.goto(served[0])
    expect(page.locator("#model")).to_have_text("threads")
    write(page, "the threads,", 40)
    want = "the threads," + alone.generate("the threads,", max_new_tokens=40)
    expect(page.locator("#text")).to_have_text(want, timeout=20_000, use_inner_text=False)
    expect(page.get_by_role("button", name="Write")).to_be_enabled()
    expect(page.locator("#error")).to_be_empty()
    write(page, "over", 5, temperature=1.5, seed=3)
    want = "over" + alone.generate("over", max_new_tokens=5, temperature=1.5, seed=3)
    expect(page.locator("#text")).to_have_text(want, timeout=20_000)


def test_the_load_is_shown_while_it_lasts(page, served, monkeypatch):
    card, go_on = served[1].state.engine.model.runtime.card, threading.Event()
    run = card.run

    def slowly(*arguments):
        go_on.wait(0.1)
        return run(*arguments)

    monkeypatch.setattr(card, "run", slowly)
    page.goto(served[0])
    write(page, "a", 89)
    page.wait_for_function("document.querySelector('#slots').value > 0")
    expect(page.locator("#slots-figure")).to_have_text("1 of 4")
    page.wait_for_function("document.querySelector('#busy').value > 0.5", timeout=20_000)
    assert figure(page, "busy") > 50
    go_on.set()
    expect(page.get_by_role("button", name="Write")).to_be_enabled(timeout=20_000)
    expect(page.locator("#slots-figure")).to_have_text("0 of 4", timeout=10_000)
    expect(page.locator("#queue-figure")).to_have_text("0 of 36")


def test_stop_gives_the_text_up(page, served, monkeypatch):
    card = served[1].state.engine.model.runtime.card
    run = card.run
    monkeypatch.setattr(card, "run", lambda *arguments: (time.sleep(0.2), run(*arguments))[1])
    page.goto(served[0])
    write(page, "a", 89)
    page.wait_for_function("document.querySelector('#text').textContent.length > 1")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Write")).to_be_enabled()
    expect(page.locator("#error")).to_be_empty()
    server.settled(served[1], 5)


def test_errors_are_sentences(page, served):
    page.goto(served[0])
    write(page, "a", 500)
    expect(page.locator("#error")).to_contain_text("must fit the context of 90")
    write(page, "a", 2)
    expect(page.locator("#error")).to_be_empty()


def test_a_key_is_asked_for(page, models_):
    with server.serving(models_[0], key="open sesame") as (address, _):
        page.goto(address)
        expect(page.locator("#error")).to_contain_text("Authorization: Bearer")
        write(page, "a", 2, key="open sesame")
        expect(page.locator("#error")).to_be_empty()
        expect(page.locator("#model")).to_have_text("threads")
        page.close()


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.xdist_group("card tiny")
def test_the_page_on_the_verilated_card(page, folder):
    with server.loaded(folder, cards="rtl:tiny") as (model, alone), \
            server.serving(model) as (address, _):
        page.goto(address)
        write(page, "over", 4)
        want = "over" + alone.generate("over", max_new_tokens=4)
        expect(page.locator("#text")).to_have_text(want, timeout=120_000)
        expect(page.locator("#card-0-figure")).to_contain_text("% of its beats", timeout=10_000)
        page.close()
