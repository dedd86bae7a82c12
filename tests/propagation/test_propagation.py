"""The run, the trace and the settings are propagated to threads, process pools and child processes."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import pickle
import shlex
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from opentelemetry import context as otel_context
from opentelemetry import trace

from deltawitness import (
    DeltaLakeInstrumentor,
    Settings,
    cache_context,
    current_run,
    run,
    run_environment,
)
from deltawitness.commit import read_commit_metadata
from deltawitness.import_hooks import when_imported
from deltawitness.propagation import install
from deltawitness.run import current_cache_context
from deltawitness.semconv import Env
from deltawitness.settings import TableNames


def here(_=None):
    """Return the run, the policy and the trace of a worker."""
    return current_run().run_id, current_cache_context().policy


def appended(uri):
    """Write in a worker."""
    write_deltalake(uri, pa.table({"x": [1]}), mode="append")


@pytest.fixture
def instrumented():
    DeltaLakeInstrumentor().instrument()
    yield
    DeltaLakeInstrumentor().uninstrument()


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.usefixtures("instrumented")
@pytest.mark.slow
def test_a_worker_is_on_the_run_of_each_task(method):
    """A worker does not use the run in which the pool was created."""
    context = multiprocessing.get_context(method)
    with run("one") as one, ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(here).result(60)[0] == one.run_id
        with run("two", attributes={"shard": "2"}) as two, cache_context(policy="p"):
            assert pool.submit(here).result(60) == (two.run_id, "p")
        assert pool.submit(here).result(60) == (one.run_id, None)


@pytest.mark.parametrize(
    "call",
    [
        lambda pool: [pool.apply(here)],
        lambda pool: [pool.apply_async(here).get(60)],
        lambda pool: pool.map(here, [1]),
        lambda pool: pool.map_async(here, [1]).get(60),
        lambda pool: pool.starmap(here, [(1,)]),
        lambda pool: pool.starmap_async(here, [(1,)]).get(60),
        lambda pool: list(pool.imap(here, [1])),
        lambda pool: list(pool.imap_unordered(here, [1])),
    ],
)
@pytest.mark.usefixtures("instrumented")
def test_every_call_of_a_pool_is_in_the_run(call):
    """Each method of a pool that sends a function to a worker sends the run."""
    with multiprocessing.get_context("fork").Pool(1) as pool, run("later") as later:
        assert call(pool) == [(later.run_id, None)]


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.slow
def test_a_new_process_has_the_settings_of_its_parent(method, tmp_path):
    """The child also has settings that were given in code."""
    DeltaLakeInstrumentor().instrument(
        settings=Settings(user_metadata=False, table_id_key=b"\xff\x00")
    )
    child = multiprocessing.get_context(method).Process(
        target=appended, args=(str(tmp_path / "t"),)
    )
    child.start()
    child.join()
    DeltaLakeInstrumentor().uninstrument()
    commit = read_commit_metadata(tmp_path / "t")
    assert commit.write_id is not None
    assert "userMetadata" not in commit.metadata


def test_a_setting_given_as_text_is_the_member_it_names():
    """Text becomes the enum member, also if it names the default."""
    assert Settings(table_names="path").table_names is TableNames.PATH
    assert Settings(table_names="none").table_names is TableNames.NONE


def seen_in(start):
    """Return the run, the policy and the trace in a thread that `start` starts."""
    seen, done = [], threading.Event()

    def look():
        span = trace.get_current_span().get_span_context()
        seen.append((current_run().run_id, current_cache_context().policy, span.span_id))
        done.set()

    start(look)
    assert done.wait(30)
    return seen


class Subclass(threading.Thread):
    """A thread class that overrides `run` without calling the original."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def run(self):
        self.function()


def instrumented_threading():
    """Wrap threads as OpenTelemetry's instrumentation of `threading` does."""
    originals = threading.Thread.start, threading.Thread.run

    def start(self):
        self._otel_context = otel_context.get_current()
        return originals[0](self)

    def run_attached(self):
        token = otel_context.attach(self._otel_context)
        try:
            return originals[1](self)
        finally:
            otel_context.detach(token)

    threading.Thread.start, threading.Thread.run = start, run_attached

    def restore():
        threading.Thread.start, threading.Thread.run = originals

    return restore


