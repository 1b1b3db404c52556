# SPDX-License-Identifier: Apache-2.0
"""Carries out the host's requests: memory, the card's registers, its reset."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import axi
from ..control.registers import ADDRESS_BITS
from ..spec import serial
from ..spec.serial import Code, Kind
from .frames import HEADER
from .sdram import Sdram

#: Bytes of a control register.
WORD = 4
#: Cycles that a reset of the card lasts at least; the card wants 16.
RESET = 64


class Host(wiring.Component):
    """A request is carried out piece by piece: a beat of memory or a register at a time, gathered
    from the buffer of :class:`~rtl_gen.boards.frames.Frames` or laid into it byte by byte.

    Parameters
    ----------
    beat_bytes, address_bits : int
        Of memory.
    hello : tuple of int
        The words of ``serial.HELLO_WORDS``.

    Members
    -------
    request, asks, done, code, size, read_addr, read_data, write_en, write_addr, write_data :
        See :class:`~rtl_gen.boards.frames.Frames`.
    memory : ``Out(stream({address, write, data}))``
    came : ``In({valid, data})``
        The beat that was asked for.
    registers : AXI4-Lite master
    reset : ``Out(1)``
        The card's reset.
    reading : ``In(1)``
        Beats are under way to the card, which is kept in reset until they have come.
    """

    def __init__(self, *, beat_bytes: int, address_bits: int, hello: tuple[int, ...]) -> None:
        if len(hello) != len(serial.HELLO_WORDS):
            raise ValueError(f"hello must have {len(serial.HELLO_WORDS)} words, not {len(hello)}")
        self.beat_bytes, self.address_bits, self.hello = beat_bytes, address_bits, hello
        depth = range(serial.LONGEST)
        super().__init__({
            "request": In(HEADER), "asks": In(1), "done": Out(1), "code": Out(8), "size": Out(16),
            "read_addr": Out(depth), "read_data": In(8),
            "write_en": Out(1), "write_addr": Out(depth), "write_data": Out(8),
            "memory": Out(stream.Signature(Sdram.request(address_bits, beat_bytes))),
            "came": In(data.StructLayout({"valid": 1, "data": 8 * beat_bytes})),
            "registers": Out(axi.lite(ADDRESS_BITS)), "reset": Out(1), "reading": In(1)})

    def elaborate(self, platform):
        m = Module()
        request, registers, memory = self.request, self.registers, self.memory
        size_bits = (self.beat_bytes - 1).bit_length()
        hello_bytes = WORD * len(self.hello)

        # What kind of pieces, and whether the request makes sense.
        beats, writes, known = Signal(), Signal(), Signal()
        sized, placed = Signal(), Signal()
        end = Signal(33)
        m.d.comb += end.eq(request.address + request.size)
        some = (request.size != 0) & (request.size <= serial.LONGEST)
        with m.Switch(request.kind):
            with m.Case(Kind.READ, Kind.WRITE):
                m.d.comb += [
                    known.eq(1), beats.eq(1), writes.eq(request.kind == Kind.WRITE),
                    sized.eq(some & (request.size[:size_bits] == 0)),
                    placed.eq((request.address[:size_bits] == 0)
                              & (end <= 1 << self.address_bits + size_bits))]
            with m.Case(Kind.GET, Kind.SET):
                m.d.comb += [
                    known.eq(1), writes.eq(request.kind == Kind.SET),
                    sized.eq(some & (request.size[:2] == 0)),
                    placed.eq((request.address[:2] == 0) & (end <= 1 << ADDRESS_BITS))]
            with m.Case(Kind.HELLO):
                m.d.comb += [known.eq(1), placed.eq(1), sized.eq(request.size == hello_bytes)]
            with m.Case(Kind.RESET):
                m.d.comb += [known.eq(1), placed.eq(1), sized.eq(request.size == 0)]

        # The piece: its bytes come and go at the low end.
        unit = 8 * self.beat_bytes
        piece, index = Signal(unit, reset_less=True), Signal(range(self.beat_bytes + 1))
        moved = Signal(range(serial.LONGEST + 1))      # bytes before this piece
        length = Mux(beats, self.beat_bytes, WORD)
        low = piece[-8 * WORD:]         # a register's bytes, which came in at the high end
        place = Signal(32)
        # The number of the last SET and what came of it.
        last, last_code, have_last = Signal(8), Signal(8), Signal()
        refused, elapsed = Signal(), Signal(range(RESET))

        m.d.comb += [
            place.eq(request.address + moved),
            memory.p.address.eq(place[size_bits:]), memory.p.write.eq(writes),
            memory.p.data.eq(piece),
            registers.araddr.eq(place), registers.awaddr.eq(place), registers.wdata.eq(low),
            registers.wstrb.eq(-1), registers.bready.eq(1), registers.rready.eq(1),
            self.read_addr.eq(moved + index), self.write_addr.eq(moved + index),
            self.write_data.eq(piece[:8]), self.code.eq(Code.DONE)]
        for valid, ready in ((registers.awvalid, registers.awready),
                             (registers.wvalid, registers.wready),
                             (registers.arvalid, registers.arready)):
            with m.If(ready):
                m.d.sync += valid.eq(0)

        def finish(code):
            m.d.comb += [self.done.eq(1), self.code.eq(code)]
            m.next = "IDLE"

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [moved.eq(0), index.eq(0), refused.eq(0), elapsed.eq(0)]
                with m.If(self.asks):
                    m.next = "JUDGE"
            with m.State("JUDGE"):
                with m.If(~known):
                    finish(Code.KIND)
                with m.Elif(~sized):
                    finish(Code.SIZE)
                with m.Elif(~placed):
                    finish(Code.ADDRESS)
                with m.Elif((request.kind == Kind.SET) & have_last & (request.number == last)):
                    finish(last_code)
                with m.Elif(request.kind == Kind.RESET):
                    m.next = "RESET"
                with m.Elif(writes):
                    m.next = "FETCH"
                with m.Else():
                    m.next = "ACCESS"

            # Bytes from the buffer: each a cycle after its address.
            with m.State("FETCH"):
                m.next = "GATHER"
            with m.State("GATHER"):
                m.d.sync += [piece.eq(Cat(piece[8:], self.read_data)), index.eq(index + 1)]
                m.next = "FETCH"
                with m.If(index + 1 == length):
                    m.d.sync += index.eq(0)
                    m.next = "ACCESS"

            with m.State("ACCESS"):
                with m.If(beats):
                    m.d.comb += memory.valid.eq(1)
                    with m.If(memory.ready):
                        m.next = "AWAIT"
                        with m.If(writes):
                            m.next = "NEXT"
                with m.Elif(request.kind == Kind.HELLO):
                    words = Array(Const(word, 8 * WORD) for word in self.hello)
                    m.d.sync += piece.eq(words[moved[2:]])
                    m.next = "SCATTER"
                with m.Else():
                    m.d.sync += [registers.awvalid.eq(writes), registers.wvalid.eq(writes),
                                 registers.arvalid.eq(~writes)]
                    m.next = "AWAIT"
            with m.State("AWAIT"):
                with m.If(beats & self.came.valid):
                    m.d.sync += piece.eq(self.came.data)
                    m.next = "SCATTER"
                with m.If(registers.rvalid):
                    m.d.sync += [piece.eq(registers.rdata),
                                 refused.eq(registers.rresp[1])]
                    m.next = "SCATTER"
                with m.If(registers.bvalid):
                    m.d.sync += refused.eq(registers.bresp[1])
                    m.next = "NEXT"

            # Bytes into the buffer.
            with m.State("SCATTER"):
                m.d.comb += self.write_en.eq(1)
                m.d.sync += [piece.eq(piece >> 8), index.eq(index + 1)]
                with m.If(index + 1 == length):
                    m.d.sync += index.eq(0)
                    m.next = "NEXT"

            with m.State("NEXT"):
                m.d.sync += moved.eq(moved + length)
                m.next = "ACCESS"
                with m.If(writes):
                    m.next = "FETCH"
                with m.If(refused | (moved + length == request.size)):
                    m.next = "FINISH"
            with m.State("FINISH"):
                result = Mux(refused, Code.REFUSED, Code.DONE)
                m.d.comb += self.size.eq(Mux(refused | writes, 0, request.size))
                with m.If(request.kind == Kind.SET):
                    m.d.sync += [have_last.eq(1), last.eq(request.number), last_code.eq(result)]
                with m.If(request.kind == Kind.HELLO):
                    m.d.sync += have_last.eq(0)
                finish(result)

            with m.State("RESET"):
                m.d.comb += self.reset.eq(1)
                with m.If(elapsed != RESET - 1):
                    m.d.sync += elapsed.eq(elapsed + 1)
                with m.Elif(~self.reading):
                    finish(Code.DONE)
        return m
