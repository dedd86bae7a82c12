"""The instrumentor of sessions works beside the others, and uninstrument restores every original."""

from __future__ import annotations

import importlib
import importlib.metadata
import multiprocessing

import pytest
from datafusion import DataFrame, SessionContext
from datafusion.catalog import Catalog, Schema
from deltalake import DeltaTable, write_deltalake
from deltalake._internal import RawDeltaTable

from deltawitness import (
    DataFusionInstrumentor,
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    read_commit_metadata,
    run,
)
from deltawitness.commit.seams import FUNCTION_SEAMS
from deltawitness.observe import current_observer
from helpers.patched_sessions import ids, observed, rows


@pytest.fixture
def ctx(table, instrumented):
    """A plain session with the table registered as `t`."""
    context = SessionContext()
    context.register_delta("t", table)
    return context


PATCHED = (SessionContext, DataFrame, Catalog, Schema)


# --- beside the others -----------------------------------------------------------------------------------

ORDERS = {
    "delta-rs first": (DeltaLakeInstrumentor, DataFusionInstrumentor),
    "DataFusion first": (DataFusionInstrumentor, DeltaLakeInstrumentor),
}


@pytest.fixture(params=ORDERS)
def both(request):
    """Apply both instrumentors in either order; return the events of delta-rs' own."""
    told, made = [], [instrumentor() for instrumentor in ORDERS[request.param]]
    for each in made:
        each.instrument(sinks=[told.append])
    yield told
    for each in made:
        if each.is_instrumented_by_opentelemetry:
            each.uninstrument()


def delivered(told):
    """Return the delivered events as operation and versions."""
    current_observer().flush()
    return [(event.intent.operation.value, event.outcome.versions) for event in told]


def test_both_instrumentors_record_each_write_once(table, both):
    """Writes by SQL, by frame and by the delta-rs API are one event each."""
    ctx = SessionContext()
    ctx.register_delta("t", table)
    ctx.sql("INSERT INTO t VALUES (4, 'x')").collect()
    ctx.sql("UPDATE t SET id = 5 WHERE id = 4").collect()
    ctx.table("t").write_delta(table, mode="append")
    write_deltalake(table, ctx.table("t"), mode="overwrite")
    DeltaTable(table).delete("id = 1")
    assert delivered(both) == [
        ("WRITE", (1,)),
        ("UPDATE", (2,)),
        ("WRITE", (3,)),
        ("WRITE", (4,)),
        ("DELETE", (5,)),
    ]