THREADS = {
    "Thread": lambda f: threading.Thread(target=f).start(),
    "a subclass": lambda f: Subclass(f).start(),
    "Timer": lambda f: threading.Timer(0, f).start(),
    "_thread": lambda f: _thread.start_new_thread(f, ()),
    "_thread's old name": lambda f: _thread.start_new(f, ()),
}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("kind", THREADS)
@pytest.mark.usefixtures("instrumented")
def test_a_thread_works_in_the_run_that_started_it(kind, beside):
    """A thread has its starter's run, with and without OpenTelemetry's instrumentation of threads."""
    restore = instrumented_threading() if beside else lambda: None
    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    try:
        with run("nightly") as context, cache_context(policy="p"), trace.use_span(span):
            inside = seen_in(THREADS[kind])
        assert inside == [(context.run_id, "p", 2)]
        assert seen_in(THREADS[kind]) == [(current_run().run_id, None, 0)]
    finally:
        restore()


@pytest.mark.usefixtures("instrumented")
def test_attributes_and_errors_of_a_thread_are_unchanged():
    """A thread's attributes and errors are unchanged, and so is the error of starting it twice."""
    with run("nightly"):
        thread = threading.Thread(target=lambda: None)
        before = set(vars(thread))
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match="once"):
            thread.start()
    assert "run" not in vars(thread)
    assert set(vars(thread)) <= before


@pytest.mark.usefixtures("instrumented")
def test_a_pools_thread_is_not_left_in_the_run_that_started_it():
    """A later task that is submitted outside any run has no explicit run."""
    with ThreadPoolExecutor(1) as pool:
        with run("nightly") as context:
            assert pool.submit(here).result(30)[0] == context.run_id
        assert pool.submit(here).result(30) == (current_run().run_id, None)


SHOW = (
    "import os; print(*(os.environ.get(n) for n in "
    f"({Env.RUN_ID.value!r}, {Env.CACHE_POLICY.value!r})))"
)
SHOWING = [sys.executable, "-S", "-c", SHOW]


def in_child(start):
    """Return the output of a forked child that `start` replaces by another program."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writing, 1)
            start()
        finally:
            os._exit(1)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        return stream.read()


def spawned(flags_of_call):
    """Return the output of a program started by a call that takes a descriptor for its output."""
    reading, writing = os.pipe()
    child = flags_of_call([(os.POSIX_SPAWN_DUP2, writing, 1)])
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        return stream.read()


def by_system(file):
    assert os.system(f"{shlex.join(SHOWING)} > {file}") == 0
    return file.read_text()


def by_popen(_):
    with os.popen(shlex.join(SHOWING)) as stream:
        return stream.read()


def run_with(**options):
    return subprocess.run(SHOWING, capture_output=True, text=True, check=True, **options).stdout


CHILDREN = {
    "inherited": lambda file: run_with(),
    "a copy": lambda file: run_with(env=dict(os.environ)),
    "a changed copy": lambda file: run_with(env={**os.environ, "PATH": "/bin", "MORE": "1"}),
    "a copy of bytes": lambda file: run_with(env=dict(os.environb)),
    "popen": by_popen,
    "system": by_system,
    "posix_spawn": lambda file: spawned(
        lambda actions: os.posix_spawn(SHOWING[0], SHOWING, os.environ, file_actions=actions)
    ),
    "execv": lambda file: in_child(lambda: os.execv(SHOWING[0], SHOWING)),
    "execlp": lambda file: in_child(lambda: os.execlp(SHOWING[0], *SHOWING)),
    "execve": lambda file: in_child(lambda: os.execve(SHOWING[0], SHOWING, dict(os.environ))),
}


@pytest.mark.parametrize("kind", CHILDREN)
@pytest.mark.usefixtures("instrumented")
def test_a_child_gets_the_run_and_the_policy(kind, tmp_path):
    """Every way to start a child passes them on, if its environment is that of this process or a copy."""
    with run("nightly") as context, cache_context(policy="p q"):
        said = CHILDREN[kind](tmp_path / "out")
    assert said == f"{context.run_id} p q\n"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "None None\n"),
        ({"PATH": "/bin", Env.CACHE_POLICY.value: "mine"}, "None mine\n"),
    ],
)
@pytest.mark.usefixtures("instrumented")
def test_an_environment_that_the_caller_has_made_is_left_alone(environment, said):
    """An environment that is not a copy of this process's is unchanged."""
    with run("nightly"), cache_context(policy="p"):
        assert run_with(env=environment) == said
        chosen = run_with(env={**os.environ, Env.RUN_ID.value: "mine"})
    assert chosen == "mine None\n"


