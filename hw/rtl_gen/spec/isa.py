# SPDX-License-Identifier: Apache-2.0
"""The instruction set: one table of fields, from which every encoder, decoder, layout and page comes."""

import dataclasses
import enum

WORD_BITS = 256
WORD_BYTES = WORD_BITS // 8
#: Dependency counters; each counts 0..COUNTER_MAX.
COUNTERS = 24
COUNTER_MAX = 255


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of an instruction word; fields are packed from the lowest bit up."""

    name: str
    width: int
    doc: str
    signed: bool = False

    @property
    def limits(self) -> range:
        low = -(1 << self.width - 1) if self.signed else 0
        return range(low, low + (1 << self.width))

    def pack(self, value: int) -> int:
        if value not in self.limits:
            raise ValueError(
                f"{self.name} must be in {self.limits.start}..{self.limits.stop - 1}, not {value}")
        return value & (1 << self.width) - 1


class Queue(enum.IntEnum):
    """Who executes an instruction."""

    CONTROL = 0
    MEMORY = 1
    MATMUL = 2
    VECTOR = 3
    SEND_PREVIOUS = 4
    SEND_NEXT = 5
    RECEIVE_PREVIOUS = 6
    RECEIVE_NEXT = 7


class Register(enum.IntEnum):
    """Card registers (32 bits); those without a name are free."""

    ZERO = 0
    POS = 1     #: position of the current (first) token
    LEN = 2     #: POS + 1: tokens that it may attend to
    TOKEN = 3   #: number of the current token
    SLOT = 4    #: KV slot
    STEP = 5    #: decode steps done by this command
    LEFT = 6    #: decode steps left
    R7 = 7
    R8 = 8
    R9 = 9
    R10 = 10
    R11 = 11
    R12 = 12
    R13 = 13
    R14 = 14
    R15 = 15
    R16 = 16
    R17 = 17
    POS1 = 18   #: position and length of sequence 1
    LEN1 = 19
    POS2 = 20   #: of sequence 2
    LEN2 = 21
    POS3 = 22   #: of sequence 3
    LEN3 = 23
    R24 = 24
    R25 = 25
    R26 = 26
    R27 = 27
    R28 = 28
    R29 = 29
    R30 = 30
    R31 = 31


#: Position and length of each sequence.
POSITIONS = (Register.POS, Register.POS1, Register.POS2, Register.POS3)
LENGTHS = (Register.LEN, Register.LEN1, Register.LEN2, Register.LEN3)
#: Softmax results: sums that ``dest`` makes and ``divide`` takes.
SUMS = 8


HEADER = (
    Field("opcode", 8, "What to do."),
    Field("wait", COUNTERS, "Dependency counters that must be above zero; each loses one when the instruction starts."),
    Field("signal", COUNTERS, "Dependency counters that gain one when all effects of the instruction are visible."),
)


def _reg(name: str, doc: str) -> Field:
    return Field(name, 5, doc)


_ADDRESS = (
    Field("address", 32, "Beat address within every channel."),
    _reg("address_reg", "Register added to the address."),
    _reg("index_reg", "Register that is multiplied by `stride` and added to the address."),
    Field("stride", 16, "Beats per unit of the index register."),
)
_SEQUENCE = Field("sequence", 2, "Sequence whose position and length count; its first fresh buffer.")
_COLUMNS = (
    Field("digits", 1, "0: one INT8 column a token (A8), 1: two (A16)."),
    Field("two_beat", 1, "The upper half of the columns takes every second beat of a row."),
)


def _message(first: str) -> tuple[Field, ...]:
    return (Field(first, 16, "First scratchpad word."), Field("words", 12, "Words of a token."),
            Field("columns", 3, "Tokens."), Field("stride", 16, "Scratchpad words between tokens."))


#: name -> (opcode, queue, fields, what it does)
FORMATS: dict[str, tuple[int, Queue, tuple[Field, ...], str]] = {
    "NOP": (0x01, Queue.CONTROL, (), "Waits and signals only."),
    "HALT": (0x02, Queue.CONTROL, (), "Ends the command when everything before it is complete and written."),
    "ADDI": (0x03, Queue.CONTROL, (
        _reg("rd", "Destination register."), _reg("rs", "Source register."),
        Field("imm", 32, "Addend, modulo 2^32.", signed=True)), "rd = rs + imm."),
    "SHRI": (0x04, Queue.CONTROL, (
        _reg("rd", "Destination register."), _reg("rs", "Source register."),
        Field("imm", 5, "Places.")), "rd = rs >> imm, unsigned."),
    "LOOP": (0x05, Queue.CONTROL, (
        _reg("rd", "Loop counter."), Field("target", 16, "Instruction number to go to.")),
        "rd = rd - 1; goes to target unless rd is now zero."),
    "NEXT": (0x06, Queue.CONTROL, (
        Field("target", 16, "Instruction number of the decode step."),),
        "Ends a decode step: STEP, POS and LEN gain one, LEFT loses one; TOKEN becomes the given token number STEP, or the "
        "sampled one where no token is given. Goes to target unless LEFT is zero or TOKEN was sampled and is a stop token."),
    "GIVEN": (0x07, Queue.CONTROL, (
        _reg("rd", "Destination register."), _reg("rs", "Source register."),
        Field("imm", 32, "Addend, modulo 2^32.", signed=True)), "rd = word number rs + imm of the given tokens."),
    "LOAD": (0x10, Queue.MEMORY, (
        *_ADDRESS,
        Field("rows", 12, "Rows; each starts at a beat."), _reg("rows_reg", "Register instead of `rows`, unless ZERO."),
        Field("words", 16, "32-bit words of a row, per lane."),
        Field("target", 1, "0: scratchpad, 1: scales of K and V."),
        Field("dst", 16, "First scratchpad word, or first scale entry."),
        Field("fence", 1, "Dispatch only when all earlier writes to HBM are complete.")),
        "HBM to chip: word w of a row, lane r, comes from channel r. No rows: does nothing."),
    "STORE": (0x11, Queue.MEMORY, (
        *_ADDRESS,
        Field("words", 16, "Scratchpad words, or scale entries of one row."),
        Field("source", 1, "0: scratchpad, all channels; 1: the scales of position POS, channel POS mod C only."),
        Field("src", 16, "First scratchpad word; or scale entry of row 0 (row POS div C is stored)."),
        Field("sequence", 2, "Sequence whose position counts.")),
        "Chip to HBM; the last beat is filled up with zeros."),
    "MATMUL": (0x20, Queue.MATMUL, (
        Field("address", 32, "Beat address of the stream within every channel."),
        _reg("address_reg", "Register added to the address."),
        Field("rows", 12, "Rows of each lane."), _reg("rows_reg", "Register instead of `rows`, unless ZERO."),
        Field("beats", 10, "Value beats of a row."), _reg("beats_reg", "Register instead of `beats`, unless ZERO."),
        Field("pattern", 4, "Code of the N:M pattern."),
        Field("wide", 1, "16-bit weights (K, V): every value beat is two, high digits first."),
        Field("k_outer", 1, "Stream order: 0 all beats of a row together, 1 all rows of a beat together."),
        Field("first", 1, "Start from zero instead of the accumulator bank."),
        Field("last", 1, "Pass the results to the epilogue instead of keeping them in the bank."),
        Field("acc_row", 8, "First row in the accumulator bank."),
        Field("act", 16, "Plane block of the first activations."),
        Field("exponent", 8, "Exponent base.", signed=True),
        *_COLUMNS,
        Field("columns", 3, "Tokens."),
        Field("fence", 1, "Dispatch only when all earlier writes to HBM are complete."),
        Field("merge", 2, "0: none, 1: fresh K rows (lanes turned by `head`), 2: fresh V columns replace what is read, and are written back."),
        Field("scale", 2, "Row scale: 0 none, 1 first word of the row's constants, 2 K scale."),
        Field("norm", 2, "0: none; 1, 2: deferred norm with statistics 0, 1; `wg` is the next constant."),
        Field("bias", 1, "Add the last constant of the row."),
        Field("divide", 4, "0: none; 1 to 8: multiply by 1/sum of softmax result 0 to 7."),
        Field("gelu", 2, "0: none, 1: tanh form, 2: erf form."),
        Field("residual", 1, "Add to the destination instead of replacing it."),
        Field("dest", 4, "0: scratchpad; 1 to 8: softmax, result 0 to 7."),
        Field("dst", 16, "First scratchpad word; for softmax the plane block of the probabilities."),
        Field("dst_stride", 16, "Scratchpad words (plane blocks) between tokens."),
        Field("head", 6, "Head, for fresh K and V, for scales and for the turn of K's lanes."),
        Field("kv_base", 16, "First scale entry."),
        Field("kv_heads", 7, "Scale entries of one row."),
        _SEQUENCE),
        "Streams weights, K or V against quantised activations; see the engine's page."),
    "VECTOR": (0x30, Queue.VECTOR, (
        Field("fn", 5, "Function, see `VectorFn`."),
        Field("dst", 16, "First word of the result."), Field("a", 16, "First word of operand a."),
        Field("b", 16, "First word of operand b."), Field("words", 12, "Words."),
        Field("s", 4, "Scalar register.")),
        "Element by element over scratchpad words, or a reduction into a scalar. The result may replace an operand; "
        "where it overlaps one otherwise, its words are undefined."),
    "SCALAR": (0x31, Queue.VECTOR, (
        Field("fn", 5, "Function, see `ScalarFn`."),
        Field("d", 4, "Destination scalar."), Field("a", 4, "Scalar a."), Field("b", 4, "Scalar b."),
        Field("imm", 32, "FP32 bits.")), "One FP32 operation on scalar registers."),
    "QUANT": (0x32, Queue.VECTOR, (
        Field("a", 16, "First word of the slice."), Field("words", 12, "Words of the slice."),
        Field("gamma", 1, "Multiply by the words at `b` first."), Field("b", 16, "First word of gamma."),
        Field("act", 16, "First plane block."), Field("exponent", 8, "Exponent base.", signed=True),
        *_COLUMNS,
        Field("token", 2, "Token column."),
        Field("stats", 1, "Keep the sum of every word of a, and that of its squares, for the norm."),
        Field("word", 9, "Where the slice begins in the token's vector, in words.")),
        "Quantises one slice into the activation planes."),
    "NORM": (0x33, Queue.VECTOR, (
        Field("words", 10, "Words of the vector."), Field("set", 1, "Statistics to set."),
        Field("token", 2, "Token column."),
        Field("inv", 32, "1/elements of the vector, FP32."), Field("eps", 32, "Epsilon, FP32.")),
        "Mean and reciprocal deviation from the sums of the vector's words."),
    "CACHE": (0x34, Queue.VECTOR, (
        Field("a", 16, "First word of the head."), Field("kind", 1, "0: K, 1: V."),
        Field("head", 6, "Head."), Field("token", 2, "Token column."),
        Field("wide", 1, "16-bit digits."),
        Field("kv_base", 16, "First scale entry."), Field("kv_heads", 7, "Scale entries of one row."),
        _SEQUENCE),
        "Quantises one head of K or V of a current token into the fresh buffers, and its scale into the scale memory."),
    "SAMPLE": (0x35, Queue.VECTOR, (
        Field("a", 16, "First word of logits."), Field("words", 12, "Words."),
        Field("count", 16, "Logits that are valid."), Field("token", 20, "Token number of the first logit."),
        Field("first", 1, "Start a new row of logits."), Field("last", 1, "End it: set the sampled token, write the record."),
        Field("k", 7, "Candidates to write."),
        Field("columns", 3, "Tokens, each with a row of logits and a record of its own; the same for all blocks of a row."),
        Field("stride", 16, "Scratchpad words between tokens.")),
        "Argmax, top-k, log-sum-exp and target logit over blocks of logits. The sampled token is that of the first column. "
        "With more than one column there is no target."),
    "SEND_PREVIOUS": (0x40, Queue.SEND_PREVIOUS, _message("src"),
        "Sends the card before this one in the ring a message: the words of the first token, then of the next."),
    "SEND_NEXT": (0x41, Queue.SEND_NEXT, _message("src"), "Sends the card behind this one a message."),
    "RECEIVE_PREVIOUS": (0x42, Queue.RECEIVE_PREVIOUS, _message("dst"),
        "Takes the next message of the card before this one, which must be as long as the instruction says."),
    "RECEIVE_NEXT": (0x43, Queue.RECEIVE_NEXT, _message("dst"), "Takes the next message of the card behind this one."),
}
#: Instructions of a card in a ring, by side: to and from the previous card, the next.
SENDS = ("SEND_PREVIOUS", "SEND_NEXT")
RECEIVES = ("RECEIVE_PREVIOUS", "RECEIVE_NEXT")

OPCODES = {opcode: name for name, (opcode, *_) in FORMATS.items()}


class VectorFn(enum.IntEnum):
    """Functions of ``VECTOR``; s is the scalar register."""

    COPY = 0    #: a
    ADD = 1     #: a + b
    SUB = 2     #: a - b
    MUL = 3     #: a * b
    MAX = 4     #: max(a, b)
    MADD = 5    #: a * s + b
    ADDS = 6    #: a + s
    MULS = 7    #: a * s
    EXP = 8     #: exp(a)
    GELU_TANH = 9
    GELU_ERF = 10
    SUM = 11    #: s = sum of a over the words
    MAXIMUM = 12    #: s = max of a over the words


class ScalarFn(enum.IntEnum):
    """Functions of ``SCALAR``."""

    SET = 0     #: d = imm
    ADD = 1     #: d = a + b
    SUB = 2     #: d = a - b
    MUL = 3     #: d = a * b
    MAX = 4     #: d = max(a, b)
    RCP = 5     #: d = 1 / a
    RSQRT = 6   #: d = 1 / sqrt(a)


def fields(name: str) -> tuple[Field, ...]:
    """All fields of an instruction, header included."""
    return HEADER + FORMATS[name][2]


def encode(name: str, **values: int) -> int:
    """The instruction word.

    Raises
    ------
    TypeError
        For a field that the instruction does not have.
    ValueError
        For a value that its field cannot hold.
    """
    known = fields(name)
    if unknown := values.keys() - {field.name for field in known}:
        raise TypeError(f"{name} has no field {', '.join(sorted(unknown))}")
    word = shift = 0
    for field in known:
        value = FORMATS[name][0] if field.name == "opcode" else values.get(field.name, 0)
        word |= field.pack(value) << shift
        shift += field.width
    return word


def decode(word: int) -> tuple[str, dict[str, int]]:
    """Name and fields of an instruction word; :class:`ValueError` if it is none."""
    name = OPCODES.get(word & 0xFF)
    if name is None:
        raise ValueError(f"opcode {word & 0xFF:#04x} is no instruction")
    values, shift = {}, 0
    for field in fields(name):
        raw = word >> shift & (1 << field.width) - 1
        values[field.name] = raw - (1 << field.width) if field.signed and raw >> field.width - 1 else raw
        shift += field.width
    if word >> shift:
        raise ValueError(f"bits from {shift} up must be zero in {name}, not {word >> shift:#x}")
    return name, values


for _name in FORMATS:
    _width = sum(field.width for field in fields(_name))
    if _width > WORD_BITS:
        raise AssertionError(f"{_name} has {_width} bits")
