# SPDX-License-Identifier: Apache-2.0
"""Faults of one line, each of which the named test must find.

A package is copied, the line replaced, and the test run on the copy in a process of its own.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Seconds in which any of the tests ends, its compiler included.
LIMIT = 600


#: How a proof fails.
REFUTED = "^E +AssertionError: refuted in cycle"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mutant:
    """A fault, and who finds it how."""

    name: str
    #: File below ``hw`` or ``sw``; its first folder is the package that is copied.
    file: str
    #: Text that stands there once, and what takes its place.
    right: str
    wrong: str
    test: str
    #: How the test fails, as a regular expression of one line of its report.
    failure: str = "^E +(AssertionError|assert )"


MUTANTS = [
    Mutant(name="ties are rounded up, not to even",
           file="hw/rtl_gen/fp32/bits.py",
           right="up = guard & (sticky | mantissa[0])", wrong="up = guard",
           test="tests/rtl/test_fp32.py::test_convert[80-0.0-600]"),
    Mutant(name="every weight meets the activation after its own",
           file="hw/rtl_gen/matmul/select.py",
           right="level = [candidates.word_select(k, width) for k in range(NEAR)]",
           wrong="level = [candidates.word_select((k + 1) % NEAR, width) for k in range(NEAR)]",
           test="tests/rtl/test_engine.py::test_random_instructions[tiny-0.3]"),
    Mutant(name="fresh V goes one position too far",
           file="hw/rtl_gen/matmul/fresh.py",
           right="v_out[q].eq(v_digits[token])",
           wrong="v_out[q].eq(v_digits[(token - 1)[:len(token)]])",
           test="tests/rtl/test_engine.py::test_random_instructions[tiny-0.3]"),
    Mutant(name="softmax takes in the score after the last",
           file="hw/rtl_gen/softmax/softmax.py",
           right="left = pipe(self._valid(job.length + out_row - out_past)",
           wrong="left = pipe(self._valid(job.length + 1 + out_row - out_past)",
           test="tests/rtl/test_softmax.py::test_softmax_equals_its_definition[shape0-0.0]"),
    Mutant(name="instructions do not wait for their counters",
           file="hw/rtl_gen/control/counters.py",
           right="self.request[k] & ((self.wait[k] & ~above) == 0)", wrong="self.request[k]",
           test="tests/rtl/test_control_counters.py::test_only_what_was_signalled_starts[0.15]"),
    Mutant(name="bursts cross multiples of 4 KiB",
           file="hw/rtl_gen/memory/reader.py",
           right="room.eq(self.burst - address[size:size + burst_bits])",
           wrong="room.eq(self.burst)",
           test="tests/rtl/test_memory_channel.py::"
                "test_entries_and_constants_of_random_jobs[tiny-0.0-30]",
           failure="^E +AssertionError: .* cross 4 KiB"),
    Mutant(name="signals that meet count as one",
           file="hw/rtl_gen/control/counters.py",
           right="tree_sum(done.valid & done.signal[k] for done in self.done)",
           wrong="Cat(done.valid & done.signal[k] for done in self.done).any()",
           test="tests/formal/test_counters.py::test_who_can_is_let_go_and_nothing_is_lost",
           failure=REFUTED),
    Mutant(name="a signal that meets a grant is counted for free",
           file="hw/rtl_gen/control/counters.py",
           right="count + gained - taken[k]", wrong="count + gained - (taken[k] & (gained == 0))",
           test="tests/formal/test_counters.py::test_who_can_is_let_go_and_nothing_is_lost",
           failure=REFUTED),
    Mutant(name="a counter that falls to one cannot be taken",
           file="hw/rtl_gen/control/counters.py",
           right="(gained != 0) | (count > 1) |", wrong="(gained != 0) |",
           test="tests/formal/test_counters.py::test_who_can_is_let_go_and_nothing_is_lost",
           failure=REFUTED),
    Mutant(name="an instruction that waits for what it signals counts too far",
           file="hw/rtl_gen/control/counters.py",
           right="self.signal[k] & ~self.wait[k] & (count", wrong="self.signal[k] & (count",
           test="tests/formal/test_counters.py::test_what_can_never_start_is_known",
           failure=REFUTED),
    Mutant(name="an instruction that writes is forgotten when another finishes",
           file="hw/rtl_gen/control/flight.py",
           right="(self.done & queue.o.payload.writes)", wrong="(self.done & (writers != 0))",
           test="tests/formal/test_flight.py::test_what_is_unfinished_is_known",
           failure=REFUTED),
    Mutant(name="an instruction that begins as another finishes is not counted",
           file="hw/rtl_gen/control/flight.py",
           right="count + self.issued - self.done",
           wrong="count + (self.issued & ~self.done) - self.done",
           test="tests/formal/test_flight.py::test_what_is_unfinished_is_known",
           failure=REFUTED),
    Mutant(name="the first burst of a run crosses multiples of 4 KiB",
           file="hw/rtl_gen/memory/reader.py",
           right="room.eq(self.burst - address[size:size + burst_bits])",
           wrong="room.eq(self.burst)",
           test="tests/formal/test_memory.py::test_runs_are_read[8]",
           failure=REFUTED),
    Mutant(name="an address that waits is withdrawn",
           file="hw/rtl_gen/memory/reader.py",
           right="with m.Elif(port.arready):", wrong="with m.Else():",
           test="tests/formal/test_memory.py::test_runs_are_read[8]",
           failure=REFUTED),
    Mutant(name="one burst more is asked for than may be under way",
           file="hw/rtl_gen/memory/reader.py",
           right="(under_way != self.outstanding)", wrong="(under_way <= self.outstanding)",
           test="tests/formal/test_memory.py::test_runs_are_read[8]",
           failure=REFUTED),
    Mutant(name="a frame is taken whatever its number",
           file="hw/rtl_gen/link/receiver.py",
           right="room & ~spoilt & (behind == 0)", wrong="room & ~spoilt",
           test="tests/formal/test_link.py::test_beats_arrive_once_and_in_order",
           failure=REFUTED),
    Mutant(name="a frame that is being sent again makes room when it is acknowledged",
           file="hw/rtl_gen/link/sender.py",
           right="tail - Mux(behind, next_, acked)", wrong="tail - acked",
           test="tests/cosim/test_units.py::test_unit_equals_its_reference[link]",
           failure="^E +SystemExit"),
    Mutant(name="a sender goes one beat beyond the room of the receiver",
           file="hw/rtl_gen/link/sender.py",
           right="within >= self.frame_beats", wrong="within + 1 >= self.frame_beats",
           test="tests/formal/test_link.py::test_beats_arrive_once_and_in_order",
           failure=REFUTED),
    Mutant(name="payload counts before the neighbour has said who it is",
           file="hw/rtl_gen/link/session.py",
           right="(same & (up | heard) & (trailer", wrong="(same & (trailer",
           test="tests/formal/test_session.py::test_an_end_talks_to_whom_it_expects[mine]",
           failure=REFUTED),
    Mutant(name="half of the contract's digest is compared",
           file="hw/rtl_gen/link/session.py",
           right="with m.If(Cat(trailer.seq, trailer.ack) != me.contract):",
           wrong="with m.If(trailer.ack != me.contract[16:]):",
           test="tests/formal/test_session.py::test_an_end_talks_to_whom_it_expects[up]",
           failure=REFUTED),
    Mutant(name="a session that failed is up when the hello comes after all",
           file="hw/rtl_gen/link/session.py",
           right="with m.If((self.state == State.GREETING) & heard & seen):",
           wrong="with m.If((self.state != State.OFF) & heard & seen):",
           test="tests/formal/test_session.py::test_an_end_talks_to_whom_it_expects[failed]",
           failure=REFUTED),
    Mutant(name="frames of another session break the silence",
           file="hw/rtl_gen/link/session.py",
           right="with m.If(same | after | ~up):", wrong="with m.If(self.frame.valid | ~up):",
           test="tests/formal/test_session.py::test_an_end_talks_to_whom_it_expects[silent]",
           failure=REFUTED),
    Mutant(name="a trailer is of the session that was asked for and has not begun",
           file="hw/rtl_gen/link/session.py",
           right="me.session.eq(session)", wrong="me.session.eq(self.me.session)",
           test="tests/formal/test_session.py::test_no_session_is_taken_for_another",
           failure=REFUTED),
    Mutant(name="a hello of the session before still counts",
           file="hw/rtl_gen/link/session.py",
           right="self.done.eq(0), heard.eq(0), seen.eq(0),", wrong="self.done.eq(0), seen.eq(0),",
           test="tests/formal/test_session.py::test_no_session_is_taken_for_another",
           failure=REFUTED),
    Mutant(name="frames of another session are taken for this one's",
           file="hw/rtl_gen/link/session.py",
           right="same.eq(self.frame.valid & (trailer.session == me.session)",
           wrong="same.eq(self.frame.valid & (trailer.session[1:] == me.session[1:])",
           test="tests/formal/test_session.py::test_no_session_is_taken_for_another",
           failure=REFUTED),
    Mutant(name="data change their owner within a burst",
           file="hw/rtl_gen/card/shared.py",
           right="data.o.ready.eq(port.wvalid & port.wready & port.wlast)",
           wrong="data.o.ready.eq(port.wvalid & port.wready)",
           test="tests/formal/test_shared.py::test_data_and_answers_find_their_owners",
           failure=REFUTED),
    Mutant(name="two addresses are taken in one cycle",
           file="hw/rtl_gen/card/shared.py",
           right="self.channel.awready.eq(free & ~self.system.awvalid)",
           wrong="self.channel.awready.eq(free)",
           test="tests/formal/test_shared.py::test_data_and_answers_find_their_owners",
           failure=REFUTED),
    Mutant(name="more bursts are asked for than owners are remembered",
           file="hw/rtl_gen/card/shared.py",
           right="free.eq(~port.awvalid & data.i.ready & answers.i.ready)",
           wrong="free.eq(~port.awvalid & data.i.ready)",
           test="tests/formal/test_shared.py::test_data_and_answers_find_their_owners",
           failure=REFUTED),
    Mutant(name="an answer goes to whose data are being sent",
           file="hw/rtl_gen/card/shared.py",
           right="turn = answers.o.payload", wrong="turn = data.o.payload",
           test="tests/formal/test_shared.py::test_data_and_answers_find_their_owners",
           failure=REFUTED),
    Mutant(name="both masters take what one has read",
           file="hw/rtl_gen/card/shared.py",
           right="master.rvalid.eq(port.rvalid & mine)", wrong="master.rvalid.eq(port.rvalid)",
           test="tests/formal/test_shared.py::test_data_and_answers_find_their_owners",
           failure=REFUTED),
    Mutant(name="a frame of several beats begins with credit for all but one",
           file="hw/rtl_gen/link/sender.py",
           right="within >= self.frame_beats",
           wrong="within >= self.frame_beats - 1",
           test="tests/formal/test_link.py::test_there_is_room_for_every_beat[Sent]",
           failure=REFUTED),
    Mutant(name="a repetition that was asked for does not begin",
           file="hw/rtl_gen/link/sender.py",
           right="with m.If(repeat | behind):",
           wrong="with m.If(behind):",
           test="tests/formal/test_link.py::test_there_is_room_for_every_beat[Sent]",
           failure=REFUTED),
    Mutant(name="a frame is as long as its message",
           file="hw/rtl_gen/link/sender.py",
           right="ends.eq(self.i.p.last | (length == self.frame_beats - 1))",
           wrong="ends.eq(self.i.p.last)",
           test="tests/formal/test_link.py::test_there_is_room_for_every_beat[Sent]",
           failure=REFUTED),
    Mutant(name="a receiver promises room that unread beats take",
           file="hw/rtl_gen/link/receiver.py",
           right="self.limit.eq(read + depth)",
           wrong="self.limit.eq(self.expected + depth)",
           test="tests/formal/test_link.py::test_there_is_room_for_every_beat[Kept]",
           failure=REFUTED),
    Mutant(name="beats of a frame that was lost keep their room",
           file="hw/rtl_gen/link/receiver.py",
           right="m.d.sync += write.eq(self.expected)",
           wrong="m.d.sync += write.eq(write)",
           test="tests/formal/test_link.py::test_there_is_room_for_every_beat[Kept]",
           failure=REFUTED),
    Mutant(name="a receiver refuses the last beat that it has room for",
           file="hw/rtl_gen/link/receiver.py",
           right="room.eq((write - read)[:number] < depth)",
           wrong="room.eq((write - read)[:number] < depth - 1)",
           test="tests/formal/test_link.py::test_there_is_room_for_every_beat[Kept]",
           failure=REFUTED),
    Mutant(name="payload goes on after the link has failed",
           file="hw/rtl_gen/link/link.py",
           right="sender.up.eq(up & ~asked)",
           wrong="sender.up.eq(~asked)",
           test="tests/formal/test_link.py::test_nothing_is_said_to_a_stranger_nor_taken_from_one",
           failure=REFUTED),
    Mutant(name="payload of frames of other sessions is taken",
           file="hw/rtl_gen/link/link.py",
           right="receiver.frame.good.eq(session.mine)",
           wrong="receiver.frame.good.eq(check.good)",
           test="tests/formal/test_link.py::test_nothing_is_said_to_a_stranger_nor_taken_from_one",
           failure=REFUTED),
    Mutant(name="a session begins in the middle of a frame",
           file="hw/rtl_gen/link/link.py",
           right="clear.eq(asked & sender.quiet)",
           wrong="clear.eq(asked)",
           test="tests/formal/test_link.py::test_nothing_is_said_to_a_stranger_nor_taken_from_one",
           failure=REFUTED),
    Mutant(name="control writes more than may be unanswered",
           file="hw/rtl_gen/control/port.py",
           right=" & (waiting != OUTSTANDING)",
           wrong="",
           test="tests/formal/test_control.py::test_control_reads_and_writes[writes]",
           failure=REFUTED),
    Mutant(name="control withdraws data when their address is taken",
           file="hw/rtl_gen/control/port.py",
           right="with m.If(self.axi.wready):",
           wrong="with m.If(self.axi.awready | self.axi.wready):",
           test="tests/formal/test_control.py::test_control_reads_and_writes[axi]",
           failure=REFUTED),
    Mutant(name="control's bursts cross multiples of 4 KiB",
           file="hw/rtl_gen/control/port.py",
           right="room.eq(BURST - address[size:size + (BURST - 1).bit_length()])",
           wrong="room.eq(BURST)",
           test="tests/formal/test_control.py::test_control_reads_and_writes[axi]",
           failure=REFUTED),
    Mutant(name="control takes a beat before it has cut the last one",
           file="hw/rtl_gen/control/port.py",
           right="self.axi.rready.eq((here == 0) & (burst != 0))",
           wrong="self.axi.rready.eq(burst != 0)",
           test="tests/formal/test_control.py::test_control_reads_and_writes[reads]",
           failure=REFUTED),
    Mutant(name="a write is answered while the last answer waits",
           file="hw/rtl_gen/control/registers.py",
           right="with m.If(addressed & valued & ~bus.bvalid):",
           wrong="with m.If(addressed & valued):",
           test="tests/formal/test_control.py::test_the_host_is_answered",
           failure=REFUTED),
    Mutant(name="a read is taken while the last answer waits",
           file="hw/rtl_gen/control/registers.py",
           right="bus.arready.eq(~asked & ~bus.rvalid)",
           wrong="bus.arready.eq(~asked)",
           test="tests/formal/test_control.py::test_the_host_is_answered",
           failure=REFUTED),
    Mutant(name="a write replaces bytes that it leaves out",
           file="hw/rtl_gen/control/registers.py",
           right="Mux(strobe[k], value",
           wrong="Mux(strobe.any(), value",
           test="tests/formal/test_control.py::test_the_host_is_answered",
           failure=REFUTED),
    Mutant(name="a burst of writes crosses multiples of 4 KiB",
           file="hw/rtl_gen/memory/writer.py",
           right="& (byte[size:PAGE.bit_length() - 1] != 0) & (idle",
           wrong="& (idle",
           test="tests/formal/test_memory.py::test_beats_are_written[axi]",
           failure=REFUTED),
    Mutant(name="a burst of writes ends without its last",
           file="hw/rtl_gen/memory/writer.py",
           right="port.wlast.eq(left == 1)",
           wrong="port.wlast.eq(left == 0)",
           test="tests/formal/test_memory.py::test_beats_are_written[data]",
           failure=REFUTED),
    Mutant(name="the writer takes beats that it has no room for",
           file="hw/rtl_gen/memory/writer.py",
           right="nearly_full.eq(waiting >= beats.depth - 2)",
           wrong="nearly_full.eq(0)",
           test="tests/formal/test_memory.py::test_beats_are_written[order]",
           failure=REFUTED),
    Mutant(name="a beat that does not follow is joined to a burst",
           file="hw/rtl_gen/memory/writer.py",
           right="grows & (number == following) & (burst",
           wrong="grows & (burst",
           test="tests/formal/test_memory.py::test_beats_are_written[place]",
           failure=REFUTED),
    Mutant(name="more bursts are unanswered than may be",
           file="hw/rtl_gen/memory/writer.py",
           right="bursts.i.valid.eq(grows & (unanswered != OUTSTANDING)",
           wrong="bursts.i.valid.eq(grows",
           test="tests/formal/test_memory.py::test_beats_are_written[room]",
           failure=REFUTED),
    Mutant(name="a burst that grows is taken for written",
           file="hw/rtl_gen/memory/writer.py",
           right="self.writing.eq(here | grows | (",
           wrong="self.writing.eq(here | (",
           test="tests/formal/test_memory.py::test_beats_are_written[writing]",
           failure=REFUTED),
    Mutant(name="a queue in memory takes one too many",
           file="hw/rtl_gen/common/queue.py",
           right="self.i.ready.eq(count != self.depth)",
           wrong="self.i.ready.eq(count != self.depth + 1)",
           test="tests/formal/test_queues.py::test_a_queue_keeps_the_order[queue_in_ram]",
           failure=REFUTED),
    Mutant(name="a skid buffer keeps what comes while it is full",
           file="hw/rtl_gen/common/skid.py",
           right="with m.If(~full):", wrong="with m.If(1):",
           test="tests/formal/test_queues.py::test_a_queue_keeps_the_order[skid]",
           failure=REFUTED),
    Mutant(name="the packer loses the last beat of a row",
           file="sw/heddle/pack/patterns.py",
           right="padded[:given, :inputs] = weights",
           wrong="padded[:given, :inputs - 1 - (inputs - 1) % width] "
                 "= weights[:, :inputs - 1 - (inputs - 1) % width]",
           test="tests/sw/test_pack.py::test_k_outer_streams_come_back"),
    Mutant(name="the compiler leaves out waits",
           file="sw/heddle/program.py",
           right='bits[sink]["wait"] |= 1 << counter', wrong='bits[sink]["wait"] |= 0',
           test="tests/sw/test_compile.py::test_one_wait_serves_all_that_come_before",
           failure="^E .*Race: instruction . .* conflicts around scratch"),
]


def run(test: str, package: pathlib.Path) -> tuple[int, str]:
    """(pytest's exit status, its report) of one test, with ``package`` before the installed one."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("PYTEST_")} | {"PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short",
         "-o", f"cache_dir={package.parent / 'cache'}", test],
        cwd=ROOT, env=environment, timeout=LIMIT, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def copy(file: str, folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A copy of the package that holds ``file``, and the file in it."""
    side, name, *inside = pathlib.PurePath(file).parts
    package = folder / name
    shutil.copytree(ROOT / side / name, package, ignore=shutil.ignore_patterns("__pycache__"))
    return package, package.joinpath(*inside)


@pytest.mark.cosim
@pytest.mark.parametrize("mutant", [
    pytest.param(mutant, id=mutant.name, marks=[pytest.mark.formal] * (mutant.failure == REFUTED))
    for mutant in MUTANTS])
def test_a_fault_is_found(mutant, tmp_path):
    package, path = copy(mutant.file, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.right) == 1, f"{mutant.file} must have the line to be replaced once"
    path.write_text(text.replace(mutant.right, mutant.wrong), encoding="utf-8")
    status, report = run(mutant.test, package)
    assert status == pytest.ExitCode.TESTS_FAILED, report
    assert re.search(mutant.failure, report, re.M), report


@pytest.mark.parametrize("file", sorted({
    "/".join(mutant.file.split("/")[:2]): mutant for mutant in MUTANTS}))
def test_a_copy_without_a_fault_passes(file, tmp_path):
    """It is the fault that is found, not the copy; and it is the copy that is tested."""
    package, _ = copy(file + "/__init__.py", tmp_path)
    test = next(mutant.test for mutant in MUTANTS if mutant.file.startswith(file))
    status, report = run(test, package)
    assert status == pytest.ExitCode.OK, report
    (package / "__init__.py").write_text("raise RuntimeError('the copy')\n", encoding="utf-8")
    status, report = run(test, package)
    assert status != pytest.ExitCode.OK
    assert "the copy" in report
