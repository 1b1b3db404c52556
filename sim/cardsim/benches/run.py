# SPDX-License-Identifier: Apache-2.0
"""Run the bench of a generated unit in Verilator.

    python -m cardsim.benches.run FOLDER

FOLDER is what ``heddle rtl --unit ... -o FOLDER`` wrote.
"""

import argparse
import json
import os
import pathlib
import sys
from typing import Any

from cardsim.rtl.build import environment

#: The bench module of each unit.
BENCHES = {"engine": "engine", "channel": "channel", "control": "control", "epilogue": "epilogue",
           "sampler": "sampler", "quantise": "quantise", "softmax": "softmax",
           "layernorm": "layernorm", "link": "link", "exchange": "exchange", "reader": "reader",
           "vector": "vector", "memory": "memory", "exp": "elementwise", "gelu": "elementwise",
           "gelu_erf": "elementwise"}
#: Where a bench finds what it is to test.
VARIABLE = "HEDDLE_UNIT"


def unit() -> str:
    """The unit under test."""
    return str(json.loads(os.environ[VARIABLE])["unit"])


def parameters() -> dict[str, Any]:
    """Its parameters."""
    return dict(json.loads(os.environ[VARIABLE])["parameters"])


def ports_only() -> Any:
    """cocotb's Verilator runner, with only the unit's ports open to the bench.

    By default every signal is: that costs half of the build and of the speed.
    """
    from cocotb_tools import runner

    class PortsOnly(runner.Verilator):
        def _build_command(self) -> Any:
            commands = super()._build_command()
            commands[0] = [word for word in commands[0] if word != "--public-flat-rw"]
            return commands

    return PortsOnly()


def run(folder: pathlib.Path, *, waves: bool = False, coverage: bool = False) -> int:
    """Build and run; the number of tests that failed.

    Parameters
    ----------
    folder : pathlib.Path
        With ``unit.json``, ``files.f`` and ``waivers.vlt``.
    waves : bool
        Record ``dump.vcd``.
    coverage : bool
        Record ``coverage.dat``.
    """
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import VerilatorControlFile

    folder = folder.resolve()
    described = json.loads((folder / "unit.json").read_text())
    bench = BENCHES.get(described["unit"])
    if bench is None:
        raise ValueError(f"there is no bench for the unit {described['unit']!r}; "
                         f"there are some for {', '.join(BENCHES)}")
    os.environ.update(environment())
    sources = [folder / name for name in (folder / "files.f").read_text().split()]
    build = folder / "build"
    ports = folder / "ports.vlt"
    ports.write_text("`verilator_config\n"
                     f'public_flat_rw -module "{described["top"]}" -var "*"\n')
    # make only adds to it, and a build with other options has other objects.
    (build / "Vtop__ALL.a").unlink(missing_ok=True)
    runner = ports_only()
    runner.build(
        sources=[VerilatorControlFile(folder / "waivers.vlt"), VerilatorControlFile(ports),
                 *sources],
        hdl_toplevel=described["top"], build_dir=build, timescale=("1ns", "1ps"), waves=waves,
        build_args=["--x-initial", "unique", "--assert", "-O1", "-CFLAGS", "-O0", "-Wno-fatal",
                    *(["--coverage-line", "--coverage-toggle"] if coverage else [])])
    results = build / "results.xml"
    runner.test(hdl_toplevel=described["top"], test_module=f"cardsim.benches.{bench}",
                build_dir=build, results_xml=str(results), waves=waves,
                extra_env={VARIABLE: json.dumps(described),
                           "PYTHONPATH": os.pathsep.join(sys.path)})
    _, failed = get_results(results)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--waves", action="store_true", help="record build/dump.vcd")
    arguments = parser.parse_args()
    sys.exit(1 if run(arguments.folder, waves=arguments.waves) else 0)


if __name__ == "__main__":
    main()
