# SPDX-License-Identifier: Apache-2.0
"""Control: random programs against the instruction set's model, every error, the control port."""

import collections
import random
from collections.abc import Sequence
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge

from rtl_gen.spec import contract, isa, registers
from rtl_gen.spec.isa import LENGTHS, POSITIONS
from rtl_gen.spec.registers import CHANNEL_BASE, CONTROL, STATUS, STATUS_BASE, Error

from . import control_model
from .axi import OKAY, SLVERR
from .control_host import DONE, IDLE, PROGRAM, READY, RECORD, RESULTS, START, STATUS_AT, Host
from .control_model import Outcome
from .control_program import ENDS, HALT, block, program
from .control_units import STUCK, Units, token
from .instructions import config
from .streams import CASES, STALLS

#: Words of the status record that are about links.
LINKS = [name for name in STATUS if name.startswith(("link", "stall_link", "idle_link", "previous_",
                                                     "next_"))]
#: Cycles after a command's end until everything it gave has been taken.
PATIENCE = 20_000
#: Base addresses that LOAD may still multiply by a stride.
FAR = 40_000
#: Counters of the status record that follow from the events alone.
COUNTED = ("read_beats", "write_beats", "engine_beats", "engine_cycles", "stall_weights",
           "stall_epilogue")


async def start(dut: Any, seed: str, stall: float = 0.0, hold: float = 0.0,
                **options: bool) -> tuple[Host, Units]:
    """Memory, host and units, and control after its reset."""
    card = config()
    host = Host(dut, card, stall, seed)
    units = Units(dut, card, stall, hold, seed, **options)
    await host.begin()
    return host, units


async def settle(units: Units, expected: Outcome) -> None:
    """Wait until the streams that the command gave have been taken."""
    for _ in range(PATIENCE):
        if len(units.streams) >= len(expected.streams) and len(units.owners) >= len(
                expected.owners):
            break
        await RisingEdge(units.dut.aclk)
    await ClockCycles(units.dut.aclk, 20)


def check_status(host: Host, status: dict[str, int], expected: Outcome) -> None:
    """The window and the record in memory say what the model says."""
    word = sum(status[f"word{k}"] << 32 * k for k in range(8))
    assert (status["error"], status["pc"], word, status["steps"], status["instructions_low"]) == (
        expected.error, expected.pc, expected.word, expected.steps, expected.instructions)
    assert (status["magic"], status["contract"], status["configuration"]) == (
        registers.STATUS_MAGIC, contract.DIGEST, host.config.digest)
    assert host.memory.get(host.address(STATUS_AT), len(STATUS)) == list(status.values())
    # A card alone has no links.
    assert not any(value for name, value in status.items() if name in LINKS)


