"""Run programs of other libraries without and with observation, and compare what they did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deltawitness import Ledger
from deltawitness.commit.reader import history
from helpers.places import PROGRAMS, REPOSITORY

FOLDER = PROGRAMS / "neighbours"
DEFINITIONS = tomllib.loads((FOLDER / "neighbours.toml").read_text())
RESULTS = REPOSITORY / "tools/neighbours.json"
UV = str(Path(sys.executable).with_name("uv"))
PRIVATE = {
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true",
}
"""Variables with which the libraries send nothing to their makers and make no token."""

LIMIT_S = 300.0
"""How long a program may take, in seconds."""


@dataclass(frozen=True)
class Neighbour:
    """A program of another library, as `neighbours.toml` defines it.

    Attributes:
        title: the name of the library.
        file: the program: its argument is the folder for its tables.
        packages: the packages whose versions count.
        requires: requirements of a separate environment; empty for the development environment.
        extras: extras of deltawitness in that environment.
        is_long: whether it takes minutes, and so runs only at full size.
        is_local: whether it starts servers, and so needs a separate network namespace.
        environment: more variables of the program.
    """

    title: str
    file: str
    packages: Sequence[str]
    requires: Sequence[str] = ()
    extras: Sequence[str] = ("cli",)
    is_long: bool = False
    is_local: bool = False
    environment: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        """The name of the program, which is also its job."""
        return Path(self.file).stem


NEIGHBOURS = [
    Neighbour(**{key.replace("-", "_"): value for key, value in program.items()})
    for program in DEFINITIONS["program"]
]


@dataclass(frozen=True)
class Execution:
    """What an execution of a program did.

    Attributes:
        code: the exit code.
        stdout: the standard output.
        stderr: the standard error.
        lake: the folder of its tables.
    """

    code: int
    stdout: str
    stderr: str
    lake: Path

    def commits(self) -> list[tuple[str, int, str | None, str | None]]:
        """Return table, version, operation and run id of each commit in the folder, sorted by table."""
        tables = sorted(log.parent for log in self.lake.rglob("_delta_log"))
        return [
            (
                table.relative_to(self.lake).as_posix(),
                commit.version,
                commit.operation,
                commit.run_id,
            )
            for table in tables
            for commit in history(table)
        ]


def build_wheel(folder: Path) -> Path:
    """Build the wheel of the project into a folder, and return its path."""
    _run_uv("build", "--wheel", "--out-dir", str(folder), str(REPOSITORY))
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_environment(neighbour: Neighbour, folder: Path, wheel: Path) -> Path:
    """Make a virtual environment with the project and a neighbour, and return its interpreter."""
    return install(neighbour.requires, neighbour.extras, folder, wheel)


def install(requires: Sequence[str], extras: Sequence[str], folder: Path, wheel: Path) -> Path:
    """Make a virtual environment with the project and requirements, and return its interpreter."""
    _run_uv("venv", "--python", sys.executable, str(folder))
    python = folder / "bin/python"
    project = f"deltawitness[{','.join(extras)}] @ file://{wheel}"
    _run_uv("pip", "install", *_AS_OF, "--python", str(python), project, *requires)
    return python


def install_tool(requirement: str, name: str, folder: Path) -> Path:
    """Install a program of the package index in an environment of its own, and return its path."""
    _run_uv("venv", "--python", sys.executable, str(folder))
    _run_uv("pip", "install", *_AS_OF, "--python", str(folder / "bin/python"), requirement)
    return folder / "bin" / name


def resolve(wheel: Path, requires: Sequence[str], extras: Sequence[str]) -> dict[str, str] | str:
    """Return the versions that the requirements resolve to with the project, or the resolver's reason."""
    project = f"deltawitness[{','.join(extras)}] @ file://{wheel}"
    command = [
        "pip",
        "compile",
        *_AS_OF,
        "--no-header",
        "--no-annotate",
        "--python-version",
        "3.11",
        "-",
    ]
    done = subprocess.run(
        [UV, *command, "--quiet"],
        input="\n".join([project, *requires]),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    if done.returncode:
        return " ".join(done.stderr.split())
    return dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)


_AS_OF = ("--exclude-newer", DEFINITIONS["exclude-newer"])


