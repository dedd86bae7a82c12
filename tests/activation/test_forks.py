"""A program that forks behaves as without deltawitness, and each commit has one ledger row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deltawitness import Ledger
from deltawitness.ledger.tables.schema import INVENTORY
from helpers.ledger_parts import rows_of
from helpers.ledger_truth import assert_recorded_at_most_once, unrecorded_commits
from helpers.places import PROGRAMS
from helpers.sizes import cases

pytestmark = pytest.mark.slow

PROGRAM = PROGRAMS / "forking.py"

FAILS = "PanicException"
"""What delta-rs raises in the child of a process that has used it."""

BEFORE = (
    "instrumented",
    "run_ended",
    "run_open",
    "exported",
    "exported_in_run",
    "drained_between_exports",
    "spool_of_dead_process",
    "session",
    "hashed",
    "cache_opened",
    "uninstrumented",
    "instrumented_twice",
)
"""What may happen before a fork in a program that has not used delta-rs itself."""

USED = ("used_by_program", "used_in_run", "used_after_helper", "ledger_read")
"""The same in one that has."""

BARE = {
    "exported": "exported",
    **dict.fromkeys(
        ("exported_in_run", "uninstrumented", "drained_between_exports"), "exported_in_run"
    ),
    **dict.fromkeys(USED, "used_by_program"),
}
"""What the bare program does before the fork, where it does anything: several of the above are one."""

KINDS = ("pool", "pools", "nested", "prefork", "threads", "waiting")
"""How else a program forks."""

BY_COMMAND = ("pool", "pools", "waiting", "shell")
"""What is also tried under `deltawitness run`."""

EXPORTS = {
    **dict.fromkeys(("exported", "exported_in_run", "uninstrumented", "used_after_helper"), 1),
    "instrumented_twice": 2,
    "drained_between_exports": 3,
    "waiting": 4,
}
"""How many files a way or a kind exports."""

TABLE = """
import sys, pyarrow as pa
from deltalake import write_deltalake
write_deltalake(sys.argv[1], pa.table({"x": [1]}))
"""

CASES = [
    *((way, "fork", "library") for way in (*BEFORE, *USED)),
    *(("run_ended", kind, "library") for kind in KINDS),
    *(("run_ended", kind, "command") for kind in BY_COMMAND),
    ("exported_in_run", "fork", "command"),
    ("drained_between_exports", "waiting", "library"),
]


def ended(case, folder):
    """Run a program; return its exit code, output and error output.

    The last part of a case is the launch mode: `library`, `command`, or `bare`.
    """
    way, _, how = case
    folder.mkdir()
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(PROGRAM), *case[:2], str(folder)]
    if way == "hashed":
        environment["TABLE"] = str(folder / "own")
        subprocess.run([sys.executable, "-c", TABLE, folder / "own"], check=True)
    if how == "bare":
        command.append("bare")
    if how == "command":
        environment["DELTAWITNESS_CACHE_ROOT"] = str(folder / "cache")
        program = str(Path(sys.executable).with_name("deltawitness"))
        command = [program, "run", "--quiet", "--", *command]
    process = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120
    )
    out = process.stdout
    return process.returncode, out and json.loads(out), process.stderr


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """Return the results of the programs of all selected tests by case, running three at a time."""
    chosen = {item.callspec.params["case"] for item in request.session.items if _is_of_forks(item)}
    chosen |= {bare_of(case) for case in chosen}
    folders = {case: tmp_path_factory.mktemp("-".join(case)) / "f" for case in chosen}
    with ThreadPoolExecutor(3) as programs:
        ends = {case: programs.submit(ended, case, folders[case]) for case in sorted(chosen)}
        yield {case: (folders[case], end) for case, end in ends.items()}


def _is_of_forks(item):
    """Return whether a test is one of this file that runs a program; other files have cases too."""
    return item.path == Path(__file__) and "case" in getattr(
        getattr(item, "callspec", None), "params", ()
    )


def bare_of(case):
    """Return the case that runs the same program without deltawitness."""
    way, kind, _ = case
    return BARE.get(way, "instrumented"), kind, "bare"


@pytest.mark.parametrize("case", cases(CASES, CASES[1::6]), ids="-".join)
def test_a_fork_behaves_as_in_the_bare_program(outcomes, case):
    """The children succeed or fail as those of the bare program, and every commit has one row."""
    folder, end = outcomes[case]
    code, written, errors = end.result()
    assert (code, written) == outcomes[bare_of(case)][1].result()[:2], errors
    assert "failed with" not in errors
    way, kind, _ = case
    if kind == "fork":
        assert written == [FAILS if way in USED else "written"] * 2
    ledger = Ledger(folder / "cache")
    ledger.drain()
    tables = list((folder / "lake").iterdir())
    assert_recorded_at_most_once(ledger.root, *tables)
    if way != "uninstrumented":
        assert unrecorded_commits(ledger.root, *tables) == set()
    assert list(ledger.spools.iterdir()) == []
    operations = [row["operation"] for row in rows_of(ledger.root, INVENTORY, "operation")]
    assert operations.count("COPY") == EXPORTS.get(way, 0) + EXPORTS.get(kind, 0)
    assert ledger.verify().is_good


def output_of(code, *arguments):
    """Return the output of a program that must succeed."""
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=PROGRAM.parent,
    )
    assert ended.returncode == 0, ended.stderr
    assert "failed with" not in ended.stderr
    return ended.stdout.split()


EVERYTHING = """
import importlib, pkgutil, sys
import deltawitness
for module in pkgutil.walk_packages(deltawitness.__path__, "deltawitness."):
    if not module.name.endswith(("__main__", "sitecustomize")):
        importlib.import_module(module.name)
