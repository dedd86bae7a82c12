"""Metadata of a session is stored as Delta tables, and written only when it has changed."""

from __future__ import annotations

import pyarrow as pa
import pytest
from datafusion import SessionConfig
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaCache,
    DeltaLakeInstrumentor,
    Ledger,
    ObservedSessionContext,
    Settings,
    run,
    table_id,
)
from deltawitness.exceptions import ConfigurationError
from deltawitness.ledger.tables.schema import SNAPSHOTS
from deltawitness.semconv import WITNESS_VERSION
from deltawitness.telemetry.cache_spans import use_providers
from deltawitness.testing import InMemoryTelemetry

PARTS = ["tables", "columns", "settings", "inputs"]


@pytest.fixture(params=[False, True], ids=["without information schema", "with information schema"])
def has_schema(request):
    return request.param


def session(tmp_path, *, has_schema=False):
    """A session with a Delta table, an in-memory table and a view."""
    if not (tmp_path / "lake").exists():
        write_deltalake(tmp_path / "lake", pa.table({"id": [1, 2], "name": ["a", None]}))
    ctx = ObservedSessionContext(SessionConfig().with_information_schema(enabled=has_schema))
    ctx.register_delta("lake", tmp_path / "lake")
    ctx.from_arrow(pa.table({"n": pa.array([1], pa.int32())}), name="memory")
    ctx.sql("CREATE VIEW few AS SELECT id FROM lake")
    return ctx


def rows(tmp_path, part, name="session"):
    """The rows of a part, by the name of what they describe."""
    table = DeltaTable(tmp_path / f"root/cache_metadata/{name}_{part}").to_pyarrow_table()
    return table.to_pylist()


def results(kept):
    return [snapshot.result.value for snapshot in kept]


@pytest.mark.slow
def test_each_part_is_a_table(tmp_path, has_schema):
    """Each part is a table with the same content, with or without an information schema."""
    kept = DeltaCache(session(tmp_path, has_schema=has_schema), tmp_path / "root").snapshot()
    assert [snapshot.name for snapshot in kept] == [f"session_{part}" for part in PARTS]
    assert results(kept) == ["write"] * 4
    place = {"table_catalog": "datafusion", "table_schema": "public"}
    assert rows(tmp_path, "tables") == [
        place | {"table_name": "few", "table_type": "VIEW"},
        place | {"table_name": "lake", "table_type": "BASE TABLE"},
        place | {"table_name": "memory", "table_type": "BASE TABLE"},
    ]
    columns = [
        (
            row["table_name"],
            row["column_name"],
            row["ordinal_position"],
            row["data_type"],
            row["is_nullable"],
        )
        for row in rows(tmp_path, "columns")
    ]
    assert columns == [
        ("few", "id", 0, "int64", True),
        ("lake", "id", 0, "int64", True),
        ("lake", "name", 1, "string_view", True),
        ("memory", "n", 0, "int32", True),
    ]
    assert rows(tmp_path, "inputs") == [
        place
        | {
            "table_name": "lake",
            "table_id": table_id(tmp_path / "lake"),
            "table_uri": f"file://{tmp_path}/lake",
            "version": 0,
            "is_fixed": False,
        }
    ]


def test_tables_and_columns_are_those_of_the_information_schema(tmp_path):
    """Tables and columns equal those in the engine's information schema, if the session has one."""
    ctx = session(tmp_path, has_schema=True)
    DeltaCache(ctx, tmp_path / "root").snapshot(["tables", "columns"])
    outside = "WHERE table_schema <> 'information_schema'"
    tables = ctx.sql(f"SELECT * FROM information_schema.tables {outside} ORDER BY table_name")
    assert rows(tmp_path, "tables") == tables.to_pylist()
    columns = ctx.sql(
        "SELECT table_name, column_name, ordinal_position, is_nullable = 'YES' AS is_nullable"
        f" FROM information_schema.columns {outside} ORDER BY table_name, ordinal_position"
    ).to_pylist()
    assert [
        {name: row[name] for name in columns[0]} for row in rows(tmp_path, "columns")
    ] == columns


