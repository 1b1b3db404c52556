# SPDX-License-Identifier: Apache-2.0
"""A card as the runtime sees it, and how cards are found by name."""

import dataclasses
import importlib.metadata
import inspect
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from rtl_gen.spec import config as configs
from rtl_gen.spec import contract, isa, registers
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.registers import Error

#: Entry points that open cards: functions ``open_cards(config, **options)``, which return the cards
#: of one ring of ``config.cards``.
GROUP = "heddle.cards"


class CardError(Exception):
    """The card did not do what was asked; nothing read from it is to be used."""


class CardMissing(CardError):
    """There is no card of that kind here, or nothing says which one."""


class CardTimeout(CardError):
    """The card did not answer in time."""


class CardStopped(CardError):
    """A command ended with an error code.

    Attributes
    ----------
    status : Status
        The whole status record.
    """

    def __init__(self, status: "Status") -> None:
        self.status = status
        super().__init__(status.describe())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """What a card says about itself."""

    #: Digest of ``rtl_gen.spec``.
    contract: int
    #: Digest of the card's configuration.
    configuration: int
    #: First 32 bits of the commit that the card was built from; 0 if it was not built.
    commit: int
    #: Board or simulator.
    board: str


@dataclasses.dataclass(frozen=True)
class Status:
    """A status record: what a command did and what it cost.

    Attributes
    ----------
    words : tuple of int
        The record's 32-bit words, in the order of ``registers.STATUS``.
    """

    words: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.words) != len(registers.STATUS):
            raise ValueError(f"a status record must have {len(registers.STATUS)} words, "
                             f"not {len(self.words)}")

    @classmethod
    def from_bytes(cls, data: bytes) -> "Status":
        """The record at the start of ``data``."""
        return cls(tuple(int.from_bytes(data[4 * k:4 * k + 4], "little")
                         for k in range(len(registers.STATUS))))

    def __getitem__(self, name: str) -> int:
        """A word by its name, or a counter by the name that its two words share."""
        if f"{name}_low" in registers.STATUS:
            return self[f"{name}_low"] | self[f"{name}_high"] << 32
        return self.words[registers.STATUS.index(name)]

    @property
    def error(self) -> int:
        """Why the command stopped (:class:`rtl_gen.spec.registers.Error`); 0 if it ended well."""
        return self["error"]

    @property
    def instruction(self) -> int:
        """The instruction word of an error, 256 bits."""
        return sum(self[f"word{k}"] << 32 * k for k in range(8))

    @property
    def counters(self) -> dict[str, int]:
        """All 64-bit counters."""
        names = [name.removesuffix("_low") for name in registers.STATUS if name.endswith("_low")]
        return {name: self[name] for name in names}

    def describe(self) -> str:
        """The error as one sentence."""
        known = {int(code): code.name for code in Error}
        name = known.get(self.error, f"error {self.error}")
        if self.error == Error.BAD_COMMAND:
            return f"the card refused the command record ({name})"
        return f"the card stopped at instruction {self['pc']} ({name}): {show(self.instruction)}"


def show(word: int) -> str:
    """An instruction word for an error message: its name and the fields that are not zero."""
    try:
        name, values = isa.decode(word)
    except ValueError as error:
        return f"{word:#066x}: {error}"
    shown = [f"{key}={value}" for key, value in values.items() if value and key != "opcode"]
    return " ".join([name, *shown])


class Card(Protocol):
    """One accelerator card: memory, commands, an identity.

    Addresses are bytes; channel c occupies ``channel_bytes`` from ``c · channel_bytes`` on.
    """

    @property
    def config(self) -> CardConfig:
        """What the card was built from."""
        ...

    def identity(self) -> Identity:
        """What the card is; asked of the card, not remembered by the host."""
        ...

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data``, or raise :class:`CardError`."""
        ...

    def read(self, address: int, size: int) -> bytes:
        """Read exactly ``size`` bytes, or raise :class:`CardError`."""
        ...

    def run(self, command_address: int, timeout: float) -> Status:
        """Carry out the command whose record lies at that byte address of channel 0.

        Parameters
        ----------
        command_address : int
            Of the record, a multiple of the beat.
        timeout : float
            Seconds to wait for the card.

        Returns
        -------
        Status
            The status record, whose error is 0.

        Raises
        ------
        CardStopped
            The card ended the command with an error code.
        CardTimeout
            The card did not answer in time; only :meth:`reset` is then of use.
        """
        ...

    def reset(self) -> None:
        """Bring the card back from any error; its memory stays as it is."""
        ...

    def close(self) -> None:
        """Give the card back; closing twice is harmless."""
        ...


@runtime_checkable
class Timed(Protocol):
    """A card that knows how fast its memory could be."""

    @property
    def clock_mhz(self) -> float:
        """The card's clock."""
        ...

    @property
    def channel_gbps(self) -> float:
        """Bytes per ns that one channel delivers at best on average: the slower of port and
        memory."""
        ...

    @property
    def nominal_gbps(self) -> float:
        """Bytes per ns of one channel on paper."""
        ...


