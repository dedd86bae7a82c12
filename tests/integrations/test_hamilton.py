"""Apache Hamilton: an execution is a run, a node is a span, and a node's writes belong to both."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from opentelemetry.trace import StatusCode

from helpers.places import PROGRAMS

pytest.importorskip("hamilton", reason="apache-hamilton is not installed")

from hamilton import ad_hoc_utils, async_driver, driver, lifecycle
from hamilton.execution import executors
from hamilton.htypes import Collect, Parallelizable
from hamilton.plugins.h_threadpool import FutureAdapter

from deltawitness import (
    DeltaLakeInstrumentor,
    Ledger,
    Settings,
    cache_context,
    current_run,
    history,
    read_commit_metadata,
    run,
)
from deltawitness.exceptions import ConfigurationError
from deltawitness.integrations.hamilton import MAX_ENDED, DeltaWitnessAdapter
from deltawitness.testing import InMemoryTelemetry

ONE = pa.table({"id": [1]})


@pytest.fixture(autouse=True)
def quiet():
    """Silence Hamilton's log of node errors."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def telemetry(tmp_path):
    """Observe the process with a ledger, and collect telemetry in memory."""
    created = InMemoryTelemetry.create()
    DeltaLakeInstrumentor().instrument(
        **created.providers(), settings=Settings(cache_root=str(tmp_path / "cache"))
    )
    return created


def module_of(*functions, name="nightly_flights"):
    """Return a module with these functions, replacing one of that name."""
    sys.modules.pop(name, None)
    return ad_hoc_utils.create_temporary_module(*functions, module_name=name)


def driver_of(*functions, adapters=(), adapter=None, name="nightly_flights"):
    """Return a driver for a graph of these functions."""
    module = module_of(*functions, name=name)
    adapter = adapter or DeltaWitnessAdapter()
    built = driver.Builder().with_modules(module).with_adapters(*adapters, adapter).build()
    return built, adapter


def raw(lake: str) -> int:
    write_deltalake(f"{lake}/raw", ONE)
    return 1


def clean(raw: int, lake: str) -> int:
    write_deltalake(f"{lake}/clean", ONE)
    write_deltalake(f"{lake}/clean", ONE, mode="append")
    return raw + 2


def runs_of(tmp_path):
    return {row["run_id"]: row for row in Ledger(str(tmp_path / "cache")).runs().to_pylist()}


def spans_by_name(telemetry):
    spans = telemetry.spans()
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def parent_of(span, spans):
    found = [other for other in spans if other.context.span_id == span.parent.span_id]
    return found[0].name


@pytest.mark.slow
def test_an_execution_is_a_run_a_node_is_a_span_and_its_writes_are_below_it(telemetry, tmp_path):
    """The spans are one trace, and the run's row in the ledger counts the writes."""
    built, adapter = driver_of(raw, clean)
    assert built.execute(["clean"], inputs={"lake": str(tmp_path)}) == {"clean": 3}
    spans = telemetry.spans()
    assert [
        (span.name, None if span.parent is None else parent_of(span, spans))
        for span in sorted(spans, key=lambda span: span.start_time)
    ] == [
        ("nightly_flights", None),
        ("raw", "nightly_flights"),
        ("WRITE raw", "raw"),
        ("clean", "nightly_flights"),
        ("WRITE clean", "clean"),
        ("WRITE clean", "clean"),
    ]
    assert len({span.context.trace_id for span in spans}) == 1
    run_id = adapter.last_run.run_id
    assert [commit.run_id for commit in history(tmp_path / "clean")] == [run_id, run_id]
    row = runs_of(tmp_path)[run_id]
    assert (row["job"], row["status"], row["writes"], row["error_type"]) == (
        *("nightly_flights", "ok", 3),
        None,
    )


