# SPDX-License-Identifier: Apache-2.0
"""What the host sees: control registers, the command record, the status record, result records.

All are little-endian 32-bit words.  The status record is written to HBM at the end of each command
and can be read
through the control port too, at ``STATUS_BASE``: shells without register access use the record
alone.
"""

import enum

#: First word of a command record, "HDLC".
COMMAND_MAGIC = 0x434C4448
#: First word of a status record, "HDLS".
STATUS_MAGIC = 0x534C4448
#: Byte offset of the status record in the control port.
STATUS_BASE = 0x800
#: Byte offset of the channels' base addresses in the control port, two words (low, high) each.
CHANNEL_BASE = 0x100

#: Control port: byte offset of each register.  The first four are those of a Vitis kernel.
CONTROL = {
    "ap_ctrl": 0x00,        # bit 0 start, 1 done (cleared by reading), 2 idle, 3 ready
    "gie": 0x04,            # bit 0: interrupt enable
    "ier": 0x08,            # bit 0: on done
    "isr": 0x0C,            # bit 0: done; write 1 to toggle
    "command_low": 0x10,    # byte address of the command record, as channel 0's port sees it
    "command_high": 0x14,
}

#: Number of the first argument of a Vitis kernel that is a channel's buffer.
FIRST_BUFFER = 2


def arguments(channels: int) -> list[tuple[str, int, int]]:
    """Name, byte offset in the control port and bytes of every argument of the card as a Vitis
    kernel, by number: the command record's address in two scalars (pyxrt takes those of 31 bits and
    a sign), and a buffer for each channel, the first byte of which is the channel's."""
    scalars = [(name, CONTROL[name], 4) for name in ("command_low", "command_high")]
    return scalars + [(f"hbm{c:02}", CHANNEL_BASE + 8 * c, 8) for c in range(channels)]


#: Words of the command record.  Addresses are beat addresses in channel 0.
COMMAND = (
    "magic", "flags", "program", "instructions", "entry", "status", "results", "result_beats",
    "tokens", "given", "stop0", "stop1", "stop2", "stop3", "watchdog", "ring",
    *(f"r{k}" for k in range(32)),
)
#: Of a card in a ring, in ``ring``: its number, from bit 0, and from bit 8 the number of the
#: session, another than that of the command before; both of 8 bits.
RING = {"card": 0, "session": 8}
#: Bit of ``flags``: load the program from memory first.
FLAG_LOAD = 1
#: A stop entry that stops nothing.
NO_STOP = 0xFFFFFFFF

#: What a link counts in a command: frames that it sent, good and bad ones that came, and how often
#: it sent again, of that because nobody answered.
LINK_COUNTERS = ("sent", "received", "bad", "repeats", "timeouts")
#: Words of the status record.
STATUS = (
    "magic", "contract", "configuration", "commit", "error", "pc", "steps", "sticky",
    *(f"word{k}" for k in range(8)),        # the instruction word of an error
    "cycles_low", "cycles_high", "read_beats_low", "read_beats_high",
    "write_beats_low", "write_beats_high", "engine_beats_low", "engine_beats_high",
    "stall_weights_low", "stall_weights_high", "stall_dependency_low", "stall_dependency_high",
    "stall_epilogue_low", "stall_epilogue_high", "stall_idle_low", "stall_idle_high",
    "instructions_low", "instructions_high", "engine_cycles_low", "engine_cycles_high",
    "stall_link_low", "stall_link_high", "idle_link_low", "idle_link_high",
    "link",                 # of the links to the previous and the next card, see LINK
    "link_about",           # of an error LINK: what the ring's first error was, see STOP
    *(f"{end}_{name}" for end in ("previous", "next") for name in LINK_COUNTERS),
)
#: Fields of ``link``: bits and lowest bit of each.  ``state`` and ``failure`` are numbers of
#: ``spec.link``; ``first`` is 1 if the link to the next card failed first.
LINK = {"previous_state": (2, 0), "previous_failure": (3, 4), "next_state": (2, 8),
        "next_failure": (3, 12), "first": (1, 16)}
#: Fields of ``link_about``, and of what a STOP frame says: the card that stopped first, its error,
#: and, of an error LINK, why and on which side (1: next).
STOP = {"card": (8, 0), "error": (8, 8), "failure": (3, 16), "side": (1, 24)}

#: Words at the start of a result record; ``k`` pairs (token, logit) follow.
RESULT = ("token", "logit", "max", "sum", "target", "target_logit", "step", "position")
#: ``target`` when there is none; ``target_logit`` is then 0.
NO_TARGET = 0xFFFFFFFF


class Error(enum.IntEnum):
    """Why a card stopped."""

    NONE = 0
    #: no such instruction, bits set outside its fields, or past the end of the program
    ILLEGAL_OPCODE = 1
    ILLEGAL_OPERAND = 2     #: a rule of docs/isa.md is broken
    ADDRESS_RANGE = 3       #: memory beyond the end of the channel
    AXI_READ = 4            #: error response to a read
    AXI_WRITE = 5           #: error response to a write
    WATCHDOG = 6            #: nothing moved; pc is the oldest instruction that waits
    COUNTER_OVERFLOW = 7    #: a dependency counter above its maximum
    BAD_COMMAND = 8         #: the command record makes no sense
    LINK = 9                #: a link to a neighbour failed, or another card stopped


class Sticky(enum.IntFlag):
    """Numeric events of a command."""

    NONFINITE = 1       #: a NaN or infinity was read or made
    RANGE = 2           #: an activation was too large for its exponent base
