"""Every write belongs to a run, in any context."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import uuid

import pytest

from deltawitness import cache_context, current_run, run, suppressed
from deltawitness.exceptions import ConfigurationError
from deltawitness.ids_and_clock import fixed, new_id, now_ns
from deltawitness.run import (
    Ambient,
    add_run_listener,
    current_cache_context,
    forget_process_run,
    is_suppressed,
    remove_run_listener,
)
from deltawitness.run_variables import run_from_environment
from deltawitness.semconv import CacheScope, Env


def test_without_a_run_there_is_the_process_run():
    """The implicit run is the same at each call, and has the program's name as its job."""
    assert current_run() is current_run()
    assert current_run().parent_run_id is None
    assert current_run().job


def test_a_run_is_current_inside_its_block_only():
    outside = current_run()
    with run("nightly", attributes={"shard": 3}) as inside:
        assert current_run() is inside
        assert (inside.job, dict(inside.attributes)) == ("nightly", {"shard": "3"})
    assert current_run() is outside


def test_nested_runs_keep_their_parent():
    """An inner run has the id of the enclosing run as its parent id."""
    with run("a") as a, run("b") as b:
        assert (a.parent_run_id, b.parent_run_id) == (None, a.run_id)


def test_a_run_with_a_process_run_behind_it_has_it_as_parent():
    """An explicit run has the process's implicit run as its parent, if that has started."""
    process = current_run()
    with run("a") as a:
        assert a.parent_run_id == process.run_id


def test_each_call_of_a_decorated_function_is_a_run_of_its_own():
    """Each call of a decorated function, plain or async, opens a new run."""

    @run("job")
    def plain():
        return current_run()

    @run("job")
    async def awaited():
        await asyncio.sleep(0)
        return current_run()

    runs = [plain(), plain(), asyncio.run(awaited())]
    assert {context.job for context in runs} == {"job"}
    assert len({context.run_id for context in runs}) == 3
    assert plain.__name__ == "plain"


def test_async_blocks_and_tasks_carry_the_run():
    """A task that is started inside a run belongs to it."""

    async def job():
        async with run("nightly") as context:
            return context, await asyncio.create_task(asyncio.to_thread(current_run))

    context, seen = asyncio.run(job())
    assert seen is context


def test_the_ambient_context_can_be_used_in_another_thread():
    """The run, the cache context and the suppression apply inside the block and not after it."""
    seen = []

    def look():
        seen.append((current_run().job, current_cache_context().policy, is_suppressed()))

    with run("nightly"), cache_context(policy="p"), suppressed():
        ambient = Ambient.current()

    def work():
        with ambient.active():
            look()
        look()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [("nightly", "p", True), (current_run().job, None, False)]
    assert Ambient.current().is_empty
    assert not ambient.is_empty


def test_a_process_inherits_the_cache_context_of_its_environment(monkeypatch):
    """A block merges with the inherited context, and an invalid scope raises one clear error."""
    for name, value in ((Env.CACHE_POLICY, "p"), (Env.CACHE_SCOPE, "view"), (Env.CACHE_KEY, "k")):
        monkeypatch.setenv(name, value)
    context = current_cache_context()
    assert (context.policy, context.scope, context.key) == ("p", CacheScope.VIEW, "k")
    with cache_context(policy="q"):
        assert current_cache_context().scope is CacheScope.VIEW
    forget_process_run()
    monkeypatch.setenv(Env.CACHE_SCOPE, "room")
    with pytest.raises(ConfigurationError, match="DELTAWITNESS_CACHE_SCOPE: expected one of view"):
        current_cache_context()


def test_listeners_are_called_in_order_and_with_the_error():
    """Listeners start in order and end in reverse order, inside the run, with the error of the block."""
    told = []

    class Listener:
        def __init__(self, name):
            self.name = name

        def run_started(self, context):
            told.append((self.name, "start", current_run() is context))

        def run_ending(self, context):
            told.append((self.name, "settle", current_run() is context))

        def run_ended(self, context, error):
            told.append((self.name, "end", type(error).__name__, current_run() is context))

        def run_closed(self, context):
            told.append((self.name, "closed", current_run() is context))

    listeners = Listener("a"), Listener("b")
    for listener in listeners:
        add_run_listener(listener)
    try:
        with pytest.raises(KeyError), run("nightly"):
            raise KeyError
    finally:
        for listener in listeners:
            remove_run_listener(listener)
    assert told == [
        ("a", "start", True),
        ("b", "start", True),
        ("b", "settle", True),
        ("a", "settle", True),
        ("b", "end", "KeyError", True),
        ("a", "end", "KeyError", True),
        ("b", "closed", False),
        ("a", "closed", False),
    ]


@pytest.mark.parametrize("job", ["", None, 7])
def test_a_run_needs_a_name(job):
    """An empty job name is rejected."""
    with pytest.raises(ConfigurationError, match="job name"):
        run(job)


@pytest.mark.parametrize("run_id", ["", "a b", "x" * 129, "a/b"])
def test_a_given_run_id_is_checked(run_id):
    """A run id must be safe for logs, environment variables and file names."""
    with pytest.raises(ConfigurationError, match="run_id"):
        run("job", run_id=run_id)


def test_a_given_run_id_is_used():
    """A run id of a scheduler becomes the id of the run."""
    with run("job", run_id="airflow:1") as context:
        assert context.run_id == "airflow:1"


def test_cache_contexts_merge_from_outside_in():
    """An argument that is left out is inherited."""
    with cache_context(policy="p", key="k"), cache_context(scope="view"):
        context = current_cache_context()
        assert (context.policy, context.scope, context.key) == ("p", CacheScope.VIEW, "k")
    assert current_cache_context().policy is None