@pytest.mark.slow
def test_an_observed_context_with_both_instrumentors_records_each_write_once(table, both, tmp_path):
    """It runs a statement once, although its base class is patched."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", table)
    frame = ctx.sql("INSERT INTO t VALUES (4, 'x')")
    assert "not run yet" in repr(frame)
    assert frame.to_pydict() == {"count": [1]}
    ctx.sql("DELETE FROM t WHERE id = 1").show()
    ctx.table("t").write_table("t")
    ctx.table("t").write_delta(table, mode="append")
    assert delivered(both) == [
        ("WRITE", (1,)),
        ("DELETE", (2,)),
        ("WRITE", (3,)),
        ("WRITE", (4,)),
    ]
    assert ids(table) == sorted([2, 3, 4] * 4)
    ctx.table("t").write_parquet(tmp_path / "a.parquet")
    current_observer().flush()
    assert len(both) == 5


def test_a_proxy_over_a_patched_context_writes_once(ctx, table, captured_writes):
    """Proxy and patched context share one session."""
    proxy = ObservedSessionContext(ctx)
    proxy.sql("INSERT INTO t VALUES (4, 'x')").collect()
    ctx.sql("INSERT INTO t VALUES (5, 'x')").collect()
    assert ids(table) == [1, 2, 3, 4, 5]
    assert proxy.table("t").count() == ctx.table("t").count() == 5
    assert [event.outcome.versions for event in captured_writes] == [(1,), (2,)]


def test_the_session_instrumentor_observes_only_writes_of_sessions(ctx, table):
    """A delta-rs write outside a session has no commit metadata of ours."""
    ctx.sql("INSERT INTO t VALUES (4, 'x')").collect()
    write_deltalake(table, rows(5), mode="append")
    assert read_commit_metadata(table, 1).write_id is not None
    assert read_commit_metadata(table, 2).metadata == {}


# --- on and off ---------------------------------------------------------------------------------------------


def attributes():
    """Return every attribute of the patched classes, as the object itself."""
    return {(owner, name): value for owner in PATCHED for name, value in vars(owner).items()}


def seams():
    """Return every attribute of delta-rs that may be patched, as the object itself."""
    owners = [RawDeltaTable, *{importlib.import_module(seam.module) for seam in FUNCTION_SEAMS}]
    return {(owner, name): value for owner in owners for name, value in vars(owner).items()}


@pytest.mark.parametrize("order", ["in turn", "one twice", "across"])
def test_uninstrument_puts_every_original_object_back(order, table, caplog):
    """The attributes are the same objects, and there are no others."""
    before = attributes()
    fusion, delta = DataFusionInstrumentor(), DeltaLakeInstrumentor()
    fusion.instrument()
    if order == "one twice":
        fusion.instrument()  # logs a warning, and does nothing
    if order == "across":
        delta.instrument()
    assert attributes() != before
    ctx = SessionContext()
    ctx.register_delta("t", table)
    ctx.sql("INSERT INTO t VALUES (4, 'x')").collect()
    fusion.uninstrument()
    if order == "across":
        delta.uninstrument()
    assert attributes().keys() == before.keys()
    assert all(value is before[key] for key, value in attributes().items())
    assert not hasattr(ctx, "register_delta")
    assert not hasattr(ctx.table("t"), "write_delta")


def test_uninstrument_leaves_nothing_in_delta_rs(table):
    """delta-rs is restored if no other instrumentor is active."""
    before = seams()
    with observed():
        ctx = SessionContext()
        ctx.register_delta("t", table)
        ctx.sql("INSERT INTO t VALUES (4, 'x')").collect()
    assert all(value is before[key] for key, value in seams().items())
    assert current_observer() is None


def test_uninstrument_leaves_the_other_instrumentor_alone(table, captured_writes):
    """Each instrumentor removes only its own patches."""
    with observed():
        pass
    write_deltalake(table, rows(4), mode="append")
    assert len(captured_writes) == 1


def test_sessions_are_observed_after_the_other_instrumentor_is_removed(ctx, table):
    """Commits still have our metadata, with the plan's hash."""
    delta = DeltaLakeInstrumentor()
    delta.instrument()
    delta.uninstrument()
    ctx.sql("INSERT INTO t VALUES (4, 'x')").collect()
    assert "plan_hash" in read_commit_metadata(table).metadata


def test_instrumentation_can_be_repeated(table, captured_writes):
    """A program can instrument and uninstrument repeatedly."""
    for number in (4, 5):
        with observed():
            ctx = SessionContext()
            ctx.register_delta("t", table)
            ctx.sql(f"INSERT INTO t VALUES ({number}, 'x')").collect()
    assert ids(table) == [1, 2, 3, 4, 5]
    assert len(captured_writes) == 2


def test_an_engine_without_an_observed_method_is_not_patched(monkeypatch):
    """Either all methods are patched or none."""
    monkeypatch.delattr(Schema, "register_table")
    before = attributes()
    with pytest.raises(AttributeError, match="register_table"):
        DataFusionInstrumentor()._instrument()
    assert attributes() == before


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_program_that_subclasses_a_session_is_observed(
    wrapped, table, instrumented, captured_writes
):
    """Methods of the subclass come first, and the methods that they call are observed."""

    class Own(SessionContext):
        def sql(self, query, *args, **kwargs):
            return super().sql(query.replace("TABLE_OF_MINE", "t"), *args, **kwargs)

    ctx = ObservedSessionContext(Own()) if wrapped else Own()
    ctx.register_delta("t", table)
    assert ctx.sql("INSERT INTO TABLE_OF_MINE VALUES (4, 'x')").to_pydict() == {"count": [1]}
    assert ids(table) == [1, 2, 3, 4]
    assert len(captured_writes) == 1


def test_an_observed_context_works_after_uninstrument(table, captured_writes):
    """The proxy does not depend on the patches."""
    with observed():
        ctx = ObservedSessionContext()
        ctx.register_delta("t", table)
    ctx.sql("INSERT INTO t VALUES (4, 'x')").collect()
    assert ctx.table("t").count() == 4
    assert len(captured_writes) == 1


def _insert(uri):
    ctx = SessionContext()
    ctx.register_table("t", DeltaTable(uri))
    ctx.sql("INSERT INTO t VALUES (4, 'x')").collect()


@pytest.mark.slow
def test_a_spawned_child_is_as_instrumented_as_its_parent(table, instrumented, captured_writes):
    """The child writes in its parent's run."""
    with run("nightly") as context:
        child = multiprocessing.get_context("spawn").Process(target=_insert, args=(table,))
        child.start()
        child.join()
    assert child.exitcode == 0
    assert read_commit_metadata(table).run_id == context.run_id
