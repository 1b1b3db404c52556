# SPDX-License-Identifier: Apache-2.0
"""Runs one command on all cards of a ring, and says which card or link is to blame if it fails."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rtl_gen.spec import registers
from rtl_gen.spec.link import Failure
from rtl_gen.spec.registers import Error

from .card import Card, CardError, CardStopped, Status

_Result = TypeVar("_Result")


def on_all(count: int, do: Callable[[int], _Result]) -> list[_Result]:
    """Do something for each of ``count`` cards at the same time.

    All are waited for, then the first exception that is no :class:`CardError`, or else the first of
    all, is raised.
    """
    if count == 1:
        return [do(0)]
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(do, card) for card in range(count)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, CardError)):
        raise error
    return [future.result() for future in futures]


def run(cards: Sequence[Card], addresses: Sequence[int], timeout: float) -> list[Status]:
    """Carry out one command on each card; their records lie at these byte addresses.

    Raises
    ------
    CardError
        If any card failed, when all have ended.  Of a ring it names the card, or the link, that
        failed first: where one stops the others do, too.
    """
    if len(cards) == 1:
        return [cards[0].run(addresses[0], timeout)]

    def outcome(card: int) -> Status | CardError:
        try:
            return cards[card].run(addresses[card], timeout)
        except CardError as error:
            return error

    found = on_all(len(cards), outcome)
    errors = {card: each for card, each in enumerate(found) if isinstance(each, CardError)}
    if errors:
        raise blame(errors, len(cards))
    return [each for each in found if isinstance(each, Status)]


def blame(errors: dict[int, CardError], cards: int) -> CardError:
    """The error that says what happened first, of those of some cards of a ring of ``cards``."""
    statuses = {card: error.status for card, error in errors.items()
                if isinstance(error, CardStopped)}
    # A card that stopped for a reason of its own; the others only heard of it.
    for card, status in statuses.items():
        if status.error != Error.LINK:
            return _named(card, cards, errors[card])
    # What did not even answer.
    for card, error in errors.items():
        if card not in statuses:
            return _named(card, cards, error)
    for status in statuses.values():
        about = {name: status["link_about"] >> low & (1 << bits) - 1
                 for name, (bits, low) in registers.STOP.items()}
        if about["error"] != Error.LINK or about["failure"] in (Failure.NONE, Failure.STOPPED):
            continue
        first = about["card"]
        other = (first + (1 if about["side"] else -1)) % cards
        stopped = CardStopped(status)
        stopped.args = (
            f"the link between card {first} and card {other} of {cards} failed: card {first} "
            f"{_HEARD[Failure(about['failure'])]}; check the link, then reset all cards",)
        return stopped
    card = next(iter(errors))
    return _named(card, cards, errors[card])


def _named(card: int, cards: int, error: CardError) -> CardError:
    error.args = (f"card {card} of {cards}: {error}",)
    return error


_HEARD = {
    Failure.CONTRACT: "found that the other was built from another version of Heddle",
    Failure.CONFIGURATION: "found that the other has another configuration",
    Failure.NEIGHBOUR: "found another card than expected, or one of another ring, at the other end",
    Failure.SILENT: "has heard nothing from the other for too long",
    Failure.MESSAGE: "got a message of another length than its program awaits",
}
