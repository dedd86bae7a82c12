"""Fixtures and hooks of all tests: clean state before and after each test, and time limits."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from zlib import crc32

import pytest
from _pytest.doctest import DoctestModule
from hypothesis import HealthCheck, settings

from deltawitness import forks, internal_errors
from deltawitness.delta_rs.caller_keys import reset_caller_key_warnings
from deltawitness.delta_rs.install import uninstall
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.run import forget_process_run
from deltawitness.run_origin import use_origin_options
from deltawitness.semconv import Env
from helpers.remote_parts import running_server

WITHOUT_PANDAS = Path(__file__).parent / "helpers/hidden"
"""A folder with modules `pandas` and `numpy` that raise ModuleNotFoundError."""

PACKAGE = Path(__file__).parents[1] / "src/deltawitness"

SIZE = os.environ.get("TEST_SIZE")
IS_LONG = SIZE == "long"

settings.register_profile(
    "fair", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "small", max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile({"long": "long", "ci": "fair"}.get(SIZE, "small"))


LONGER = 50
"""How much longer a test may take at full size: no size is more than 50 times the fair one."""
GRACE_S = 60.0
"""How long after its bound a test that cannot be interrupted ends the run."""
STDERR = pytest.StashKey[int]()
IGNORED = pytest.StashKey[list[int]]()
STARTED = pytest.StashKey[float]()


def bound_of(item):
    """Return a test's time limit in seconds: of its timeout marker, else the run's default; 0 is no limit."""
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        return marker.args[0]
    chosen = item.config.getoption("timeout")
    return float(item.config.getini("timeout") if chosen is None else chosen)


LONGEST = (
    "collector/test_soak",
    "distributed/test_dask",
    "distributed/test_crash",
    "integrations/test_spark",
    "integrations/test_interop",
    "project/test_docs",
    "telemetry/test_run_span",
    "activation/test_activation",
    "cli/test_terminal",
    "answers/test_undo",
    "cli/test_commands",
    "activation/test_exit_status",
    "cache/test_copies",
    "cache/test_traps",
    "activation/test_launch_modes",
    "project/test_scale",
    "ledger/test_versions",
    "ledger/test_sums",
    "ui/test_ui",
    "scan/test_remote_reading",
    "answers/test_program_plan",
    "cli/test_bench",
    "activation/test_forks",
    "cli/test_ledger_of_a_program",
    "answers/test_diff",
    "cli/test_run_summary",
    "cli/test_ledger",
    "cli/test_cache",
    "propagation/test_exec",
    "cache/test_verify_writes",
    "ledger/test_remote",
    "answers/test_bisect_histories",
    "alerts/test_notify",
    "cache/test_requests",
    "ledger/test_kill",
    "cache/test_verify",
    "session/test_statement_binding",
    "cli/test_origin_of_a_program",
    "session/test_pending_statements",
    "ledger/test_lives",
    "answers/test_doctor",
    "answers/test_diff_histories",
    "ledger/test_storage",
    "ledger/test_recorder",
    "project/test_demo",
    "scan/test_remote_equivalence",
    "ledger/test_shards",
    "ledger/test_drain_process",
    "ledger/test_reconcile_concurrency",
    "cli/test_storage_options",
    "cache/test_truth",
    "answers/test_releases",
    "ledger/test_many_writers",
    "answers/test_lineage",
    "propagation/test_propagation",
    "cli/test_ledger_maintenance",
    "answers/test_lineage_histories",
    "cache/test_policies",
    "answers/test_show",
    "delta_rs/test_handle_cache",
    "answers/test_histories",
    "observe/test_sigterm",
    "session/test_sql_writes",
    "ledger/test_copies",
    "ledger/test_reconcile",
    "ledger/test_adopt",
    "cache/test_concurrency",
    "answers/test_undo_histories",
    "integrations/test_ray",
    "ledger/test_expire",
    "delta_rs/test_compaction_lease",
    "scan/test_remote",
    "session/test_proxy",
    "cli/test_undo",
    "answers/test_bisect",
    "cli/test_live",
    "cache/test_artifacts",
    "integrations/test_hamilton",
    "project/test_extras",
    "ledger/test_faults",
    "ledger/test_rebuilt_runs",
    "ledger/test_drain",
    "ledger/test_forks",
    "session/test_instrumentor",
    "cli/test_progress",
    "cli/test_lineage",
    "cli/test_program_plan",
    "answers/test_run_time",
    "cache/test_prune",
    "cli/test_causes",
    "session/test_program",
    "test_mcp_server",
    "session/test_telemetry",
    "session/test_distributed_write",
)
"""The test files that take longest in `make test` or in CI: started last, one would run alone at the end."""


ENGINE = ("commit/", "delta_rs/", "ledger/", "observe/", "propagation/", "telemetry/")
"""Folders of the tests that run on every supported release of deltalake."""


@cache
def _name_of(path):
    """Return the path of a test file in this folder, without its suffix; for other files their name."""
    here = Path(__file__).parent
    return path.relative_to(here).with_suffix("").as_posix() if here in path.parents else path.name


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect tests without garbage collections: almost nothing of what is created is garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_collect_file():
    """Look for doctests in the package only: the files of this folder have none."""
    return [collector for collector in (yield) if not isinstance(collector, DoctestModule)]


class PackageFiles:
    """A plugin that passes over the modules of the package without a doctest: importing them takes a second."""

    def pytest_ignore_collect(self, collection_path):
        """Ignore a module without an example; other hooks decide about any other file."""
        is_module = collection_path.suffix == ".py" and PACKAGE in collection_path.parents
        if is_module and b">>> " not in collection_path.read_bytes():
            return True
        return None


def left_out(items):
    """Return the cases that `make test` leaves out.

    It runs every second case of a test that is slow, and with the marker `one_case_in(n)` every n-th one. A
    hash of the name says with which case it begins, so that it is not always the first.
    """
    families = defaultdict(list)
    for item in items:
        marker = item.get_closest_marker("one_case_in")
        is_slow = hasattr(item, "callspec") and item.get_closest_marker("slow") is not None
        if marker is not None or is_slow:
            step = 2 if marker is None else marker.args[0]
            families[item.nodeid.partition("[")[0], step].append(item)
    found = []
    for (name, step), cases in families.items():
        first = crc32(name.encode()) % min(step, len(cases))
        found += [case for place, case in enumerate(cases) if (place - first) % step]
    return found


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark tests by what they need, start the longest files first, select cases, give more time at full size."""
    for item in items:
        if "server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.remote)
        if _name_of(item.path).startswith(ENGINE):
            item.add_marker(pytest.mark.engine)
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(_name_of(item.path), len(ranks)))
    if IS_LONG:
        for item in items:
            item.add_marker(pytest.mark.timeout(LONGER * bound_of(item)), append=False)
    result = yield  # the options -k and -m select tests
    is_chosen = any("::" in each for each in config.args)  # someone asks for single tests
    if SIZE not in {"ci", "long"} and not is_chosen and (others := left_out(items)):
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]
    return result


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """Leave the modules and the collected tests out of garbage collections: they live to the end."""
    gc.freeze()


