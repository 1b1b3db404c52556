# SPDX-License-Identifier: Apache-2.0
"""What AXI asks of whom."""

from amaranth import Cat, Signal

from rtl_gen.memory.reader import PAGE


def stays(m, port, channel: str, *names: str, name: str = "port"):
    """Value: what was offered on a channel and not taken is still there."""
    valid, ready = getattr(port, f"{channel}valid"), getattr(port, f"{channel}ready")
    offered = Cat(valid, *(getattr(port, channel + field) for field in names))
    waits = Signal(name=f"{name}_{channel}_waits")
    before = Signal(len(offered), name=f"{name}_{channel}_before")
    m.d.sync += [waits.eq(valid & ~ready), before.eq(offered)]
    return ~waits | (offered == before)


def allowed(port, channel: str, *, beat_bytes: int, burst: int, page: int = PAGE):
    """Value: a burst that is asked for is of whole beats, no more than ``burst``, and ends within
    ``page`` bytes."""
    valid, address, length, size, kind = (
        getattr(port, channel + name) for name in ("valid", "addr", "len", "size", "burst"))
    bits = (beat_bytes - 1).bit_length()
    return ~valid | Cat(
        address[:bits] == 0, length < burst, size == bits, kind == 1,
        address[bits:page.bit_length() - 1] + length < page // beat_bytes).all()
