# SPDX-License-Identifier: Apache-2.0
"""Real cards' driver on the double of pyxrt: what `heddle rtl --board` wrote, Verilated."""

import contextlib
import json
import re
import sys
import sysconfig

import pytest

import heddle
from cardsim.functional import FunctionalCard
from heddle import cli
from heddle.card import CardError, CardStopped, CardTimeout, Reserves, open_cards
from heddle.doctor import boards
from heddle.xrt import card as xrt_card
from heddle.xrt import start as xrt_start
from rtl_gen.spec import contract, isa
from rtl_gen.spec.config import TINY
from tests import programs
from tests.doubles import fixtures
from tests.doubles import machine as machines
from tests.doubles.fixtures import COMMIT, MODEL

pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("xrt tiny")]

BEAT, CHANNEL = TINY.beat_bytes, TINY.channel_bytes
HALT = isa.encode("HALT")
BDF = "0000:3b:00.1"
BOARD = f"{BDF} (xilinx_u280_gen3x16_xdma_base_1)"


@pytest.fixture(scope="module")
def xclbin(tmp_path_factory):
    return fixtures.build(tmp_path_factory.mktemp("xclbin"), "--board", "u280", "--no-dsp48")


machine = pytest.fixture(fixtures.machine)


@pytest.fixture
def card(machine, xclbin):
    opened, = open_cards("xrt:tiny", xclbin=xclbin)
    yield opened
    opened.close()


def refused(**options):
    """The sentence that opening a card fails with."""
    with pytest.raises(CardError) as caught:
        open_cards(options.pop("cards", "xrt:tiny"), **options)
    return str(caught.value)


def run_words(card, words, timeout=600.0):
    """Run instructions as a command; the status."""
    case = programs.Case(TINY, "words", words, [], {}, [], [], [])
    for address, data in case.command():
        card.write(address, data)
    return card.run(programs.RECORD * BEAT, timeout)


# ---- What works. ----

def test_the_demo_model_writes_the_functional_cards_text(machine, xclbin):
    found = {}
    for cards, options in (("sim:tiny", {}), ("xrt:tiny", {"xclbin": xclbin})):
        with heddle.load(MODEL, cards=cards, **options) as model:
            made = model.generate("ROMEO.\n", max_new_tokens=16)
            found[cards] = made.token_ids, made.text
    assert len(found["sim:tiny"][0]) == 16
    assert found["xrt:tiny"] == found["sim:tiny"]


def test_random_programs_give_the_functional_cards_memory(card):
    sim = FunctionalCard(TINY)
    for number in range(6):
        case = programs.random_case(TINY, f"xrt {number}")
        assert case.run(card) == case.run(sim), case.name


def test_illegal_words_are_errors_of_the_card(card):
    sim = FunctionalCard(TINY)
    for number in range(4):
        case, expected = programs.illegal_case(TINY, f"xrt {number}")
        assert expected.error
        assert case.run(card) == case.run(sim)
    with pytest.raises(CardStopped, match=r"^the card stopped at instruction 1 \(ILLEGAL_OPCODE\)"):
        run_words(card, [isa.encode("NOP"), 0xFE])


def test_the_card_says_what_it_is_and_keeps_program_and_memory(card):
    run_words(card, [isa.encode("NOP"), HALT])
    kept = card.read(0, 4096)
    for _ in range(3):
        found = card.identity()
        assert (found.contract, found.configuration, found.commit) == (
            contract.DIGEST, TINY.digest, COMMIT)
        assert found.board == "xilinx_u280_gen3x16_xdma_base_1"
    assert card.read(0, 4096) == kept
    # The program is still there: a record that loads none runs it.
    case = programs.Case(TINY, "words", [0, 0], [], {}, [], [], [])
    record = bytearray(case.command()[-1][1])
    record[4:8] = bytes(4)
    card.write(programs.RECORD * BEAT, record)
    assert card.run(programs.RECORD * BEAT, 60)["instructions"] == 2


def test_bytes_anywhere_come_back(card):
    card.write(2 * CHANNEL - 5, bytes(range(11)))
    assert card.read(2 * CHANNEL - 6, 13)[1:12] == bytes(range(11))
    assert card.read(2 * CHANNEL, 6) == bytes(range(5, 11))
    assert card.read(5, 0) == b""
    with pytest.raises(ValueError, match="addresses of the card must be below 0x40000000"):
        card.read(4 * CHANNEL - 1, 2)