@pytest.mark.slow
def test_a_nodes_span_has_conventional_attributes_and_no_value(telemetry, tmp_path):
    """A span has no path and no value, neither of arguments nor of results."""

    def place(lake: str) -> str:
        return f"{lake}/canary"

    built, adapter = driver_of(place)
    built.execute(["place"], inputs={"lake": str(tmp_path / "canary")})
    run_id = adapter.last_run.run_id
    span = spans_by_name(telemetry)["place"]
    assert dict(span.attributes) == {
        "deltawitness.run.id": run_id,
        "cicd.pipeline.name": "nightly_flights",
        "cicd.pipeline.run.id": run_id,
        "cicd.pipeline.task.name": "place",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert not any("canary" in finished.to_json() for finished in telemetry.spans())


@pytest.mark.slow
def test_the_run_carries_the_id_that_hamilton_gave_and_the_attributes_given(telemetry, tmp_path):
    """The id finds the execution in Hamilton's UI, and the attributes are the program's."""
    built, adapter = driver_of(raw, adapter=DeltaWitnessAdapter(attributes={"shard": "3"}))
    built.execute(["raw"], inputs={"lake": str(tmp_path)})
    attributes = adapter.last_run.attributes
    assert set(attributes) == {"shard", "hamilton.run.id"}
    row = runs_of(tmp_path)[adapter.last_run.run_id]
    assert {entry["name"]: entry["value"] for entry in row["attributes"]} == dict(attributes)


def test_the_default_job_is_the_modules_of_the_graph(telemetry):
    """The fallback is `hamilton`, if no module has a meaningful name."""

    def one() -> int:
        return 1

    def two() -> int:
        return 2

    def job_of(*modules, **given):
        adapter = DeltaWitnessAdapter(**given)
        built = driver.Builder().with_modules(*modules).with_adapters(adapter).build()
        built.execute(["one"])
        return adapter.last_run.job

    first, second = module_of(one, name="flights.load"), module_of(two, name="flights.clean")
    assert job_of(first, second) == "flights.clean+flights.load"
    assert job_of(first, job="nightly") == "nightly"
    assert job_of(ad_hoc_utils.create_temporary_module(one)) == "hamilton"
    with pytest.raises(ConfigurationError):
        DeltaWitnessAdapter("")


class NodeFailed(Exception):
    """An error of a node, with a text that must not be exported."""


def failing(lake: str) -> int:
    write_deltalake(f"{lake}/before", ONE)
    msg = f"cannot read {lake}/part.parquet: password=canary"
    raise NodeFailed(msg)


def after(failing: int) -> int:
    return failing


@pytest.mark.slow
def test_an_error_of_a_node_is_raised_unchanged_and_recorded(telemetry, tmp_path):
    """The node's span has the type of the error and not its text, and the run has the status."""
    built, adapter = driver_of(failing, after)
    with pytest.raises(NodeFailed) as raised:
        built.execute(["after"], inputs={"lake": str(tmp_path)})
    assert raised.value.args == (f"cannot read {tmp_path}/part.parquet: password=canary",)
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)
    spans = spans_by_name(telemetry)
    assert set(spans) == {"nightly_flights", "failing", "WRITE before"}
    assert spans["failing"].attributes["error.type"] == "_OTHER"
    assert spans["failing"].status.status_code is StatusCode.ERROR
    assert spans["failing"].status.description is None
    assert spans["nightly_flights"].attributes["error.type"] == "NodeFailed"
    row = runs_of(tmp_path)[adapter.last_run.run_id]
    assert (row["status"], row["error_type"], row["writes"]) == ("error", "NodeFailed", 1)
    assert not any("canary" in span.to_json() for span in telemetry.spans())


@pytest.mark.slow
def test_an_error_of_the_engine_is_of_its_type_on_the_span_of_the_node(telemetry, tmp_path):
    """The node's span has the same error type as the write's span."""

    def twice(lake: str) -> int:
        write_deltalake(f"{lake}/t", ONE)
        write_deltalake(f"{lake}/t", ONE)
        return 2

    built, _ = driver_of(twice)
    with pytest.raises(Exception, match="already exists"):
        built.execute(["twice"], inputs={"lake": str(tmp_path)})
    told = [span.attributes.get("error.type") for span in telemetry.spans()]
    assert sorted(filter(None, told)) == ["DeltaError", "table_exists", "table_exists"]


def test_an_interrupt_is_recorded_although_hamilton_reports_success(telemetry, tmp_path):
    """Hamilton passes only subclasses of `Exception` to its hooks."""

    def interrupted() -> int:
        raise KeyboardInterrupt

    built, adapter = driver_of(interrupted)
    with pytest.raises(KeyboardInterrupt):
        built.execute(["interrupted"])
    assert spans_by_name(telemetry)["interrupted"].attributes["error.type"] == "interrupted"
    assert runs_of(tmp_path)[adapter.last_run.run_id]["status"] == "error"


