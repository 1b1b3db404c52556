# SPDX-License-Identifier: Apache-2.0
"""The command line: help, one-line errors, exit statuses.  What needs a card is in tests/system."""

import importlib.metadata
import json
import pathlib
import re

import pytest
import typer

import heddle
from heddle import cli
from heddle.card import CardError
from heddle.errors import RunError
from rtl_gen.spec import contract
from tests.sw import models

COMMANDS = ["run", "demo", "eval", "diff", "prune", "compile", "disasm", "cards", "doctor",
            "completion", "rtl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = models.tensors(layers=1, width=64, vocabulary=290, context=8)
    return str(models.write(tmp_path_factory.mktemp("m"), found))


def failure(capsys, *arguments: str, status: int = 2) -> str:
    """The one line that a command fails with."""
    assert cli.run(list(arguments)) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("heddle: ")
    assert err.count("\n") == 1
    return err.removeprefix("heddle: ").strip()


def test_every_command_has_help_with_an_example(capsys):
    assert cli.run(["--help"]) == 0
    listed = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in listed
        assert cli.run([command, "--help"]) == 0
        assert f"Example: heddle {command}" in " ".join(capsys.readouterr().out.split())


def test_wrong_command_lines_are_one_line(capsys, folder, tmp_path):
    for arguments, sentence in {
            ("bogus",): "No such command 'bogus'.",
            ("run",): "Missing argument 'MODEL'.",
            ("run", folder, "--bogus"): "No such option: --bogus",
            ("run", folder): "one of --prompt and --prompt-file must be given, not none",
            ("run", folder, "--prompt", "a", "--prompt-file", "b"):
                "one of --prompt and --prompt-file must be given, not both",
            ("run", folder, "--prompt-file", f"{tmp_path}/no"):
                f"{tmp_path}/no cannot be read: No such file or directory",
            ("run", folder, "--prompt", "a", "--temperature", "-1"):
                "temperature must be 0 or more, not -1.0",
            ("run", folder, "--prompt", "a", "--cards", "sim"):
                "cards must be given as backend:config*count, as in sim:tiny*2, not 'sim'",
            ("run", folder, "--prompt", "a", "--cards", "sim:huge"):
                "configuration must be one of tiny, small, u280, ulx3s, not 'huge'",
            ("run", folder, "--prompt", "a", "--cards", "sim:tiny*2"):
                "a ring must have no more cards than the model has heads: this one has 1 "
                "head, not 2",
            ("run", folder, "--prompt", "a", "--pattern", "9:4"):
                "N of an N:M pattern must be in 0..4, not 9",
            ("run", folder, "--prompt", "a", "--context", "9"):
                "context must be at most the model's 8, not 9",
            ("run", str(tmp_path), "--prompt", "a"): f"{tmp_path}/config.json is missing",
            ("eval", folder, "--text", f"{tmp_path}/no"):
                f"{tmp_path}/no cannot be read: No such file or directory",
            ("compile", folder, "--candidates", "65"):
                "candidates must be in 0..64 on tiny, not 65",
            ("prune", folder, "--pattern", "dense", "-o", f"{tmp_path}/out"):
                "pattern must be N:M as in 2:4, not dense",
            ("completion", "tcsh"): "shell must be one of bash, zsh, fish, not 'tcsh'",
            ("disasm", f"{tmp_path}/no"):
                f"{tmp_path}/no cannot be read: No such file or directory",
    }.items():
        assert failure(capsys, *arguments) == sentence


def test_text_must_be_utf8(capsys, folder, tmp_path):
    path = tmp_path / "latin"
    path.write_bytes("naïve".encode("latin-1"))
    assert failure(capsys, "eval", folder, "--text", str(path)) == (
        f"{path} must be UTF-8, but byte 2 is not")


@pytest.mark.parametrize(("error", "status", "line"), [
    (RunError("no\n  number"), 1, "no number"),
    (CardError("the card is gone"), 1, "the card is gone"),
    (MemoryError(), 1, "the model needs more memory than there is"),
    (PermissionError(13, "Permission denied", "x"), 2, "x: Permission denied")])
def test_errors_have_their_status(capsys, monkeypatch, error, status, line):
    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr(cli.pruning, "prune_folder", fails)
    assert failure(capsys, "prune", "m", "--pattern", "2:4", "-o", "out", status=status) == line


def test_interrupts_and_closed_pipes_are_quiet(capsys, monkeypatch):
    for error, status in ((KeyboardInterrupt, 130), (typer.Abort, 130)):
        def fails(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr(cli.pruning, "prune_folder", fails)
        assert cli.run(["prune", "m", "--pattern", "2:4", "-o", "out"]) == status
        assert "Traceback" not in capsys.readouterr().err


def test_prune_with_a_text(capsys, folder, tmp_path):
    text = tmp_path / "text"
    text.write_text("To be, or not to be, that is the question. " * 4)
    options = ("--pattern", "2:4", "--text", str(text), "--samples", "3")
    made = [tmp_path / name for name in ("a", "b", "c")]
    for output, seed in zip(made, "001", strict=True):
        assert cli.run(["prune", folder, *options, "--method", "sparsegpt", "--seed", seed,
                        "-o", str(output)]) == 0
    first, again, other = ((output / "model.safetensors").read_bytes() for output in made)
    assert first == again != other
    capsys.readouterr()
    assert failure(capsys, "prune", folder, *options, "-o", f"{tmp_path}/d") == (
        "--text must be left out: magnitude reads none")
    assert failure(capsys, "prune", folder, *options[:2], "--method", "wanda", "-o",
                   f"{tmp_path}/d") == (
        "wanda needs a calibration text, or choose magnitude, which needs none")
    assert failure(capsys, "prune", folder, *options, "--method", "obs", "-o",
                   f"{tmp_path}/d") == (
        "method must be one of magnitude, wanda, sparsegpt, not 'obs'")


def test_compile_prune_and_disasm(capsys, folder, tmp_path):
    pruned, program = tmp_path / "pruned", tmp_path / "program"
    assert cli.run(["prune", folder, "--pattern", "2:8", "-o", str(pruned)]) == 0
    assert cli.run(["compile", str(pruned), "--cards", "sim:u280", "-o", str(program),
                    "--json", str(tmp_path / "c.json")]) == 0
    out = capsys.readouterr().out
    assert "no races" in out
    found = json.loads((tmp_path / "c.json").read_text())
    assert found == json.loads((program / "layout.json").read_text())
    assert (found["pattern"], found["config"], found["context"]) == ("2:8", "u280", 8)
    assert cli.run(["disasm", str(program / "program.bin")]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == found["instructions"]
    assert listed[-1].split() == [str(found["instructions"] - 1), "HALT"]
    written = (program / "program.txt").read_text().splitlines()
    assert [line for line in written if not line.startswith("#")] == listed
    (program / "program.bin").write_bytes(b"\xff" * 32)
    assert cli.run(["disasm", str(program / "program.bin")]) == 0
    assert "is no instruction" in capsys.readouterr().out


def test_cards_are_listed(capsys, tmp_path):
    assert cli.run(["cards", "--json", str(tmp_path / "c.json")]) == 0
    assert "sim" in capsys.readouterr().out
    found = json.loads((tmp_path / "c.json").read_text())
    assert "sim" in found["backends"]
    assert found["configs"]["u280"]["channels"] == 32


def test_a_file_that_cannot_be_written(capsys, folder, tmp_path):
    target = str(tmp_path / "none" / "c.json")
    assert cli.run(["compile", folder, "--json", target]) == 2
    assert capsys.readouterr().err == (
        f"heddle: {target} cannot be written: No such file or directory\n")


def test_the_version_names_the_contract(capsys):
    version = importlib.metadata.version("heddle-fpga")
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"heddle {version}, contract {contract.DIGEST:08x}\n"
    assert heddle.__version__ == version


def test_the_name_alone_says_what_there_is(capsys):
    assert cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: heddle [OPTIONS] COMMAND")
    assert cli.run([]) == 0
    assert capsys.readouterr() == (text, "")


def test_tools_of_other_parts(capsys, tmp_path):
    assert cli.run(["rtl", "--unit", "nothing", "-o", str(tmp_path)]) == 2
    assert "nothing" in capsys.readouterr().err


def test_the_page_names_every_command_and_option(capsys):
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text("utf-8")
    for command in COMMANDS:
        assert f"heddle {command}" in page
        if command == "rtl":
            continue        # its options are on a page of their own
        assert cli.run([command, "--help"]) == 0
        for option in re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out):
            assert option in page or option == "--help", f"{command} {option}"
