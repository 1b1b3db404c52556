# SPDX-License-Identifier: Apache-2.0
"""AXI4 read master: runs of beats, in order, as long bursts."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import axi

#: Beats of one job; a whole stream fits.
BEATS_BITS = 25
#: Bytes of a beat, as AXI4 allows them.
BEATS = tuple(1 << size for size in range(8))
#: No burst crosses a multiple of this many bytes.
PAGE = 4096


def run() -> data.StructLayout:
    """Consecutive beats, from a beat address on."""
    return data.StructLayout({"address": 32, "beats": BEATS_BITS})


def reads(beat_bytes: int) -> wiring.Signature:
    """The read half of an AXI4 master."""
    members = axi.full(beat_bytes).members
    return wiring.Signature({name: member for name, member in members.items()
                             if name.startswith(("ar", "r"))})


class Reader(wiring.Component):
    """Reads runs of beats, one after another, with many bursts under way.

    The addresses of a run are asked for as soon as those of the run before are, long before its
    beats have come.  All bursts have one ID, so beats arrive in order.

    Parameters
    ----------
    beat_bytes : int
        A power of two, at most 128.
    burst : int
        Beats of the longest burst, a power of two, at most 256 and 4 KiB; bursts end at multiples
        of it.
    outstanding : int
        Bursts under way, at most.

    Members
    -------
    axi : read half of an AXI4 master
    base : ``In(64)``
        Byte address of beat 0, a multiple of the beat.
    job : ``In(stream.Signature(run()))``
        A run of no beats does nothing.
    o : ``Out(stream.Signature(8 * beat_bytes))``
    abort : ``In(1)``
        Ask for no more, and drop what still comes.  Only a reset helps afterwards.
    reading : ``Out(1)``
        Some burst is under way.
    error : ``Out(1)``
        Some response was an error; until reset.
    beat : ``Out(1)``
        A beat came.
    """

    #: Cycles from a job taken until its first address is out, and from one address to the next.
    LATENCY, INTERVAL = 3, 2

    def __init__(self, beat_bytes: int, *, burst: int, outstanding: int):
        if beat_bytes not in BEATS:
            raise ValueError(f"beat_bytes must be a power of two in 1..128, not {beat_bytes!r}")
        if burst < 1 or burst & burst - 1 or burst > min(256, PAGE // beat_bytes):
            raise ValueError(f"burst must be a power of two in 1..{min(256, PAGE // beat_bytes)}, "
                             f"not {burst!r}")
        if outstanding < 1:
            raise ValueError(f"outstanding must be at least 1, not {outstanding!r}")
        self.beat_bytes, self.burst, self.outstanding = beat_bytes, burst, outstanding
        super().__init__({
            "axi": Out(reads(beat_bytes)), "base": In(64), "job": In(stream.Signature(run())),
            "o": Out(stream.Signature(8 * beat_bytes)), "abort": In(1),
            "reading": Out(1), "error": Out(1), "beat": Out(1)})

    def elaborate(self, platform):
        m = Module()
        port, size = self.axi, (self.beat_bytes - 1).bit_length()
        burst_bits = (self.burst - 1).bit_length()

        # Only the first burst of a run may begin within an aligned stretch of `burst` beats.
        address = Signal(64, reset_less=True)
        left = Signal(BEATS_BITS)
        length, planned = Signal(range(self.burst + 1), reset_less=True), Signal()
        under_way = Signal(range(self.outstanding + 1))
        ask = Signal()

        m.d.comb += self.job.ready.eq(left == 0)
        with m.If(self.job.valid & self.job.ready):
            m.d.sync += [address.eq(self.base + (self.job.p.address << size)),
                         left.eq(self.job.p.beats)]
        with m.Elif(ask):
            aligned = address[size + burst_bits:]
            m.d.sync += [left.eq(left - length),
                         address.eq((aligned + 1) << size + burst_bits)]

        room = Signal.like(length)
        m.d.comb += room.eq(self.burst - address[size:size + burst_bits])
        with m.If(ask):
            m.d.sync += planned.eq(0)
        with m.Elif(left != 0):
            m.d.sync += [planned.eq(1), length.eq(Mux(left < room, left, room))]

        m.d.comb += ask.eq(planned & ~self.abort & (~port.arvalid | port.arready)
                           & (under_way != self.outstanding))
        with m.If(ask):
            m.d.sync += [port.arvalid.eq(1), port.araddr.eq(address), port.arlen.eq(length - 1)]
        with m.Elif(port.arready):
            m.d.sync += port.arvalid.eq(0)
        came = Signal()
        m.d.comb += [
            port.arid.eq(0), port.arsize.eq(size), port.arburst.eq(1),
            self.o.payload.eq(port.rdata), self.o.valid.eq(port.rvalid & ~self.abort),
            port.rready.eq(self.o.ready | self.abort), came.eq(port.rvalid & port.rready)]
        m.d.sync += [
            under_way.eq(under_way + ask - (came & port.rlast)),
            self.beat.eq(came), self.error.eq(self.error | (came & port.rresp[1]))]
        m.d.comb += self.reading.eq(under_way != 0)
        return m
