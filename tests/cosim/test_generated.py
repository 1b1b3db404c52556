# SPDX-License-Identifier: Apache-2.0
"""Whole cards as ``heddle rtl`` writes them: alike in every process, clean, in bounded memory."""

import hashlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.cosim, pytest.mark.xdist_group("generated")]

#: KiB that one process may take.
MOST = 4 << 20


def peak(command: list, folder: pathlib.Path, **environment: str) -> int:
    """Run a command that must succeed; the most memory that it took, in KiB."""
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | environment,
                                   stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, log.read_text()
    return usage.ru_maxrss


def generate(config: str, folder: pathlib.Path, *settings: str, **environment: str) -> int:
    """Write a card to ``folder / config``; the most memory that it took, in KiB."""
    return peak([sys.executable, "-m", "heddle", "rtl", "--config", config, "-o", config,
                 *(word for setting in settings for word in ("--set", setting))], folder,
                **environment)


def lint(folder: pathlib.Path, *arguments: str) -> int:
    """Lint as docs/rtl.md says: a warning is an error."""
    return peak(["verilator", "--lint-only", "-Wall", "waivers.vlt", *arguments], folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folders with the tiny card, written by two processes that order their sets differently."""
    folders = [tmp_path_factory.mktemp(f"seed{seed}") for seed in range(2)]
    for seed, folder in enumerate(folders):
        generate("tiny", folder, PYTHONHASHSEED=str(seed))
    return [folder / "tiny" for folder in folders]


def test_the_text_depends_on_the_configuration_alone(tiny):
    first, second = ({path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                      for path in folder.iterdir()} for folder in tiny)
    assert len([name for name in first if name.endswith(".v")]) > 20
    assert first == second


def test_tiny_is_clean(tiny):
    lint(tiny[0], "-f", "files.f")


@pytest.mark.parametrize("cards", [2, 8])
def test_a_card_of_a_ring_is_clean(tmp_path, cards):
    generate("tiny", tmp_path, f"cards={cards}")
    lint(tmp_path / "tiny", "-f", "files.f")


def stub(text: str, module: str) -> str:
    """The ports of a module, and nothing inside."""
    body = re.search(rf"^module {module}\(.*?^endmodule", text, re.M | re.S)[0]
    ports = re.findall(r"^  (?:input|output) .*;$", body, re.M)
    return "\n".join(["/* verilator lint_off UNDRIVEN */", body[:body.index(");") + 2], *ports,
                      "endmodule\n"])


def test_u280_is_generated_in_bounded_memory_and_clean(tmp_path):
    """What the card has 32 of is linted once, by itself, and instantiated as a stub.

    At one go Verilator takes two minutes for the card, and 3 GiB.
    """
    assert generate("u280", tmp_path) < MOST
    folder = tmp_path / "u280"
    names = (folder / "files.f").read_text().split()
    many = [f"heddle_{part}" for part in (
        "lane", "channel", "epilogue_lane", "vector_lane", "softmax_lane")]
    assert {f"{module}.v" for module in many} < set(names)
    single = [name for name in names if name.removesuffix(".v") not in many]
    for module in many:
        (folder / f"stub_{module}.v").write_text(
            stub((folder / f"{module}.v").read_text(), module))
        assert lint(folder, "--top-module", module, f"{module}.v",
                    *(name for name in single if name != names[0])) < MOST
    # The stubs' files are named for what they are, unlike their modules.
    assert lint(folder, "--top-module", names[0].removesuffix(".v"), *single,
                *(f"stub_{module}.v" for module in many)) < MOST
