# SPDX-License-Identifier: Apache-2.0
"""The functional card: commands, registers, dependency counters, errors."""

import time
from typing import Any

import numpy as np

from heddle.card import CardError, CardStopped, CardTimeout, Identity, Status
from rtl_gen.spec import contract, isa, rules
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.isa import COUNTER_MAX, COUNTERS, FORMATS, WORD_BYTES, Queue, Register
from rtl_gen.spec.link import Failure
from rtl_gen.spec.registers import (
    COMMAND,
    COMMAND_MAGIC,
    FLAG_LOAD,
    STATUS,
    STATUS_MAGIC,
    Error,
)

from .batch import Batch, find
from .matmul import Matmul
from .memory import Memory
from .program import MASK, Instruction, Operands, check, decode
from .ring import LinkError, Receive, Ring, Send, about
from .sample import Sample, Sampler
from .state import State
from .sums import Bank
from .transfer import Load, Store
from .vector import Cache, Norm, Quant, Registers, Scalar, Vector
from .weights import WeightCache

#: Instructions between two looks at the clock.
PATIENCE = 1 << 12


class Stop(Exception):
    """A command ends with an error code."""

    def __init__(self, code: Error, pc: int, word: int) -> None:
        self.code, self.pc, self.word = code, pc, word


class FunctionalCard:
    """A card that carries out every instruction in program order, bit for bit as the hardware.

    It knows no time: cycle counters of the status record stay zero.

    Parameters
    ----------
    config : CardConfig
    ring : Ring, optional
        Of this and other cards, in which this one has the number ``index``; else it is alone.
    """

    def __init__(self, config: CardConfig, ring: Ring | None = None, index: int = 0) -> None:
        self.config, self.index = config, index
        self._ring = ring or Ring(config.cards)
        self.memory = Memory(config)
        self._cache = WeightCache(self.memory)
        self._closed = False
        self._program: list[Instruction | None] = []
        self._batches: list[Batch | None] = []
        self._words = b""
        self.reset()

    # ---- The card as the runtime sees it. ----

    def identity(self) -> Identity:
        """Contract and configuration; nothing was built from a commit."""
        return Identity(contract=contract.DIGEST, configuration=self.config.digest, commit=0,
                        board="sim")

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write ``data`` to memory."""
        self._open()
        self.memory.write(address, data)

    def read(self, address: int, size: int) -> bytes:
        """Read ``size`` bytes of memory."""
        self._open()
        return self.memory.read(address, size)

    def reset(self) -> None:
        """Clear everything on chip; HBM keeps its contents."""
        self.state = State(self.config)
        self._bank = Bank()
        self._sampler = Sampler(self.state)
        self._decoded: dict[int, Instruction] = {}
        self._program, self._batches, self._words = [], [], b""
        self.registers: Registers = [0] * len(Register)
        self._retired = 0

    def close(self) -> None:
        """Give the memory back."""
        if not self._closed:
            self._closed = True
            self.reset()
            self.memory.close()

    def run(self, command_address: int, timeout: float = 3600) -> Status:
        """Carry out the command whose record lies at byte ``command_address`` of channel 0."""
        self._open()
        size, width = self.config.channel_bytes, self.config.beat_bytes
        if command_address % width or not 0 <= command_address <= size - 4 * len(COMMAND):
            raise CardError(f"the command record must lie at a beat of channel 0, not at "
                            f"{command_address:#x}")
        self._retired = self._about = 0
        command = dict(zip(COMMAND, self.memory.read_words(
            command_address // width, len(COMMAND)).tolist(), strict=True))
        if not self._sensible(command):
            raise CardStopped(self._status(Error.BAD_COMMAND, 0, 0))
        if self.config.cards > 1:
            self._ring.begin(self.index)
        status = None
        try:
            status = self._outcome(command, time.monotonic() + timeout)
        finally:
            error = Error.WATCHDOG if status is None else status.error
            if self.config.cards > 1:
                self._ring.end(self.index, error and (self._about or about(self.index, error)))
        self.memory.write_words(command["status"], np.array(status.words, np.uint32))
        if status.error:
            raise CardStopped(status)
        return status

    # ---- Commands. ----

    def _outcome(self, command: dict[str, int], deadline: float) -> Status:
        with np.errstate(all="ignore"):
            self._start(command)
            try:
                if self.config.cards > 1 and command["ring"] & 0xFF != self.index:
                    self._about = about(self.index, Error.LINK, Failure.NEIGHBOUR)
                    raise Stop(Error.LINK, 0, 0)
                return self._status(Error.NONE, self._execute(command, deadline), 0)
            except Stop as stop:
                return self._status(stop.code, stop.pc, stop.word)

    def _open(self) -> None:
        if self._closed:
            raise CardError("the card must be open, not closed")

    def _sensible(self, command: dict[str, int]) -> bool:
        """Whether the record can be carried out."""
        width, limit = self.config.beat_bytes, self.config.channel_beats

        def inside(name: str, size: int) -> bool:
            return command[name] + -(-size // width) <= limit

        load = command["flags"] & FLAG_LOAD
        return (command["magic"] == COMMAND_MAGIC and command["flags"] <= FLAG_LOAD
                and (not load or (1 <= command["instructions"] <= self.config.program_words
                                  and inside("program", command["instructions"] * WORD_BYTES)))
                and command["given"] <= self.config.context
                and inside("tokens", 4 * command["given"])
                and inside("status", 4 * len(STATUS)))

    def _start(self, command: dict[str, int]) -> None:
        if command["flags"] & FLAG_LOAD:
            start = command["program"] * self.config.beat_bytes
            words = self.memory.bytes[
                0, start:start + command["instructions"] * WORD_BYTES].tobytes()
            if words != self._words:
                self._words = words
                self._decoded = {}
                self._program = [None] * command["instructions"]
                self._batches = [None] * command["instructions"]
        self.registers = [0, *(command[f"r{k}"] for k in range(1, len(Register)))]
        self._given = self.memory.read_words(command["tokens"], command["given"]).tolist()
        self._stops = {command[f"stop{k}"] for k in range(4)} - {MASK}
        self._counters = [0] * COUNTERS
        self._sampler.token = 0
        self.state.start()

    def _status(self, code: Error, pc: int, word: int) -> Status:
        values = {
            "magic": STATUS_MAGIC, "contract": contract.DIGEST,
            "configuration": self.config.digest, "error": code, "pc": pc,
            "steps": self.registers[Register.STEP], "sticky": self.state.sticky,
            "link_about": self._about if code else 0,
            "instructions_low": self._retired & MASK, "instructions_high": self._retired >> 32,
            **{f"word{k}": word >> 32 * k & MASK for k in range(8)}}
        return Status(tuple(int(values.get(name, 0)) for name in STATUS))

    # ---- Instructions. ----

    def _fetch(self, pc: int) -> Instruction:
        """Instruction number ``pc``, decoded once; its batch is looked for at the same time."""
        if pc >= len(self._program):
            raise Stop(Error.ILLEGAL_OPCODE, pc, 0)
        instruction = self._program[pc] = self._decode(pc)
        self._batches[pc] = find(
            self.config, (self._decode(k) for k in range(pc, len(self._program))), self._bind)
        return instruction

    def _decode(self, pc: int) -> Instruction:
        word = int.from_bytes(self._words[pc * WORD_BYTES:(pc + 1) * WORD_BYTES], "little")
        instruction = self._decoded.get(word)
        if instruction is None:
            instruction = self._decoded[word] = decode(word)
        return instruction

    def _bind(self, name: str, words: list[dict[str, int]]) -> Any:
        """The handler of legal instructions, one unless they make a batch."""
        state, memory, f = self.state, self.memory, words[0]
        match name:
            case "LOAD":
                return Load(state, memory, f)
            case "STORE":
                return Store(state, memory, f)
            case "MATMUL":
                return Matmul(state, memory, self._cache, self._bank, words)
            case "QUANT":
                return Quant(state, words)
            case "CACHE":
                return Cache(state, words)
            case "SAMPLE":
                return Sample(state, self._sampler, f)
            case _ if name in isa.SENDS:
                return Send(state, f, self._ring, self.index, isa.SENDS.index(name))
            case _ if name in isa.RECEIVES:
                return Receive(state, f, self._ring, self.index, isa.RECEIVES.index(name))
        return {"VECTOR": Vector, "SCALAR": Scalar, "NORM": Norm}[name](state, f)

    def _execute(self, command: dict[str, int], deadline: float) -> int:
        """Run the program; the number of the HALT."""
        program, batches, registers = self._program, self._batches, self.registers
        size, pc, patience = len(program), command["entry"], PATIENCE
        while True:
            instruction = program[pc] if pc < size else None
            if instruction is None:
                instruction = self._fetch(pc)
            batch = batches[pc]
            if batch is not None:
                # If a member may not run they go one by one, which finds the one that may not.
                taken = batch.admit(registers, self._counters, size)
                if taken is not None:
                    batch(registers, taken)
                    pc += len(batch.members)
                    self._retired += len(batch.members)
                    continue
            operands = self._admit(instruction, pc, command)
            here, pc = pc, self._carry_out(instruction, operands, pc + 1, command)
            for counter in instruction.signal:
                self._counters[counter] += 1
                if self._counters[counter] > COUNTER_MAX:
                    raise Stop(Error.COUNTER_OVERFLOW, here, instruction.word)
            self._retired += 1
            if instruction.name == "HALT":
                return here
            if self._retired > patience:
                patience = self._retired + PATIENCE
                if time.monotonic() > deadline:
                    raise CardTimeout(f"the program must end in time, not run on at instruction "
                                      f"{here} after {self._retired} instructions")

    def _admit(self, instruction: Instruction, pc: int,
               command: dict[str, int]) -> Operands:
        """Check an instruction and take what it waits for; its operands."""
        if instruction.error:
            raise Stop(instruction.error, pc, instruction.word)
        resolve, counters = instruction.resolve, self._counters
        operands = instruction.operands if resolve is None else resolve(self.registers)
        error = check(self.config, instruction, self.registers[instruction.position], operands,
                      len(self._program), len(self._given))
        if instruction.name == "SAMPLE" and not error and instruction.fields["last"]:
            error = self._room(command, instruction.fields)
        if error:
            raise Stop(error, pc, instruction.word)
        for counter in instruction.wait:
            if not counters[counter]:
                raise Stop(Error.WATCHDOG, pc, instruction.word)
            counters[counter] -= 1
        return operands

    def _carry_out(self, instruction: Instruction, operands: Operands, following: int,
                   command: dict[str, int]) -> int:
        """Do it; the number of the next instruction."""
        name, registers, handler = instruction.name, self.registers, instruction.handler
        if handler is None and name in _UNITS:
            handler = instruction.handler = self._bind(name, [instruction.fields])
        if name == "MATMUL":
            handler(registers, operands)
        elif name == "LOAD":
            handler(registers, operands[0], operands[2])
        elif name == "STORE":
            handler(registers, operands[2])
        elif name in isa.SENDS:
            handler()
        elif name in isa.RECEIVES:
            try:
                handler()
            except LinkError as error:
                self._about = error.about
                raise Stop(error.code, following - 1, instruction.word) from None
        elif name == "SAMPLE":
            step = registers[Register.STEP] + 1
            records = handler(registers, self._given[step] if step < len(self._given) else None)
            beats = rules.record_beats(self.config, instruction.fields["k"])
            for column, record in enumerate(records):
                self.memory.write_words(self._place(command) + column * beats, record)
        elif handler is not None:
            handler(registers)
        else:
            return self._control(name, instruction.fields, operands, following)
        return following

    def _control(self, name: str, f: dict[str, int], operands: Operands, pc: int) -> int:
        """Carry out a control instruction; the number of the next one."""
        registers = self.registers
        match name:
            case "ADDI":
                self._set(f["rd"], registers[f["rs"]] + f["imm"])
            case "SHRI":
                self._set(f["rd"], registers[f["rs"]] >> f["imm"])
            case "GIVEN":
                self._set(f["rd"], self._given[operands[2]])
            case "LOOP":
                left = registers[f["rd"]] - 1 & MASK
                self._set(f["rd"], left)
                if left:
                    return f["target"]
            case "NEXT":
                for register, change in ((Register.STEP, 1), (Register.POS, 1), (Register.LEN, 1),
                                         (Register.LEFT, -1)):
                    self._set(register, registers[register] + change)
                step = registers[Register.STEP]
                given = step < len(self._given)
                token = self._given[step] if given else self._sampler.token
                registers[Register.TOKEN] = token
                if registers[Register.LEFT] and (given or token not in self._stops):
                    return f["target"]
        return pc

    def _set(self, register: int, value: int) -> None:
        if register != Register.ZERO:
            self.registers[register] = value & MASK

    def _place(self, command: dict[str, int]) -> int:
        """Beat of the current step's result record."""
        return (command["results"]
                + self.registers[Register.STEP] * command["result_beats"]) & MASK

    def _room(self, command: dict[str, int], f: dict[str, int]) -> Error:
        beats = rules.record_beats(self.config, f["k"]) * f["columns"]
        fits = self._place(command) + beats <= self.config.channel_beats
        return Error.NONE if fits else Error.ADDRESS_RANGE


_UNITS = frozenset(name for name, entry in FORMATS.items() if entry[1] != Queue.CONTROL)