def _run_uv(*arguments: str) -> None:
    done = subprocess.run([UV, *arguments, "--quiet"], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(done.stderr)


@cache
def namespace() -> tuple[str, ...]:
    """Return the command that runs a program in a network namespace with only the loopback interface.

    The processes that the program leaves behind end with it, because the process namespace is separate as
    well. Empty if the system allows no new namespaces.
    """
    loopback = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    for rights in ((), ("--user", "--map-root-user")):
        unshare = ["unshare", *rights, "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        try:
            done = subprocess.run([*unshare, *loopback, "true"], capture_output=True, timeout=30)
        except FileNotFoundError:
            return ()
        if done.returncode == 0:
            return (*unshare, *loopback)
    return ()


ATTEMPTS = 3
"""How often a bare program runs that crashes at the end of its interpreter."""

CRASHES = {-signal.SIGABRT, -signal.SIGSEGV}
"""Exit codes of a bare program in which a native thread returns to an interpreter that is ending: pyarrow
aborts 4 of 36 runs of the program of kedro on a busy machine, Daft ends 6 of 80 by SIGABRT or SIGSEGV. None
of 36 and of 120 observed runs crashed."""


def execute(neighbour: Neighbour, python: Path, folder: Path, *, is_observed: bool) -> Execution:
    """Run a program, by itself or under `deltawitness run`, with the ledger in `ledger` of the folder.

    A bare program that crashes runs again, in a folder with a number in addition. An observed program does
    not: a crash may come from the observation.
    """
    for number in range(1, ATTEMPTS + 1):
        attempt = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        done = _execute_once(neighbour, python, attempt, is_observed=is_observed)
        if is_observed or done.code not in CRASHES:
            break
    return done


def _execute_once(
    neighbour: Neighbour, python: Path, folder: Path, *, is_observed: bool
) -> Execution:
    folder.mkdir()
    (folder / "home").mkdir()
    lake = folder / "lake"
    program = [str(python), str(FOLDER / neighbour.file), str(lake)]
    run = [str(python), "-m", "deltawitness", "run", "--job", neighbour.name, "--quiet", "--"]
    done = subprocess.run(
        [*(namespace() if neighbour.is_local else ()), *(run if is_observed else ()), *program],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "DELTAWITNESS_ROOT": str(folder / "ledger"),
            **PRIVATE,
            **(neighbour.environment or {}),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return Execution(done.returncode, done.stdout, done.stderr, lake)


def ledger_rows(observed: Execution) -> list[dict]:
    """Return the ledger's rows of the commits of an observed execution, oldest first."""
    rows = Ledger(observed.lake.parent / "ledger").inventory().to_pylist()
    return sorted(
        (row for row in rows if row["version"] is not None), key=lambda row: row["event_time"]
    )


def versions(neighbour: Neighbour, python: Path) -> dict[str, str | None]:
    """Return the installed versions of the neighbour's packages and of the engines."""
    packages = [*neighbour.packages, "deltalake", "datafusion", "pyarrow"]
    text = (
        "import importlib.metadata as m, json, sys\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps({p: found.get(p) for p in sys.argv[1:]}))"
    )
    done = subprocess.run(
        [str(python), "-c", text, *packages], capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


def compare(bare: Execution, observed: Execution) -> dict[str, object]:
    """Return what an observed execution did, and whether it did the same as the bare one."""
    commits = observed.commits()
    rows = ledger_rows(observed)
    located = Counter(
        (row["table_uri"].removeprefix(f"file://{observed.lake}/"), row["version"]) for row in rows
    )
    runs = {row["run_id"] for row in rows}
    kinds = Counter(" ".join(filter(None, (row["operation"], row["mode"]))) for row in rows)
    return {
        "exit_code": observed.code,
        "is_same_exit_code": observed.code == bare.code,
        "is_same_output": observed.stdout.replace(str(observed.lake), str(bare.lake))
        == bare.stdout,
        "is_same_log": [each[:3] for each in commits] == [each[:3] for each in bare.commits()],
        "commits": len(commits),
        "stamped": sum(run_id in runs for *_, run_id in commits),
        "rows": sum(located[table, version] == 1 for table, version, *_ in commits),
        "rows_of_other_versions": len(rows) - sum(located[each[0], each[1]] for each in commits),
        "jobs": sorted({str(row["job"]) for row in rows}),
        "writes": {kind: kinds[kind] for kind in sorted(kinds)},
    }


def is_complete(found: Mapping[str, object], neighbour: Neighbour) -> bool:
    """Return whether a program did the same as before, and each commit has its metadata and one row."""
    return (
        found["exit_code"] == 0
        and all(found[key] for key in ("is_same_exit_code", "is_same_output", "is_same_log"))
        and 0 < found["commits"] == found["stamped"] == found["rows"]
        and found["rows_of_other_versions"] == 0
        and found["jobs"] == [neighbour.name]
    )