async def run_and_check(
        host: Host, units: Units, words: Sequence[int], *, prompt: Sequence[int] = (),
        **values: int) -> tuple[dict[str, int], Outcome]:
    """Run a program and hold everything against the model."""
    units.forget()
    record = host.load(words, prompt, **values)
    expected = control_model.run(host.config, words, record, given=prompt, sample=token)
    await host.start()
    status = await host.end()
    await settle(units, expected)
    check_status(host, status, expected)
    units.check(expected)
    assert status["sticky"] == units.sticky
    counts = {name: status[f"{name}_low"] for name in COUNTED}
    assert counts == {name: units.counts[name] for name in COUNTED}
    assert len(units.records) == len(expected.results)
    for place, (_, _, step, _) in expected.results.items():
        sent = units.records[step]
        address = host.bases[0] + place * host.config.beat_bytes
        assert host.memory.get(address, len(sent)) == sent
        beats = -(-4 * len(sent) // host.config.beat_bytes)
        padded = host.memory.get(address, beats * host.config.beat_bytes // 4)
        assert not any(padded[len(sent):]), "the last beat must be filled up with zeros"
    return status, expected


@cocotb.test(timeout_time=4, timeout_unit="ms")
@cocotb.parametrize((("stall", "hold"), CASES))
async def programs_equal_the_model(dut: Any, stall: float, hold: float) -> None:
    seed = f"control {stall} {hold}"
    rng = random.Random(seed)
    host, units = await start(dut, seed, stall, hold)
    errors, fenced, steps = set(), 0, 0
    for end in ENDS:
        given = [rng.randrange(1, 50) for _ in range(rng.choice((0, 0, 1, 2, 5)))]
        words = program(host.config, rng, end, len(given))
        status, expected = await run_and_check(
            host, units, words, prompt=given, r1=rng.randrange(30), r2=rng.randrange(31),
            r6=rng.randrange(1, 4), r8=rng.randrange(99), r9=rng.randrange(FAR), r0=77,
            entry=rng.randrange(2),
            **{f"r{k}": rng.randrange(30) for k in (*POSITIONS[1:], *LENGTHS[1:])},
            stop0=token(rng.randrange(4)), stop2=token(rng.randrange(4)))
        errors.add(Error(status["error"]))
        fenced += sum(map(bool, expected.fences))
        steps += status["steps"]
    assert len(errors) >= 5, "programs must end in many ways"
    assert fenced >= 5
    assert steps >= 8


@cocotb.test(timeout_time=200, timeout_unit="us")
async def reports_of_one_cycle_all_count(dut: Any) -> None:
    host, units = await start(dut, "together")
    signal = [isa.encode("STORE", words=1, signal=1), isa.encode("SCALAR", signal=1),
              isa.encode("MATMUL", rows=1, beats=1, columns=1, first=1, signal=1)]
    status, _ = await run_and_check(
        host, units, [*signal * 10, *[isa.encode("SCALAR", wait=1)] * 30, HALT], watchdog=3000)
    assert status["error"] == Error.NONE
    reports = collections.Counter(event.cycle for event in units.order if event.gives)
    assert max(reports.values()) == len(signal), "all must have reported in some cycle"


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(kind=["silence", "read_error", "write_error"])
async def the_oldest_instruction_is_blamed(dut: Any, kind: str) -> None:
    host, units = await start(dut, f"blame {kind}", eventful=False)
    stuck = isa.encode("SCALAR", imm=STUCK, signal=2)
    words = [isa.encode("STORE", words=1), isa.encode("SCALAR"), stuck,
             isa.encode("LOAD", words=1, rows=1, wait=2), isa.encode("SCALAR"),
             isa.encode("STORE", words=1), HALT]
    host.load(words, watchdog=3000)
    await host.start()
    wanted = Error.WATCHDOG
    if kind != "silence":
        while not any(job["word"] == stuck for jobs in units.jobs.values() for job in jobs):
            await RisingEdge(dut.aclk)
        await ClockCycles(dut.aclk, 300)        # dispatch has come as far as it does
        wanted = Error.AXI_READ if kind == "read_error" else Error.AXI_WRITE
        dut.reading.value = getattr(dut, kind).value = 1
        while not dut.abort.value:
            await RisingEdge(dut.aclk)
        # What was asked for is waited for; only then are the units reset.
        for _ in range(200):
            await RisingEdge(dut.aclk)
            assert dut.abort.value
            assert not dut.reset_units.value
        dut.reading.value = 0
    while not dut.reset_units.value:
        await RisingEdge(dut.aclk)
    getattr(dut, "read_error" if kind == "silence" else kind).value = 0     # of what was reset
    length = 0
    while dut.reset_units.value:
        length += 1
        await RisingEdge(dut.aclk)
    assert length == 16
    status = await host.end()
    assert (status["error"], status["pc"], status["word0"]) == (wanted, 2, stuck & 0xFFFFFFFF)
    assert (status["cycles_low"] > 3000) == (kind == "silence")
    assert host.memory.get(host.address(STATUS_AT), len(STATUS)) == list(status.values())
    status, _ = await run_and_check(host, units, words[:2] + words[4:])
    assert status["error"] == Error.NONE


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def errors_of_memory_end_a_command(dut: Any) -> None:
    host, units = await start(dut, "memory errors")
    sample = isa.encode("SAMPLE", words=1, count=1, first=1, last=1, columns=1)
    for place, error in ((RECORD, Error.AXI_READ), (PROGRAM, Error.AXI_READ),
                         (RESULTS, Error.AXI_WRITE), (STATUS_AT, Error.AXI_WRITE)):
        units.forget()
        host.memory.bad = {host.address(place)}
        host.load([sample, HALT])
        await host.start()
        assert (await host.end())["error"] == error, hex(place)
        host.memory.bad = set()
        if place == PROGRAM:    # what was read badly is not run
            host.load([sample, HALT], flags=0)
            await host.start()
            assert (await host.end())["error"] == Error.ILLEGAL_OPCODE
        status, _ = await run_and_check(host, units, [sample, HALT])
        assert status["error"] == Error.NONE


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def senseless_commands_are_refused(dut: Any) -> None:
    host, units = await start(dut, "refused")
    card, words = host.config, [isa.encode("SCALAR"), HALT]
    await run_and_check(host, units, words)
    for values in ({"magic": 1}, {"flags": 3}, {"instructions": 0},
                   {"instructions": card.program_words + 1}, {"status": 0xFFFFFFFF},
                   {"program": card.channel_beats - 64 // card.beat_bytes + 1},
                   {"status": card.channel_beats - 1}, {"given": card.context + 1},
                   {"tokens": card.channel_beats, "given": 1}):
        host.load(words, **values, r5=99)
        await host.start()
        status = await host.end()
        assert (status["error"], status["pc"], status["word0"], status["steps"]) == (
            Error.BAD_COMMAND, 0, 0, 0), values
        assert not any(host.memory.get(host.address(STATUS_AT), len(STATUS)))
    await host.start(at=host.address(RECORD) + 4)
    assert (await host.end())["error"] == Error.BAD_COMMAND
    # Nothing was changed: the program is still there.
    record = host.load(words, flags=0, instructions=7)
    await host.start()
    check_status(host, await host.end(),
                 control_model.run(card, words, record, sample=token))


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def registers_are_those_of_the_contract(dut: Any, stall: float) -> None:
    seed = f"registers {stall}"
    rng = random.Random(seed)
    host, units = await start(dut, seed, stall)
    kept = [CONTROL["command_low"], CONTROL["command_high"],
            *(CHANNEL_BASE + 4 * k for k in range(2 * host.config.channels))]
    values = {place: rng.getrandbits(32) for place in kept}
    for place, value in values.items():
        await host.write(place, value)
    for place, value in values.items():
        assert await host.read(place) == [value]
    assert int(dut.base.value) == sum(
        values[CHANNEL_BASE + 4 * k] << 32 * k for k in range(2 * host.config.channels))
    window = [STATUS_BASE + 4 * k for k in range(len(STATUS))]
    known = {*CONTROL.values(), *kept, *window}
    # XRT writes the words between the arguments too.
    between = range(CONTROL["command_high"] + 4, CHANNEL_BASE, 4)
    await host.write(rng.choice(between), 1)
    await host.read(rng.choice(between), SLVERR)
    known.update(between)
    for place in (*rng.sample(sorted(set(range(0, 4096, 4)) - known), 10), max(kept) + 4,
                  max(window) + 4):
        await host.read(place, SLVERR)
        await host.write(place, 1, SLVERR)
    await host.write(rng.choice(window), 1, SLVERR)

    # While a command runs its addresses stay, and there is no second start.
    await host.set_up()
    units.forget()
    host.load([isa.encode("ADDI", rd=8, imm=200), isa.encode("LOOP", rd=8, target=1), HALT])
    assert await host.read(CONTROL["ap_ctrl"]) == [IDLE]
    await host.start()
    assert await host.read(CONTROL["ap_ctrl"]) == [START]
    await host.write(CONTROL["ap_ctrl"], START)
    for place in (kept[0], kept[-1]):
        before = await host.read(place)
        await host.write(place, 5, SLVERR)
        assert await host.read(place) == before
    assert (await host.end())["instructions_low"] == 202
    assert await host.read(CONTROL["ap_ctrl"]) == [IDLE]
    # The interrupt comes if both switches are on; without it the end shows in ap_ctrl.
    for gie, ier in ((0, 1), (1, 0), (1, 1)):
        await host.write(CONTROL["gie"], gie)
        await host.write(CONTROL["ier"], ier)
        await host.start()
        while not (ended := (await host.read(CONTROL["ap_ctrl"]))[0]) & DONE:
            pass
        assert ended == DONE | IDLE | READY
        assert int(dut.interrupt.value) == (gie & ier)
        assert await host.read(CONTROL["isr"]) == [ier]
        if ier:
            await host.write(CONTROL["isr"], 1, OKAY)
        assert not dut.interrupt.value


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(stall=STALLS)
async def a_host_that_never_stops_reading_the_status_disturbs_nothing(dut: Any, stall: float
                                                                      ) -> None:
    seed = f"control watched {stall}"
    rng = random.Random(seed)
    host, units = await start(dut, seed, stall)

    async def watch() -> None:
        while True:
            seen = dict(zip(STATUS, await host.read(STATUS_BASE, count=len(STATUS)), strict=True))
            assert (seen["magic"], seen["contract"], seen["configuration"]) == (
                registers.STATUS_MAGIC, contract.DIGEST, host.config.digest)

    watching = cocotb.start_soon(watch())
    for _ in range(4):
        await run_and_check(host, units, [*block(host.config, rng, 9), HALT])
    watching.cancel()


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def a_reset_helps_in_any_state(dut: Any) -> None:
    rng = random.Random("control reset")
    host, units = await start(dut, "control reset", 0.3, 0.3)
    for _ in range(6):
        units.forget()
        host.load(program(host.config, rng, "halt"), r6=3, r8=1)
        await host.start()
        await ClockCycles(dut.aclk, rng.randrange(3000))
        dut.aresetn.value = 0
        await ClockCycles(dut.aclk, 4)
        dut.aresetn.value = 1
        await host.set_up()
        await run_and_check(host, units, [*block(host.config, rng, 9), HALT])
