"""Cache spans, log records and diagnostics have the entry, its version and the reasons of a miss."""

from __future__ import annotations

import datetime as dt
import shutil

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import CachePolicy, DeltaCache, ObservedSessionContext, Settings
from deltawitness.cache.entries.policy import OnError
from deltawitness.exceptions import CacheError
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.telemetry.diagnostics import memory_diagnostics
from deltawitness.testing import InMemoryTelemetry

BOUNDED = {
    "cache.policy",
    "cache.scope",
    "cache.operation",
    "cache.result",
    "error.type",
    "db.system.name",
    "db.operation.name",
}


@pytest.fixture
def memory():
    """In-memory telemetry and diagnostics."""
    memory_diagnostics().clear()
    created = InMemoryTelemetry.create()
    DeltaLakeInstrumentor().instrument(
        settings=Settings(diagnostics_sink="memory"), **created.providers()
    )
    return created


@pytest.fixture
def source(tmp_path):
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2, 3]}))
    return tmp_path / "t"


@pytest.fixture
def cache(tmp_path, source, memory):
    ctx = ObservedSessionContext()
    ctx.register_delta("t", source)
    return DeltaCache(ctx, tmp_path / "root", settings=Settings(diagnostics_sink="memory"))


def spans_of(memory, name):
    return [span for span in memory.spans() if span.name == name]


def last(memory, name):
    return dict(spans_of(memory, name)[-1].attributes)


def folder_of(tmp_path, name, scope="views"):
    return tmp_path / "root" / f"cache_{scope}" / name


def test_a_miss_and_a_hit_have_entry_version_and_reason(cache, memory, tmp_path):
    """A miss and a hit have entry, version and reason; the key is the hash in the commit."""
    cache.view("big", "SELECT id FROM t WHERE id > 1")
    miss, write = last(memory, "cache.read"), last(memory, "cache.write")
    assert (miss["cache.name"], miss["cache.result"]) == ("big", "miss")
    assert miss["cache.miss.reason"] == ("absent",)
    assert "delta.table.version" not in miss
    assert (write["cache.name"], write["cache.miss.reason"]) == ("big", ("absent",))
    version = DeltaTable(folder_of(tmp_path, "big")).version()
    assert write["delta.table.version"] == version
    cache.view("big", "SELECT id FROM t WHERE id > 1")
    hit = last(memory, "cache.read")
    assert (hit["cache.result"], hit["delta.table.version"]) == ("hit", version)
    assert "cache.miss.reason" not in hit
    (commit,) = [span for span in memory.spans() if span.attributes.get("cache.scope") == "view"
                 and span.name.startswith("WRITE")]  # fmt: skip
    assert hit["cache.key"] == write["cache.key"] == commit.attributes["cache.key"]
    assert hit["delta.table.id"] == commit.attributes["delta.table.id"]


@pytest.mark.slow
def test_each_kind_of_change_is_a_member_of_the_closed_list(cache, memory, source):
    cache.view("big", "SELECT id FROM t")
    write_deltalake(source, pa.table({"id": [4]}), mode="append")
    cache.view("big", "SELECT id FROM t")
    assert last(memory, "cache.read")["cache.miss.reason"] == ("input_changed",)
    cache.view("big", "SELECT id + 1 AS id FROM t")
    assert "plan_changed" in last(memory, "cache.read")["cache.miss.reason"]
    cache.invalidate("big")
    cache.view("big", "SELECT id + 1 AS id FROM t")
    assert last(memory, "cache.read")["cache.miss.reason"] == ("invalidated",)


def test_a_log_record_has_the_attributes_of_the_span(cache, memory):
    cache.view("big", "SELECT id FROM t")
    (span,) = spans_of(memory, "cache.read")
    records = [
        record.log_record
        for record in memory.log_records()
        if record.log_record.event_name == "deltawitness.cache"
    ]
    read = next(record for record in records if record.span_id == span.context.span_id)
    assert dict(read.attributes) == dict(span.attributes)
    assert read.trace_id == span.context.trace_id


def test_an_exemplar_leads_to_the_entry_and_metrics_stay_bounded(cache, memory):
    """An exemplar refers to the operation's span; metrics have no name, key or version."""
    cache.view("big", "SELECT id FROM t")
    points = memory.metric_points()["cache.operation.duration"]
    spans = {span.context.span_id: span for span in memory.spans()}
    (read,) = [point for point in points if point.attributes["cache.operation"] == "read"]
    assert [spans[each.span_id].attributes["cache.name"] for each in read.exemplars] == ["big"]
    for found in memory.metric_points().values():
        for point in found:
            assert set(point.attributes) <= BOUNDED | {"delta.change"}


