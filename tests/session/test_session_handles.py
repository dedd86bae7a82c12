"""Each handle on a session knows the session's Delta tables, as long as the session exists."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
from datafusion import SessionContext
from datafusion.catalog import Catalog, Schema
from deltalake import DeltaTable, write_deltalake

from deltawitness import ObservedSessionContext
from deltawitness.session.core.state import session_of
from helpers.observed_sessions import BATCH, DATA, WAYS, started
from helpers.session_calls import Rows, twice


@pytest.fixture
def delta(tmp_path):
    """A Delta table of three rows."""
    write_deltalake(tmp_path / "delta", DATA)
    return tmp_path / "delta"


def test_the_global_context_is_observed():
    """The observed global context wraps the engine's global context."""
    ctx = ObservedSessionContext.global_ctx()
    assert type(ctx) is ObservedSessionContext
    assert ctx.session_id() == SessionContext.global_ctx().session_id()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_global_context_resolves_its_delta_tables(way, delta, captured_writes):
    """The global context keeps its Delta tables while the program holds no reference to it."""
    with WAYS[way]() as make:
        make.global_ctx().register_delta("d", delta)
        try:
            gc.collect()
            make.global_ctx().sql("INSERT INTO d (a) VALUES (7)").collect()
        finally:
            make.global_ctx().deregister_table("d")
    assert len(captured_writes) == 1


HANDLES = {
    "enable_url_table": lambda ctx: ctx.enable_url_table(),
    "with_extensions": lambda ctx: ctx.with_extensions(),
    "with_logical_extension_codec": lambda ctx: ctx.with_logical_extension_codec(ctx, "own"),
    "with_physical_extension_codec": lambda ctx: ctx.with_physical_extension_codec(ctx, "own"),
    "with_python_udf_inlining": lambda ctx: ctx.with_python_udf_inlining(enabled=False),
    "copy": copy.copy,
    "wrapped again": lambda ctx: ObservedSessionContext(ctx.__wrapped__),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", HANDLES)
def test_every_handle_on_a_session_resolves_its_delta_tables(name, way, delta, captured_writes):
    """All contexts on a session share its Delta tables, those registered before and after."""
    with WAYS[way]() as make:
        ctx = make()
        ctx.register_delta("d", delta)
        if way == "patched" and name == "wrapped again":
            other = ObservedSessionContext(ctx)
        else:
            other = HANDLES[name](ctx)
        other.register_delta("e", delta)
        ctx.register_view("v", ctx.table("d").select("a"))
        ctx.sql("INSERT INTO e (a) VALUES (7)").collect()
        other.sql("INSERT INTO d (a) VALUES (8)").collect()
        ctx.refresh()
        assert sorted(other.table("v").to_pydict()["a"]) == [1, 2, 3, 7, 8]
        other.deregister_table("d")
        assert not ctx.table_exist("d")
        assert ctx.table("e").count() == other.table("e").count() == 5
    assert len(captured_writes) == 2


# --- names that are registered again ------------------------------------------------------------------

REPLACEMENTS = {
    "a schema": lambda ctx, schema, catalog: ctx.catalog().register_schema("public", schema),
    "a catalog": lambda ctx, schema, catalog: ctx.register_catalog_provider("datafusion", catalog),
    "a table": lambda ctx, schema, catalog: (
        ctx.deregister_table("n"),
        ctx.register_batch("n", BATCH),
    ),
    "a table in its schema": lambda ctx, schema, catalog: (
        ctx.catalog().schema().deregister_table("n"),
        ctx.register_batch("n", BATCH),
    ),
    "a statement": lambda ctx, schema, catalog: ctx.sql(
        "CREATE OR REPLACE TABLE n AS SELECT 1 AS a, 'x' AS b, 0.5 AS c"
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_a_name_registered_for_another_table_is_no_delta_table(name, way, delta):
    """A statement on a name that was registered again does not reach the Delta table."""
    schema, catalog = Schema.memory_schema(), Catalog.memory_catalog()
    other = SessionContext()
    other.register_batch("n", BATCH)
    schema.register_table("n", other.table_provider("n"))
    catalog.register_schema("public", schema)
    with WAYS[way]() as make:
        ctx = make()
        ctx.register_delta("n", delta)
        REPLACEMENTS[name](ctx, schema, catalog)
        before = ctx.table("n").count()
        ctx.sql("INSERT INTO n VALUES (7, 'x', 0.5)").collect()
        assert ctx.table("n").count() == before + 1
    assert DeltaTable(delta).version() == 0


def test_a_table_provider_is_registered_as_a_table_is(delta, captured_writes):
    """`register_table_provider`, the deprecated name of `register_table`, registers Delta tables."""
    ctx = ObservedSessionContext()
    with pytest.warns(DeprecationWarning, match="register_table"):
        ctx.register_table_provider("d", DeltaTable(delta))
    ctx.sql("INSERT INTO d (a) VALUES (7)").collect()
    assert len(captured_writes) == 1


# --- the end of a session -----------------------------------------------------------------------------


class Probe(Rows):
    """A table factory that the engine's session owns; it is released with the session."""


def nothing(ctx, uri):
    """Create an empty session."""


def everything(ctx, uri):
    """Register, write, read and list every kind of object, also through other contexts."""
    ctx.register_delta("d", uri)
    ctx.register_table("e", DeltaTable(uri))
    ctx.sql(f"CREATE EXTERNAL TABLE x STORED AS DELTATABLE LOCATION '{uri}'")
    ctx.sql("CREATE VIEW v AS SELECT a FROM d")
    ctx.register_view("w", ctx.table("d").select("a"))
    ctx.register_table("y", ctx.table("v"))
    ctx.catalog().schema().register_table("s", DeltaTable(uri))
    ctx.register_udf(twice)
    ctx.sql("INSERT INTO d (a) SELECT twice(a) FROM d").collect()
    ctx.with_python_udf_inlining(enabled=False).table("v").cache().collect()
    ctx.enable_url_table().table("v").show()
    ctx.sql("DELETE FROM d WHERE a = 1")  # never run
    ctx.refresh()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("use", [nothing, everything])
def test_a_session_is_freed_with_its_last_handle(use, way, delta, capsys):
    """The context, its state and the engine's session are released with the last reference.

    A frame as a parameter of a statement is left out: the engine never releases a session that ran one.
    """
    with WAYS[way]() as make:
        ctx, probe = make(), Probe()
        ctx.register_table_factory("PROBE", probe)
        use(ctx, delta)
        plain = getattr(ctx, "__wrapped__", ctx)
        left = [weakref.ref(plain), weakref.ref(session_of(plain)), weakref.ref(probe)]
        del ctx, plain, probe
        gc.collect()
        assert [each() for each in left] == [None, None, None]


@pytest.mark.slow
def test_a_frame_keeps_its_session(files):
    """A frame can be run after the program has dropped its context."""
    frame = started(ObservedSessionContext, files, "delta").table("t").select("a")
    gc.collect()
    assert frame.to_pydict() == {"a": [1, 2, 3]}