@pytest.mark.slow
def test_an_execution_while_an_error_is_handled_is_no_failure(telemetry, tmp_path):
    """The exception that is being handled does not belong to the execution."""
    built, adapter = driver_of(raw)
    try:
        {}["absent"]
    except KeyError:
        built.execute(["raw"], inputs={"lake": str(tmp_path)})
    assert runs_of(tmp_path)[adapter.last_run.run_id]["status"] == "ok"
    assert spans_by_name(telemetry)["raw"].status.status_code is StatusCode.UNSET


def test_an_input_that_is_missing_ends_the_run_with_an_error(telemetry, tmp_path):
    """The run fails without any node span."""
    built, adapter = driver_of(raw)
    with pytest.raises(Exception, match="lake"):
        built.execute(["raw"])
    assert runs_of(tmp_path)[adapter.last_run.run_id]["status"] == "error"
    assert set(spans_by_name(telemetry)) == {"nightly_flights"}


@pytest.mark.slow
def test_the_context_of_the_program_is_restored_afterwards(telemetry, tmp_path):
    """The program's run is the parent and its policy applies to writes; both are current again afterwards."""
    built, adapter = driver_of(raw)
    with run("program") as outer, cache_context(policy="nightly_views", scope="view"):
        built.execute(["raw"], inputs={"lake": str(tmp_path)})
        assert current_run() is outer
    assert adapter.last_run.parent_run_id == outer.run_id
    commit = read_commit_metadata(tmp_path / "raw")
    assert (commit.run_id, commit.witness["cache_policy"]) == (
        adapter.last_run.run_id,
        "nightly_views",
    )


@pytest.mark.slow
def test_each_execution_is_a_run_and_one_inside_a_node_is_its_child(telemetry, tmp_path):
    """One adapter serves nested executions."""
    adapter = DeltaWitnessAdapter()
    inner, _ = driver_of(raw, adapter=adapter, name="inner")

    def outer(lake: str) -> str:
        inner.execute(["raw"], inputs={"lake": f"{lake}/inner"})
        write_deltalake(f"{lake}/outer", ONE)
        return current_run().run_id

    built, _ = driver_of(outer, adapter=adapter, name="outer_graph")
    seen = {
        built.execute(["outer"], inputs={"lake": str(tmp_path / part)})["outer"] for part in "ab"
    }
    runs = runs_of(tmp_path)
    assert len(runs) == 4
    process = current_run().run_id
    # The implicit run of the process is the parent only if it has started before.
    outermost = {None, process}
    assert {i for i, row in runs.items() if row["parent_run_id"] in outermost} == seen
    assert {row["parent_run_id"] for row in runs.values()} - outermost == seen
    assert {row["writes"] for row in runs.values()} == {1}


def shards(count: int) -> Parallelizable[int]:
    yield from range(count)


def kept(shards: int, lake: str, meeting: threading.Barrier) -> str:
    meeting.wait(timeout=20)  # wait until all nodes run concurrently
    write_deltalake(f"{lake}/shard{shards}", ONE)
    return threading.current_thread().name


def threads(kept: Collect[str]) -> set:
    return set(kept)


@pytest.mark.slow
@pytest.mark.parametrize("is_carried", [True, False], ids=["carried", "by itself"])
def test_nodes_in_the_threads_of_a_pool_belong_to_the_run(telemetry, tmp_path, is_carried):
    """Each write is below its node's span, four nodes at a time, with and without propagation to pools."""
    if not is_carried:
        DeltaLakeInstrumentor()._propagation.uninstall()
    module = module_of(shards, kept, threads, name="pool")
    adapter = DeltaWitnessAdapter()
    built = (
        driver.Builder()
        .with_modules(module)
        .enable_dynamic_execution(allow_experimental_mode=True)
        .with_remote_executor(executors.MultiThreadingExecutor(max_tasks=4))
        .with_adapters(adapter)
        .build()
    )
    inputs = {"lake": str(tmp_path), "count": 4, "meeting": threading.Barrier(4)}
    found = built.execute(["threads"], inputs=inputs)["threads"]
    assert len(found) == 4
    run_id = adapter.last_run.run_id
    assert {read_commit_metadata(tmp_path / f"shard{n}").run_id for n in range(4)} == {run_id}
    spans = telemetry.spans()
    nodes = {span.context.span_id: span for span in spans if span.name == "kept"}
    writes = [span for span in spans if span.name.startswith("WRITE")]
    assert {span.parent.span_id for span in writes} == set(nodes)
    assert {parent_of(span, spans) for span in nodes.values()} == {"pool"}
    assert len({span.attributes["cicd.pipeline.task.run.id"] for span in nodes.values()}) == 4
    assert runs_of(tmp_path)[run_id]["writes"] == 4


