# SPDX-License-Identifier: Apache-2.0
"""The model of a link by itself: latency, rate, what it spoils and loses."""

import ctypes
import dataclasses
import pathlib
import subprocess

import numpy as np
import pytest

import cardsim.rtl
from cardsim.rtl import LinkTiming
from rtl_gen.spec.config import TINY

HERE = pathlib.Path(__file__).parent
MODEL = pathlib.Path(cardsim.rtl.__file__).parent
NEVER = (1 << 64) - 1

SENT = np.dtype([("not_before", "u8"), ("taken", "u8"), ("value", "u4"), ("last", "u4"),
                 ("breach", "u4")], align=True)
CAME = np.dtype([("cycle", "u8"), ("last", "u4"), ("data", "u1", 64)], align=True)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("link") / "port.so"
    subprocess.run(["c++", "-std=c++17", "-O1", "-Wall", "-Werror", "-fPIC", "-shared",
                    f"-I{MODEL}", HERE / "link_port.cpp", MODEL / "link.cpp", "-o", path],
                   check=True)
    found = ctypes.CDLL(str(path))
    found.link_run.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p,
        ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int]
    found.link_run.restype = ctypes.c_uint64
    found.link_breach.restype = ctypes.c_char_p
    return found


@pytest.fixture
def way(library):
    """Send frames; returns what was sent and what came, as records."""
    def run(frames, *, clock=200.0, beat=64, number=3, cut=NEVER, cycles=None, window=0,
            receiver_first=False, not_before=0, breach=None, **timing):
        sent = np.zeros(sum(frames), SENT)
        sent["value"] = np.arange(len(sent)) + 1000
        sent["last"][np.cumsum(frames) - 1] = 1
        sent["not_before"] = not_before
        if breach is not None:
            sent["breach"][breach[0]] = breach[1]
        came = np.zeros(len(sent), CAME)
        link = LinkTiming(**timing).structure(clock)
        count = library.link_run(
            ctypes.byref(link), beat, number, cut, sent.ctypes.data, len(sent), came.ctypes.data,
            cycles or 20 * len(sent) + 1000, window, receiver_first)
        return sent, came[:count]
    return run


def words(came, beat=64):
    return np.ascontiguousarray(came["data"][:, :beat]).view("<u4")


@pytest.mark.parametrize(("latency", "clock", "cycles"), [
    (540.0, 200.0, 108), (540.0, 100.0, 54), (549.0, 100.0, 54), (0.0, 100.0, 1), (9.0, 100.0, 1)])
def test_latency(way, latency, clock, cycles):
    sent, came = way([9, 1, 3], clock=clock, latency_ns=latency, not_before=50, gbps=100.0)
    np.testing.assert_array_equal(sent["taken"], 50 + np.arange(13))
    np.testing.assert_array_equal(came["cycle"], sent["taken"] + cycles)
    np.testing.assert_array_equal(came["last"], sent["last"])
    assert (words(came) == sent["value"][:, None]).all()


@pytest.mark.parametrize(("clock", "beat", "rate"), [
    (200.0, 64, 12.1), (250.0, 64, 12.1), (100.0, 16, 1.6), (150.0, 32, 4.8)])
def test_rate(way, clock, beat, rate):
    """That of the link, or that of a port that moves a beat in every cycle."""
    sent, came = way([9] * 1000, clock=clock, beat=beat)
    assert (words(came, beat) == sent["value"][:, None]).all()
    duration = (sent["taken"][-1] - sent["taken"][0]) * 1000 / clock
    assert (len(sent) - 1) * beat / duration == pytest.approx(rate, rel=0.002)


def test_a_pause_earns_a_short_burst(way):
    """At a quarter of the port's rate: four beats at once, what these earn, then every fourth."""
    pause = np.repeat([0, 1000], 20)
    sent, _ = way([40], gbps=3.2, not_before=pause)
    for start in (0, 1000):
        taken = sent["taken"][20 * (start > 0):][:20] - start
        assert list(taken[:5]) == [0, 1, 2, 3, 4]
        assert set(np.diff(taken[5:])) == {4}


