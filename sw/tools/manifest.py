# SPDX-License-Identifier: Apache-2.0
"""Write the manifest of a bitstream that was built, loaded and tested.

    python sw/tools/manifest.py build/u280 --slack 0.031 --tool vitis=2022.2 --tool xrt=2.14.354 \\
        --resource LUT=... --resource FF=... --resource DSP=... --resource BRAM36=... \\
        --resource URAM=... -o bitstreams/u280/manifest.json

What it is comes from the folder's identity.json, size and digest from the bitstream, the rest from
the reports of the vendor's tools, which are read by people.
"""

import argparse
import functools
import hashlib
import json
import pathlib
import sys

import jschon

BITSTREAMS = pathlib.Path(__file__).resolve().parents[2] / "bitstreams"
SCHEMA = BITSTREAMS / "manifest.schema.json"


@functools.cache
def _schema() -> jschon.JSONSchema:
    jschon.create_catalog("2020-12")
    return jschon.JSONSchema(json.loads(SCHEMA.read_text(encoding="utf-8")))


def faults(manifest: dict) -> list[str]:
    """What is wrong with a manifest, by place; nothing if it obeys the schema."""
    result = _schema().evaluate(jschon.JSON(manifest))
    return [] if result.valid else [
        f"{error['instanceLocation'] or '/'}: {error['error']}"
        for error in result.output("basic")["errors"]]


def manifest(folder: pathlib.Path, *, slack_ns: float, tools: dict[str, str],
             resources: dict[str, float], url: str | None) -> dict:
    """The manifest of the bitstream in a folder that ``heddle rtl --board`` wrote."""
    identity = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
    data = (folder / f"{identity['kernel']}.xclbin").read_bytes()
    return identity | {
        "tools": tools, "slack_ns": slack_ns, "resources": resources,
        "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data),
        **({"url": url} if url else {})}


def pairs(words: list[str]) -> dict[str, str]:
    """``["a=1"]`` as a dictionary."""
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--slack", type=float, required=True, help="worst slack, ns")
    parser.add_argument("--tool", action="append", default=[], metavar="NAME=VERSION")
    parser.add_argument("--resource", action="append", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--url", help="where the bitstream is, unless beside the manifest")
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    given = parser.parse_args()
    made = manifest(given.folder, slack_ns=given.slack, tools=pairs(given.tool), url=given.url,
                    resources={name: float(value)
                               for name, value in pairs(given.resource).items()})
    wrong = faults(made)
    for fault in wrong:
        print(fault, file=sys.stderr)
    if wrong:
        return 1
    given.output.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
