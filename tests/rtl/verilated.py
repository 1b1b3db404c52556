# SPDX-License-Identifier: Apache-2.0
"""A component in Verilator, its streams fed from and collected into NumPy arrays.

The clock loop is C++: some hundred thousand cycles a second instead of the few thousand of
Amaranth's simulator.  Stalls are random on both sides, and the rules of streams are checked
at every output.
"""

import ctypes
import dataclasses
import hashlib
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
from amaranth.hdl import Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In

from rtl_gen import emit

SHIM = pathlib.Path(__file__).with_name("verilated.cpp")
#: Behaviour of what ``dsp48`` instantiates.
_PRIMITIVES = [pathlib.Path(__file__).with_name(f"{name}.v") for name in ("DSP48E2", "MUXF7")]


class _Stream(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("count", ctypes.c_uint64), ("stall", ctypes.c_uint32),
                ("seed", ctypes.c_uint32), ("done", ctypes.c_uint64), ("cycles", ctypes.c_void_p))


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run gave: payloads of each output stream as bits, and when they were taken."""

    outputs: dict[str, list[int]]
    cycles: dict[str, np.ndarray]
    #: Cycles in which an output that is no stream was not zero.
    high: dict[str, int]


def pack(values: list[int], width: int) -> np.ndarray:
    """Integers as rows of 32-bit words, low word first."""
    size = -(-width // 32) * 4
    return np.frombuffer(b"".join(v.to_bytes(size, "little") for v in values), np.uint32)


class Model:
    """A component compiled by Verilator.

    Parameters
    ----------
    component : wiring.Component
        Top-level members are streams or plain signals.
    name : str
    folder : pathlib.Path
        Where compiled models are kept, by the digest of their sources.
    dsp48 : bool
        With the primitives of UltraScale+ by name, as ``heddle rtl --dsp48`` has them.
    blocks : tuple of str
        Modules that are compiled once for all their instances, not inlined.
    optimise : str
        For the C++ compiler; ``-O0`` pays where a run has only some thousand cycles.
    """

    def __init__(self, component: wiring.Component, name: str, folder: pathlib.Path, *,
                 dsp48: bool = False, blocks: tuple[str, ...] = (),
                 optimise: str = "-O1") -> None:
        self.inputs, self.outputs, self.plain_in, self.plain_out = {}, {}, {}, {}
        for member, spec in component.signature.members.items():
            value = getattr(component, member)
            if isinstance(spec.signature if spec.is_signature else None, stream.Signature):
                group = self.inputs if spec.flow == In else self.outputs
                group[member] = value.payload
            else:
                (self.plain_in if spec.flow == In else self.plain_out)[member] = value
        self.width = {member: len(Value.cast(value)) for group in (
            self.inputs, self.outputs, self.plain_in, self.plain_out)
            for member, value in group.items()}
        texts = emit.convert(component, name, dsp48=dsp48)
        if dsp48:
            texts |= {path.stem: path.read_text() for path in _PRIMITIVES}
        self._library = ctypes.CDLL(str(self._build(texts, name, folder, blocks, optimise)))
        self._library.run.restype = ctypes.c_int64

    def _tables(self, name: str) -> str:
        """C++ that ties the ports of the model to the shim."""
        lines = [f'#include "V{name}.h"', f"using Top = V{name};"]
        for kind, group in (("SOURCE", self.inputs), ("SINK", self.outputs)):
            items = ", ".join(
                f"{{{-(-self.width[p] // 32)}, {kind}_FUNCTIONS({p})}}" for p in group)
            lines.append(f"#define {kind}S {items}")
        for kind, group in (("PLAIN_IN", self.plain_in), ("PLAIN_OUT", self.plain_out)):
            items = " ".join(f"X({p}, {-(-self.width[p] // 32)})" for p in group)
            lines.append(f"#define {kind} {items}")
        return "\n".join(lines) + "\n"

    def _build(self, texts: dict[str, str], name: str, folder: pathlib.Path,
               blocks: tuple[str, ...], optimise: str) -> pathlib.Path:
        files = {f"{module}.v": text for module, text in texts.items()} | {
            "tables.h": self._tables(name), "shim.cpp": SHIM.read_text(),
            "waivers.vlt": "`verilator_config\n" + "".join(
                f"lint_off -rule {rule}\n" for rule in emit.WAIVED) + "".join(
                f'hier_block -module "{block}"\n' for block in blocks)}
        digest = hashlib.sha256(repr([optimise, *sorted(files.items())]).encode()).hexdigest()[:16]
        result = folder / f"{name}-{digest}.so"
        if result.exists():
            return result
        work = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
        for file, text in files.items():
            (work / file).write_text(text)
        done = subprocess.run(
            ["verilator", "--cc", "--exe", "--build", "-Wall", "--top-module", name, "-O3",
             "--assert", "--x-initial", "unique", *(["--hierarchical"] if blocks else []),
             "-CFLAGS", f"{optimise} -fPIC", "-LDFLAGS", "-shared",
             "-o", "model.so", "waivers.vlt", *(f"{module}.v" for module in texts), "shim.cpp"],
            cwd=work, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"verilator failed in {work}:\n{done.stdout[-3000:]}")
        (work / "obj_dir" / "model.so").rename(result)
        shutil.rmtree(work)
        return result

    def run(self, inputs: dict[str, list[int]], counts: dict[str, int], *, stall: float = 0.0,
            seed: str, cycles: int, extra: int = 50, anew: bool = True, **plain: int) -> Run:
        """Feed payloads, collect so many of each output, and go on for ``extra`` cycles.

        Parameters
        ----------
        inputs : payloads of each input stream, as bits or as an array of their 32-bit words
        counts : payloads to expect from each output stream; one more is an error
        stall : how often each side pauses
        seed : of the stalls
        cycles : limit
        anew : start with a new model; otherwise reset it as the last run left it
        plain : inputs that are no streams

        Raises
        ------
        TimeoutError
            If the outputs, or inputs that nobody takes, are not through by then.
        AssertionError
            If an output takes back what it offered, or gives more than expected.
        """
        if set(inputs) != set(self.inputs) or set(counts) != set(self.outputs) \
                or set(plain) != set(self.plain_in):
            raise TypeError(f"inputs must be {[*self.inputs, *self.plain_in]}, "
                            f"outputs {[*self.outputs]}")
        base = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "little") | 1
        keep, sources, sinks = [], [], []
        for k, name in enumerate(self.inputs):
            words = inputs[name]
            if not isinstance(words, np.ndarray):
                words = pack(words, self.width[name])
            words = np.ascontiguousarray(words, np.uint32)
            keep.append(words)
            count = words.size // -(-self.width[name] // 32)
            sources.append(_Stream(words.ctypes.data, count, int(stall * (2**32 - 1)),
                                   base + 2 * k, 0, None))
        found = {}
        for k, name in enumerate(self.outputs):
            words = np.zeros((counts[name], -(-self.width[name] // 32)), np.uint32)
            when = np.zeros(counts[name], np.uint64)
            keep += [words, when]
            found[name] = words, when
            sinks.append(_Stream(words.ctypes.data, counts[name], int(stall * (2**32 - 1)),
                                 base + 2 * k + 1000, 0, when.ctypes.data))
        values = np.concatenate([np.zeros(0, np.uint32), *(
            pack([plain[name]], self.width[name]) for name in self.plain_in)])
        high = np.zeros(len(self.plain_out), np.uint64)
        source_array = (_Stream * len(sources))(*sources)
        sink_array = (_Stream * len(sinks))(*sinks)
        status = self._library.run(
            source_array, sink_array, ctypes.c_void_p(values.ctypes.data),
            ctypes.c_void_p(high.ctypes.data), ctypes.c_uint64(cycles), ctypes.c_uint64(extra),
            ctypes.c_bool(anew))
        state = ", ".join(f"{name} {s.done} of {s.count}" for name, s in zip(
            [*self.inputs, *self.outputs], [*source_array, *sink_array], strict=True))
        if status == -1:
            raise TimeoutError(f"not at the end after {cycles} cycles: {state}")
        if status < 0:
            name = [*self.outputs][-status % 100]
            what = "took back what it offered" if status <= -200 else "gave more than expected"
            raise AssertionError(f"{name} {what}: {state}")
        return Run(
            outputs={name: [int.from_bytes(row.tobytes(), "little") for row in words]
                     for name, (words, _) in found.items()},
            cycles={name: when for name, (_, when) in found.items()},
            high=dict(zip(self.plain_out, (int(h) for h in high), strict=True)))
