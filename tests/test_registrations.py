"""A Delta table that a session registers is an event of the current span, and on request a row."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import (
    DeltaCache,
    DeltaLakeInstrumentor,
    Ledger,
    ObservedSessionContext,
    Settings,
    run,
    suppressed,
)
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.session.core import registrations
from deltawitness.testing import InMemoryTelemetry
from helpers.ledger_parts import rows_of


@pytest.fixture
def memory():
    return InMemoryTelemetry.create()


@pytest.fixture
def table(tmp_path):
    write_deltalake(tmp_path / "flights", pa.table({"id": [1]}))
    write_deltalake(tmp_path / "flights", pa.table({"id": [2]}), mode="append")
    return tmp_path / "flights"


def events(memory):
    return [
        dict(event.attributes)
        for span in memory.spans()
        for event in span.events
        if event.name == "deltawitness.table.registered"
    ]


@pytest.mark.parametrize(
    "register",
    [
        lambda ctx, table: ctx.register_delta("f", table),
        lambda ctx, table: ctx.sql(
            f"CREATE EXTERNAL TABLE f STORED AS DELTATABLE LOCATION '{table}'"
        ).collect(),
    ],
    ids=["register_delta", "CREATE EXTERNAL TABLE"],
)
def test_a_registration_is_an_event_of_the_current_span(memory, table, register, tmp_path):
    """It says which table at which version, and neither where it lies nor under which name."""
    DeltaLakeInstrumentor().instrument(**memory.providers())
    with memory.tracer_provider.get_tracer("app").start_as_current_span("load"):
        register(ObservedSessionContext(), table)
    (told,) = events(memory)
    assert (told["db.collection.name"], told["delta.table.version"]) == ("flights", 1)
    assert set(told) == {"db.collection.name", "delta.table.id", "delta.table.version"}
    assert str(tmp_path) not in str(told)


def test_a_version_that_was_asked_for_is_the_one_told(memory, table):
    DeltaLakeInstrumentor().instrument(**memory.providers())
    with memory.tracer_provider.get_tracer("app").start_as_current_span("load"):
        ObservedSessionContext().register_delta("f", table, version=0)
    (told,) = events(memory)
    assert told["delta.table.version"] == 0


def test_names_and_ids_are_those_of_the_settings(memory, table):
    settings = Settings(table_names="none", table_id_key=b"secret")
    DeltaLakeInstrumentor().instrument(settings=settings, **memory.providers())
    with memory.tracer_provider.get_tracer("app").start_as_current_span("load"):
        ObservedSessionContext().register_delta("f", table)
    (told,) = events(memory)
    assert set(told) == {"delta.table.id", "delta.table.version"}
    write_deltalake(table, pa.table({"id": [3]}), mode="append")
    assert told["delta.table.id"] == memory.spans()[-1].attributes["delta.table.id"]


def test_nothing_is_told_where_nothing_is_observed(memory, table):
    DeltaLakeInstrumentor().instrument(**memory.providers())
    with memory.tracer_provider.get_tracer("app").start_as_current_span("load"), suppressed():
        ObservedSessionContext().register_delta("f", table)
    assert events(memory) == []


def test_a_row_is_kept_on_request_alone(tmp_path, table):
    for wanted in (False, True):
        root = str(tmp_path / f"root-{wanted}")
        settings = Settings(cache_root=root, capture_registrations=wanted)
        DeltaLakeInstrumentor().instrument(settings=settings)
        with run("nightly") as context:
            ObservedSessionContext().register_delta("f", table)
        ledger = Ledger(root)
        ledger.drain()
        DeltaLakeInstrumentor().uninstrument()
        rows = rows_of(ledger.root, INVENTORY)
        assert len(rows) == wanted
    (row,) = rows
    assert (row["operation"], row["cache_operation"], row["result"]) == (
        "REGISTER", "register", "noop",
    )  # fmt: skip
    assert (row["table_name"], row["version"], row["run_id"]) == ("flights", 1, context.run_id)
    # A table that was only registered is none of the ledger's, and its row is no write.
    assert ledger.reconcile().tables == ()
    assert ledger.reconcile([table]).counts["differing"] == 0


def test_hits_and_verifications_are_no_writes_that_differ(tmp_path, table):
    """Their rows name the version that they were served; another write has made it."""
    root = str(tmp_path / "root")
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=root))
    ctx = ObservedSessionContext()
    ctx.register_delta("f", table)
    cache = DeltaCache(ctx, root)
    with run("first"):
        cache.view("big", "SELECT id FROM f")
        cache.snapshot(["inputs"])
    with run("second"):
        cache.view("big", "SELECT id FROM f")
        cache.verify("big")
        cache.snapshot(["inputs"])
    ledger = Ledger(root)
    plan = ledger.reconcile(full=True)
    assert (plan.differing, plan.phantom) == ((), ())


@pytest.mark.internal_errors
def test_an_error_of_ours_does_not_reach_the_program(memory, table, monkeypatch):
    DeltaLakeInstrumentor().instrument(**memory.providers())

    def fail(*_):
        raise RuntimeError("ours")

    monkeypatch.setattr(registrations, "_record", fail)
    ctx = ObservedSessionContext()
    ctx.register_delta("f", table)
    assert ctx.table("f").count() == 2