def test_spoilt_frames_differ_in_one_bit(way):
    lengths = np.random.default_rng(1).integers(1, 10, 20_000)
    sent, came = way(lengths, corrupt_permille=50)
    assert len(came) == len(sent)
    np.testing.assert_array_equal(came["last"], sent["last"])
    flipped = np.unpackbits((words(came) ^ sent["value"][:, None]).view("u1"), axis=1).sum(1)
    frame = np.repeat(np.arange(len(lengths)), lengths)
    bits = np.bincount(frame, flipped)
    assert set(bits) == {0, 1}
    assert bits.mean() == pytest.approx(0.05, rel=0.1)
    # Any beat may be hit, and any bit.
    first = np.cumsum(lengths) - lengths
    assert set(np.flatnonzero(flipped) - first[frame[flipped > 0]]) == set(range(9))
    places = np.nonzero(np.unpackbits((words(came) ^ sent["value"][:, None]).view("u1"), axis=1))[1]
    assert len(set(places)) > 400


def test_lost_frames_are_lost_whole(way):
    lengths = np.random.default_rng(2).integers(1, 10, 20_000)
    sent, came = way(lengths, drop_permille=100, clock=100.0)
    frame = np.repeat(np.arange(len(lengths)), lengths)
    values = words(came)[:, 0]
    assert (words(came) == values[:, None]).all()
    assert (np.diff(values.astype(int)) > 0).all()
    arrived = np.bincount(frame[values - 1000], minlength=len(lengths))
    assert ((arrived == 0) | (arrived == lengths)).all()
    assert (arrived == 0).mean() == pytest.approx(0.1, rel=0.1)
    assert (np.diff(sent["taken"].astype(int)) == 1).all()      # the sender does not notice


@pytest.mark.parametrize("stall", [100, 500, 900])
def test_stalls_cost_time_and_nothing_piles_up(way, stall):
    sent, came = way([9] * 1000, clock=100.0, stall_permille=stall)
    assert (words(came) == sent["value"][:, None]).all()
    assert len(sent) / sent["taken"][-1] == pytest.approx(1 - stall / 1000, rel=0.05)
    late = came["cycle"] - sent["taken"] - 54
    assert late.max() > 0
    assert np.median(late) <= 5
    assert late.max() < 60


def test_a_cut_ends_it_at_the_cycle(way):
    whole_sent, whole = way([9] * 100)
    sent, came = way([9] * 100, cut=400)
    assert 0 < len(came) < len(whole)
    np.testing.assert_array_equal(came, whole[whole["cycle"] < 400])
    np.testing.assert_array_equal(sent["taken"], whole_sent["taken"])


@pytest.mark.parametrize("cut", [NEVER, 700])
def test_what_happens_is_the_seeds_affair_alone(way, cut):
    faults = {"corrupt_permille": 100, "drop_permille": 100, "stall_permille": 300, "cut": cut}
    expected = way([5] * 200, **faults)
    for how in ({"window": 1}, {"window": 17}, {"receiver_first": True},
                {"window": 100, "receiver_first": True}):
        for found, wanted in zip(way([5] * 200, **faults, **how), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    for how in ({"seed": 2}, {"number": 4}):
        assert (way([5] * 200, **faults, **how)[0]["taken"] != expected[0]["taken"]).any()


@pytest.mark.parametrize("kind", [1, 2], ids=["changed", "withdrawn"])
def test_a_beat_must_wait_until_it_is_taken(way, library, kind):
    way([3, 3], gbps=1.0, breach=(5, 0))
    assert library.link_breach() == b""
    way([3, 3], gbps=1.0, breach=(5, kind))
    assert b": a beat changed before it was taken" in library.link_breach()


@pytest.mark.parametrize(("parameters", "message"), [
    ({"gbps": 0.0}, "gbps must be above zero, not 0.0"),
    ({"latency_ns": -1.0}, "latency_ns must be at least zero, not -1.0"),
    ({"drop_permille": 1000}, r"drop_permille must be in 0..999, not 1000"),
    ({"cut": (0, -1)}, r"cut must be a card and a cycle, not \(0, -1\)"),
    ({"cut_way": "up"}, "cut_way must be both, there or back, not 'up'")])
def test_parameters_that_make_no_sense_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        LinkTiming(**parameters)


def test_a_cut_has_two_ways():
    ring = dataclasses.replace(TINY, cards=4)
    assert LinkTiming().cuts(ring) == []
    assert LinkTiming(cut=(3, 9)).cuts(ring) == [(3, 1, 9), (0, 0, 9)]
    assert LinkTiming(cut=(1, 9), cut_way="there").cuts(ring) == [(1, 1, 9)]
    assert LinkTiming(cut=(1, 9), cut_way="back").cuts(ring) == [(2, 0, 9)]
    for config, card in ((ring, 4), (TINY, 0)):
        with pytest.raises(ValueError, match=f"cut must name a card of a ring of {config.cards}"):
            LinkTiming(cut=(card, 9)).cuts(config)