def watch(item):
    """Print the stack of each thread and end the run if, from now on, a test takes longer than it may.

    faulthandler's watchdog is a native thread that needs no interpreter. So it also ends a test that
    hangs in native code, where the handler of pytest-timeout's signal never runs.
    """
    bound = bound_of(item)
    if bound:
        faulthandler.dump_traceback_later(
            bound + GRACE_S, exit=True, file=item.config.stash[STDERR]
        )


@contextmanager
def watched(item):
    """Watch a test in the block."""
    item.stash[STARTED] = time.monotonic()
    watch(item)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


STOPPING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGQUIT") if hasattr(signal, name)
)
"""Signals that `nohup` or a shell that starts a program in the background sets to be ignored."""


def pytest_configure(config):
    """Keep the run's error output, and let the programs of tests start with default signals.

    While a test runs, the output is captured. An ignored signal would also be ignored in each
    program that a test starts; a signal with a handler has its default action there. The handler
    does nothing, so this process still ignores the signal.
    """
    for variable in ("COLUMNS", "LINES"):  # pytest-xdist sets them in its workers
        os.environ.pop(variable, None)
    config.pluginmanager.register(PackageFiles())  # a hook of this file is for files of this folder
    config.stash[STDERR] = os.dup(2)
    config.stash[IGNORED] = getattr(config, "workerinput", {}).get("ignored") or [
        int(number) for number in STOPPING_SIGNALS if signal.getsignal(number) is signal.SIG_IGN
    ]
    for number in config.stash[IGNORED]:
        signal.signal(number, lambda *_: None)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Let a worker of pytest-xdist ignore the same signals as the run."""
    node.workerinput["ignored"] = node.config.stash[IGNORED]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """Limit the time of a test with its fixtures."""
    with watched(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    """Give the end of the fixtures its time after a failure, when pytest-timeout no longer limits it."""
    if time.monotonic() - item.stash[STARTED] > GRACE_S:
        watch(item)
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Bound the exit of the process, which waits for the threads that tests have left running.

    A worker of pytest-xdist first waits for the other workers; the run ends it.
    """
    if hasattr(config, "workerinput"):
        return
    faulthandler.dump_traceback_later(GRACE_S, exit=True, file=config.stash[STDERR])


