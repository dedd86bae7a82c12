"""Check that every type of the package is known to a type checker of a program that uses it.

Run `python tools/type_completeness.py`; `make types` does. It fails for a symbol without a type, or with
a type that checkers infer differently, unless the symbol is in `UNTYPED_BASES`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

UNTYPED_BASES = {
    "deltawitness.answers.diff.datasets.ComparableRows": "PyArrow has no types",
    "deltawitness.integrations.hamilton.DeltaWitnessAdapter": "Hamilton has no types",
    "deltawitness.scan.dataset.DeltaDataset": "PyArrow has no types",
}
"""Classes whose base class has no types, by name, with the reason. Their uses are left out too."""


def report() -> dict[str, Any]:
    """Return the report of `pyright --verifytypes` on the sources."""
    paths = [str(ROOT / "src"), sysconfig.get_path("purelib")]
    command = [sys.executable, "-m", "pyright", "--ignoreexternal", "--verifytypes", "deltawitness"]
    done = subprocess.run(  # noqa: S603 - a fixed command
        [*command, "--outputjson"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)["typeCompleteness"]
    except (ValueError, KeyError):
        sys.exit(f"pyright: {done.stdout}{done.stderr}")
    return found


def problems(found: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each symbol whose type is not known and that is not excepted."""
    classes = [name.rpartition(".")[2] for name in UNTYPED_BASES]
    for symbol in found["symbols"]:
        messages = [
            each["message"] for each in symbol["diagnostics"] if each["severity"] == "error"
        ]
        if symbol["name"] in UNTYPED_BASES or (
            symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]
        ):
            continue
        for message in messages:
            if not any(f'"{name}"' in message for name in classes):
                yield f"{symbol['name']}: {' '.join(message.split())}"


def main() -> None:
    """Print the counts; exit with the problems, if there are any."""
    found = report()
    counts = found["exportedSymbolCounts"]
    if not sum(counts.values()):
        sys.exit("pyright found no symbols: is the package there, with its py.typed?")
    lines = list(problems(found))
    if lines:
        sys.exit("\n".join(["types that are not known outside of the package:", *lines]))
    print(
        f"types: {counts['withKnownType']} of {sum(counts.values())} symbols are known,"
        f" the rest comes from {len(UNTYPED_BASES)} classes with untyped bases"
    )


if __name__ == "__main__":
    main()
