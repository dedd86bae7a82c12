"""Run the program that kills workers, drivers, drains and an object store, and return its counts."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from helpers.neighbours import PRIVATE, namespace
from helpers.workers import FOLDER


def run_faults(
    python: Path, engine: str, folder: Path, rounds: int, seed: int, weed: Path | None = None
) -> dict[str, Any]:
    """Run rounds of an engine in network and process namespaces of their own, and return the counts.

    Args:
        python: the interpreter.
        engine: `ray` or `dask`.
        folder: a new folder.
        rounds: how many rounds.
        seed: chooses what is killed, and when.
        weed: the program of SeaweedFS, if tables and ledger are on an object store.
    """
    (folder / "home").mkdir(parents=True)
    arguments = [engine, str(folder), str(rounds), str(seed), *([str(weed)] if weed else [])]
    done = subprocess.run(
        [*namespace(), str(python), str(FOLDER / "faults.py"), *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "DELTAWITNESS_DRAIN_INTERVAL": "0.5",
            **PRIVATE,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300 + 120 * rounds,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
