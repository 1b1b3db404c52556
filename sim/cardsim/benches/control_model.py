# SPDX-License-Identifier: Apache-2.0
"""What control must do with a program, one instruction after another, whatever units compute."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from rtl_gen.spec import isa, registers, rules
from rtl_gen.spec.config import CardConfig
from rtl_gen.spec.formats import PATTERNS, stream_beats
from rtl_gen.spec.isa import Queue, Register
from rtl_gen.spec.registers import Error

MASK = 0xFFFFFFFF
#: The queues of the units, in the order of the ports ``jobs``.
QUEUES = (Queue.MEMORY, Queue.MATMUL, Queue.VECTOR)
#: Whose the constants of a run are, in the port ``owner``.
EPILOGUE, MEMORY = 0, 1

Job = dict[str, Any]


@dataclasses.dataclass
class Outcome:
    """What a program does."""

    error: int = 0
    pc: int = 0
    word: int = 0
    steps: int = 0
    #: Instructions carried out.
    instructions: int = 0
    #: By queue: what dispatch hands over, in order.
    jobs: dict[Queue, list[Job]] = dataclasses.field(
        default_factory=lambda: {queue: [] for queue in QUEUES})
    #: (place in program order, counters waited for, counters signalled) of control instructions.
    control: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    #: (address, beats of constants, values, pattern), and for each how many writers come before.
    streams: list[tuple[int, int, int, int]] = dataclasses.field(default_factory=list)
    fences: list[int] = dataclasses.field(default_factory=list)
    owners: list[int] = dataclasses.field(default_factory=list)
    #: Token, target (or None), step and position of result records, by beat address.
    results: dict[int, tuple[int, int | None, int, int]] = dataclasses.field(default_factory=dict)
    registers: list[int] = dataclasses.field(default_factory=list)


def resolve(name: str, values: dict[str, int], regs: Sequence[int]) -> dict[str, int]:
    """Fields with registers applied, ``pos``, and the ``number`` of a GIVEN."""
    values = values | {"pos": regs[isa.POSITIONS[values.get("sequence", 0)]]}
    for field in ("rows", "beats"):
        if values.get(f"{field}_reg"):
            values[field] = regs[values[f"{field}_reg"]]
    if "address" in values:
        values["address"] += regs[values["address_reg"]]
        values["address"] += regs[values.get("index_reg", 0)] * values.get("stride", 0)
        values["address"] &= MASK
    if name == "GIVEN":
        values["number"] = regs[values["rs"]] + values["imm"] & MASK
    return values


def defined(job: Job) -> dict[str, int]:
    """The fields of a job that its instruction defines; others may be anything."""
    name, _ = isa.decode(job["word"])
    keep = {"word", "pos", "len", "step", "target_valid", "sequence"}
    keep |= {"rows", "beats"} if name in ("MATMUL", "LOAD") else set()
    keep |= {field for field in ("address", "target") if job[field] is not None}
    return {field: job[field] for field in keep}


def run(config: CardConfig, program: Sequence[int], command: dict[str, int], *,
        given: Sequence[int] = (), sample: Callable[[int], int], limit: int = 20_000) -> Outcome:
    """Run a program.

    Parameters
    ----------
    config : CardConfig
    program : list of int
    command : dict
        The command record by names.
    given : list of int
        Tokens given with the command.
    sample : callable
        The token that is sampled in a step.
    limit : int
        Instructions until it must have ended.
    """
    out = Outcome()
    regs = [0, *(command[f"r{k}"] for k in range(1, len(Register)))]
    stops = {command[f"stop{k}"] for k in range(4)} - {registers.NO_STOP}
    counters = [0] * isa.COUNTERS
    token, writers, pc = 0, 0, command["entry"]

    def end(error: int, word: int = 0) -> Outcome:
        out.error, out.pc, out.word = error, pc, word
        out.steps, out.registers = regs[Register.STEP], regs
        return out

    for _ in range(limit):
        if pc >= len(program):
            return end(Error.ILLEGAL_OPCODE)
        word = program[pc]
        try:
            name, v = isa.decode(word)
        except ValueError:
            return end(Error.ILLEGAL_OPCODE, word)
        v = resolve(name, v, regs)
        if error := rules.check(config, name, v, len(program), len(given)):
            return end(error, word)
        place = command["results"] + regs[Register.STEP] * command["result_beats"] & MASK
        if name == "SAMPLE" and v["last"] and place + v["columns"] * rules.record_beats(
                config, v["k"]) > config.channel_beats:
            return end(Error.ADDRESS_RANGE, word)
        for counter in range(isa.COUNTERS):
            if v["wait"] >> counter & 1:
                if not counters[counter]:
                    return end(Error.WATCHDOG, word)
                counters[counter] -= 1
        queue, following = isa.FORMATS[name][1], pc + 1
        step = regs[Register.STEP] + 1 & MASK
        target = given[step] if step < len(given) else None
        if queue != Queue.CONTROL:
            out.jobs[queue].append({
                "word": word, "rows": v.get("rows", 0), "beats": v.get("beats", 0),
                "address": v.get("address"), "pos": v["pos"],
                "len": regs[isa.LENGTHS[v.get("sequence", 0)]] & 0xFFF,
                "step": regs[Register.STEP], "target_valid": int(target is not None),
                "target": target, "sequence": out.instructions & 0xFFFF})
        else:
            out.control.append((out.instructions, v["wait"], v["signal"]))
        if name == "MATMUL" or (name == "LOAD" and v["rows"]):
            aux, values, pattern = rules.span(config, name, v), 0, 0
            if name == "MATMUL":
                pattern = v["pattern"]
                aux, _, values = stream_beats(
                    v["rows"], rules.constants(v), v["beats"] << v["wide"], PATTERNS[pattern],
                    config.beat_bytes)
            out.streams.append((v["address"], aux, values, pattern))
            out.fences.append(writers if v["fence"] else 0)
            if aux:
                out.owners.append(MEMORY if name == "LOAD" else EPILOGUE)
        writers += name == "STORE" or bool(v.get("merge"))
        match name:
            case "SAMPLE" if v["last"]:
                token = sample(regs[Register.STEP])
                out.results[place] = (token, target, regs[Register.STEP], regs[Register.POS])
            case "ADDI":
                regs[v["rd"]] = regs[v["rs"]] + v["imm"] & MASK
            case "SHRI":
                regs[v["rd"]] = regs[v["rs"]] >> v["imm"]
            case "GIVEN":
                regs[v["rd"]] = given[v["number"]]
            case "LOOP":
                regs[v["rd"]] = regs[v["rd"]] - 1 & MASK
                regs[0] = 0
                following = v["target"] if regs[v["rd"]] else following
            case "NEXT":
                for register, change in ((Register.STEP, 1), (Register.POS, 1),
                                         (Register.LEN, 1), (Register.LEFT, -1)):
                    regs[register] = regs[register] + change & MASK
                regs[Register.TOKEN] = token if target is None else target
                stopped = target is None and token in stops
                following = v["target"] if regs[Register.LEFT] and not stopped else following
        regs[0] = 0
        for counter in range(isa.COUNTERS):
            counters[counter] += v["signal"] >> counter & 1
            if counters[counter] > isa.COUNTER_MAX:
                return end(Error.COUNTER_OVERFLOW, word)
        out.instructions += 1
        if name == "HALT":
            return end(Error.NONE)
        pc = following
    raise AssertionError("the program does not end")
