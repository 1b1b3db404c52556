# SPDX-License-Identifier: Apache-2.0
"""The Verilated card's bench, HBM model and child process, around a card that copies beats."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from cardsim.rtl import RtlCard, Timing, build, events
from cardsim.rtl.command import Command
from cardsim.rtl.events import Activity
from heddle.card import CardError
from rtl_gen.spec.config import TINY
from rtl_gen.spec.registers import STATUS
from tests.cosim import copycard

CHANNEL = TINY.channel_bytes
BEAT = TINY.beat_bytes


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(build.emit, "card", copycard.modules)


@pytest.fixture
def opened():
    cards = []

    def open_one(**options):
        cards.append(RtlCard(TINY, **options))
        return cards[-1]
    yield open_one
    for card in cards:
        card.close()


def copy(card, beats, limit=10**6, waves=""):
    """Let the stand-in copy; its outcome."""
    return card._simulation.run(card.index, Command(beats, 60.0, limit), waves)


@pytest.mark.parametrize("stall", [0, 300, 800])
def test_every_beat_arrives_whatever_the_stalls(opened, stall):
    card = opened(timing=Timing(stall_permille=stall, seed=stall + 1))
    images = [os.urandom(256 * BEAT) for _ in range(TINY.channels)]
    for channel, image in enumerate(images):
        card.write(channel * CHANNEL, image)
    done = copy(card, 256)
    assert (done.end, done.violation) == ("done", "")
    assert done.cycles > 256
    for channel, image in enumerate(images):
        assert card.read(channel * CHANNEL + 0x10000, len(image)) == image


def test_every_cycle_is_in_the_log_once(opened):
    card = opened(timing=Timing(stall_permille=300), events=True)
    cycles = copy(card, 64).cycles
    log = card.events()
    # Registers are written and read, too.
    assert cycles <= len(log) < cycles + 3 * len(STATUS)
    assert (np.diff(log["pc"].astype(int) * 8 + log["issue"] * 2 + log["control"] * 4
                    + log["running"]) % (1 << 19) == 1).all()       # the stand-in counts cycles
    for bit in (Activity.READ, Activity.WRITE):
        assert ((log["channels"] & bit != 0).sum(0) == 64).all()
    # A beat is read, late, or offered in vain; refreshes and stalls make all of these.
    states = log["channels"] & ~Activity.WRITE
    assert set(np.unique(states)) == {0, Activity.READ, Activity.LATE}
    assert len(card.events()) == 0


def test_a_card_without_a_log_says_so(opened):
    with pytest.raises(CardError, match=r"^the card records no events: open it with events=True$"):
        opened().events()


def test_a_full_log_is_an_error(opened, monkeypatch):
    monkeypatch.setattr(events, "LIMIT", events.record_bytes(TINY) * 50)
    card = opened(events=True)
    copy(card, 64)
    with pytest.raises(CardError, match="must take less than 50 cycles while events are recorded"):
        card.events()
    assert len(card.events()) == 0


def test_the_model_delays_what_it_is_told_to_delay(opened):
    def cycles(**timing):
        return copy(opened(timing=Timing(refresh_ns=0, **timing)), 64).cycles
    base = cycles(latency_ns=100)
    # 16 bursts of four beats, one at a time: each waits for its read latency and its response.
    assert cycles(latency_ns=300) - base == 16 * 20
    assert cycles(latency_ns=100, write_latency_ns=280) - base == 16 * 20
    assert cycles(latency_ns=100, peak_gbps=0.8) > base + 64


def test_writes_run_over_channel_ends_and_reads_stay_in_memory(opened):
    card = opened()
    card.write(2 * CHANNEL - 3, b"abcdef")
    assert card.read(CHANNEL * 2 - 4, 8) == b"\0abcdef\0"
    with pytest.raises(CardError, match="host addresses must be below 0x40000000"):
        card.read(4 * CHANNEL - 4, 8)


def test_a_command_that_does_not_end_is_given_up_with_a_waveform(opened, tmp_path):
    wave = tmp_path / "end.vcd"
    found = copy(opened(trace=True), 64, limit=100, waves=str(wave))
    assert found.end == "limit"
    assert 100 <= found.cycles < 150
    assert found.waves == str(wave)
    text = wave.read_text()
    assert "$enddefinitions" in text
    assert "m_axi_hbm00_rdata" in text


def test_a_burst_over_4_kib_is_a_violation(opened, monkeypatch):
    monkeypatch.setattr(build.emit, "card", lambda config, events: {
        name: text.replace("arlen = 3", "arlen = 255 + 0 * 3").replace("at_00 + 64'h10000", "at_00")
        .replace("assign m_axi_hbm00_araddr = base_00 + at_00",
                 "assign m_axi_hbm00_araddr = base_00 + at_00 + 16")
        for name, text in copycard.modules(config, events).items()})
    found = copy(opened(), 64)
    assert found.end == "violation"
    assert "read burst at 0x10 of 256 beats crosses 4 KiB" in found.violation


TICK = "reg asked_00, addressed_00; reg tick = 0; always @(posedge ap_clk) tick <= !tick;"


@pytest.mark.parametrize(("right", "wrong", "message"), [
    ("base_00 + at_00;", "base_00 + at_00 + (tick ? 16 : 0);", "AR changed before it was taken"),
    ("state_00 == 1 & !asked_00;", "state_00 == 1 & !asked_00 & tick;",
     "AR changed before it was taken"),
    ("at_00 + 64'h10000;", "at_00 + (tick ? 64'h10000 : 64'h10010);",
     "AW changed before it was taken"),
    ("data_00[beat_00];", "data_00[beat_00] ^ tick;", "W changed before it was taken"),
    ("wlast = beat_00 == 3;", "wlast = beat_00 == 2;", "WLAST is not at the last beat"),
    ("hbm00_arsize = 4;", "hbm00_arsize = 3;", "is not of whole beats"),
    ("hbm00_arburst = 1;", "hbm00_arburst = tick ? 1 : 0;", "AR changed before it was taken"),
], ids=["address", "withdrawn", "write address", "write data", "last", "size", "burst"])
def test_a_breach_of_the_protocol_is_a_violation(
        opened, monkeypatch, tmp_path, right, wrong, message):
    monkeypatch.setenv("HEDDLE_CACHE", str(tmp_path))       # its Verilog is nobody else's
    text = copycard.modules(TINY, True)["copycard"]
    assert text.count(right) == 1
    broken = text.replace("reg asked_00, addressed_00;", TICK).replace(right, wrong)
    monkeypatch.setattr(build.emit, "card", lambda config, events: {"copycard": broken})
    found = copy(opened(timing=Timing(stall_permille=800)), 64)
    assert found.end == "violation"
    assert message in found.violation


def test_a_killed_child_is_an_error_and_not_a_hang(opened):
    card = opened()
    os.kill(card._simulation.pid, signal.SIGKILL)
    with pytest.raises(CardError, match=r"process ended with status -9|has ended"):
        card.read(0, 4)


def test_a_killed_host_leaves_no_child(tmp_path):
    script = textwrap.dedent("""
        import sys, time
        from cardsim.rtl import RtlCard, build
        from cardsim.rtl.command import Command
        from rtl_gen.spec.config import TINY
        from tests.cosim import copycard
        build.emit.card = copycard.modules
        card = RtlCard(TINY)
        print(card._simulation.pid, flush=True)
        card._simulation.run(0, Command(0xFFFFFFFC, 600.0, 10**12), "/dev/null")
        """)
    host = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
                            cwd=pathlib.Path(__file__).parents[2])
    child = int(host.stdout.readline())
    time.sleep(0.3)
    host.kill()
    host.wait()
    for _ in range(100):
        try:
            state = pathlib.Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":        # ended; only the test's init has not collected it
            return
        time.sleep(0.05)
    pytest.fail(f"process {child} is still there")


def test_a_failed_build_says_what_the_compiler_said(monkeypatch):
    monkeypatch.setattr(
        build.emit, "card", lambda config, events: {"broken": "module broken (input x;"})
    with pytest.raises(CardError, match="verilator failed with status 1"):
        RtlCard(TINY)
