# SPDX-License-Identifier: Apache-2.0
"""Frames between two neighbours of a ring.

A frame is a row of beats: the payload, none to ``frame_beats`` of them, then one *trailer*.  The
trailer's highest 32 bits are the CRC-32 (IEEE 802.3) of the whole frame with these bits zero; its
other fields lie from the lowest bit up, and what is between them is zero.

Payload beats are numbered from 0 in each session, modulo 2^16.  Both ends say in every frame which
number they expect next (``ack``) and up to which they have room (``limit``).
"""

import enum

#: Fields of a trailer, from the lowest bit up: name, bits, meaning.
FIELDS = (
    ("kind", 4, "1 HELLO, 2 DATA, 3 STOP."),
    ("last", 1, "A message ends with the last beat of this frame."),
    ("nak", 1, "Send again from `ack` on."),
    ("seen", 1, "The sender has heard the neighbour's hello."),
    ("reserved", 1, "Zero."),
    ("session", 8, "Counts sessions; frames of another one mean nothing."),
    ("seq", 16, "Number of the first payload beat. HELLO: low half of the contract's digest."),
    ("ack", 16, "First beat that has not come. HELLO: high half of the contract's digest."),
    ("limit", 16, "First beat for which there is no room. HELLO: the sender's card, and above it "
                  "the cards of the ring."),
    ("about", 32, "HELLO: the configuration's digest. STOP: who stopped, and why."),
)
TRAILER = tuple((name, bits) for name, bits, _ in FIELDS)
#: Bits of the CRC, the highest of the trailer.
CRC_BITS = 32
#: Bits of beat numbers.
NUMBER_BITS = 16
#: Least bytes of a beat: what a trailer takes.
LEAST_BEAT = (sum(bits for _, bits in TRAILER) + CRC_BITS) // 8


class Kind(enum.IntEnum):
    """What a frame is."""

    HELLO = 1   #: a session begins: who I am
    DATA = 2    #: payload, or just ``ack`` and ``limit``
    STOP = 3    #: a card has stopped with an error


class State(enum.IntEnum):
    """What a link is doing."""

    OFF = 0         #: nothing since reset
    GREETING = 1    #: waits for the neighbour's hello
    UP = 2
    FAILED = 3      #: until the next session


class Failure(enum.IntEnum):
    """Why a link failed."""

    NONE = 0
    CONTRACT = 1        #: the neighbour was built for another contract
    CONFIGURATION = 2   #: the neighbour has another configuration
    NEIGHBOUR = 3       #: another card than expected, or a ring of another size
    SILENT = 4          #: nothing came for too long
    STOPPED = 5         #: some card of the ring has stopped
    MESSAGE = 6         #: a message was not as long as the RECEIVE that took it says