def test_a_write_of_the_cache_is_counted_once(cache, memory):
    """The observed commit is counted, not the span around it as well."""
    cache.view("big", "SELECT id FROM t")
    points = memory.metric_points()["cache.operation.count"]
    writes = [point for point in points if point.attributes["cache.operation"] == "write"]
    assert sum(point.value for point in writes) == 1


def test_the_settings_withhold_names_and_key_ids(tmp_path, source, memory):
    ctx = ObservedSessionContext()
    ctx.register_delta("t", source)
    settings = Settings(table_names="none", table_id_key=b"secret")
    DeltaCache(ctx, tmp_path / "keyed", settings=settings).view("big", "SELECT id FROM t")
    attributes = last(memory, "cache.read")
    assert "cache.name" not in attributes
    DeltaCache(ctx, tmp_path / "keyed").view("big", "SELECT id FROM t")
    assert last(memory, "cache.read")["delta.table.id"] != attributes["delta.table.id"]


def test_loading_an_artifact_is_a_read(cache, memory):
    policy = CachePolicy("models")
    cache.artifact("model", {"a": 1}, policy=policy)
    assert cache.load_artifact("model") == {"a": 1}
    hit = last(memory, "cache.read")
    assert (hit["cache.name"], hit["cache.result"], hit["cache.scope"]) == (
        "model",
        "hit",
        "artifact",
    )
    assert (hit["cache.policy"], hit["delta.table.version"]) == ("models", 0)
    cache.invalidate("model")
    with pytest.raises(CacheError, match="there is no artifact model"):
        cache.load_artifact("model")
    miss = last(memory, "cache.read")
    assert (miss["cache.result"], miss["cache.miss.reason"]) == ("miss", ("invalidated",))
    with pytest.raises(CacheError):
        cache.load_artifact("nothing")
    assert last(memory, "cache.read")["cache.miss.reason"] == ("absent",)
    results = {
        (point.attributes["cache.policy"], point.attributes["cache.result"])
        for point in memory.metric_points()["cache.operation.count"]
        if point.attributes["cache.operation"] == "read"
    }
    assert {("models", "hit"), ("models", "miss")} <= results


def test_a_damaged_artifact_is_an_error_and_a_diagnostic(cache, memory, tmp_path):
    cache.artifact("model", {"a": 1})
    for file in folder_of(tmp_path, "model", "artifacts").glob("*.parquet"):
        file.unlink()
    with pytest.raises(CacheError):
        cache.load_artifact("model")
    error = last(memory, "cache.read")
    assert (error["cache.result"], error["cache.miss.reason"]) == ("error", ("damaged",))
    assert error["error.type"]
    ((name, told),) = memory_diagnostics().events
    assert (name, told["name"], told["scope"]) == ("cache.damaged", "model", "artifact")
    assert "missing or has another size" in told["reason"]


def test_invalidating_is_a_span_and_its_commit_is_that_of_the_policy(cache, memory, tmp_path):
    policy = CachePolicy("nightly")
    cache.view("big", "SELECT id FROM t", policy=policy)
    cache.invalidate("big")
    span = last(memory, "cache.invalidate")
    assert (span["cache.name"], span["cache.policy"], span["cache.operation"]) == (
        "big", "nightly", "invalidate",
    )  # fmt: skip
    assert span["delta.table.version"] == DeltaTable(folder_of(tmp_path, "big")).version()
    commit = next(
        each for each in memory.spans()
        if each.name.startswith("WRITE")
        and each.attributes["delta.table.version"] == span["delta.table.version"]
    )  # fmt: skip
    assert (commit.attributes["cache.policy"], commit.attributes["cache.scope"]) == (
        "nightly",
        "view",
    )


def test_pruning_is_a_span_for_each_entry(cache, memory):
    cache.view("old", "SELECT id FROM t")
    cache.view("other", "SELECT id + 1 AS id FROM t", policy=CachePolicy("other"))
    cache.prune(older_than=dt.timedelta(days=1))
    spans = [dict(span.attributes) for span in spans_of(memory, "cache.prune")]
    assert [(span["cache.name"], span["cache.result"]) for span in spans] == [
        ("old", "noop"),
        ("other", "noop"),
    ]
    cache.prune(CachePolicy("other"), older_than=dt.timedelta(microseconds=1))
    pruned = last(memory, "cache.prune")
    assert (pruned["cache.name"], pruned["cache.policy"]) == ("other", "other")
    assert (pruned["cache.result"], pruned["delta.table.version"]) == ("write", 1)


