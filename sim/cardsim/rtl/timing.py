# SPDX-License-Identifier: Apache-2.0
"""Parameters of the models of HBM and of links."""

import ctypes
import dataclasses

from rtl_gen.spec.config import CardConfig


class _Structure(ctypes.Structure):
    """``heddle::Timing`` of hbm.h."""

    _fields_ = [
        *((name, ctypes.c_double) for name in (
            "clock_mhz", "peak_gbps", "random_ns", "latency_ns", "buffer_bytes",
            "write_latency_ns", "turnaround_ns", "refresh_every_ns", "refresh_ns")),
        ("stall_permille", ctypes.c_uint32), ("seed", ctypes.c_uint64),
        ("read_error_at", ctypes.c_uint64), ("write_error_at", ctypes.c_uint64)]


class _LinkStructure(ctypes.Structure):
    """``heddle::LinkTiming`` of link.h."""

    _fields_ = [
        *((name, ctypes.c_double) for name in ("clock_mhz", "latency_ns", "gbps")),
        *((name, ctypes.c_uint32) for name in (
            "corrupt_permille", "drop_permille", "stall_permille")),
        ("seed", ctypes.c_uint64)]


_NEVER = (1 << 64) - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """HBM timing, from measurements of the Alveo U280 (sources in docs/simulators.md).

    Times in nanoseconds, rates in bytes per nanosecond.
    """

    #: Clock of the card; None: the configuration's.
    clock_mhz: float | None = None
    #: Rate of one channel while it streams, refresh apart.
    peak_gbps: float = 14.375
    #: Least time of 512 bytes or less that do not continue the last ones: 64 bytes at random places
    #: reach the measured 4.75 bytes per ns, refresh included.
    random_ns: float = 12.28
    #: From a read request that is taken to its first beat, on an idle channel.
    latency_ns: float = 128.0
    #: What the channel reads ahead of the port: a refresh costs bandwidth, but a port that is
    #: slower than the channel does not notice it.
    buffer_bytes: float = 16384.0
    #: From the end of a write to its response.
    write_latency_ns: float = 80.0
    #: Change between reading and writing.
    turnaround_ns: float = 10.0
    refresh_every_ns: float = 3900.0
    #: 14.375 less these pauses is the 13.1 bytes per ns that were measured.
    refresh_ns: float = 346.0
    #: Chance, in 1/1000, that a handshake is held back in a cycle.
    stall_permille: int = 0
    seed: int = 1
    #: Byte offset in every channel whose reads fail, if any.
    read_error_at: int | None = None
    #: Byte offset in every channel whose writes fail, if any.
    write_error_at: int | None = None

    def __post_init__(self) -> None:
        for name in ("peak_gbps", "refresh_every_ns"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above zero, not {getattr(self, name)}")
        if self.clock_mhz is not None and self.clock_mhz <= 0:
            raise ValueError(f"clock_mhz must be above zero, not {self.clock_mhz}")
        for name in ("random_ns", "latency_ns", "buffer_bytes", "write_latency_ns",
                     "turnaround_ns", "refresh_ns"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least zero, not {getattr(self, name)}")
        if self.refresh_ns >= self.refresh_every_ns:
            raise ValueError(f"refresh_ns must be below refresh_every_ns "
                             f"({self.refresh_every_ns}), not {self.refresh_ns}")
        if not 0 <= self.stall_permille < 1000:
            raise ValueError(f"stall_permille must be in 0..999, not {self.stall_permille}")

    @property
    def average_gbps(self) -> float:
        """Rate of one channel that streams, refresh included."""
        return self.peak_gbps * (1 - self.refresh_ns / self.refresh_every_ns)

    def clock(self, config: CardConfig) -> float:
        """MHz of a card of that configuration."""
        return self.clock_mhz or config.clock_mhz

    def port_gbps(self, config: CardConfig) -> float:
        """Rate of a port that moves a beat in every cycle."""
        return config.beat_bytes * self.clock(config) / 1000

    def structure(self, config: CardConfig) -> _Structure:
        """As the model takes it."""
        values = dataclasses.asdict(self)
        values["clock_mhz"] = self.clock(config)
        for name in ("read_error_at", "write_error_at"):
            values[name] = _NEVER if values[name] is None else values[name]
        return _Structure(**values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinkTiming:
    """Timing and faults of the links of a ring; the defaults are those of AuroraFlow on 100 Gb/s
    (sources in docs/simulators.md)."""

    #: From a beat that is sent to the same beat at the other end; whole cycles of it count, and at
    #: least one.
    latency_ns: float = 540.0
    #: Bytes per nanosecond, each way.
    gbps: float = 12.1
    #: Frames, in 1/1000, of which a bit is flipped, and those that are lost.
    corrupt_permille: int = 0
    drop_permille: int = 0
    #: Chance, in 1/1000, that a beat is held back in a cycle; it is half of that where it arrives.
    stall_permille: int = 0
    #: (card, cycle): nothing passes between this card and the next from that cycle on.
    cut: tuple[int, int] | None = None
    #: What the cut stops: "both" ways, "there" from the card to the next, or the way "back".
    cut_way: str = "both"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.gbps <= 0:
            raise ValueError(f"gbps must be above zero, not {self.gbps}")
        if self.latency_ns < 0:
            raise ValueError(f"latency_ns must be at least zero, not {self.latency_ns}")
        for name in ("corrupt_permille", "drop_permille", "stall_permille"):
            if not 0 <= getattr(self, name) < 1000:
                raise ValueError(f"{name} must be in 0..999, not {getattr(self, name)}")
        if self.cut is not None and min(self.cut) < 0:
            raise ValueError(f"cut must be a card and a cycle, not {self.cut}")
        if self.cut_way not in ("both", "there", "back"):
            raise ValueError(f"cut_way must be both, there or back, not {self.cut_way!r}")

    def cuts(self, config: CardConfig) -> list[tuple[int, int, int]]:
        """Cut directions of a ring: the card that sends, to its next (1) or previous (0), cycle."""
        if self.cut is None:
            return []
        card, cycle = self.cut
        if config.cards == 1 or card >= config.cards:
            raise ValueError(f"cut must name a card of a ring of {config.cards}, not card {card}")
        ways = {"there": (card, 1, cycle), "back": ((card + 1) % config.cards, 0, cycle)}
        return [way for name, way in ways.items() if self.cut_way in (name, "both")]

    def structure(self, clock_mhz: float) -> _LinkStructure:
        """As the model takes it, of cards of that clock."""
        return _LinkStructure(
            clock_mhz=clock_mhz, latency_ns=self.latency_ns, gbps=self.gbps,
            corrupt_permille=self.corrupt_permille, drop_permille=self.drop_permille,
            stall_permille=self.stall_permille, seed=self.seed)