from deltawitness import DataFusionInstrumentor, DeltaLakeInstrumentor, ObservedSessionContext, Settings, run
DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=sys.argv[1]))
DataFusionInstrumentor().instrument()
ObservedSessionContext()
with run("empty"):
    pass
from pathlib import Path
names = {path.joinpath("comm").read_text().strip() for path in Path("/proc/self/task").iterdir()}
print(sorted(name for name in names if name.startswith("tokio")))
"""


def test_the_library_starts_no_engine_runtime(tmp_path):
    """An import, an instrumentor, a session or a run starts no runtime of delta-rs or DataFusion."""
    assert output_of(EVERYTHING, tmp_path / "cache") == ["[]"]
    assert Ledger(tmp_path / "cache").runs().count() == 1


SLOW_IMPORT = """
import importlib.abc, os, signal, sys, threading, time
from pathlib import Path

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name in {"pyarrow.parquet", "deltawitness.ledger.drain.drain"}:
            begun.set()
            time.sleep(1)

begun = threading.Event()
sys.meta_path.insert(0, Slow())
sys.argv[1:] = ["instrumented", "fork", sys.argv[1]]
import forking
from deltawitness.forks import mark_delta_rs_used
IN_TURN
begun.wait(10)
child = os.fork()
if child == 0:
    signal.alarm(20)
    import pyarrow.parquet, deltawitness.ledger.drain
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(
    "work",
    [
        # The files of an export are counted on the delivery thread.
        "forking.instrument(); forking.export('e')",
        # Drain in the process itself.
        "forking.instrument(drain_interval=0.1); mark_delta_rs_used(); forking.export('e')",
    ],
)
def test_a_fork_waits_for_an_import_of_the_library(tmp_path, work):
    """Otherwise the module would stay locked in the child forever."""
    assert output_of(SLOW_IMPORT.replace("IN_TURN", work), tmp_path) == ["0"]


LOCKED = """
import os, signal, sys, threading, time
from deltawitness import DataFusionInstrumentor, internal_errors, run
from deltawitness.delta_rs import install
runs = sys.modules["deltawitness.run"]

def hold():
    with install._lock, internal_errors._lock, runs._process_run_lock:
        held.set()
        time.sleep(2)

held = threading.Event()
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    internal_errors.error_counts()
    runs._start_process_run()
    install.install_for_proxies()
    with run("r"):
        pass
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_lock_that_is_held_at_a_fork_is_free_in_the_child():
    """The thread that holds the lock does not exist in the child."""
    assert output_of(LOCKED) == ["0"]


WAITS = """
import os, sys, time
sys.argv[1:] = ["exported", "fork", sys.argv[1]]
import forking
forking.exported()
child = os.fork()
if child == 0:
    os.closerange(0, 3)
    time.sleep(6)
    os._exit(0)
print("waiting", flush=True)
assert os.wait()[0] == child
"""


def test_a_program_that_waits_for_children_dies_of_a_signal(tmp_path):
    """The program does not see deltawitness's helper process as a child, and its export has a row."""
    program = subprocess.Popen(
        # Since 3.12 Python warns about a fork with threads, which the engines have.
        [sys.executable, "-Wignore::DeprecationWarning", "-c", WAITS, tmp_path],
        cwd=PROGRAM.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "waiting\n"
    program.send_signal(signal.SIGTERM)
    assert program.wait(30) == -signal.SIGTERM
    assert program.stderr.read() == ""
    assert Ledger(tmp_path / "cache").inventory().count() == 1