def test_memory_is_what_was_reserved(card, xclbin):
    board = machines.here.boards[0]

    def sizes():
        return [held for _, held in sorted(board.buffers.items()) if held]

    assert isinstance(card, Reserves)
    assert sizes() == []
    card.write(100, b"of a whole channel")
    assert sizes() == [[(0, CHANNEL)]] * 4
    with pytest.raises(CardError, match=r"^memory must be reserved before it is used$"):
        card.reserve(70_000)
    card.close()
    assert sizes() == []
    opened, = open_cards("xrt:tiny", xclbin=xclbin)
    opened.reserve(70_000)
    assert sizes() == [[(12288, 73728)]] * 4
    opened.write(3 * CHANNEL + 73_727, b"!")
    with pytest.raises(CardError, match=r"^addresses in a channel must be below 0x12000, which was "
                                        r"reserved, not 0x12000$"):
        opened.write(3 * CHANNEL + 73_727, b"!!")
    opened.close()


def test_the_command_line_finds_the_bitstream_in_the_environment(machine, xclbin, monkeypatch,
                                                                 capsys):
    monkeypatch.setenv("HEDDLE_XCLBIN", str(xclbin))
    monkeypatch.setenv("HEDDLE_XRT_DEVICES", BDF)
    assert cli.run(["run", str(MODEL), "--cards", "xrt:tiny", "--prompt", "ROMEO.\n",
                    "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.strip()
    check, = (check for check in boards() if check.name == "card xrt")
    assert re.fullmatch(r"xilinx_u280_gen3x16_xdma_base_1, contract [0-9a-f]{8}, commit 1234abcd",
                        check.attempt())


def test_a_bench_takes_what_it_needs_and_compares(machine, xclbin, monkeypatch, tmp_path):
    monkeypatch.setenv("HEDDLE_XCLBIN", str(xclbin))
    sizes, allocate = set(), machines.Board.allocate
    monkeypatch.setattr(machines.Board, "allocate", lambda board, bank, size: (
        sizes.add(size), allocate(board, bank, size))[1])
    output = tmp_path / "bench.json"
    assert cli.run(["bench", "--cards", "xrt:tiny", "--shape", "1:64:290", "--context", "4",
                    "--json", str(output)]) == 0
    found = json.loads(output.read_text())
    assert found["equal_to_sim"] is True
    assert found["commit"]
    assert found["cycles_total"] > 1000
    assert max(sizes) < CHANNEL // 8


# ---- The double: what the files say is what happens. ----

@pytest.mark.parametrize(("old", "new"), [
    ('offset="0x10"', 'offset="0x18"'),         # the command's address, low
    ('offset="0x100"', 'offset="0x108"'),       # channel 0 over channel 1
    ('offset="0x118"', 'offset="0x120"'),       # channel 3 where no register is
    ('id="3" port="m_axi_hbm01"', 'id="3" port="m_axi_hbm02"'),
    ('name="command_low" addressQualifier="0"', 'name="command_low" addressQualifier="1"'),
], ids=["command low", "channel 0", "channel 3", "another port", "a buffer"])
def test_a_wrong_kernel_xml_does_not_pass(machine, xclbin, tmp_path, old, new):
    assert moved(xclbin) == GOOD
    wrong = fixtures.edited(xclbin, tmp_path / "wrong.xclbin", "kernel.xml", (old, new))
    assert moved(wrong) != GOOD


#: Bytes of every channel that a program moves.
GOOD = [bytes([channel + 1]) * 32 for channel in range(4)]


def moved(xclbin):
    """What a program that copies memory makes of :data:`GOOD`, or the error."""
    words = [isa.encode("LOAD", address=programs.DATA, rows=1, words=8, signal=1),
             isa.encode("STORE", address=programs.OUT, words=8, wait=1), HALT]
    try:
        opened, = open_cards("xrt:tiny", xclbin=xclbin)
        with contextlib.closing(opened):
            for channel, data in enumerate(GOOD):
                opened.write(channel * CHANNEL + programs.DATA * BEAT, data)
            run_words(opened, words)
            return [opened.read(channel * CHANNEL + programs.OUT * BEAT, 32)
                    for channel in range(4)]
    except (CardError, RuntimeError, TypeError, AssertionError) as error:
        return error


@pytest.mark.slow
def test_multipliers_of_the_board_and_addresses_above_4_gib(machine, tmp_path):
    """As `heddle rtl --board` has it without further words; the command's address has all bits
    that pyxrt's scalars make difficult."""
    plain = fixtures.build(tmp_path, "--board", "u280")
    assert " DSP48E2 " in (tmp_path / "tiny" / "heddle_lane.v").read_text()
    far = fixtures.edited(plain, tmp_path / "far.xclbin", "connectivity.cfg", *(
        (f"HBM[{channel}]", f"HBM[{bank}]") for channel, bank in enumerate((25, 31, 8, 17))))
    assert moved(far) == GOOD
    address = next(entry[2] for entry in machines.here.log if entry[0] == "command")
    assert address >> 31 == 0b11
    case = programs.random_case(TINY, "far")
    opened, = open_cards("xrt:tiny", xclbin=far)
    with contextlib.closing(opened):
        assert case.run(opened) == case.run(FunctionalCard(TINY))
    for old, new in (("0x14", "0x1c"), ("0x10", "0x18")):
        wrong = fixtures.edited(far, tmp_path / f"{new}.xclbin", "kernel.xml",
                                (f'offset="{old}"', f'offset="{new}"'))
        assert moved(wrong) != GOOD


def test_buffers_have_two_sides_and_a_bank(card):
    import pyxrt
    device = pyxrt.device(0)
    buffer = pyxrt.bo(device, 64, pyxrt.bo.normal, 2)
    to, back = pyxrt.xclBOSyncDirection
    buffer.write(b"x" * 64, 0)
    buffer.sync(back, 32, 32)       # what the board has was never written
    assert buffer.read(64, 0).tobytes() == b"x" * 32 + bytes(32)
    buffer.sync(to, 16, 0)
    buffer.sync(back, 64, 0)
    assert buffer.read(64, 0).tobytes() == b"x" * 16 + bytes(48)
    run = pyxrt.run(card._device._kernel)
    with pytest.raises(RuntimeError, match="connected to bank 3, and the buffer is in bank 2"):
        run.set_arg(5, buffer)
    with pytest.raises(TypeError):
        run.set_arg(0, 1 << 31)
    run.set_arg(0, -1 << 31)
    with pytest.raises(RuntimeError, match="past the buffer's 64"):
        buffer.sync(to, 64, 1)


# ---- What goes wrong, in whole sentences. ----

def test_without_xrt(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyxrt", None)
    assert refused(xclbin="/nowhere") == (
        "pyxrt must be importable for cards of the kind xrt: install XRT and run `source "
        "/opt/xilinx/xrt/setup.sh` in this shell (import of pyxrt halted; None in sys.modules)")


def test_with_the_pyxrt_of_another_python(monkeypatch, tmp_path):
    """As a system's XRT is to an environment with a newer Python."""
    monkeypatch.setitem(sys.modules, "pyxrt", None)
    monkeypatch.setenv("XILINX_XRT", str(tmp_path))
    file = tmp_path / "python" / "pyxrt.cpython-310-x86_64-linux-gnu.so"
    file.parent.mkdir()
    file.touch()
    mine = sysconfig.get_config_var("EXT_SUFFIX")
    assert refused(xclbin="/nowhere") == (
        f"pyxrt must be compiled for this Python ({mine}), not for another ({file}): use that "
        "Python, or compile pyxrt again as Heddle's page on boards says")
    file.rename(file.with_name(f"pyxrt{mine}"))
    assert refused(xclbin="/nowhere").startswith("pyxrt must be importable")


def test_without_a_bitstream(machine, xclbin, tmp_path):
    assert refused() == (
        "the bitstream must be given: set HEDDLE_XCLBIN to its xclbin file, which `heddle rtl "
        "--board` and make build")
    assert refused(xclbin="/nowhere") == (
        "the bitstream must be an xclbin file, not '/nowhere', where there is none")
    bad = tmp_path / "bad.xclbin"
    bad.write_text("no archive")
    assert refused(xclbin=bad) == (
        f"the bitstream {bad} must be an xclbin that XRT can read: Invalid xclbin")


def test_without_the_board(machine, xclbin):
    for board, which in ((3, "index '3'"), ("0000:99:00.1", "BDF '0000:99:00.1'")):
        assert refused(xclbin=xclbin, devices=[board]) == (
            f"device {board} must be a board that XRT can open, as listed by `xrt-smi examine`: "
            f"could not open device with {which}")
    assert refused(xclbin=xclbin, devices=[0, 1]) == (
        "there must be one board for one card, not 0, 1")
    assert refused(xclbin=xclbin, devices=[0, 0], cards="xrt:tiny*2") == (
        "the boards must be 2 different ones for this ring, not 0, 0")


def test_options_of_simulated_cards(machine, xclbin):
    with pytest.raises(ValueError, match=r"^clock_mhz must be left out on real cards$"):
        open_cards("xrt:tiny", xclbin=xclbin, clock_mhz=200)


def test_another_kernel(machine, xclbin):
    assert refused(xclbin=xclbin, cards="xrt:small") == (
        f"the bitstream {xclbin} must have the kernel heddle_small, not heddle_tiny: name the "
        "configuration that it was built from, or build another with `heddle rtl --board`")


def test_another_shell(machine, xclbin):
    machine(shell="xilinx_u55c_gen3x16_xdma_base_3")
    assert refused(xclbin=xclbin) == (
        f"board {BDF} (xilinx_u55c_gen3x16_xdma_base_3) must have the shell that {xclbin} was "
        "linked for, xilinx_u280_gen3x16_xdma_1_202211_1, and be free: failed to load xclbin: "
        "Invalid argument")


def test_another_configuration_or_contract(machine, xclbin, monkeypatch):
    """One that the kernel's name does not tell."""
    assert refused(xclbin=xclbin, cards="xrt:tiny*2", devices=[0, BDF]).startswith("the kernel")
    other = heddle.card.CardSpec
    monkeypatch.setattr(heddle.card, "CardSpec", lambda **kept: other(**kept | {
        "config": changed(kept["config"])}))
    assert refused(xclbin=xclbin) == (
        f"the card's configuration must be 'tiny' ({changed(TINY).digest:#010x}), not "
        f"{TINY.digest:#010x}")
    monkeypatch.setattr(contract, "DIGEST", 7)
    assert refused(xclbin=xclbin) == (
        "the card's contract must be 0x00000007, not 0xbab6e99b: build the card and install "
        "heddle from one version (card commit 1234abcd)")


def changed(config):
    return heddle.card.dataclasses.replace(config, context=1024)


def test_a_board_that_is_in_use(card, xclbin):
    assert refused(xclbin=xclbin) == (
        f"the kernel heddle_tiny on board {BOARD} must be free for this process: failed to open "
        "cu context: Device or resource busy")
    card.close()
    card.close()
    again, = open_cards("xrt:tiny", xclbin=xclbin)
    again.close()
    with pytest.raises(CardError, match=f"^the card on {re.escape(BOARD)} is closed; open it "
                                        "again$"):
        card.read(0, 4)


def test_memory_that_is_not_there(card):
    board = machines.here.boards[0]
    board.allocate(2, CHANNEL - 8 * 4096)
    with pytest.raises(CardError) as caught:
        card.write(0, bytes(8192))
    assert str(caught.value) == (
        f"channel 2 must find {CHANNEL} bytes free in its bank of board {BOARD} and on the host: "
        "[XRT] ERROR: failed to allocate buffer object: Cannot allocate memory")


ENDLESS = [isa.encode("ADDI", rd=8, imm=2), isa.encode("LOOP", rd=8), HALT]


def rounds(count):
    return [isa.encode("ADDI", rd=8, imm=count), isa.encode("LOOP", rd=8, target=1), HALT]


def test_a_command_that_takes_too_long(card, monkeypatch):
    with pytest.raises(CardTimeout) as caught:
        run_words(card, ENDLESS, 0.1)
    assert str(caught.value) == f"the command on {BOARD} must end within 0.1 s, and has not"
    with pytest.raises(CardError) as caught:
        run_words(card, [HALT])
    assert str(caught.value) == (
        f"the card on {BOARD} must be reset: its last command has not ended")
    monkeypatch.setattr(xrt_card, "RESET_SECONDS", 0.1)
    with pytest.raises(CardError) as caught:
        card.reset()
    assert str(caught.value) == (
        f"the card on {BOARD} must end its command before it can be reset, and has not: close it "
        f"and run `xrt-smi reset --device {BDF}`")


def test_a_command_that_takes_long_ends_and_a_reset_waits_for_it(card):
    with pytest.raises(CardTimeout):
        run_words(card, rounds(20_000), 0.05)
    card.reset()
    assert run_words(card, [HALT]).error == 0
    card.reset()
    assert run_words(card, [HALT]).error == 0


def test_an_interrupted_command_is_waited_for(card):
    machines.here.raises["wait"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_words(card, rounds(20_000))
    with pytest.raises(CardError, match=r"must be reset: its last command has not ended$"):
        run_words(card, [HALT])
    assert not machines.here.boards[0].read(machines.CTRL) & 4      # it is still at work
    card.reset()
    assert machines.here.boards[0].read(machines.CTRL) & 4
    assert run_words(card, [HALT]).error == 0


def test_a_card_that_is_interrupted_before_its_ring_starts_is_not_started(monkeypatch):
    calls = []

    class Run:
        def __init__(self, name):
            self.start = lambda: calls.append(name)

    def interrupted(*given):
        raise KeyboardInterrupt

    meeting = xrt_start.Start(2)
    with monkeypatch.context() as patch:
        patch.setattr(meeting._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            meeting.begin(0, Run("first"), lambda: calls.append("first begins"))
    monkeypatch.setattr(xrt_start, "PATIENCE", 0.05)
    meeting.begin(1, Run("second"), lambda: calls.append("second begins"))
    assert calls == ["second begins", "second"]


def test_memory_is_put_right_when_a_question_ends_late(card):
    run_words(card, [HALT])
    kept = card.read(0, 4096)
    machines.here.raises["wait"] = RuntimeError("interrupted system call")
    with pytest.raises(CardError, match="must be one that XRT can wait for: interrupted system "):
        card.identity()
    card.reset()
    assert card.read(0, 4096) == kept
    assert card.identity().contract == contract.DIGEST


def test_memory_that_a_command_may_still_write_to_is_not_given_away(card, monkeypatch):
    monkeypatch.setattr(xrt_card, "CLOSE_SECONDS", 0.05)
    monkeypatch.setattr(xrt_card, "_left", [])
    board = machines.here.boards[0]
    with pytest.raises(CardTimeout):
        run_words(card, ENDLESS, 0.1)
    card.close()
    assert all(board.buffers[bank] for bank in range(4))
    xrt_card._left.clear()
    assert not any(board.buffers.values())


@pytest.mark.parametrize(("call", "sentence"), [
    ("run", f"a run of the kernel on {BOARD} must be one that XRT can prepare: no more of them"),
    ("set_arg", f"a run of the kernel on {BOARD} must be one that XRT can prepare: no more of "
                "them"),
    ("start", "the kernel could not be started: no more of them"),
    ("wait", f"the kernel's run on {BOARD} must be one that XRT can wait for: no more of them"),
    ("read", f"channel 0 of board {BOARD} could not be read from: no more of them"),
])
def test_calls_that_fail(card, call, sentence):
    run_words(card, [HALT])
    machines.here.raises[call] = RuntimeError("no more of\nthem")
    with pytest.raises(CardError) as caught:
        card.run(programs.RECORD * BEAT, 60)
    assert " ".join(str(caught.value).split()) == sentence
    card.reset()
    assert run_words(card, [HALT]).error == 0


@pytest.mark.parametrize("state", ["ERROR", "ABORT", "NORESPONSE", "TIMEOUT"])
def test_a_run_that_xrt_gives_up(card, state):
    machines.here.outcome = state
    with pytest.raises(CardError) as caught:
        run_words(card, [HALT])
    assert str(caught.value) == (
        f"the kernel's run on {BOARD} must end as COMPLETED, not as {state}: look for errors with "
        "`xrt-smi examine` and `dmesg`")
    machines.here.outcome = None
    assert run_words(card, [HALT]).error == 0


def test_a_record_that_is_refused(card):
    run_words(card, [HALT])
    card.write(programs.RECORD * BEAT, b"nonsense")
    with pytest.raises(CardError) as caught:
        card.run(programs.RECORD * BEAT, 60)
    assert str(caught.value) == (
        f"the card on {BOARD} must write a status record that begins with 0x534c4448, not "
        "0x00000000: it refused the command record (BAD_COMMAND) or could not read it")
    assert run_words(card, [HALT]).error == 0