@pytest.fixture(scope="session", autouse=True)
def programs_without_pandas():
    """Hide pandas and numpy from the programs that tests start.

    An installation of the library has neither. Where they are installed, pyarrow imports numpy, and pandas
    for the first table that a program creates: 0.4 s of the 0.5 s that a small program takes.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(WITHOUT_PANDAS), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def programs_with_pandas():
    """Let the programs of a test file import pandas and numpy."""
    _, *others = os.environ["PYTHONPATH"].split(os.pathsep)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(others))
        yield


@pytest.fixture(autouse=True)
def clean_process(monkeypatch, request):
    """Undo instrumentation after a test, and fail the test if deltawitness reported internal errors.

    A test that provokes internal errors has the marker `internal_errors`.
    """
    for variable in Env:
        monkeypatch.delenv(variable, raising=False)
    # The tests run in CI systems and in a Git repository, whose values would be in every commit.
    monkeypatch.setenv(Env.DETECT_ENVIRONMENT, "false")
    use_origin_options(None)
    forget_process_run()
    reset_caller_key_warnings()
    internal_errors.reset_counts()
    forks.mark_delta_rs_used()  # tests use delta-rs without observation, as a program may
    yield
    if DeltaLakeInstrumentor().is_instrumented_by_opentelemetry:
        DeltaLakeInstrumentor().uninstrument()
    uninstall()
    forget_process_run()
    if request.node.get_closest_marker("internal_errors") is None:
        assert internal_errors.error_counts() == {}


@pytest.fixture
def size():
    """Return a function that selects the size of a fault or property test by TEST_SIZE.

    Its arguments are the size of CI, the full size, and the size of `make test`: that of CI if it is None.
    """

    def select(fair, full, small=None):
        if IS_LONG:
            return full
        return fair if small is None or SIZE == "ci" else small

    return select


SAID = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def say(request):
    """Print a line at the end of the run, despite capturing: the amount of work of a fault test."""
    return request.config.stash.setdefault(SAID, []).append


def pytest_sessionfinish(session):
    """Send the lines of a worker of pytest-xdist to the process that prints the summary.

    Also save the coverage data of the worker now: pytest-xdist kills a worker that takes more than
    10 seconds to exit.
    """
    if not hasattr(session.config, "workeroutput"):
        return
    session.config.workeroutput["said"] = session.config.stash.get(SAID, [])
    coverage = sys.modules.get("coverage")
    measuring = None if coverage is None else coverage.Coverage.current()
    if measuring is not None:
        measuring.save()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Collect the lines of a worker that has ended; a worker that crashed has sent none."""
    lines = getattr(node, "workeroutput", {}).get("said", [])
    node.config.stash.setdefault(SAID, []).extend(lines)


def pytest_terminal_summary(terminalreporter):
    """Print the lines of `say`."""
    for line in sorted(terminalreporter.config.stash.get(SAID, [])):
        terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An S3-compatible server, in another process: the engine holds the GIL during some requests."""
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running
