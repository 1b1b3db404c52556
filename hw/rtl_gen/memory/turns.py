# SPDX-License-Identifier: Apache-2.0
"""Who may take constants: epilogue and memory unit, in program order."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..spec.config import CardConfig
from .constants import WORDS

#: The users of constants, as ``owner`` and the array of users number them.
EPILOGUE, MEMORY = range(2)


def user() -> wiring.Signature:
    """Constants of all channels in step, seen from who takes them.

    Of every channel, the next ``level`` words are there; ``take`` of them leave; with ``skip`` the
    rest of the beat of the last one leaves too.  ``release`` goes with the last words of an
    instruction, or later: the turn is the next instruction's.
    """
    return wiring.Signature({"level": In(2), "take": Out(2), "skip": Out(1), "release": Out(1)})


class ConstantsArbiter(wiring.Component):
    """Shows the constants of an instruction to its unit only.

    Constants come in program order, while epilogue and memory unit each go through the instructions
    of their own queue.  The one whose turn it is not sees none.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    owner : ``In(stream.Signature(1))``
        The user of the next instruction that has constants, in program order.
    level : ``In(2).array(channels)``
        ``word_level`` of each channel.
    take, skip : ``Out(2)``, ``Out(1)``
        ``word_take`` and ``word_skip`` of all channels.
    users : array of 2 :func:`user`
        ``EPILOGUE`` and ``MEMORY``.  What they take goes through in the same cycle.  The level they
        see is that of the cycle before, less what was taken in it: looking at all channels takes
        long.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "owner": In(stream.Signature(1)), "level": In(2).array(config.channels),
            "take": Out(2), "skip": Out(1), "users": In(user()).array(2)})

    def elaborate(self, platform):
        m = Module()
        # Enough of 1, 2, 3 words in every channel.
        enough = [Cat(*(level >= least for level in self.level)).all()
                  for least in range(1, WORDS + 1)]
        level, seen = Signal(2), Signal(2)
        m.d.comb += level.eq(Mux(enough[2], 3, Mux(enough[1], 2, enough[0])))
        # After a skip nothing is known of what follows; all else leaves what was not taken.
        m.d.sync += seen.eq(Mux(self.skip, 0, level - self.take))
        for number, who in enumerate(self.users):
            with m.If(self.owner.valid & (self.owner.payload == number)):
                m.d.comb += [who.level.eq(seen), self.take.eq(who.take), self.skip.eq(who.skip),
                             self.owner.ready.eq(who.release)]
        return m
