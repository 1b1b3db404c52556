# SPDX-License-Identifier: Apache-2.0
"""The HBM model by itself, behind a plain AXI4 master, which measures what its parameters say.

Rates are in bytes per ns, at the clock at which the port is the slower one (200 MHz: 12.8) and at
one at which memory is (225 MHz: 14.4).
"""

import ctypes
import dataclasses
import math
import pathlib
import subprocess

import numpy as np
import pytest

import cardsim.rtl
from cardsim.rtl import Timing
from rtl_gen.spec.config import U280

HERE = pathlib.Path(__file__).parent
MODEL = pathlib.Path(cardsim.rtl.__file__).parent
BEAT, SIZE = 64, 1 << 24
CLOCKS = (200.0, 225.0)

BURST = np.dtype([
    ("address", "u8"), ("beats", "u4"), ("write", "u4"), ("value", "u4"), ("not_before", "u8"),
    ("taken", "u8"), ("first", "u8"), ("last", "u8"), ("answered", "u8"), ("resp", "u4"),
    ("same", "u4")], align=True)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("hbm") / "port.so"
    subprocess.run(["c++", "-std=c++17", "-O1", "-Wall", "-Werror", "-fPIC", "-shared",
                    f"-I{MODEL}", HERE / "hbm_port.cpp", MODEL / "hbm.cpp", "-o", path], check=True)
    found = ctypes.CDLL(str(path))
    found.port_open.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32]
    found.port_run.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32]
    found.port_run.restype = ctypes.c_uint64
    found.port_data.restype = ctypes.POINTER(ctypes.c_uint8)
    found.port_violation.restype = ctypes.c_char_p
    return found


class Port:
    """One channel and its master."""

    def __init__(self, library, timing):
        self._library, self.timing = library, timing
        self.period = 1000 / timing.clock_mhz
        library.port_open(ctypes.byref(timing.structure(U280)), SIZE, BEAT)
        self.data = np.ctypeslib.as_array(library.port_data(), (SIZE,))

    def run(self, bursts, outstanding=32, every=1):
        """Carry out rows of (address, beats, write, value, not before); returns records."""
        made = np.zeros(len(bursts), BURST)
        for name, column in zip(BURST.names, zip(*bursts, strict=True), strict=False):
            made[name] = column
        self._library.port_run(made.ctypes.data, len(made), outstanding, every)
        assert self._library.port_violation() == b""
        return made

    def rate(self, bursts, **how):
        """Bytes per ns from the first address to the last event."""
        found = self.run(bursts, **how)
        last = max(found["last"].max(), found["answered"].max())
        return found["beats"].sum() * BEAT / ((last - found["taken"].min()) * self.period)


@pytest.fixture
def port(library):
    def made(clock, **parameters):
        return Port(library, Timing(clock_mhz=clock, **parameters))
    return made


def stream(kilobytes, write=False, beats=64):
    return [(at, beats, write, 7, 0) for at in range(0, kilobytes << 10, beats * BEAT)]


