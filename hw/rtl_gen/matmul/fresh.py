# SPDX-License-Identifier: Apache-2.0
"""K and V of the tokens of the current pass, which are not in HBM yet."""

from amaranth import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram, layouts
from ..spec.config import CardConfig

#: Bits of the distance from what is read to the current position; only small ones matter.
DELTA_BITS = 8
#: Bits of the number of a beat within a head of K: there may be eight, or just one.
BEAT_BITS = 3
#: Bits of the number of T lanes by which those of a head's K are turned.
TURN_BITS = 4


def turned(lanes: list[Value], turn: Value, tokens: int) -> list[Value]:
    """Values by lane, each ``turn`` · T lanes further up; ``len(lanes)`` wraps to 0."""
    step, bit = tokens, 0
    while step < len(lanes):
        lanes = [Mux(turn[bit], lanes[k - step], value) for k, value in enumerate(lanes)]
        step, bit = 2 * step, bit + 1
    return lanes


class Fresh(wiring.Component):
    """Fresh K and V of all heads, and where they replace what is read.

    A token is written to one of T buffers; those of an instruction follow one another.

    For K, ``delta`` is POS minus the first position of the row read: place c holds token c − delta,
    and lies in lane (c + T · turn) mod C.  For V it is POS minus the first position of the beat:
    byte j is of token j − delta.

    Reading has two stages, which the reader moves on: ``read_en`` fetches all tokens,
    ``merge_en`` puts them where they belong.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    write : ``In(stream(layouts.fresh_write(config)))``
        Always taken; reads from the next cycle on see it.
    read_en, head, beat, row :
        ``In``: head, beat of K and row of V to fetch.
    merge_en : ``In(1)``
    kind : ``In(2)``
        0: none, 1: K, 2: V.  This and the next five belong to what was fetched.
    delta : ``In(signed(DELTA_BITS))``, columns : ``In(3)``
        Where the tokens are, and how many there are.
    turn : ``In(TURN_BITS)``
        Of K; other bits than those that C / T turns need are ignored.
    buffer : ``In(2)``, high : ``In(1)``
        Where the first token was written to, and which digit of a wide value is read.
    lanes : ``Out(C)``
        Lanes whose whole entry is fresh K.  Like all below, from the cycle after ``merge_en`` to
        the next.
    bytes : ``Out(B)``
        Bytes that are fresh V, in every lane.
    k : ``Out(8B).array(T)``
        What lane c takes is member c mod T.
    v : ``Out(8T).array(C)``
        What byte j of lane c takes is byte j mod T of member c.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        tokens = config.tokens
        super().__init__({
            "write": In(stream.Signature(layouts.fresh_write(config))),
            "read_en": In(1), "head": In(6), "beat": In(BEAT_BITS),
            "row": In(range(config.head_words)),
            "merge_en": In(1), "kind": In(2), "delta": In(signed(DELTA_BITS)), "columns": In(3),
            "turn": In(TURN_BITS),
            "buffer": In(2), "high": In(1),
            "lanes": Out(config.channels), "bytes": Out(config.beat_bytes),
            "k": Out(8 * config.beat_bytes).array(tokens),
            "v": Out(8 * tokens).array(config.channels)})

    def elaborate(self, platform):
        m = Module()
        config, write = self.config, self.write.p
        tokens, lanes, size = config.tokens, config.channels, 8 * config.beat_bytes
        words = config.beat_bytes // config.vector_lanes    # of one beat of K
        heads = 1 << (config.heads - 1).bit_length()
        # All sizes are powers of two: addresses are put together from bits.
        word_bits, beat_bits = (words - 1).bit_length(), (config.head_beats - 1).bit_length()
        m.d.comb += self.write.ready.eq(1)

        # Words of both memories are [low, high]; V has all tokens side by side.
        k_data = []
        for token in range(tokens):
            m.submodules[f"k_{token}"] = k = Ram(
                2 * size, depth=max(2, heads * config.head_beats), parts=2 * words)
            here = self.write.valid & (write.kind == 0) & (write.token == token)
            part = Mux(here, 1 << write.part[:word_bits], 0)[:words]
            m.d.comb += [
                k.write_en.eq(Cat(part, part)),
                k.write_addr.eq(Cat(write.part[word_bits:][:beat_bits], write.head)),
                k.write_data.eq(Cat(write.low.as_value().replicate(words),
                                    write.high.as_value().replicate(words))),
                k.read_en.eq(self.read_en),
                k.read_addr.eq(Cat(self.beat[:beat_bits], self.head))]
            k_data.append(k.read_data)
        m.submodules.v = v = Ram(
            16 * lanes * tokens, depth=max(2, heads * config.head_words), parts=tokens)
        m.d.comb += [
            v.write_en.eq(Mux(self.write.valid & (write.kind == 1), 1 << write.token, 0)),
            v.write_addr.eq(Cat(write.part[:len(self.row)], write.head)),
            v.write_data.eq(Cat(write.low, write.high).replicate(tokens)),
            v.read_en.eq(self.read_en),
            v.read_addr.eq(Cat(self.row, self.head))]

        def fresh(place):
            """Whether this lane or byte is fresh."""
            token = Signal(signed(DELTA_BITS + 1), name=f"token_{place}")
            m.d.comb += token.eq(place - self.delta)
            return (token >= 0) & (token < self.columns)

        places = Signal(max(lanes, config.beat_bytes))
        m.d.comb += places.eq(Cat(fresh(place) for place in range(len(places))))
        k_lanes = Cat(turned([*places[:lanes]], self.turn, tokens))
        v_data = [v.read_data.word_select(token, 16 * lanes) for token in range(tokens)]

        def digit(word, name):
            """The digit that is read of a word."""
            half = Signal(len(word) // 2, name=name)
            m.d.comb += half.eq(Mux(self.high, word[len(half):], word[:len(half)]))
            return half

        k_digits = Array(digit(word, f"k_digit_{token}") for token, word in enumerate(k_data))
        v_digits = Array(digit(word, f"v_digit_{token}") for token, word in enumerate(v_data))
        v_out = [Signal(8 * lanes, name=f"v_out_{q}", reset_less=True) for q in range(tokens)]
        k_out = [Signal(size, name=f"k_out_{q}", reset_less=True) for q in range(tokens)]
        m.d.comb += [port.eq(value) for port, value in zip(self.k, k_out, strict=True)]
        m.d.comb += [
            port.eq(Cat(value.word_select(lane, 8) for value in v_out))
            for lane, port in enumerate(self.v)]
        with m.If(self.merge_en):
            m.d.sync += [
                self.lanes.eq(Mux(self.kind == 1, k_lanes, 0)),
                self.bytes.eq(Mux(self.kind == 2, places, 0))]
            for q in range(tokens):
                token = Signal(range(tokens), name=f"from_{q}")
                m.d.comb += token.eq(q - self.delta + self.buffer)
                m.d.sync += [
                    k_out[q].eq(k_digits[token]), v_out[q].eq(v_digits[token])]
        return m
