"""The cases of the compatibility matrix: which versions are installed together, and which tests run there.

`noxfile.py` makes a session of each case; `tools/compatibility.py` makes tables of the results.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "build/matrix"
"""Folder with a JSON file for each case that has run."""

OLDEST_PYTHON = "3.11"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
TEST_REQUIREMENTS = ("hypothesis>=6.150", "pandas>=2", "pytest>=9", "pytest-timeout>=2.4")

CORE = (
    "tests/commit/test_metadata.py",
    "tests/commit/test_reader.py",
    "tests/delta_rs/test_entry_points.py",
    "tests/delta_rs/test_seams.py",
    "tests/ledger/test_kill.py",
)
"""Every function that writes, the metadata and readers of commits, and a ledger whose writers are killed."""

SESSION = (
    "tests/session/test_sql_writes.py",
    "tests/session/test_tables.py",
    "tests/cache/test_policies.py",
    "tests/cache/test_truth.py",
)
"""SQL statements and frames that write, tables of sessions, and a cache that never serves a stale result."""

NEWEST = ("tests/delta_rs/test_instrumentation.py",)
"""Tests that expect what the newest deltalake has."""

SUITES: Mapping[str, tuple[str, ...]] = {
    "core": CORE,
    "session": SESSION,
    "all": (*CORE, *NEWEST, *SESSION),
    "use": (),  # `tools/try_wheel.py`, which needs no test library
}

ENGINES = ("1.0.2", "1.1.4", "1.2.1", "1.3.3", "1.4.2", "1.5.1", "1.6.0", "1.6.2", "1.6.3", "1.6.6")
"""Releases of deltalake: the oldest, the newest, and at least one for each DataFusion that it is built with."""

PAIRS = {"54": "1.6.2", "55": "1.6.6"}
"""Majors of DataFusion, with a release of deltalake that fits."""

EXTRAS = ("datafusion", "otel", "cli", "mcp", "ui", "openlineage", "demo", "apache-hamilton", "all")


@dataclass(frozen=True, slots=True)
class Case:
    """A fresh environment with the built wheel, and the tests that run in it.

    Attributes:
        name: the name of the session, unique.
        group: the table of docs/compatibility.md that shows the result.
        python: version of CPython, such as `3.12`.
        pins: requirements besides the wheel, such as `deltalake==1.0.2`.
        extras: extras of the wheel.
        resolution: `highest` or `lowest-direct`, the versions that uv chooses for what is not pinned.
        suite: the tests, a key of `SUITES`.
        is_fair: whether it is one of the few that run before each change lands.
    """

    name: str
    group: str
    python: str = OLDEST_PYTHON
    pins: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    resolution: str = "highest"
    suite: str = "core"
    is_fair: bool = False


@dataclass(slots=True)
class Result:
    """The result of a case.

    Attributes:
        name: the name of the case.
        status: `passed`, `failed`, `not installable` or `no interpreter`.
        versions: the installed version of each package of interest, and of Python.
        passed: number of tests that passed.
        failed: number of tests that failed, with errors of fixtures.
        skipped: number of tests that were skipped.
        failures: ids of the failed tests; or what went wrong before them.
        seconds: wall time of the installation and the tests.
        date: day of the run in UTC.
    """

    name: str
    status: str
    versions: dict[str, str] = field(default_factory=dict)
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    date: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return asdict(self)


def cases() -> Iterator[Case]:
    """Yield every case of the matrix."""
    for version in ENGINES:
        yield Case(
            name=f"deltalake-{version}",
            group="deltalake",
            pins=(f"deltalake=={version}",),
            extras=("otel", "cli"),
            is_fair=version == ENGINES[0],
        )
    for datafusion, deltalake in PAIRS.items():
        yield Case(
            name=f"datafusion-{datafusion}",
            group="datafusion",
            pins=(f"datafusion=={datafusion}.*", f"deltalake=={deltalake}"),
            extras=("datafusion", "otel", "cli"),
            suite="session",
        )
    yield Case(name="extra-none", group="extras", suite="use", is_fair=True)
    for extra in EXTRAS:
        yield Case(name=f"extra-{extra}", group="extras", extras=(extra,), suite="use")
    yield from _resolutions()
    for python in PYTHONS:
        yield Case(
            name=f"python-{python}", group="python", python=python, extras=("all",), suite="all"
        )


def _resolutions() -> Iterator[Case]:
    """Yield the cases with the lowest and the highest versions that the requirements allow."""
    newest = (f"deltalake=={ENGINES[-1]}",)
    lowest = "lowest-direct"
    observed = ("otel", "cli")
    yield Case("lowest", "resolution", extras=observed, resolution=lowest)
    yield Case("lowest-newest-engine", "resolution", "3.11", newest, observed, lowest, is_fair=True)
    yield Case(
        name="lowest-session",
        group="resolution",
        pins=("deltalake==1.6.2",),
        extras=("datafusion", *observed),
        resolution=lowest,
        suite="session",
    )
    yield Case("highest", "resolution", extras=("datafusion", *observed), suite="all")


# --- interpreters ------------------------------------------------------------------------------------


@cache
def interpreter(version: str) -> str | None:
    """Return the path of a CPython on this machine; None if there is none.

    The interpreters of the PATH and those of pyenv are tried. A shim of pyenv for a version that is not
    selected does not start, and so does not count.

    Args:
        version: major and minor version, such as `3.12`.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}")]
    candidates += sorted(map(str, pyenv.glob(f"{version}.*/bin/python{version}")), reverse=True)
    return next((path for path in candidates if path and _runs(path, version)), None)


def _runs(path: str, version: str) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter
            [path, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except OSError:
        return False
    return done.stdout.startswith(f"Python {version}.")


# --- results -----------------------------------------------------------------------------------------


def read_report(path: Path, result: Result) -> None:
    """Add the counts of pytest's JUnit report to a result; a failed test adds its id."""
    for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314 - written by pytest on this machine
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            result.failed += 1
            result.failures.append(f"{case.get('classname')}::{case.get('name')}")
        elif "skipped" in kinds:
            result.skipped += 1
        else:
            result.passed += 1


def of_interest(frozen: str) -> dict[str, str]:
    """Return the versions of the engines and of OpenTelemetry from the output of `uv pip freeze`."""
    shown = re.compile(
        r"(deltalake|datafusion|pyarrow|sqlglot|wrapt|rich|typer|apache-hamilton|deltawitness"
        r"|opentelemetry-(?:api|sdk|instrumentation))(?:==| @ .*?-)([\w.]+?)(?:-py3.*)?"
    )
    lines = (shown.fullmatch(line.strip()) for line in frozen.splitlines())
    return {found[1]: found[2] for found in lines if found is not None}