@pytest.mark.usefixtures("instrumented")
def test_a_variable_that_the_caller_has_changed_in_a_copy_stays():
    with run("nightly") as context, cache_context(policy="p"):
        said = run_with(env={**os.environ, Env.CACHE_POLICY.value: "mine"})
    assert said == f"{context.run_id} mine\n"


@pytest.mark.usefixtures("instrumented")
def test_os_system_is_restored():
    """Status, errors and pickling are unchanged; a command without variables to add is passed on unchanged."""
    with run("nightly"):
        assert os.waitstatus_to_exitcode(os.system("exit 7")) == 7
        assert os.waitstatus_to_exitcode(os.system(b"exit 8")) == 8
        with pytest.raises(TypeError):
            os.system(7)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.map(os.system, ["exit 3"]) == [3 << 8]
    assert pickle.loads(pickle.dumps(os.system)) is os.system


def test_propagation_restores_every_replaced_function():
    """Every function is restored after two installations, also if another library wrapped it in between."""
    places = [
        (threading.Thread, "start"),
        (_thread, "start_new_thread"),
        (os, "system"),
        (os, "execv"),
        (os, "execve"),
        (os, "posix_spawn"),
        (subprocess.Popen, "__init__"),
    ]
    before = [vars(owner)[name] for owner, name in places]
    supporting = set(os.supports_fd)
    for _ in range(2):
        DeltaLakeInstrumentor().instrument()
        assert os.execve in os.supports_fd
        DeltaLakeInstrumentor().uninstrument()
    assert [vars(owner)[name] for owner, name in places] == before
    assert os.supports_fd == supporting


def test_a_wrapper_of_another_library_stays_and_propagates_nothing_after_uninstrument(monkeypatch):
    """After `uninstall` the wrapped replacement calls the original and propagates nothing."""
    DeltaLakeInstrumentor().instrument()
    ours = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self, **_: ours(self))
    theirs = threading.Thread.start
    DeltaLakeInstrumentor().uninstrument()
    assert threading.Thread.start is theirs
    with run("nightly") as context:
        assert seen_in(THREADS["Thread"])[0][0] != context.run_id


def test_the_environment_of_a_run_needs_no_instrumentation(monkeypatch):
    """`run_environment()` also has the settings of this process, for workers that are started in other ways."""
    monkeypatch.setenv(Env.CACHE_ROOT, "/lake")
    with run("nightly") as context, cache_context(policy="p", scope="view", key="k"):
        variables = run_environment()
    assert variables == {
        "DELTAWITNESS_CACHE_KEY": "k",
        "DELTAWITNESS_CACHE_POLICY": "p",
        "DELTAWITNESS_CACHE_ROOT": "/lake",
        "DELTAWITNESS_CACHE_SCOPE": "view",
        "DELTAWITNESS_DETECT_ENVIRONMENT": "false",
        "DELTAWITNESS_JOB": "nightly",
        "DELTAWITNESS_RUN_ID": context.run_id,
    }


@pytest.mark.slow
def test_workers_of_joblib_are_observed_and_on_the_run_of_each_task(tmp_path):
    """The library joblib starts its worker processes itself, and reuses them."""
    joblib = pytest.importorskip("joblib")
    DeltaLakeInstrumentor().instrument()
    for job in ("one", "two"):
        with run(job) as context, cache_context(policy=job):
            joblib.Parallel(n_jobs=2)(
                joblib.delayed(appended)(str(tmp_path / f"{job}{i}")) for i in range(2)
            )
        for i in range(2):
            commit = read_commit_metadata(tmp_path / f"{job}{i}")
            assert (commit.run_id, commit.metadata["cache_policy"]) == (context.run_id, job)
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
@pytest.mark.usefixtures("instrumented")
@pytest.mark.slow
def test_tasks_of_dask_are_on_the_run_of_their_caller(scheduler):
    """The caller's run is the task's, on each single-machine scheduler."""
    dask = pytest.importorskip("dask")
    with run("nightly") as context, cache_context(policy="p"):
        (said,) = dask.compute(dask.delayed(here)(), scheduler=scheduler, num_workers=1)
    assert said == (context.run_id, "p")