def test_verifying_is_a_span_with_its_verdict(cache, memory, source):
    cache.view("big", "SELECT id FROM t")
    assert cache.verify("big").verdict == "reproducible"
    span = last(memory, "cache.verify")
    assert (span["cache.name"], span["cache.verdict"]) == ("big", "reproducible")
    assert (span["cache.result"], span["cache.operation"]) == ("noop", "verify")
    shutil.rmtree(source)
    assert cache.verify("big").verdict == "cannot_tell"
    assert last(memory, "cache.verify")["cache.verdict"] == "cannot_tell"


@pytest.mark.slow
def test_a_verification_and_a_loaded_artifact_have_rows_in_the_ledger(tmp_path, source):
    """Verifying and loading have rows in the ledger; hits and misses of a run count its reads only."""
    from deltawitness import Ledger, run
    from deltawitness.ledger.tables.arrow import query
    from deltawitness.ledger.tables.schema import INVENTORY, RUNS

    root = str(tmp_path / "root")
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=root))
    ctx = ObservedSessionContext()
    ctx.register_delta("t", source)
    cache = DeltaCache(ctx, root)
    with run("nightly") as context:
        cache.view("big", "SELECT id FROM t")
        cache.verify("big")
        cache.artifact("model", {"a": 1})
        cache.load_artifact("model")
    ledger = Ledger(root)
    ledger.drain()
    DeltaLakeInstrumentor().uninstrument()
    rows = query(
        ledger.root.open_table(INVENTORY),
        "SELECT cache_operation, result, table_name, version, reason FROM ledger"
        " WHERE cache_operation IN ('verify', 'read') ORDER BY event_time",
    ).to_pylist()
    assert [tuple(row.values())[:4] for row in rows] == [
        ("read", "miss", "big", None),
        ("verify", "noop", "big", 0),
        ("read", "miss", "model", None),
        ("read", "hit", "model", 0),
    ]
    assert rows[1]["reason"] == "reproducible"
    (told,) = query(
        ledger.root.open_table(RUNS), f"SELECT * FROM ledger WHERE run_id = '{context.run_id}'"
    ).to_pylist()
    assert (told["reads"], told["hits"], told["misses"]) == (3, 1, 2)


@pytest.mark.internal_errors
def test_a_damaged_entry_is_a_diagnostic(cache, tmp_path):
    cache.view("big", "SELECT id FROM t")
    for file in folder_of(tmp_path, "big").glob("*.parquet"):
        file.unlink()
    cache.view("big", "SELECT id FROM t")
    assert memory_diagnostics().events == [
        (
            "cache.damaged",
            {
                "name": "big",
                "scope": "view",
                "policy": "view_delta_staging",
                "reason": "a data file is missing or has another size",
            },
        )
    ]


def test_an_uncacheable_result_is_a_diagnostic_with_the_reason(cache):
    cache.view("now", "SELECT random() AS r")
    ((name, told),) = memory_diagnostics().events
    assert (name, told["name"]) == ("cache.uncacheable", "now")
    assert "random" in told["reason"]


@pytest.mark.internal_errors
def test_a_fallback_is_a_diagnostic_without_paths(cache, monkeypatch, tmp_path):
    from deltawitness.cache import read_through

    def fail(*_, **__):
        msg = f"cannot write {tmp_path}/canary.parquet"
        raise OSError(msg)

    monkeypatch.setattr(read_through, "write_entry", fail)
    assert cache.view("big", "SELECT id FROM t").count() == 3
    ((name, told),) = memory_diagnostics().events
    assert (name, told["name"]) == ("cache.fallback", "big")
    assert "cannot write" in told["reason"]
    assert "canary" not in told["reason"]
    policy = CachePolicy("strict", on_error=OnError.RAISE)
    with pytest.raises(OSError, match="canary"):
        cache.view("other", "SELECT id FROM t", policy=policy)
    assert len(memory_diagnostics().events) == 1


def test_settings_of_a_cache_choose_its_diagnostics_sink(tmp_path):
    memory_diagnostics().clear()
    settings = Settings(diagnostics_sink="memory")
    cache = DeltaCache(ObservedSessionContext(), tmp_path / "root", settings=settings)
    cache.view("now", "SELECT random() AS r")
    assert [name for name, _ in memory_diagnostics().events] == ["cache.uncacheable"]


@pytest.mark.internal_errors
def test_a_sink_that_fails_changes_nothing(cache, monkeypatch):
    monkeypatch.setattr(
        type(memory_diagnostics()), "record_event", lambda *_: (_ for _ in ()).throw(KeyError())
    )
    assert cache.view("now", "SELECT random() AS r").count() == 1