def scattered(name, count, beats):
    """Bursts at random places, none of which goes on where another one ended."""
    rng = np.random.default_rng(list(name.encode()))
    size = beats * BEAT
    return [(int(at) * 2 * size, beats, 0, 0, 0)
            for at in rng.permutation(SIZE // (2 * size))[:count]]


@pytest.mark.parametrize("clock", [*CLOCKS, 100.0])
@pytest.mark.parametrize("latency", [128.0, 289.0])
def test_latency(port, clock, latency):
    found, = port(clock, latency_ns=latency).run([(4096, 1, 0, 0, 3)])
    # A row is opened first, as the burst goes on nowhere; then the next edge counts.
    timing = Timing()
    opening = timing.random_ns - BEAT / timing.peak_gbps
    assert found["first"] - found["taken"] == math.ceil((latency + opening) * clock / 1000)


def test_beats_follow_at_the_rate_of_the_channel(port):
    """However fast the port is."""
    found, = port(1000.0).run([(4096, 8, 0, 0, 0)])
    assert found["last"] - found["taken"] == math.ceil(128 + 7 * BEAT / 14.375)


@pytest.mark.parametrize(("clock", "expected"), [(200.0, 12.8), (225.0, 13.1), (205.0, 13.1)])
@pytest.mark.parametrize("beats", [64, 8])
def test_bandwidth_of_a_stream(port, clock, expected, beats):
    made = port(clock)
    rate = made.rate(stream(2048, beats=beats))
    assert rate == pytest.approx(expected, rel=0.004)
    assert rate == pytest.approx(min(made.timing.port_gbps(U280), made.timing.average_gbps),
                                 rel=0.004)


def test_a_refresh_costs_bandwidth_and_no_cycle_of_a_slower_port(port):
    """At 200 MHz no cycle is lost in 40 refreshes, unless the buffer is too small for them."""
    def lost(**parameters):
        """ns in which no beat came, per refresh; the first one finds the buffer empty."""
        made, first = port(200.0, **parameters), 16
        found = made.run(stream(2048))
        taken = (found["last"][-1] - found["last"][first]) * made.period
        refreshes = taken / made.timing.refresh_every_ns
        assert refreshes > 40
        return (taken - found["beats"][first + 1:].sum() * made.period) / refreshes

    assert lost() == lost(buffer_bytes=8192) == 0
    # What is under way for 128 ns is in the buffer too, and the next piece wants room.
    bridged = (4096 - 512) / 12.8 - 128
    assert lost(buffer_bytes=4096) == pytest.approx(346 - bridged, abs=20)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_the_share_of_refresh(port, share):
    made = port(400.0, refresh_ns=3900 * share)
    assert made.rate(stream(4096)) == pytest.approx(14.375 * (1 - share), rel=0.006)


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize(("beats", "expected"), [(1, 4.75), (2, 9.5), (8, 13.1)])
def test_random_reads(port, clock, beats, expected):
    """The Vitis tutorial measured 4.75, 9.60 and 13.13."""
    rate = port(clock).rate(scattered(f"random {beats}", 12000 // beats, beats))
    assert rate == pytest.approx(min(expected, clock * BEAT / 1000), rel=0.01)


@pytest.mark.parametrize("clock", CLOCKS)
def test_writes(port, clock):
    made = port(clock)
    timing = made.timing
    assert made.rate(stream(2048, write=True)) == pytest.approx(
        min(timing.port_gbps(U280), timing.average_gbps), rel=0.004)
    made = port(clock)
    found, = made.run([(4096, 2, 1, 9, 0)])
    cost = timing.turnaround_ns + timing.random_ns + timing.write_latency_ns
    assert found["answered"] - found["last"] == math.ceil(cost * clock / 1000)
    assert (made.data[4096:4096 + 2 * BEAT] == 9).all()
    assert not made.data[4096 + 2 * BEAT:8192].any()


@pytest.mark.parametrize(("turnaround", "random"), [(10.0, 12.28), (30.0, 12.28), (10.0, 40.0)])
def test_the_price_of_a_write_among_reads(port, turnaround, random):
    """Two changes of direction, the write, and the place where the reads go on."""
    made = port(225.0, turnaround_ns=turnaround, random_ns=random)
    reads, count = stream(2048), 300
    writes = [(SIZE - (1 + k) * 2 * BEAT, 1, 1, 3, 100 + 100 * k) for k in range(count)]
    alone, mixed = (port(225.0, turnaround_ns=turnaround, random_ns=random).run(bursts)
                    for bursts in (reads, reads + writes))
    more = (mixed["last"][:len(reads)].max() - alone["last"].max()) * made.period
    piece = 512 / made.timing.peak_gbps
    price = 2 * turnaround + random + max(0, random - piece)
    # While they are paid for, memory is refreshed as well.
    share = made.timing.refresh_ns / made.timing.refresh_every_ns
    assert more / count == pytest.approx(price / (1 - share), rel=0.03)
    # No write waited for the reads that were asked for before it.
    writing = mixed[len(reads):]
    worst = made.timing.write_latency_ns + price + made.timing.refresh_ns + piece
    assert ((writing["answered"] - writing["last"]) * made.period).max() < worst + 2 * made.period


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_read_sees_a_write_that_was_answered_and_no_other(port, clock):
    for delay in range(0, 60, 3):
        made = port(clock)
        made.data[:] = 1
        write = (4096, 1, 1, 2, 0)
        read = (4096, 1, 0, 0, delay)
        write, read = made.run([write, read])
        assert read["value"] == (2 if read["taken"] >= write["answered"] - 1 else 1)
        assert read["same"]
        assert made.run([(4096, 1, 0, 0, 0)])["value"] == 2
    assert delay > write["answered"]


@pytest.mark.parametrize("stall", [0, 300, 800])
def test_bursts_come_whole_and_in_order(port, stall):
    made = port(225.0, stall_permille=stall, read_error_at=5 << 12, write_error_at=SIZE // 2 + 4096)
    for page in range(64):
        made.data[page << 12:page + 1 << 12] = page
    rng = np.random.default_rng(list(f"whole {stall}".encode()))
    pages = rng.integers(0, 64, 300)
    reads = [(int(page) << 12, int(beats), 0, 0, 0)
             for page, beats in zip(pages, rng.integers(1, 65, 300), strict=True)]
    writes = [(SIZE // 2 + 4096 * k, k % 64 + 1, 1, k, 0) for k in range(100)]
    found = made.run(reads + writes, every=2)
    read, wrote = found[:300], found[300:]
    np.testing.assert_array_equal(read["value"], pages)
    assert read["same"].all()
    assert (np.diff(read["first"].astype(int)) > 0).all()
    assert (read["last"][:-1] < read["first"][1:]).all()
    np.testing.assert_array_equal(read["resp"] == 2, pages == 5)
    np.testing.assert_array_equal(np.flatnonzero(wrote["resp"]), [1])
    for k in range(100):
        start = SIZE // 2 + 4096 * k
        assert (made.data[start:start + (k % 64 + 1) * BEAT] == k).all()
    time = (found["last"].max() - found["taken"].min()) / (2 * read["beats"].sum())
    # Some of it goes to the writes; a handshake that is held back costs a turn of the master.
    assert time < 1.2 if not stall else time > 1 / (1 - stall / 2000)


def test_beyond_the_channel_is_an_error(port):
    made = port(200.0)
    read, write = made.run([(SIZE, 4, 0, 0, 0), (SIZE, 2, 1, 5, 0)])
    assert (read["resp"], write["resp"], read["value"]) == (3, 3, 0)
    assert not made.data[-4096:].any()


@pytest.mark.parametrize(("parameters", "message"), [
    ({"peak_gbps": 0.0}, "peak_gbps must be above zero, not 0.0"),
    ({"clock_mhz": -1.0}, "clock_mhz must be above zero, not -1.0"),
    ({"turnaround_ns": -1.0}, "turnaround_ns must be at least zero, not -1.0"),
    ({"refresh_ns": 3900.0}, r"refresh_ns must be below refresh_every_ns \(3900.0\), not 3900.0")])
def test_parameters_that_make_no_sense_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        Timing(**parameters)


def test_defaults_are_what_was_measured():
    timing = dataclasses.replace(Timing(), clock_mhz=200.0)
    assert timing.average_gbps == pytest.approx(13.1, abs=0.002)
    assert timing.port_gbps(U280) == 12.8
