# SPDX-License-Identifier: Apache-2.0
"""``heddle rtl`` refuses what cannot be built: one sentence that names it, and exit status 2."""

import re

import pytest

from heddle import cli as heddle
from rtl_gen import cli, units
from rtl_gen.spec.config import TINY

#: Settings that no unit may accept, with a part of what is said.
WRONG = {
    **{(unit, f"{name}={value}"): f"{name} must be "
       for unit, entry in units.UNITS.items() for name in entry.parameters or ()
       for value in ("0", "-1", "many")},
    **{(unit, "lanes=3"): "lanes must be a power of two, not 3"
       for unit in ("softmax", "quantise", "layernorm")},
    **{(unit, "channels=3"): "channels must be a power of two in 1..32, not 3"
       for unit, entry in units.UNITS.items() if entry.parameters is None},
    ("softmax", "words=3"): "words must be a power of two from 2 up, not 3",
    ("reader", "beat_bytes=48"): "beat_bytes must be a power of two in 1..128, not 48",
    ("reader", "burst=128"): "burst must be a power of two in 1..64, not 128",
    ("vector", "vector_lanes=8"): "vector_lanes must equal channels (4), not 8",
    ("card", "name=a/b"): "name must consist of letters, digits and _, not 'a/b'",
    ("softmax", "lines=4"): "softmax has the parameters lanes, words, tokens, not lines",
    ("sampler", "lanes=4"): "lanes must be a parameter of a card",
    ("softmax", "lanes"): "a setting must be given as name=value, as in lanes=16, not 'lanes'",
    ("softmax", "lanes="): "a setting must be given as name=value, as in lanes=16, not 'lanes='",
    ("sofmax", "lanes=4"): f"the unit must be one of card, {', '.join(units.UNITS)}, not 'sofmax'",
}


@pytest.mark.parametrize(("unit", "setting"), WRONG)
def test_what_cannot_be_built_is_refused_in_a_sentence(unit, setting, tmp_path, capsys):
    folder = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--unit", unit, "--set", setting, "-o", str(folder)])
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert out == ""
    assert err.startswith("heddle rtl: ")
    assert err.count("\n") == 1
    assert WRONG[unit, setting] in err
    assert not folder.exists()


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--config", "huge"], "configuration must be one of tiny, small, u280, ulx3s, not 'huge'"),
    (["--config", "huge", "--unit", "vector"],
     "configuration must be one of tiny, small, u280, ulx3s, not 'huge'")])
def test_an_unknown_configuration_is_refused(arguments, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments, "-o", str(tmp_path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"heddle rtl: {sentence}\n"


def test_multipliers_become_dsp48_when_asked(tmp_path):
    """Two products in each, and none otherwise."""
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    cli.app(["--unit", "engine", "-o", str(plain)], standalone_mode=False)
    cli.app(["--unit", "engine", "--dsp48", "-o", str(packed)], standalone_mode=False)
    number = {folder: len(re.findall(r"^  DSP48E2 ", (folder / "heddle_lane.v").read_text(), re.M))
              for folder in (plain, packed)}
    assert number == {plain: 0, packed: TINY.beat_bytes * TINY.tokens // 2}


@pytest.mark.parametrize("command", ["rtl", "estimate"])
def test_a_wrong_option_is_one_line_and_help_has_a_short_one(command, capsys):
    assert heddle.run([command, "--nonsense"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("heddle: ")
    assert "--nonsense" in err
    assert err.count("\n") == 1
    assert heddle.run([command, "-h"]) == 0
    assert f"Usage: heddle {command} [OPTIONS]" in capsys.readouterr().out


def test_files_of_something_else_do_not_stay(tmp_path, capsys):
    def refused(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*arguments, "-o", str(tmp_path)])
        assert stopped.value.code == 2
        return capsys.readouterr().err

    unit = ["--unit", "softmax"]
    cli.main([*unit, "-o", str(tmp_path)])
    cli.main([*unit, "--set", "lanes=2", "-o", str(tmp_path)])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert refused("--unit", "reader") == (
        "heddle rtl: -o must be a new folder or one of heddle_reader, not "
        f"{tmp_path}, which has heddle_softmax\n")
    # As if a board's folder had been made: it takes too long here.
    (tmp_path / "identity.json").write_text('{"board": "u55c"}')
    assert refused(*unit).endswith(
        f"one of the same board, not {tmp_path}, which is for u55c\n")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("mine", ['{"mine": 1}', "[1]", "{bad", None])
def test_files_of_the_users_own_are_not_overwritten(tmp_path, capsys, mine):
    kept = tmp_path / ("files.f" if mine is None else "unit.json")
    kept.write_text(mine or "mine.v\n")
    (tmp_path / "identity.json").write_text(mine or "also mine")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--unit", "softmax", "-o", str(tmp_path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "heddle rtl: -o must be a folder without files of these names, or one that heddle rtl "
        f"wrote, not {tmp_path}, which has a {kept.name}\n")
    assert kept.read_text() == (mine or "mine.v\n")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_for_machines_is_looked_for_before_the_work(tmp_path, capsys):
    target = tmp_path / "none" / "x.json"
    with pytest.raises(SystemExit):
        cli.main(["--unit", "softmax", "-o", str(tmp_path / "out"), "--json", str(target)])
    assert capsys.readouterr().err == (
        f"heddle rtl: --json must be a file that can be written, not {target}\n")
    assert not (tmp_path / "out").exists()