@runtime_checkable
class Reserves(Protocol):
    """A card that takes memory only for what is used."""

    def reserve(self, channel_bytes: int) -> None:
        """Promise that nothing from that byte of any channel on is used until the card is closed.
        """
        ...


def check(card: Card, *, config: CardConfig | None = None, which: str = "the card") -> Identity:
    """Refuse a card of another contract or, if ``config`` is given, of another configuration.

    ``which`` names it.

    Raises
    ------
    CardError
        With one sentence that says what differs.
    """
    found = card.identity()
    if found.contract != contract.DIGEST:
        raise CardError(f"{which}'s contract must be {contract.DIGEST:#010x}, not "
                        f"{found.contract:#010x}: build the card and install heddle from one "
                        f"version (card commit {found.commit:08x})")
    if config is not None and found.configuration != config.digest:
        raise CardError(f"{which}'s configuration must be {config.name!r} "
                        f"({config.digest:#010x}), not {found.configuration:#010x}")
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardSpec:
    """Cards as given on the command line: ``backend:config*count``."""

    backend: str
    config: CardConfig
    count: int = 1


def parse_cards(text: str) -> CardSpec:
    """Read ``"sim:tiny*2"``: backend, configuration, number of cards (1 if it is left out).

    The configuration of several cards is that of a ring of so many.

    >>> spec = parse_cards("sim:tiny*2")
    >>> spec.backend, spec.config.name, spec.config.cards, spec.count
    ('sim', 'tiny', 2, 2)
    """
    backend, colon, rest = text.partition(":")
    name, star, count = rest.partition("*")
    number = int(count) if count.isascii() and count.isdigit() else 0
    if not (backend and colon and name and (number or not star)):
        raise ValueError(f"cards must be given as backend:config*count, as in sim:tiny*2, "
                         f"not {text!r}")
    config = dataclasses.replace(configs.find(name), cards=number or 1)
    return CardSpec(backend=backend, config=config, count=number or 1)


def backends() -> list[str]:
    """Names of the installed kinds of card."""
    return sorted({point.name for point in importlib.metadata.entry_points(group=GROUP)})


def open_cards(text: str, **options: Any) -> Sequence[Card]:
    """Open cards by name, and check that each is what the name says.

    Parameters
    ----------
    text : str
        ``backend:config*count``.
    options
        For the backend.  Those of simulated cards with a clock are ``clock_mhz``, ``latency_ns``
        (of memory reads), ``waves`` (a file for a waveform) and ``say`` (a function that is told
        what takes long).

    Raises
    ------
    ValueError
        The text names no cards; the message lists what there is.
    CardError
        A card cannot be opened or is another one.  No other kind of card is tried instead.
    """
    spec = parse_cards(text)
    found = list(importlib.metadata.entry_points(group=GROUP, name=spec.backend))
    if not found:
        raise ValueError(f"the kind of card must be one of {', '.join(backends()) or 'none'} "
                         f"(installed), not {spec.backend!r}")
    opener = found[0].load()
    try:
        inspect.signature(opener).bind(spec.config, **options)
    except TypeError as error:
        raise ValueError(f"options of {spec.backend} cards must be ones that they have: "
                         f"{error}") from None
    cards: Sequence[Card] = opener(spec.config, **options)
    try:
        for index, card in enumerate(cards):
            check(card, config=spec.config, which=f"card {index}" if spec.count > 1 else "the card")
    except BaseException:
        for card in cards:
            card.close()
        raise
    return cards
