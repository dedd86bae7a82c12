"""Sessions of the compatibility matrix: `make matrix` runs all of them, `make matrix-fair` a few.

Each session installs the built wheel in a fresh environment, checks that the tests import it from there,
runs the tests of its case, and writes a JSON file with what was installed and how the tests ended.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent / "tools"))
from matrix import (
    RESULTS,
    ROOT,
    SUITES,
    TEST_REQUIREMENTS,
    Case,
    Result,
    cases,
    interpreter,
    of_interest,
    read_report,
)

nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "no"

INSTALLED = "import sys, deltawitness; sys.exit('/site-packages/' not in deltawitness.__file__)"
"""A program that fails unless the package is the installed one."""


def wheel() -> str:
    """Return the path of the built wheel.

    Raises:
        FileNotFoundError: there is none, or more than one.
    """
    found = list((ROOT / "dist").glob("*.whl"))
    if len(found) != 1:
        msg = "dist/ has no single wheel: run `make wheel`"
        raise FileNotFoundError(msg)
    return str(found[0])


def run_case(session: nox.Session, case: Case) -> None:
    """Run a case, and write its result also if it fails; an interrupted run leaves the last result."""
    result = Result(case.name, "failed", date=dt.datetime.now(tz=dt.UTC).date().isoformat())
    start = time.monotonic()
    try:
        result.status = "not installable"
        _install(session, case, result)
        result.status = "failed"
        _test(session, case, result)
        result.status = "passed"
    except KeyboardInterrupt:
        raise
    except BaseException:
        _save(result, start)
        raise
    _save(result, start)


def _install(session: nox.Session, case: Case, result: Result) -> None:
    if case.resolution != "highest":
        # The requirements of a wheel are indirect for uv, which installs their highest versions.
        extras = [part for extra in case.extras for part in ("--extra", extra)]
        chosen = ["--resolution", case.resolution]
        session.install("--requirement", "pyproject.toml", *extras, *case.pins, *chosen)
    shown = f"[{','.join(case.extras)}]" if case.extras else ""
    session.install(f"{wheel()}{shown}", *case.pins)
    versions = str(session.run("uv", "pip", "freeze", external=True, silent=True))
    python = str(
        session.run("python", "-c", "import platform as p; print(p.python_version())", silent=True)
    )
    result.versions = {"python": python.strip(), **of_interest(versions)}
    if SUITES[case.suite]:
        # The versions of the wheel's requirements stay: the test libraries adapt to them.
        frozen = Path(session.create_tmp()) / "installed.txt"
        frozen.write_text("\n".join(line for line in versions.splitlines() if "==" in line))
        session.install(*TEST_REQUIREMENTS, "--constraint", str(frozen))


def _test(session: nox.Session, case: Case, result: Result) -> None:
    session.run("python", "-I", "-c", INSTALLED)
    if not SUITES[case.suite]:
        result.failed, result.failures = 1, ["tools/try_wheel.py"]
        session.run("python", "-I", "tools/try_wheel.py")
        result.passed, result.failed, result.failures = 1, 0, []
        return
    report = Path(session.create_tmp()) / "report.xml"
    report.unlink(missing_ok=True)
    tests = [path for path in SUITES[case.suite] if (ROOT / path).exists()]
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    try:
        session.run("python", "-m", "pytest", *options, *tests, *session.posargs)
    finally:
        if report.exists():
            read_report(report, result)


def _save(result: Result, start: float | None = None) -> None:
    """Write a result, with its wall time since a start of the monotonic clock."""
    if start is not None:
        result.seconds = round(time.monotonic() - start, 1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result.to_json(), indent=2)
    (RESULTS / f"{result.name}.json").write_text(text + "\n")


def skip_case(session: nox.Session, case: Case) -> None:
    """Write that a case could not run because its interpreter is missing."""
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    _save(Result(case.name, "no interpreter", date=today))
    session.skip(f"CPython {case.python} is not on this machine")


def register(case: Case) -> None:
    """Make a session of a case."""
    path = interpreter(case.python)
    tags = [case.group, *(["fair"] if case.is_fair else [])]
    if path is None:
        nox.session(
            lambda session: skip_case(session, case), name=case.name, tags=tags, python=False
        )
    else:
        nox.session(lambda session: run_case(session, case), name=case.name, tags=tags, python=path)


for each in cases():
    register(each)
