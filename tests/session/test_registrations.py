"""Registering a Delta table in a session is an event of the current span and, if enabled, a ledger row."""

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
    """The event has the table and its version, but neither its location nor its registered name."""
    DeltaLakeInstrumentor().instrument(**memory.providers())
    with memory.tracer_provider.get_tracer("app").start_as_current_span("load"):
        register(ObservedSessionContext(), table)
    (event,) = events(memory)
    assert (event["db.collection.name"], event["delta.table.version"]) == ("flights", 1)
    assert set(event) == {"db.collection.name", "delta.table.id", "delta.table.version"}
    assert str(tmp_path) not in str(event)


def test_a_requested_version_is_the_one_in_the_event(memory, table):
    DeltaLakeInstrumentor().instrument(**memory.providers())
    with memory.tracer_provider.get_tracer("app").start_as_current_span("load"):
        ObservedSessionContext().register_delta("f", table, version=0)
    (event,) = events(memory)
    assert event["delta.table.version"] == 0


def test_names_and_ids_are_those_of_the_settings(memory, table):
    settings = Settings(table_names="none", table_id_key=b"secret")
    DeltaLakeInstrumentor().instrument(settings=settings, **memory.providers())
    with memory.tracer_provider.get_tracer("app").start_as_current_span("load"):
        ObservedSessionContext().register_delta("f", table)
    (event,) = events(memory)
    assert set(event) == {"delta.table.id", "delta.table.version"}
    write_deltalake(table, pa.table({"id": [3]}), mode="append")
    assert event["delta.table.id"] == memory.spans()[-1].attributes["delta.table.id"]


def test_an_unobserved_registration_has_no_event(memory, table):
    DeltaLakeInstrumentor().instrument(**memory.providers())
    with memory.tracer_provider.get_tracer("app").start_as_current_span("load"), suppressed():
        ObservedSessionContext().register_delta("f", table)
    assert events(memory) == []


@pytest.mark.slow
def test_a_registration_has_a_row_only_if_the_setting_is_on(tmp_path, table):
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
    # A table that was only registered is not in the ledger, and its row is not a write.
    assert ledger.reconcile().tables == ()
    assert ledger.reconcile([table]).counts["differing"] == 0


@pytest.mark.slow
def test_hits_and_verifications_are_no_writes_that_differ(tmp_path, table):
    """Their rows have the version that they were served, which another write has made."""
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
def test_an_internal_error_does_not_reach_the_program(memory, table, monkeypatch):
    DeltaLakeInstrumentor().instrument(**memory.providers())

    def fail(*_):
        raise RuntimeError("ours")

    monkeypatch.setattr(registrations, "_record", fail)
    ctx = ObservedSessionContext()
    ctx.register_delta("f", table)
    assert ctx.table("f").count() == 2
