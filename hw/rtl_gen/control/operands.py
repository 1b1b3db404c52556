# SPDX-License-Identifier: Apache-2.0
"""Resolves the operands of one instruction and judges it by the rules."""

from amaranth import Array, Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..common import Ram, layouts
from ..spec import isa
from ..spec.config import CardConfig
from ..spec.formats import PATTERNS, UNITS_PER_BEAT
from ..spec.isa import Register
from ..spec.registers import RESULT, Error
from . import checks

_CONTROL = tuple(name for name in isa.FORMATS if isa.FORMATS[name][1] == isa.Queue.CONTROL)
#: Instructions whose operands take registers or products; the others are judged at once.
_LONG = ("LOAD", "STORE", "MATMUL", "CACHE", "SAMPLE")
#: Registers that a NEXT changes, all at once; all others are written one at a time.
STEPPED = (Register.POS, Register.LEN, Register.TOKEN, Register.STEP, Register.LEFT)
#: Those, and registers that are looked at beside the one that an instruction names.
KEPT = (*dict.fromkeys((*STEPPED, *isa.POSITIONS, *isa.LENGTHS)),)
#: A write to a register.
PUT = data.StructLayout({"en": 1, "addr": range(len(Register)), "data": 32})
#: Those of a card in a ring, of which the end of the last token is worked out.
_MESSAGES = isa.SENDS + isa.RECEIVES


def _shared(word, field: str, *names: str):
    """A field that lies at one place in several instructions, which share its wires."""
    places = {name: layouts.fields(name)[field] for name in names}
    if len({(place.offset, place.width) for place in places.values()}) != 1:
        raise AssertionError(f"{field} must lie at one place in {', '.join(names)}, not {places}")
    return layouts.view(names[0], word)[field]


