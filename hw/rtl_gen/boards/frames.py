# SPDX-License-Identifier: Apache-2.0
"""Frames on the serial line: requests that are whole, and answers to them."""

import zlib

from amaranth import Array, Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram
from ..link.crc import Crc32
from ..spec import serial

#: CRC-32 of anything that ends with its own CRC-32.
RESIDUE = zlib.crc32(zlib.crc32(b"").to_bytes(4, "little"))
#: A request's header.
HEADER = data.StructLayout({name: 8 * size for name, size in serial.REQUEST})


class Frames(wiring.Component):
    """Takes a request off the line, shows it until it has been carried out, and answers.

    Payload lies in a buffer, which both ends of :class:`Frames` use in turn.  What comes meanwhile
    is not taken: the line is then listened to until it has been silent, which is answered with
    FAULT.

    Parameters
    ----------
    gap : int
        Cycles of silence after which a frame has ended.

    Members
    -------
    bytes : ``In({valid, byte, error})``
        From the line.
    line : ``Out(stream(8))``
        To the line.
    request : ``Out(HEADER)``
        Valid with ``asks``.
    asks : ``Out(1)``
        A whole request is there, until ``done``.
    done : ``In(1)``
        Pulse: it has been carried out; ``code`` and ``size`` are those of the answer.
    code, size : ``In(8)``, ``In(16)``
    read_addr, read_data : the buffer, a cycle later
    write_en, write_addr, write_data : the buffer, while ``asks``
    """

    def __init__(self, *, gap: int) -> None:
        self.gap = gap
        depth = range(serial.LONGEST)
        super().__init__({
            "bytes": In(data.StructLayout({"valid": 1, "byte": 8, "error": 1})),
            "line": Out(stream.Signature(8)),
            "request": Out(HEADER), "asks": Out(1), "done": In(1), "code": In(8), "size": In(16),
            "read_addr": In(depth), "read_data": Out(8),
            "write_en": In(1), "write_addr": In(depth), "write_data": In(8)})

    def elaborate(self, platform):
        m = Module()
        came, line, request = self.bytes, self.line, self.request
        m.submodules.buffer = buffer = Ram(8, depth=serial.LONGEST)
        m.submodules.crc = crc = Crc32(beat_bytes=1)
        sent = Signal()
        m.d.comb += [
            sent.eq(line.valid & line.ready), self.read_data.eq(buffer.read_data),
            buffer.read_en.eq(1), buffer.read_addr.eq(self.read_addr),
            buffer.write_addr.eq(self.write_addr), buffer.write_data.eq(self.write_data),
            buffer.write_en.eq(self.write_en & self.asks), crc.data.eq(came.byte)]

        # Silence is counted from the last byte on.
        silence, silent = Signal(range(self.gap + 1)), Signal()
        m.d.comb += silent.eq(silence == self.gap)
        with m.If(came.valid):
            m.d.sync += silence.eq(0)
        with m.Elif(~silent):
            m.d.sync += silence.eq(silence + 1)

        index, disturbed = Signal(range(serial.LONGEST + 1)), Signal()
        code, size = Signal(8), Signal(16)
        header = request.as_value()
        carries, lost = Signal(), Signal()
        m.d.comb += carries.eq((request.kind == serial.Kind.WRITE)
                               | (request.kind == serial.Kind.SET))
        m.d.comb += lost.eq((came.valid & came.error) | silent)
        head = Array([Const(serial.ANSWER_MAGIC, 8), code, request.number, size[:8], size[8:]])

        def fault():
            m.d.sync += [code.eq(serial.Code.FAULT), size.eq(0), index.eq(0)]

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [index.eq(1), disturbed.eq(0)]
                with m.If(came.valid):
                    m.d.comb += [crc.start.eq(1), crc.valid.eq(1)]
                    m.d.sync += header.eq(Cat(header[8:], came.byte))
                    m.next = "LOST"
                    with m.If((came.byte == serial.REQUEST_MAGIC) & ~came.error):
                        m.next = "HEADER"
            with m.State("HEADER"):
                with m.If(came.valid):
                    m.d.comb += crc.valid.eq(1)
                    m.d.sync += [header.eq(Cat(header[8:], came.byte)), index.eq(index + 1)]
                    with m.If(index == serial.REQUEST_BYTES - 1):
                        m.next = "SIZED"
                with m.If(lost):
                    m.next = "LOST"
            with m.State("SIZED"):      # no byte comes as fast as the next cycle
                m.d.sync += index.eq(0)
                m.next = "CRC"
                with m.If(carries & (request.size != 0)):
                    m.next = "PAYLOAD"
                    with m.If(request.size > serial.LONGEST):
                        m.next = "LOST"
            with m.State("PAYLOAD"):
                m.d.comb += [buffer.write_addr.eq(index), buffer.write_data.eq(came.byte),
                             buffer.write_en.eq(came.valid), crc.valid.eq(came.valid)]
                with m.If(came.valid):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index + 1 == request.size):
                        m.d.sync += index.eq(0)
                        m.next = "CRC"
                with m.If(lost):
                    m.next = "LOST"
            with m.State("CRC"):
                with m.If(came.valid):
                    m.d.comb += crc.valid.eq(1)
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == serial.CRC_BYTES - 1):
                        m.next = "CHECK"
                with m.If(lost):
                    m.next = "LOST"
            with m.State("CHECK"):
                m.next = "LOST"
                with m.If(crc.crc == RESIDUE):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += self.asks.eq(1)
                with m.If(self.done):
                    m.d.sync += [code.eq(self.code), size.eq(self.size), index.eq(0)]
                    m.next = "HEAD"
            with m.State("LOST"):
                with m.If(silent & ~came.valid):
                    fault()
                    m.next = "HEAD"

            # The answer.
            with m.State("HEAD"):
                m.d.comb += [line.payload.eq(head[index[:3]]), line.valid.eq(1),
                             buffer.read_addr.eq(0)]
                with m.If(sent):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == serial.ANSWER_BYTES - 1):
                        m.d.sync += index.eq(0)
                        m.next = "BODY"
                        with m.If(size == 0):
                            m.next = "SEAL"
                m.d.comb += crc.start.eq(index == 0)
                self._sends(m, crc, sent)
            with m.State("BODY"):
                m.d.comb += [line.payload.eq(buffer.read_data), line.valid.eq(1),
                             buffer.read_addr.eq(index + sent)]
                with m.If(sent):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index + 1 == size):
                        m.d.sync += index.eq(0)
                        m.next = "SEAL"
                self._sends(m, crc, sent)
            with m.State("SEAL"):
                m.d.comb += [line.payload.eq(crc.crc.word_select(index[:2], 8)), line.valid.eq(1)]
                with m.If(sent):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == serial.CRC_BYTES - 1):
                        m.next = "END"
            with m.State("END"):
                m.next = "IDLE"
                with m.If(disturbed | came.valid):
                    m.d.sync += disturbed.eq(0)
                    m.next = "LOST"
        busy = Signal()
        m.d.comb += busy.eq(self.asks | line.valid)
        with m.If(busy & came.valid):
            m.d.sync += disturbed.eq(1)
        return m

    def _sends(self, m, crc, sent):
        m.d.comb += [crc.valid.eq(sent), crc.data.eq(self.line.payload)]
