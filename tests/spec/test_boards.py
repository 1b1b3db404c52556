# SPDX-License-Identifier: Apache-2.0
"""What `heddle rtl --board` writes beside the Verilog, against the card's ports and registers."""

import dataclasses
import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

from rtl_gen import emit, pins
from rtl_gen.card import Card
from rtl_gen.cli import parse_commit
from rtl_gen.spec import contract, registers
from rtl_gen.spec.config import TINY, U280
from rtl_gen.vitis import board as boards
from rtl_gen.vitis import connectivity, folder, kernel

RING = dataclasses.replace(U280, cards=4)
MODULES = ["heddle_top", "heddle_other"]
CASES = [("u280", TINY), ("u280", U280), ("u280", RING), ("u55c", U280)]

cases = pytest.mark.parametrize(("name", "config"), CASES,
                                ids=[f"{name} {config.name}*{config.cards}"
                                     for name, config in CASES])


def written(name, config, commit=0x1234ABCD):
    return folder.texts(config, boards.find(name), MODULES, commit=commit)


def ports(config):
    """Bits and direction of the card's pins, by name."""
    return {name: (direction, bits) for name, direction, bits in pins.pins(Card(config, commit=0))}


def read(text):
    """Ports and arguments of a kernel.xml."""
    found = ElementTree.fromstring(text).find("kernel")
    return found, list(found.find("ports")), list(found.find("args"))


def settings(text, key):
    return re.findall(rf"^{key}=(.*)$", text, re.M)


# ---- kernel.xml. ----