def test_settings_are_those_of_the_session(tmp_path, has_schema):
    """Settings are those of the session, including its information schema setting."""
    ctx = session(tmp_path, has_schema=has_schema)
    ctx.sql("SET datafusion.execution.batch_size = 4321").collect()
    DeltaCache(ctx, tmp_path / "root").snapshot("settings")
    values = {row["name"]: row["value"] for row in rows(tmp_path, "settings")}
    assert values["datafusion.execution.batch_size"] == "4321"
    assert values["datafusion.catalog.information_schema"] == str(has_schema).lower()
    if has_schema:
        frame = ctx.sql("SELECT name, value FROM information_schema.df_settings")
        assert values == {row["name"]: row["value"] for row in frame.to_pylist()}


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("datafusion.store.secret_access_key", "hunter2", "[secret]"),
        ("datafusion.store.session_token", "hunter2", "[secret]"),
        (
            "datafusion.store.endpoint",
            "https://me:hunter2@host/bucket?sig=hunter2",
            "https://host/bucket",
        ),
        ("datafusion.execution.batch_size", "8192", "8192"),
    ],
)
def test_secrets_are_masked(name, value, kept):
    """Secret settings are masked by their name, and locations lose their credentials."""
    from deltawitness.cache.kinds.session_metadata import _mask

    assert _mask(name, value) == kept


@pytest.mark.slow
def test_an_unchanged_part_is_not_written(tmp_path):
    """An unchanged part is not written, also by another session with the same metadata."""
    ctx = session(tmp_path)
    cache = DeltaCache(ctx, tmp_path / "root")
    first = cache.snapshot()
    assert results(cache.snapshot()) == ["noop"] * 4
    assert results(DeltaCache(session(tmp_path), tmp_path / "root").snapshot()) == ["noop"] * 4
    write_deltalake(tmp_path / "lake", pa.table({"id": [3], "name": ["c"]}), mode="append")
    assert results(cache.snapshot()) == ["noop"] * 4  # not served yet
    ctx.refresh()
    again = cache.snapshot()
    assert results(again) == ["noop", "noop", "noop", "write"]
    assert [each.version for each in again] == [0, 0, 0, 1]
    assert [
        one.content_hash == two.content_hash for one, two in zip(first, again, strict=True)
    ] == [True, True, True, False]
    assert rows(tmp_path, "inputs")[0]["version"] == 1
    ctx.from_arrow(pa.table({"x": [1]}), name="more")
    assert results(cache.snapshot()) == ["write", "write", "noop", "noop"]


@pytest.mark.slow
def test_the_order_of_registrations_does_not_count(tmp_path):
    """The order of registrations does not change the content hash."""
    write_deltalake(tmp_path / "lake", pa.table({"id": [1]}))
    found = []
    for names in (["a", "b"], ["b", "a"]):
        ctx = ObservedSessionContext()
        for name in names:
            ctx.register_delta(name, tmp_path / "lake")
        found.append(results(DeltaCache(ctx, tmp_path / "root").snapshot()))
    assert found == [["write"] * 4, ["noop"] * 4]


@pytest.mark.slow
def test_tables_without_a_name_are_left_out(tmp_path):
    """Tables with generated names are left out, because the names differ between sessions."""
    ctx = session(tmp_path)
    cache = DeltaCache(ctx, tmp_path / "root")
    cache.snapshot()
    ctx.from_arrow(pa.table({"x": [1]}))
    assert results(cache.snapshot()) == ["noop"] * 4


def test_snapshots_with_different_names_are_separate_entries(tmp_path):
    """Snapshots with different names are separate entries of the cache."""
    cache = DeltaCache(session(tmp_path), tmp_path / "root")
    cache.snapshot(["inputs"], name="before")
    cache.snapshot(["inputs"], name="after")
    assert [(entry.scope, entry.name, entry.policy) for entry in cache.list()] == [
        ("metadata", "after_inputs", "metadata_snapshot"),
        ("metadata", "before_inputs", "metadata_snapshot"),
    ]