@pytest.mark.parametrize("arguments", [{"scope": "table"}, {"policy": ""}])
def test_a_cache_context_outside_the_closed_sets_is_refused(arguments):
    """An invalid scope or an empty policy raises on entry, before anything is written."""
    with pytest.raises(ConfigurationError), cache_context(**arguments):
        pass


def test_a_child_process_joins_the_run_by_environment():
    """The child has its parent's run id, job and trace context."""
    program = (
        "from deltawitness import current_run; r = current_run(); "
        "print(r.run_id, r.job, r.traceparent)"
    )
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    with run("nightly", run_id="r-1") as context:
        environment = {**os.environ, **context.environment(), Env.TRACEPARENT: traceparent}
    out = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["r-1", "nightly", traceparent]


def test_an_invalid_run_id_in_the_environment_is_a_clear_error(monkeypatch):
    """The message names the variable."""
    monkeypatch.setenv(Env.RUN_ID, "not a run")
    with pytest.raises(ConfigurationError, match="DELTAWITNESS_RUN_ID"):
        current_run()


def test_ids_are_uuids_of_version_7_and_sort_by_time():
    """Ids have the version and variant bits of RFC 9562 and start with the milliseconds."""
    first, second = uuid.UUID(new_id()), uuid.UUID(new_id())
    assert (first.version, first.variant) == (7, uuid.RFC_4122)
    assert first.int >> 80 <= second.int >> 80
    assert abs((first.int >> 80) - now_ns() // 1_000_000) < 10_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_makes_other_ids_than_its_parent():
    """Ids are made in batches, and the child has the parent's memory."""
    new_id()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, " ".join(new_id() for _ in range(100)).encode())
        os._exit(0)
    own = [new_id() for _ in range(100)]
    assert os.waitpid(pid, 0) == (pid, 0)
    ids = own + os.read(reader, 10_000).decode().split()
    os.close(reader)
    os.close(writer)
    assert len({each[14:] for each in ids}) == 200


def test_ids_and_clock_are_restored_after_the_block():
    """After the block, ids and times come from the system again."""
    with fixed(ids=lambda: "one", clock=lambda: 7):
        assert (new_id(), now_ns()) == ("one", 7)
    assert new_id() != "one"
    assert now_ns() > 7


def test_a_run_can_be_entered_again_inside_itself():
    """Each entry opens a new run, and each exit restores the previous one."""
    before, again = current_run(), run("again")
    with again as outer:
        with again as inner:
            assert current_run() is inner
            assert inner.parent_run_id == outer.run_id
        assert current_run() is outer
    assert current_run() is before


def test_tasks_that_share_a_run_object_keep_their_runs_apart():
    """The task that entered first may also exit first."""
    shared = run("shared", run_id="scheduler-1")

    async def task(entered, leave):
        async with shared as mine:
            entered.set()
            await leave.wait()
            return current_run() is mine

    async def both():
        events = [asyncio.Event() for _ in range(4)]
        first = asyncio.create_task(task(events[0], events[1]))
        second = asyncio.create_task(task(events[2], events[3]))
        await asyncio.gather(events[0].wait(), events[2].wait())
        events[1].set()
        one = await first
        events[3].set()
        return one, await second

    assert asyncio.run(both()) == (True, True)


def test_a_generator_cannot_be_a_run():
    """A run around a generator would be current for its consumer between two items."""

    def steps():
        yield

    async def stream():
        yield

    for function in (steps, stream):
        with pytest.raises(ConfigurationError, match="generator"):
            run("nightly")(function)


def test_a_run_with_the_id_of_the_run_around_it_is_not_its_own_parent():
    """Under `deltawitness run` the program's run has the same id as the run around it."""
    with (
        run("outer", run_id="r-0"),
        run("command", run_id="r-1"),
        run("program", run_id="r-1") as r,
    ):
        assert r.parent_run_id == "r-0"


def test_a_listener_that_waits_does_not_hold_up_the_event_loop():
    """Other tasks continue while a listener waits for a run to end."""
    settled_on = []

    class Listener:
        def run_started(self, context):
            pass

        def run_ending(self, context):
            settled_on.append(threading.current_thread())

        def run_ended(self, context, error):
            settled_on.append(threading.current_thread())

        def run_closed(self, context):
            settled_on.append(threading.current_thread())

    async def job():
        async with run("nightly"):
            pass

    listener = Listener()
    add_run_listener(listener)
    try:
        asyncio.run(job())
    finally:
        remove_run_listener(listener)
    aside, here, aside_again = settled_on
    assert here is threading.main_thread()
    assert aside is not here
    assert aside_again is not here


def test_force_sample_is_inherited_by_inner_runs_and_child_processes(monkeypatch):
    """`force_sample` is inherited, so that a tail sampler keeps all traces of the run."""
    with run("outer", force_sample=True) as outer, run("inner") as inner:
        assert outer.force_sample
        assert inner.force_sample
    assert outer.environment()["DELTAWITNESS_FORCE_SAMPLE"] == "true"
    with run("other") as other:
        assert not other.force_sample
    assert "DELTAWITNESS_FORCE_SAMPLE" not in other.environment()
    assert run_from_environment(outer.environment()).force_sample
    monkeypatch.setenv("DELTAWITNESS_FORCE_SAMPLE", "true")
    with run("child") as child:
        assert child.force_sample
    monkeypatch.setenv("DELTAWITNESS_FORCE_SAMPLE", "maybe")
    with pytest.raises(ConfigurationError, match="expected one of true, false"), run("child"):
        pass