@cases
def test_every_pin_belongs_to_a_port_of_kernel_xml_with_its_width(name, config):
    found, listed, _ = read(written(name, config)["kernel.xml"])
    assert found.attrib | {"name": ""} == {
        "name": "", "language": "ip", "attributes": "", "preferredWorkGroupSizeMultiple": "0",
        "vlnv": f"heddle:kernel:heddle_{config.name}:1.0", "workGroupSize": "1",
        "interrupt": "true", "hwControlProtocol": "ap_ctrl_hs"}
    wanted = ports(config)
    known = {"ap_clk", "ap_rst_n", "interrupt"}
    for port in listed:
        name, mode, width = port.get("name"), port.get("mode"), int(port.get("dataWidth"))
        own = {pin for pin in wanted if pin.startswith(f"{name}_")}
        known |= own
        if port.get("portType") == "stream":
            flow = {"write_only": "output", "read_only": "input"}[mode]
            assert wanted[f"{name}_tdata"] == (flow, width)
            assert wanted[f"{name}_tkeep"] == (flow, width // 8)
            assert wanted[f"{name}_tlast"] == wanted[f"{name}_tvalid"] == (flow, 1)
        elif mode == "slave":
            assert wanted[f"{name}_wdata"] == ("input", width)
            assert int(port.get("range"), 0) == 1 << wanted[f"{name}_awaddr"][1]
        else:
            assert mode == "master"
            assert wanted[f"{name}_wdata"] == ("output", width)
            assert wanted[f"{name}_araddr"] == wanted[f"{name}_awaddr"] == ("output", 64)
    assert known == set(wanted)


@cases
def test_arguments_are_the_registers(name, config):
    _, listed, args = read(written(name, config)["kernel.xml"])
    assert [arg.get("id") for arg in args] == [str(number) for number in range(len(args))]
    modes = {port.get("name"): port.get("mode") for port in listed}
    end = registers.FIRST_BUFFER + config.channels
    for number, (arg, (argument, offset, size)) in enumerate(zip(
            args, registers.arguments(config.channels), strict=False)):
        assert (arg.get("name"), int(arg.get("offset"), 0), int(arg.get("size"), 0)) == (
            argument, offset, size)
        if number < registers.FIRST_BUFFER:
            assert (arg.get("addressQualifier"), arg.get("port"), arg.get("type")) == (
                "0", "s_axi_control", "uint")
            assert offset == registers.CONTROL[argument]
        else:
            channel = number - registers.FIRST_BUFFER
            assert offset == registers.CHANNEL_BASE + 8 * channel
            assert (arg.get("addressQualifier"), arg.get("port")) == (
                "1", f"m_axi_hbm{channel:02}")
            assert modes[arg.get("port")] == "master"
    streams = args[end:]
    assert len(streams) == (4 if config.cards > 1 else 0)
    assert all(arg.get("addressQualifier") == "4" and modes[arg.get("port")].endswith("_only")
               for arg in streams)


# ---- connectivity.cfg. ----

@cases
def test_every_port_has_a_bank_of_its_own(name, config):
    board = boards.find(name)
    text = connectivity.text(config, board)
    unit = f"heddle_{config.name}_1"
    assert settings(text, "platform") == [board.platform]
    assert settings(text, "kernel_frequency") == [f"0:{config.clock_mhz}"]
    assert settings(text, "nk")[0] == f"heddle_{config.name}:1:{unit}"
    found = dict(re.fullmatch(rf"{unit}\.(\w+):HBM\[(\d+)\]", value).groups()
                 for value in settings(text, "sp"))
    assert list(found) == kernel.masters(config)
    assert len(set(found.values())) == config.channels
    assert all(0 <= int(bank) < board.banks for bank in found.values())
    # Options of v++ stand before the first section.
    assert text.index("platform=") < text.index("kernel_frequency=") < text.index("[connectivity]")


def test_links_are_wired_both_ways():
    text = connectivity.text(RING, boards.find("u280"))
    assert settings(text, "stream_connect") == [
        "heddle_u280_1.m_axis_previous:aurora_flow_0.tx_axis",
        "aurora_flow_0.rx_axis:heddle_u280_1.s_axis_previous",
        "heddle_u280_1.m_axis_next:aurora_flow_1.tx_axis",
        "aurora_flow_1.rx_axis:heddle_u280_1.s_axis_next"]
    assert settings(text, "nk")[1:] == ["aurora_flow_0:1:aurora_flow_0",
                                        "aurora_flow_1:1:aurora_flow_1"]
    assert settings(text, "slr") == ["aurora_flow_0:SLR2", "aurora_flow_1:SLR2"]
    assert settings(text, "connect") == [line for k in range(2) for line in (
        f"io_clk_qsfp{k}_refclkb_00:aurora_flow_{k}/gt_refclk_{k}",
        f"aurora_flow_{k}/gt_port:io_gt_qsfp{k}_00",
        f"aurora_flow_{k}/init_clk:ii_level0_wire/ulp_m_aclk_freerun_ref_00")]
    assert "aurora" not in connectivity.text(U280, boards.find("u280"))


# ---- package_kernel.tcl, carried out with stand-ins for Vivado's commands. ----

COMMANDS = [
    "create_project", "add_files", "update_compile_order", "close_project", "set_property",
    "current_fileset", "package_xo", "ipx::package_project", "ipx::unload_core",
    "ipx::edit_ip_in_project", "ipx::current_core", "ipx::get_user_parameters",
    "ipx::remove_user_parameter", "get_property", "ipx::get_bus_interfaces",
    "ipx::infer_bus_interface", "ipx::add_bus_parameter", "ipx::associate_bus_interfaces",
    "ipx::add_memory_map", "ipx::add_address_block", "ipx::add_register",
    "ipx::add_register_parameter", "ipx::create_xgui_files", "ipx::update_checksums",
    "ipx::check_integrity", "ipx::save_core"]


def words(tcl):
    """What was logged, call by call."""
    return [tuple(str(word) for word in tcl.splitlist(call))
            for call in tcl.splitlist(tcl.getvar("log"))]


def packaged(tmp_path, name, config):
    """The calls of Vivado's commands that the script makes, as lists of words."""
    tkinter = pytest.importorskip("tkinter")
    for file, text in written(name, config).items():
        (tmp_path / file).write_text(text)
    tcl = tkinter.Tcl()
    tcl.eval(f"cd {{{tmp_path}}}")
    tcl.eval("namespace eval ipx {}; set log {}")
    for command in COMMANDS:
        # Each answers with a name of what it was asked for.
        tcl.eval(f"proc {command} args {{ lappend ::log [list {command} {{*}}$args]; "
                 f"return {command}:[lindex $args end-[expr {{[llength $args] > 1}}]] }}")
    tcl.eval("proc ipx::get_user_parameters args { return {one two} }")
    tcl.eval("proc ipx::get_bus_interfaces args { foreach a $args { if {![string match -* $a]} "
             "{ return bus:$a } } }")
    tcl.eval("proc ipx::add_register args { lappend ::log [list ipx::add_register {*}$args]; "
             "return register:[lindex $args 1] }")
    tcl.eval("set argv out.xo")
    tcl.eval(f"source {{{tmp_path / 'package_kernel.tcl'}}}")
    return words(tcl)


@cases
def test_the_script_packages_all_ports_registers_and_files(tmp_path, name, config):
    calls = packaged(tmp_path, name, config)
    assert [call[-1] for call in calls if call[0] == "add_files"] == [
        str(tmp_path / f"{module}.v") for module in MODULES]
    _, listed, args = read(written(name, config)["kernel.xml"])
    associated = {call[2]: call[4] for call in calls
                  if call[0] == "ipx::associate_bus_interfaces" and call[1] == "-busif"}
    assert associated == dict.fromkeys([port.get("name") for port in listed], "ap_clk")
    assert ("ipx::associate_bus_interfaces", "-clock", "ap_clk", "-reset", "ap_rst_n") in [
        call[:5] for call in calls]

    values = {}
    for call in calls:
        if call[0] == "set_property" and call[3].startswith("register:"):
            values.setdefault(call[3].removeprefix("register:"), {})[call[1]] = call[2]
    fixed = {name: {"address_offset": f"{offset:#05x}", "size": "32"} for name, offset in (
        ("CTRL", 0), ("GIER", 4), ("IP_IER", 8), ("IP_ISR", 12))}
    assert values == fixed | {arg.get("name"): {
        "address_offset": f"{int(arg.get('offset'), 0):#05x}",
        "size": str(8 * int(arg.get("size"), 0))} for arg in args
        if arg.get("addressQualifier") != "4"}
    buses = [call[2] for call in calls
             if call[0] == "set_property" and call[1] == "value" and "ASSOCIATED_BUSIF" in call[3]]
    assert buses == [arg.get("port") for arg in args if arg.get("addressQualifier") == "1"]
    hertz = [call[2] for call in calls
             if call[0] == "set_property" and call[1] == "value" and "FREQ_HZ" in call[3]]
    assert hertz == [str(config.clock_mhz * 10**6)]
    last = calls[-1]
    assert last == ("package_xo", "-force", "-xo_path", str(tmp_path / "out.xo"), "-kernel_name",
                    f"heddle_{config.name}", "-ip_directory",
                    str(tmp_path / f"_package_heddle_{config.name}" / "ip"), "-kernel_xml",
                    str(tmp_path / "kernel.xml"))
    project = next(call for call in calls if call[0] == "create_project")
    assert project[-1] == boards.find(name).part


@pytest.mark.parametrize("name", boards.boards())
def test_constraints_name_cells_that_there_are(tmp_path, name):
    tkinter = pytest.importorskip("tkinter")
    config, board = U280, boards.find(name)
    text = written(name, config)[board.constraints_name]
    tcl = tkinter.Tcl()
    tcl.eval("set log {}; proc get_cells args { return [file tail [lindex $args end]] }; "
             "proc set_property args { lappend ::log [join $args |] }")
    tcl.eval(text)
    # Those that the card has: see test_cells_that_constraints_name.
    assert list(tcl.splitlist(tcl.getvar("log"))) == [
        f"USER_SLR_ASSIGNMENT|SLR{channel // 16}|channel_{channel}" for channel in range(32)]
    tcl.eval("proc get_cells args {}; proc set_property args { error none }")
    tcl.eval(text)      # none found


def test_cells_that_constraints_name():
    verilog = emit.card(TINY)[f"heddle_{TINY.name}"]
    for channel in range(TINY.channels):
        assert re.search(rf"^  \S*channel_{channel} +channel_{channel} \($", verilog, re.MULTILINE)


# ---- Makefile, README, identity. ----

def steps(tmp_path, name, config, *arguments):
    """What make would run."""
    for file, text in written(name, config).items():
        (tmp_path / file).write_text(text)
    (tmp_path / "files.f").write_text("".join(f"{module}.v\n" for module in MODULES))
    for module in MODULES:
        (tmp_path / f"{module}.v").write_text("")
    done = subprocess.run(["make", "--no-print-directory", "--dry-run", *arguments], cwd=tmp_path,
                          text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, re.sub(r" +\\\n *", " ", done.stdout).splitlines()


@pytest.mark.parametrize("name", boards.boards())
def test_make_packages_links_and_packages_again(tmp_path, name):
    board = boards.find(name)
    status, found = steps(tmp_path, name, U280)
    assert status == 0, found
    vpp = f"v++ --target hw --platform {board.platform} --save-temps"
    assert found == [
        "vivado -mode batch -nojournal -source package_kernel.tcl -tclargs heddle_u280.xo",
        f"{vpp} --link --optimize 3 --config connectivity.cfg --temp_dir _x.link "
        f"--vivado.prop run.impl_1.STEPS.OPT_DESIGN.TCL.PRE={tmp_path}/kernel.xdc "
        "--output heddle_u280.link.xclbin heddle_u280.xo ",
        f"{vpp} --package --temp_dir _x.package --package.out_dir package.hw "
        "--output heddle_u280.xclbin heddle_u280.link.xclbin"]


def test_make_of_a_ring_wants_the_link_kernels(tmp_path):
    status, found = steps(tmp_path, "u280", RING)
    assert status == 2
    assert ("AURORA_FLOW_DIR must be a clone of https://github.com/pc2/AuroraFlow, not AuroraFlow"
            in "\n".join(found))
    clone = tmp_path / "AuroraFlow"
    clone.mkdir()
    (clone / "aurora_flow.mk").write_text(
        "AURORA_FLOW_XOS_HW := a.xo b.xo\n$(AURORA_FLOW_XOS_HW):\n"
        "\tmake links USE_FRAMING=$(USE_FRAMING) FIFO_WIDTH=$(FIFO_WIDTH) PART=$(PART)\n"
        "\techo from $(AURORA_FLOW_DIR) in $(AURORA_FLOW_BUILD_DIR): $(MAKEOVERRIDES)\n")
    status, found = steps(tmp_path, "u280", RING, "TARGET=hw_emu")
    assert status == 2
    assert "a ring must be linked for hardware, not for hw_emu" in "\n".join(found)
    status, found = steps(tmp_path, "u280", RING)
    assert status == 0, found
    assert "make links USE_FRAMING=1 FIFO_WIDTH=64 PART=xcu280-fsvh2892-2L-e" in found
    assert any(line.endswith("heddle_u280.xo a.xo b.xo") for line in found)
    said = [line for line in found if line.startswith("echo")]
    assert all(line.startswith(f"echo from {clone} in {tmp_path}/links: ") for line in said)
    assert said
    assert "AURORA_FLOW_DIR" not in said[0]
    # The links' own make gets no path that is right here only.
    assert steps(tmp_path, "u280", RING, "AURORA_FLOW_DIR=AuroraFlow") == (status, found)


def test_make_for_emulation_has_files_of_its_own(tmp_path):
    status, found = steps(tmp_path, "u280", U280, "TARGET=hw_emu")
    assert status == 0, found
    assert found[-1].endswith(
        "--save-temps --package --temp_dir _x.package.hw_emu --package.out_dir package.hw_emu "
        "--output heddle_u280.hw_emu.xclbin heddle_u280.hw_emu.link.xclbin")
    assert "--temp_dir _x.link.hw_emu " in found[-2]


@cases
def test_nothing_is_left_to_fill_in(name, config):
    for file, text in written(name, config).items():
        assert not re.search(r"@[a-z_]+@", text), file
        assert text.endswith("\n"), file


def test_the_readme_has_the_commands_and_arguments():
    text = written("u280", RING)["README.md"]
    assert "heddle run MODEL --cards 'xrt:u280*4'" in text
    assert "| 2 | `hbm00` | `0x100` | 8 | `m_axi_hbm00` | HBM[0] |" in text
    assert "| 33 | `hbm31` | `0x1f8` | 8 | `m_axi_hbm31` | HBM[31] |" in text
    assert "`io_gt_qsfp1_00`" in text
    assert "AuroraFlow" not in written("u280", U280)["README.md"]


def test_the_readme_names_no_configuration_that_the_host_would_refuse():
    assert "CONFIGURATION" not in written("u280", RING)["README.md"]
    for changed in (dataclasses.replace(U280, top_k=16), dataclasses.replace(U280, name="mine")):
        text = written("u280", changed)["README.md"]
        assert "--cards 'xrt:CONFIGURATION'" in text
        assert "Heddle does not know this configuration" in text


def test_the_identity_is_what_the_card_will_say():
    found = json.loads(written("u280", RING)["identity.json"])
    assert found["contract"] == f"{contract.DIGEST:#010x}"
    assert found["configuration"]["digest"] == f"{RING.digest:#010x}"
    assert (found["configuration"]["cards"], found["commit"], found["kernel"]) == (
        4, "1234abcd", "heddle_u280")


# ---- What has no place. ----

@pytest.mark.parametrize(("name", "changes", "sentence"), [
    ("u280", {"cards": 2, "beat_bytes": 32}, "beat_bytes must be 64 for the links of u280, not 32"),
    ("u55c", {"cards": 2}, "cards must be 1 on u55c, which has no links, not 2"),
    ("u280", {"clock_mhz": 300}, "clock_mhz must be at most 225 on u280, not 300"),
    ("u280", {"channel_bytes": 1 << 29},
     "channel_bytes must be at most 268435456 on u280, not 536870912")])
def test_a_card_that_does_not_fit_is_refused(name, changes, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        written(name, dataclasses.replace(U280, **changes))


def test_boards_are_found_by_name_or_folder(tmp_path):
    assert boards.boards() == ["u280", "u55c"]
    with pytest.raises(ValueError, match=r"^the board must be one of u280, u55c, or a folder with "
                                         r"board\.json, not 'u250'$"):
        boards.find("u250")
    (tmp_path / "board.json").write_text('{"hbm": {}}')
    with pytest.raises(ValueError, match=r"board\.json must describe a board as hw/boards/README"):
        boards.find(str(tmp_path))


def test_commits_are_hexadecimal():
    assert parse_commit("1234abcd5678") == 0x1234ABCD
    for wrong in ("", "1234abc", "HEAD", "0x1234abcd"):
        with pytest.raises(ValueError, match=r"^the commit must be eight hexadecimal digits or"):
            parse_commit(wrong)