class Operands(wiring.Component):
    """One instruction word in; a verdict and the resolved operands out, some cycles later.

    A small sequence around one multiplier: registers are read one after another, and products
    follow each other through it.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    start : ``In(1)``
        Pulse; ``word`` and ``pc`` are new and stay until the next.
    word : ``In(256)``, pc : ``In(32)``, instructions : ``In(17)``
        What the program memory holds at ``pc``, and how many instructions there are.
    put : ``In(PUT)``
        What is written to a register; it is there from the next cycle on.
    kept : ``In(ArrayLayout(32, len(KEPT)))``
        Registers as they are.
    results, result_beats, given : ``In(32)``
        First beat of the result records, and beats of each step's; number of given tokens.
    valid : ``Out(1)``
        The verdict holds, from at most ``LATENCY`` cycles after ``start`` until the next.
    error : ``Out(8)``
        A code of ``registers.Error``; NONE for a legal instruction.
    kind : ``Out(len(isa.FORMATS))``
        Which instruction it is, one bit each in the order of ``isa.FORMATS``.
    value : ``Out(32)``
        Register ``rs`` of ADDI and SHRI, ``rd`` of LOOP.
    number : ``Out(32)``
        Which of the given tokens a GIVEN takes.
    rows, beats, address : ``Out``
        With registers applied.
    pos, length : ``Out(12)``
        Of the instruction's sequence.
    stream : ``Out(layouts.stream_job)``
        What the channels are to read.
    record : ``Out(32)``
        Beat address of the result record that a SAMPLE writes.
    """

    LATENCY = 12

    def __init__(self, config: CardConfig):
        self.config = config
        super().__init__({
            "start": In(1), "word": In(isa.WORD_BITS), "pc": In(32), "instructions": In(17),
            "put": In(PUT), "kept": In(data.ArrayLayout(unsigned(32), len(KEPT))),
            "results": In(32), "result_beats": In(32), "given": In(32),
            "valid": Out(1), "error": Out(8), "kind": Out(len(isa.FORMATS)), "value": Out(32),
            "number": Out(32),
            "rows": Out(12), "beats": Out(10), "address": Out(32), "pos": Out(12),
            "length": Out(12), "stream": Out(layouts.stream_job(config)), "record": Out(32)})

    def is_kind(self, *names: str):
        """One bit: the instruction is one of ``names``; valid from the cycle after ``start``."""
        order = list(isa.FORMATS)
        return Cat(self.kind[order.index(name)] for name in names).any()

    def elaborate(self, platform):
        m = Module()
        config = self.config
        views = {name: layouts.view(name, self.word) for name in isa.FORMATS}
        load, store, matmul = views["LOAD"], views["STORE"], views["MATMUL"]
        cache, sample = views["CACHE"], views["SAMPLE"]
        is_load, is_store, is_matmul, is_cache, is_sample = (self.is_kind(name) for name in _LONG)
        channels, beat = config.channels.bit_length() - 1, config.beat_bytes.bit_length() - 1
        kept = dict(zip(KEPT, self.kept, strict=True))
        step = kept[Register.STEP]

        # Which instruction, and bits that lie outside of fields of each size: in the next cycle
        # they are those of the instruction.
        sizes = sorted({layouts.fields(name).size for name in isa.FORMATS})
        outside, beyond = Signal(len(sizes)), Signal()
        with m.If(self.start):
            m.d.sync += [outside.eq(Cat(self.word[size:].any() for size in sizes)),
                         self.kind.eq(0), beyond.eq(self.pc >= self.instructions)]
            with m.Switch(self.word[:8]):
                for k, name in enumerate(isa.FORMATS):
                    with m.Case(isa.FORMATS[name][0]):
                        m.d.sync += self.kind.eq(1 << k)
        foreign = (self.kind == 0) | Cat(
            bit & self.is_kind(*(name for name in isa.FORMATS if layouts.fields(name).size == size))
            for bit, size in zip(outside, sizes, strict=True)).any()

        # The register named in one cycle is read in the next: from a memory that has what was
        # written one at a time, unless it is one that changes by itself.  A command writes all
        # registers before anything is read.
        place, register = Signal(range(len(Register))), Signal(32)
        m.submodules.others = others = Ram(32, depth=len(Register), style="distributed")
        by_itself, value = Signal(reset_less=True), Signal(32, reset_less=True)
        m.d.comb += [
            others.write_en.eq(self.put.en), others.write_addr.eq(self.put.addr),
            others.write_data.eq(self.put.data), others.read_en.eq(1), others.read_addr.eq(place),
            register.eq(Mux(by_itself, value, others.read_data))]
        m.d.sync += by_itself.eq(1)
        with m.Switch(place):
            with m.Case(Register.ZERO):
                m.d.sync += value.eq(0)
            for number in STEPPED:
                with m.Case(number):
                    m.d.sync += value.eq(kept[number])
            with m.Default():
                m.d.sync += by_itself.eq(0)
        # So are position and length, of the sequence that the instruction names.
        sequence, pos, length = Signal(2), Signal(32), Signal(12)
        m.d.comb += sequence.eq(Mux(is_matmul, matmul.sequence, Mux(
            is_cache, cache.sequence, Mux(is_store, store.sequence, 0))))
        m.d.sync += [
            pos.eq(Array(kept[k] for k in isa.POSITIONS)[sequence]),
            length.eq(Array(kept[k][:12] for k in isa.LENGTHS)[sequence])]
        m.d.comb += [self.pos.eq(pos), self.length.eq(length)]
        rows_reg = Mux(is_matmul, matmul.rows_reg, load.rows_reg)
        address_reg = _shared(self.word, "address_reg", "LOAD", "STORE", "MATMUL")
        address_field = _shared(self.word, "address", "LOAD", "STORE", "MATMUL")
        index_reg = _shared(self.word, "index_reg", "LOAD", "STORE")
        stride = _shared(self.word, "stride", "LOAD", "STORE")
        source = Mux(self.word[:8] == isa.FORMATS["LOOP"][0], views["LOOP"].rd,
                     _shared(self.word, "rs", "ADDI", "SHRI", "GIVEN"))

        # What the pattern stands for: log2 of its ratio, and metadata units.
        unknown, ratio, units = Signal(), Signal(3), Signal(4)
        with m.Switch(matmul.pattern):
            for pattern in PATTERNS:
                if pattern.m in (1, *config.group_sizes):
                    with m.Case(pattern.code):
                        m.d.comb += [ratio.eq(pattern.ratio.bit_length() - 1),
                                     units.eq(pattern.units)]
            with m.Default():
                m.d.comb += unknown.eq(1)

        # A card alone has no messages: they are refused whatever they say.
        is_message = self.is_kind(*_MESSAGES) if config.cards > 1 else Const(0, 1)
        rows, beats, index = Signal(32), Signal(32), Signal(32)
        aux, aux_words, aux_beats = Signal(2), Signal(14), Signal(14)
        dst_offset, columns_less, column_stride = Signal(18), Signal(3), Signal(16)
        per_row = Signal(16)        # beats of a row of LOAD or STORE
        row = Signal(12)            # of the scales: of the position that STORE or CACHE names
        words = Signal(16)
        columns = Mux(is_sample, sample.columns, matmul.columns)
        between = Mux(is_sample, sample.stride, matmul.dst_stride)
        if config.cards > 1:
            columns = Mux(is_message, _shared(self.word, "columns", *_MESSAGES), columns)
            between = Mux(is_message, _shared(self.word, "stride", *_MESSAGES), between)
        m.d.comb += [
            columns_less.eq(columns - 1), column_stride.eq(between),
            words.eq(Mux(is_load, load.words, store.words)),
            per_row.eq((words + (config.beat_bytes // 4 - 1)) >> beat - 2),
            row.eq((pos[:12] + Mux(is_cache, cache.token, 0)) >> channels),
            aux_beats.eq((aux_words + (config.beat_bytes // 4 - 1)) >> beat - 2)]

        x, y, product = Signal(24), Signal(16), Signal(40)
        m.d.sync += product.eq(x * y)
        first, second, meta = Signal(40), Signal(40), Signal(24)
        start, span, end = Signal(32), Signal(26), Signal(33)
        flags, large = Signal(len(checks.RULES)), Signal()
        resolved = checks.Resolved(
            rows=rows[:12], beats=beats[:10], pos=pos[:12], unknown_pattern=unknown, ratio=ratio,
            aux=aux, aux_words=aux_words, dst_offset=dst_offset, words=first, scales=second)
        m.d.comb += [
            self.rows.eq(rows), self.beats.eq(beats), self.address.eq(start), self.record.eq(start),
            self.stream.address.eq(start),
            self.stream.aux.eq(Mux(is_load, second, aux_beats)),
            self.stream.values.eq(Mux(is_matmul, first, 0)),
            self.stream.pattern.eq(Mux(is_matmul, matmul.pattern, 0))]

        phase = Signal(range(self.LATENCY + 1))
        m.d.sync += phase.eq(Mux(phase == 0, 0, phase + 1))
        with m.If(self.start):
            m.d.sync += [self.valid.eq(0), phase.eq(1)]
            m.d.comb += place.eq(source)
        with m.Switch(phase):
            with m.Case(1):
                m.d.sync += [self.value.eq(register), rows.eq(0), beats.eq(0), span.eq(0),
                             aux.eq(0)]
                m.d.comb += place.eq(rows_reg)
                with m.If(foreign | beyond):
                    m.d.sync += [self.error.eq(Error.ILLEGAL_OPCODE), self.valid.eq(1), phase.eq(0)]
                with m.Elif(self.is_kind(*_CONTROL) & ~self.is_kind("GIVEN")):
                    target = Mux(self.is_kind("LOOP"), views["LOOP"].target, views["NEXT"].target)
                    m.d.sync += [self.valid.eq(1), phase.eq(0), self.error.eq(Mux(
                        self.is_kind("LOOP", "NEXT") & (target >= self.instructions),
                        Error.ILLEGAL_OPERAND, Error.NONE))]
                with m.Elif(~self.is_kind(*_LONG, "GIVEN") & ~is_message):
                    m.d.sync += phase.eq(10)
            with m.Case(2):
                with m.If(is_matmul | is_load):
                    m.d.sync += rows.eq(Mux(
                        rows_reg == 0, Mux(is_matmul, matmul.rows, load.rows), register))
                m.d.comb += place.eq(matmul.beats_reg)
                m.d.sync += self.number.eq(self.value + views["GIVEN"].imm)
            with m.Case(3):
                with m.If(is_matmul):
                    m.d.sync += [
                        beats.eq(Mux(matmul.beats_reg == 0, matmul.beats, register)),
                        aux.eq((matmul.scale == 1) + matmul.norm.any() + matmul.bias)]
                m.d.sync += dst_offset.eq(Mux(columns_less[0], column_stride, 0)
                                          + Mux(columns_less[1], column_stride << 1, 0))
                m.d.comb += place.eq(index_reg)
                with m.If(is_message):
                    m.d.sync += phase.eq(10)
                with m.If(self.is_kind("GIVEN")):
                    m.d.sync += [self.valid.eq(1), phase.eq(0), self.error.eq(Mux(
                        self.number >= self.given, Error.ILLEGAL_OPERAND, Error.NONE))]
            with m.Case(4):
                m.d.sync += [
                    index.eq(register), x.eq(rows[:12]), y.eq(words),
                    aux_words.eq(Mux(aux[0], rows[:12], 0) + Mux(aux[1], rows[:12] << 1, 0))]
                with m.If(is_matmul):
                    m.d.sync += y.eq(beats[:10] << matmul.wide)
                with m.If(is_store):
                    m.d.sync += x.eq(row + 1)
                with m.If(is_cache):
                    m.d.sync += [x.eq(row), y.eq(cache.kv_heads)]
                with m.If(is_sample):
                    m.d.sync += [x.eq(step[:16]), y.eq(self.result_beats[:16])]
                m.d.comb += place.eq(address_reg)
            with m.Case(5):
                m.d.sync += [start.eq((address_field + register)[:32]), y.eq(per_row)]
                with m.If(is_matmul):
                    m.d.sync += [x.eq(rows[:12] - 1), y.eq(matmul.kv_heads)]
                with m.If(is_sample):
                    m.d.sync += [x.eq(step[16:]), y.eq(self.result_beats[:16]),
                                 start.eq(self.results)]
            with m.Case(6):
                # Of phase 4: values, words or scales.
                m.d.sync += [first.eq(product), x.eq(index[:16]), y.eq(stride)]
                with m.If(is_sample):
                    m.d.sync += [x.eq(step[:16]), y.eq(self.result_beats[16:])]
                with m.If(is_cache):
                    m.d.sync += [second.eq(product), phase.eq(10)]
            with m.Case(7):
                # Of phase 5: scales, or beats of all rows.
                m.d.sync += [second.eq(product), x.eq(index[16:])]
                # As many metadata beats as 16ths of all units; each number of units has at most two
                # bits.
                total = (Mux(units[0], first, 0) + Mux(units[1], first << 1, 0)
                         + Mux(units[2], first << 2, 0) + Mux(units[3], first << 3, 0))
                m.d.sync += meta.eq(
                    (total + (UNITS_PER_BEAT - 1)) >> UNITS_PER_BEAT.bit_length() - 1)
            with m.Case(8):
                with m.If(is_load | is_store):
                    m.d.sync += start.eq((start + product)[:32])
                with m.If(is_sample):
                    upper = (second + product)[:16]
                    m.d.sync += start.eq((start + first + (upper << 16))[:32])
                m.d.sync += span.eq(Mux(is_load, second, per_row))
                with m.If(is_matmul):
                    m.d.sync += span.eq(aux_beats + first)
                with m.If(is_sample):
                    record_words = len(RESULT) + (sample.k << 1)
                    m.d.sync += span.eq(
                        (record_words + (config.beat_bytes // 4 - 1)) >> beat - 2)
            with m.Case(9):
                with m.If(is_load | is_store):
                    m.d.sync += start.eq((start + (product << 16))[:32])
                with m.If(is_matmul):
                    m.d.sync += span.eq(span + meta)
                with m.If(is_sample):       # a record for each column
                    m.d.sync += span.eq(sum(
                        (Mux(bit, span[:8] << k, 0) for k, bit in enumerate(sample.columns)),
                        Const(0, 1)))
            with m.Case(10):
                m.d.sync += [
                    flags.eq(Cat(checks.broken(config, name, views[name], resolved)
                                 for name in checks.RULES)),
                    large.eq(rows[12:].any() | beats[10:].any() | (pos >= config.context)),
                    end.eq(start + span)]
            with m.Case(11):
                broken = Cat(flags[k] & self.is_kind(name) for k, name in enumerate(checks.RULES))
                placed = is_load | is_store | is_matmul | (is_sample & sample.last)
                m.d.sync += [self.valid.eq(1), phase.eq(0), self.error.eq(Error.NONE)]
                with m.If(broken.any() | large):
                    m.d.sync += self.error.eq(Error.ILLEGAL_OPERAND)
                with m.Elif(placed & (end > config.channel_beats)):
                    m.d.sync += self.error.eq(Error.ADDRESS_RANGE)
        return m