@pytest.mark.slow
def test_nodes_that_are_submitted_to_threads_belong_to_the_run(telemetry, tmp_path):
    """Hamilton's `FutureAdapter` runs each node in a pool's thread, which waits for its inputs."""
    built, adapter = driver_of(raw, clean, adapters=[FutureAdapter()])
    assert built.execute(["clean"], inputs={"lake": str(tmp_path)}) == {"clean": 3}
    spans = telemetry.spans()
    writes = [span for span in spans if span.name.startswith("WRITE")]
    assert sorted(parent_of(span, spans) for span in writes) == ["clean", "clean", "raw"]
    assert runs_of(tmp_path)[adapter.last_run.run_id]["writes"] == 3


@pytest.mark.slow
def test_a_node_that_outlives_its_execution_still_belongs_to_its_run(telemetry, tmp_path):
    """After another node failed, the pool finishes the nodes that it has started."""
    may_write, has_written = threading.Event(), threading.Event()

    def broken() -> int:
        raise NodeFailed

    def late(lake: str) -> int:
        may_write.wait(timeout=20)
        write_deltalake(f"{lake}/late", ONE)
        has_written.set()
        return 1

    pool = FutureAdapter()
    built, adapter = driver_of(broken, late, adapters=[pool])
    with pytest.raises(NodeFailed):
        built.execute(["broken", "late"], inputs={"lake": str(tmp_path)})
    may_write.set()
    assert has_written.wait(timeout=20)
    pool.executor.shutdown(wait=True)
    run_id = adapter.last_run.run_id
    assert read_commit_metadata(tmp_path / "late").run_id == run_id
    row = runs_of(tmp_path)[run_id]
    assert (row["status"], row["error_type"]) == ("error", "NodeFailed")
    spans = telemetry.spans()
    (write,) = [span for span in spans if span.name.startswith("WRITE")]
    assert parent_of(write, spans) == "late"


class SpawningExecutor(executors.MultiProcessingExecutor):
    """An executor of spawned processes: Hamilton's forks, and delta-rs fails in a forked process."""

    def create_pool(self):
        return ProcessPoolExecutor(self.max_tasks, mp_context=get_context("spawn"))


@pytest.mark.slow
def test_nodes_in_other_processes_join_the_run(telemetry, tmp_path):
    """Hamilton pickles the adapter with each task."""
    import hamilton_nodes

    adapter = DeltaWitnessAdapter("shards")
    built = (
        driver.Builder()
        .with_modules(hamilton_nodes)
        .enable_dynamic_execution(allow_experimental_mode=True)
        .with_remote_executor(SpawningExecutor(max_tasks=2))
        .with_adapters(adapter)
        .build()
    )
    found = built.execute(["rows"], inputs={"shards": 3, "lake": str(tmp_path)})
    assert found == {"rows": 6}
    run_id = adapter.last_run.run_id
    commits = [read_commit_metadata(tmp_path / f"shard{number}") for number in range(3)]
    assert {commit.run_id for commit in commits} == {run_id}
    trace_ids = {span.context.trace_id for span in telemetry.spans()}
    assert {int(commit.metadata["traceparent"][3:35], 16) for commit in commits} == trace_ids
    ledger = Ledger(str(tmp_path / "cache"))
    ledger.drain()
    assert (runs_of(tmp_path)[run_id]["status"], runs_of(tmp_path)[run_id]["writes"]) == ("ok", 3)