def test_an_unknown_part_or_invalid_name_is_refused(tmp_path):
    """An unknown part or an invalid name is refused before anything is written."""
    cache = DeltaCache(session(tmp_path), tmp_path / "root")
    with pytest.raises(
        ConfigurationError, match="'views' is not a part of the metadata: choose from tables"
    ):
        cache.snapshot(["tables", "views"])
    with pytest.raises(ConfigurationError, match="name"):
        cache.snapshot(name="../elsewhere")
    assert not (tmp_path / "root").exists()


@pytest.mark.slow
def test_the_registry_has_a_row_for_each_snapshot(tmp_path):
    """The ledger's registry has a row per snapshot, with its location and its run."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "root")))
    cache = DeltaCache(session(tmp_path), tmp_path / "root")
    with run("nightly") as context:
        (written,) = cache.snapshot("tables")
        cache.snapshot("tables")
    ledger = Ledger(tmp_path / "root")
    registry = ledger.snapshots().sort("event_time").drop("event_date", "event_time").to_pylist()
    row = {
        "snapshot": "session_tables",
        "run_id": context.run_id,
        "path": f"file://{tmp_path}/root/cache_metadata/session_tables",
        "version": 0,
        "rows": 3,
        "files": 1,
        "schema_hash": written.schema_hash,
        "content_hash": written.content_hash,
        "result": "write",
        "witness_version": WITNESS_VERSION,
    }
    assert registry == [row, row | {"result": "noop"}]
    assert set(row) | {"event_date", "event_time"} == set(SNAPSHOTS.schema.names)
    inventory = ledger.inventory().filter("cache_operation = 'snapshot'").sort("event_time")
    assert inventory.select(
        "scope", "policy", "operation", "result", "table_name", "version"
    ).to_pylist() == [
        {
            "scope": "metadata",
            "policy": "metadata_snapshot",
            "operation": "SNAPSHOT",
            "result": result,
            "table_name": "session_tables",
            "version": 0,
        }
        for result in ("write", "noop")
    ]


def test_each_snapshot_is_a_span_with_its_result(tmp_path):
    """Each snapshot is a span with its result and without its content."""
    telemetry = InMemoryTelemetry.create()
    cache = DeltaCache(session(tmp_path), tmp_path / "root")
    use_providers(telemetry.tracer_provider, telemetry.meter_provider)
    try:
        cache.snapshot(["inputs"])
        cache.snapshot(["inputs"])
    finally:
        use_providers(None, None)
    values = [
        {name: value for name, value in span.attributes.items() if name.startswith("cache.")}
        for span in telemetry.spans()
        if span.name == "cache.snapshot"
    ]
    shared = {
        "cache.policy": "metadata_snapshot",
        "cache.scope": "metadata",
        "cache.operation": "snapshot",
        "cache.name": "session_inputs",
    }
    assert values == [shared | {"cache.result": result} for result in ("write", "noop")]
    assert str(tmp_path) not in str([dict(span.attributes) for span in telemetry.spans()])


@pytest.mark.internal_errors
def test_a_damaged_snapshot_is_quarantined_and_written_again(tmp_path):
    """A damaged snapshot is quarantined and written again; nothing is deleted."""
    cache = DeltaCache(session(tmp_path), tmp_path / "root")
    cache.snapshot("tables")
    folder = tmp_path / "root/cache_metadata"
    for path in (folder / "session_tables").glob("*.parquet"):
        path.unlink()
    assert results(cache.snapshot("tables")) == ["write"]
    assert len(rows(tmp_path, "tables")) == 3
    assert len(list(folder.glob(".session_tables.aside-*"))) == 1


@pytest.mark.slow
@pytest.mark.internal_errors
def test_a_failed_snapshot_is_an_error_in_the_registry(tmp_path):
    """A snapshot that cannot be written raises, and is an error row in the registry."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "root")))
    cache = DeltaCache(session(tmp_path), tmp_path / "root")
    (tmp_path / "root").mkdir(exist_ok=True)
    (tmp_path / "root/cache_metadata").write_text("in the way")
    with pytest.raises(Exception, match=r".+"):
        cache.snapshot("tables")
    registry = Ledger(tmp_path / "root").snapshots().select("snapshot", "result", "version", "rows")
    assert registry.to_pylist() == [
        {"snapshot": "session_tables", "result": "error", "version": None, "rows": 3}
    ]