def submitted_by_map(client, place):
    client.gather(client.map(appended, [place]))


def submitted_as_graph(client, place):
    dask = pytest.importorskip("dask")
    dask.compute(dask.delayed(appended)(place), scheduler=client)


async def appended_by_coroutine(place):
    """Write in a worker, on its event loop."""
    appended(place)


def submitted_as_coroutine(client, place):
    client.submit(appended_by_coroutine, place).result(60)


def appended_by_task(place):
    """Submit a task in a worker."""
    distributed = pytest.importorskip("distributed")
    with distributed.worker_client() as client:
        client.submit(appended, place).result(60)


SUBMITTED = {
    "submit": lambda client, place: client.submit(appended, place).result(60),
    "map": submitted_by_map,
    "graph": submitted_as_graph,
    "coroutine": submitted_as_coroutine,
    "task of a task": lambda client, place: client.submit(appended_by_task, place).result(60),
}


@pytest.mark.slow
def test_a_task_of_a_dask_cluster_is_in_the_run_of_its_submitter(tmp_path):
    """The task has the submitter's run, policy and trace, not those in which the worker was started."""
    distributed = pytest.importorskip("distributed")
    DeltaLakeInstrumentor().instrument()
    parent = trace.set_span_in_context(
        trace.NonRecordingSpan(
            trace.SpanContext(0x1234, 0x5678, is_remote=False, trace_flags=trace.TraceFlags(1))
        )
    )
    with (
        run("starts the cluster"),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        for kind, submit in SUBMITTED.items():
            place = str(tmp_path / kind)
            token = otel_context.attach(parent)
            try:
                with run(kind) as context, cache_context(policy=kind, scope="view"):
                    submit(client, place)
            finally:
                otel_context.detach(token)
            commit = read_commit_metadata(place)
            said = commit.run_id, commit.metadata["cache_policy"], commit.metadata["cache_scope"]
            assert said == (context.run_id, kind, "view"), kind
        with run("trace") as context:
            token = otel_context.attach(parent)
            assert client.submit(trace_here, pure=False).result(60) == 0x1234
            otel_context.detach(token)
    assert current_run().run_id != context.run_id


def trace_here():
    """Return the trace id of a task."""
    return trace.get_current_span().get_span_context().trace_id


IMPORTED_LATER = """\
import sys
from deltawitness import DeltaLakeInstrumentor, current_run, run

def here(_=None):
    return current_run().run_id

DeltaLakeInstrumentor().instrument()
assert "multiprocessing.pool" not in sys.modules
import multiprocessing
with multiprocessing.get_context("fork").Pool(1) as pool, run("later") as later:
    assert {*pool.map(here, [1]), *pool.imap(here, [1]), pool.apply(here)} == {later.run_id}
"""


@pytest.mark.slow
def test_every_call_of_a_pool_that_is_imported_later_is_in_the_run():
    """The methods are replaced when the module is imported."""
    done = subprocess.run([sys.executable, "-c", IMPORTED_LATER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.internal_errors
def test_an_error_in_a_hook_does_not_break_an_import_of_the_program(tmp_path, monkeypatch):
    """The module is imported, and its function is the original one."""
    (tmp_path / "imported_later.py").write_text("def act():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    DeltaLakeInstrumentor().instrument()
    try:
        when_imported(
            "imported_later", lambda _: install._replace_now("imported_later", "", "act", fail)
        )
        import imported_later
    finally:
        DeltaLakeInstrumentor().uninstrument()
    assert imported_later.act() == 1


def fail(original):
    """Raise an error that the replacement of a function does not expect."""
    raise ZeroDivisionError