def test_an_unpickled_adapter_has_only_the_open_runs():
    """Values and clients of the program are not pickled."""
    adapter = DeltaWitnessAdapter("nightly", attributes={"shard": "3"}, instrument=False)
    assert pickle.loads(pickle.dumps(adapter))._executions == {}
    adapter.run_before_graph_execution(graph=None, run_id="h-1")
    again = pickle.loads(pickle.dumps(adapter))
    assert again._executions["h-1"].run.run_id == adapter.last_run.run_id
    assert again._executions["h-1"].run.is_joined
    again.run_after_graph_execution(error=None, run_id="h-1")  # must not close the run
    adapter.run_after_graph_execution(error=None, run_id="h-1")


@pytest.mark.slow
def test_nodes_of_an_asynchronous_driver_belong_to_the_run(telemetry, tmp_path):
    """Their writes are below their spans, while other tasks run on the event loop."""

    async def first(lake: str) -> int:
        await asyncio.sleep(0)
        write_deltalake(f"{lake}/first", ONE)
        return 1

    async def second(first: int, lake: str) -> int:
        await asyncio.sleep(0)
        write_deltalake(f"{lake}/second", ONE)
        return first + 1

    async def main(adapter):
        builder = async_driver.Builder().with_modules(module_of(first, second))
        built = await builder.with_adapters(adapter).build()
        return await built.execute(["second"], inputs={"lake": str(tmp_path)})

    adapter = DeltaWitnessAdapter()
    assert asyncio.run(main(adapter)) == {"second": 2}
    spans = telemetry.spans()
    writes = [span for span in spans if span.name.startswith("WRITE")]
    assert [parent_of(span, spans) for span in writes] == ["first", "second"]
    row = runs_of(tmp_path)[adapter.last_run.run_id]
    assert (row["status"], row["writes"]) == ("ok", 2)


class Broken(lifecycle.NodeExecutionHook):
    """An adapter whose hook fails before a node."""

    def run_before_node_execution(self, **_):
        raise NodeFailed("before the node")

    def run_after_node_execution(self, **_):
        pass


def test_a_hook_of_another_adapter_that_fails_leaves_no_span_open(telemetry, tmp_path):
    """In that case Hamilton does not call the hooks for the end of the node."""
    adapter = DeltaWitnessAdapter()
    built = driver.Builder().with_modules(module_of(raw)).with_adapters(adapter, Broken()).build()
    before = current_run()
    with pytest.raises(NodeFailed):
        built.execute(["raw"], inputs={"lake": str(tmp_path)})
    assert set(spans_by_name(telemetry)) == {"nightly_flights", "raw"}
    assert current_run() is before
    assert not (tmp_path / "raw").exists()


@pytest.mark.slow
@pytest.mark.internal_errors
def test_an_internal_error_does_not_change_the_execution(telemetry, tmp_path, monkeypatch):
    """The execution and its values are the same as without the adapter."""
    from deltawitness.telemetry.task_spans import TaskSpans

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(TaskSpans, "open", broken)
    built, _ = driver_of(raw, clean)
    assert built.execute(["clean"], inputs={"lake": str(tmp_path)}) == {"clean": 3}
    assert len(list(history(tmp_path / "clean"))) == 2


@pytest.mark.slow
def test_only_a_few_executions_are_remembered(telemetry):
    """The number of remembered executions is bounded."""

    def one() -> int:
        return 1

    built, adapter = driver_of(one)
    for _ in range(MAX_ENDED + 3):
        built.execute(["one"])
    assert len(adapter._executions) == MAX_ENDED
    assert not any(execution.nodes for execution in adapter._executions.values())


def test_the_adapter_instruments_an_unobserved_process(tmp_path):
    """The adapter instruments the process; with `instrument=False` there is a run and no span."""
    asked, _ = driver_of(raw, adapter=DeltaWitnessAdapter(instrument=False))
    asked.execute(["raw"], inputs={"lake": str(tmp_path / "bare")})
    assert not DeltaLakeInstrumentor().is_instrumented_by_opentelemetry
    assert read_commit_metadata(tmp_path / "bare" / "raw").run_id is None
    built, adapter = driver_of(raw)
    built.execute(["raw"], inputs={"lake": str(tmp_path)})
    assert read_commit_metadata(tmp_path / "raw").run_id == adapter.last_run.run_id


sys.path.append(str(PROGRAMS))
