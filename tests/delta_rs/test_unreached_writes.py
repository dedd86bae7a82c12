"""A write that does not reach the engine is one event: skipped because the table exists, or failed."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pickle
import threading
import traceback
from contextlib import contextmanager
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, convert_to_deltalake, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from deltawitness import (
    DeltaLakeInstrumentor,
    Ledger,
    ObservedSessionContext,
    ObservedWritePipeline,
    Settings,
    WritePipeline,
    WriteRequest,
    cache_context,
    suppressed,
    table_id,
)
from deltawitness.delta_rs.install import install_for_proxies, uninstall
from deltawitness.events import UNCHANGED, Failed, Landed, NoCommit, NoCommitReason
from deltawitness.exceptions import StatementError, WriteRequestError
from deltawitness.observe import current_observer, flush
from deltawitness.testing import CapturedWrites, InMemoryTelemetry, capture_writes
from helpers.engine_versions import skip_without_session

DATA = pa.table({"id": [1]})


class BadSource:
    """Data that raises when its stream is requested."""

    def __arrow_c_stream__(self, requested_schema=None):
        raise RuntimeError("bad source")


class ForeignPipeline:
    """A pipeline class of the program."""

    def write(self, request):
        write_deltalake(request.destination, request.source, mode=request.mode.value)


@pytest.fixture
def uri(tmp_path):
    """A Delta table of one row."""
    write_deltalake(tmp_path / "t", DATA)
    return str(tmp_path / "t")


def session(uri):
    skip_without_session()
    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri)
    return ctx


def frame():
    return ObservedSessionContext().sql("SELECT 1 AS id")


def pipeline_write(uri, source=DATA, pipeline=None, **options):
    pipeline = ObservedWritePipeline(pipeline or WritePipeline())
    return pipeline.write(WriteRequest(source=source, destination=uri, **options))


def parquet(uri):
    """Return a directory of Parquet files next to the table; the table exists as Delta already."""
    folder = f"{uri}_parquet"
    os.makedirs(folder)
    pq.write_table(DATA, f"{folder}/part.parquet")
    with suppressed():
        convert_to_deltalake(folder)
    return folder


SKIPPED = {
    "write_deltalake by URI": lambda uri: write_deltalake(uri, DATA, mode="ignore"),
    "write_deltalake by path": lambda uri: write_deltalake(Path(uri), DATA, mode="ignore"),
    "write_deltalake by handle": lambda uri: write_deltalake(DeltaTable(uri), DATA, mode="ignore"),
    "write_deltalake of what is no source": lambda uri: write_deltalake(uri, BadSource(), mode="ignore"),
    "write_deltalake by keywords": lambda uri: write_deltalake(table_or_uri=uri, data=DATA, mode="ignore"),
    "DeltaTable.create": lambda uri: DeltaTable.create(uri, DATA.schema, mode="ignore"),
    "plain pipeline": lambda uri: WritePipeline().write(WriteRequest(source=DATA, destination=uri, mode="ignore")),
    "pipeline": lambda uri: pipeline_write(uri, mode="ignore"),
    "pipeline by handle": lambda uri: pipeline_write(DeltaTable(uri), mode="ignore"),
    "pipeline without reused handles": lambda uri: pipeline_write(uri, pipeline=WritePipeline(reuse_handles=False), mode="ignore"),
    "foreign pipeline": lambda uri: pipeline_write(uri, pipeline=ForeignPipeline(), mode="ignore"),
    "write_delta": lambda uri: frame().write_delta(uri, mode="ignore"),
    "write_delta of what it reads": lambda uri: session(uri).table("t").sort("id").write_delta(uri, mode="ignore"),
    "COPY": lambda uri: session(uri).sql(f"COPY t TO '{uri}' STORED AS DELTATABLE OPTIONS ('mode' 'ignore')").collect(),
    "CREATE TABLE AS": lambda uri: session(uri).sql(f"CREATE TABLE n STORED AS DELTATABLE LOCATION '{uri}' OPTIONS ('mode' 'ignore') AS SELECT 1 AS id"),
}  # fmt: skip

BY_PROXY = {"pipeline", "pipeline by handle", "pipeline without reused handles", "foreign pipeline", "write_delta", "write_delta of what it reads", "COPY", "CREATE TABLE AS"}  # fmt: skip


def the_event(captured, uri):
    (event,) = captured.events
    assert event.table_id == table_id(uri)
    return event


@contextmanager
def captured_by(how):
    """Capture what the instrumentor observes, or what the proxies observe without it."""
    if how == "instrumentor":
        with capture_writes() as captured:
            yield captured
        return
    install_for_proxies()
    flush()
    captured, observer = CapturedWrites(), current_observer()
    observer.add_sink(captured)
    yield captured
    flush()
    observer.remove_sink(captured)


def ways(cases, bare):
    """Return each case with its observer; proxies alone only see writes through a proxy."""
    return [(case, "instrumentor") for case in cases] + [
        (case, "proxies") for case in cases if case not in bare
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "how"), ways(SKIPPED, SKIPPED.keys() - BY_PROXY))
def test_a_skipped_write_is_delivered(uri, case, how):
    """It is one event without a commit, as the table exists; the program gets the engine's result."""
    expected = SKIPPED[case](uri)
    with captured_by(how) as captured:
        result = SKIPPED[case](uri)
        event = the_event(captured, uri)
    assert event.outcome == NoCommit(NoCommitReason.TABLE_EXISTS, UNCHANGED)
    assert event.intent.mode == "ignore"
    assert type(result) is type(expected)
    assert getattr(result, "skipped", True) is True
    assert DeltaTable(uri).version() == 0


def test_a_skipped_conversion_is_delivered(uri):
    """A conversion in mode `ignore` of files that are a Delta table already is one skipped event."""
    folder = parquet(uri)
    with capture_writes() as captured:
        assert convert_to_deltalake(folder, mode="ignore") is None
        event = the_event(captured, folder)
        with pytest.raises(DeltaError):
            convert_to_deltalake(folder)
    assert event.outcome == NoCommit(NoCommitReason.TABLE_EXISTS, UNCHANGED)
    assert event.intent.operation == "CONVERT"
    assert len(captured) == 2


def test_a_write_in_mode_ignore_without_a_table_is_a_write(tmp_path):
    """Mode `ignore` without an existing table creates the table, as a normal write."""
    with capture_writes() as captured:
        write_deltalake(tmp_path / "new", DATA, mode="ignore")
    assert captured.last.outcome.version == 0
    assert len(captured) == 1


def moved(uri):
    ctx = session(uri)
    os.rename(uri, f"{uri}_elsewhere")
    return ctx


FAILED = {
    "mode error": (lambda uri: write_deltalake(uri, DATA), DeltaError),
    "mode error by handle": (lambda uri: write_deltalake(DeltaTable(uri), DATA), DeltaError),
    "mode error of create": (lambda uri: DeltaTable.create(uri, DATA.schema), DeltaError),
    "mode error of a pipeline": (pipeline_write, DeltaError),
    "mode error of write_delta": (lambda uri: frame().write_delta(uri), DeltaError),
    "mode error of COPY": (lambda uri: session(uri).sql(f"COPY t TO '{uri}' STORED AS DELTATABLE").collect(), DeltaError),
    "mode error of CREATE TABLE AS": (lambda uri: ObservedSessionContext().sql(f"CREATE TABLE n STORED AS DELTATABLE LOCATION '{uri}' AS SELECT 1 AS id"), DeltaError),
    "unknown mode": (lambda uri: write_deltalake(uri, DATA, mode="other"), DeltaError),
    "unknown mode of create": (lambda uri: DeltaTable.create(uri, DATA.schema, mode="other"), DeltaError),
    "unknown mode of write_delta": (lambda uri: frame().write_delta(uri, mode="other"), StatementError),
    "unknown mode of COPY": (lambda uri: session(uri).sql(f"COPY t TO '{uri}' STORED AS DELTATABLE OPTIONS ('mode' 'other')").collect(), StatementError),
    "unknown argument": (lambda uri: write_deltalake(uri, DATA, mod="append"), TypeError),
    "no commit properties": (lambda uri: write_deltalake(uri, DATA, mode="append", commit_properties=5), AttributeError),
    "unknown schema mode": (lambda uri: frame().write_delta(uri, mode="append", schema_mode="other"), DeltaError),
    "source that raises": (lambda uri: write_deltalake(uri, BadSource(), mode="append"), RuntimeError),
    "source that raises, by handle": (lambda uri: write_deltalake(DeltaTable(uri), BadSource(), mode="append"), RuntimeError),
    "source that raises, of a pipeline": (lambda uri: pipeline_write(uri, BadSource(), mode="append"), RuntimeError),
    "source that raises, of a foreign pipeline": (lambda uri: pipeline_write(uri, BadSource(), ForeignPipeline(), mode="append"), RuntimeError),
    "no source": (lambda uri: write_deltalake(uri, None, mode="append"), ValueError),
    "no source of a pipeline": (lambda uri: pipeline_write(uri, 5, mode="append"), WriteRequestError),
    "empty source": (lambda uri: write_deltalake(uri, [], mode="append"), IndexError),
    "source of no type of Delta": (lambda uri: write_deltalake(uri, pa.table({"id": pa.array([1], pa.duration("s"))}), mode="append"), Exception),
    "table that is gone, INSERT": (lambda uri: moved(uri).sql("INSERT INTO t VALUES (2)").collect(), TableNotFoundError),
    "table that is gone, UPDATE": (lambda uri: moved(uri).sql("UPDATE t SET id = 2").collect(), TableNotFoundError),
    "table that is gone, DELETE": (lambda uri: moved(uri).sql("DELETE FROM t").collect(), TableNotFoundError),
    "table that is gone, MERGE": (lambda uri: moved(uri).sql("MERGE INTO t USING (SELECT 2 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE").collect(), TableNotFoundError),
    "table that is gone, OPTIMIZE": (lambda uri: moved(uri).sql("OPTIMIZE t").collect(), TableNotFoundError),
    "table that is gone, VACUUM": (lambda uri: moved(uri).sql("VACUUM t").collect(), TableNotFoundError),
    "table that is gone, RESTORE": (lambda uri: moved(uri).sql("RESTORE t TO VERSION 0").collect(), TableNotFoundError),
    "table that is gone, write_table": (lambda uri: moved(uri).sql("SELECT 1 AS id").write_table("t"), TableNotFoundError),
    "statement that is refused": (lambda uri: session(uri).sql("DELETE FROM t WHERE id > random() * 9").collect(), StatementError),
    "frame that does not fit": (lambda uri: session(uri).sql("SELECT 1 AS a, 2 AS b").write_table("t"), StatementError),
}  # fmt: skip


BARE = {"mode error", "mode error by handle", "mode error of create", "unknown mode", "unknown mode of create", "unknown argument", "no commit properties", "source that raises", "source that raises, by handle", "no source", "empty source", "source of no type of Delta"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("case", "how"), ways(FAILED, BARE))
def test_a_write_that_fails_before_the_engine_is_delivered(uri, case, how):
    """It is one event, failed and not landed, with the exception that the program gets."""
    write, kind = FAILED[case]
    with captured_by(how) as captured:
        with pytest.raises(kind) as caught:
            write(uri)
        event = the_event(captured, uri)
    assert isinstance(event.outcome, Failed)
    assert event.outcome.landed is Landed.NO
    raised = type(caught.value)
    assert event.outcome.exception_type == f"{raised.__module__}.{raised.__qualname__}"


@pytest.mark.slow
def test_each_is_one_span_one_data_point_and_one_row(uri, tmp_path):
    """Skipped and failed writes, by the public function and by a session, have all signals and a row."""
    telemetry = InMemoryTelemetry.create()
    settings = Settings(cache_root=str(tmp_path / "root"))
    DeltaLakeInstrumentor().instrument(settings=settings, **telemetry.providers())
    with cache_context(policy="nightly"):
        write_deltalake(uri, DATA, mode="ignore")
        frame().write_delta(uri, mode="ignore")
        with pytest.raises(RuntimeError):
            write_deltalake(uri, BadSource(), mode="append")
        with pytest.raises(TableNotFoundError):
            moved(uri).sql("INSERT INTO t VALUES (2)").collect()
    spans = telemetry.spans()
    assert [span.attributes["cache.result"] for span in spans] == ["noop", "noop", "error", "error"]
    assert {span.attributes["cache.policy"] for span in spans} == {"nightly"}
    assert [span.attributes.get("deltawitness.landed") for span in spans] == [
        None,
        None,
        "no",
        "no",
    ]
    counts = telemetry.metric_points()["cache.operation.count"]
    found = {point.attributes["cache.result"]: point.value for point in counts}
    assert found == {"noop": 2, "error": 2}
    uninstall()
    rows = Ledger(tmp_path / "root").inventory().to_pylist()
    assert sorted(row["result"] for row in rows) == ["error", "error", "noop", "noop"]
    assert {row["table_uri"] for row in rows} == {f"file://{uri}"}


def test_the_duration_is_that_of_the_call(uri):
    """The duration includes the time that a source takes until it fails."""

    class SlowSource:
        def __arrow_c_stream__(self, requested_schema=None):
            threading.Event().wait(0.05)
            raise RuntimeError("bad source")

    with capture_writes() as captured, pytest.raises(RuntimeError):
        write_deltalake(uri, SlowSource(), mode="append")
    assert captured.last.duration_ns >= 50_000_000


def test_a_write_inside_a_source_is_a_separate_event(uri, tmp_path):
    """A statement's frame as the source of a write: the statement and the write are one event each."""
    ctx = session(uri)
    with capture_writes() as captured:
        write_deltalake(tmp_path / "counts", ctx.sql("INSERT INTO t VALUES (2)"))
        with pytest.raises(Exception, match="Cast error"):
            write_deltalake(tmp_path / "counts", ctx.sql("INSERT INTO t VALUES ('x')"))
    tables = [event.table_id for event in captured]
    written, counts = table_id(uri), table_id(tmp_path / "counts")
    assert tables == [written, counts, written, counts]


def test_suppressed_writes_are_not_delivered(uri):
    """Suppressed writes have no event, also where they fail."""
    with capture_writes() as captured, suppressed():
        write_deltalake(uri, DATA, mode="ignore")
        with pytest.raises(RuntimeError):
            write_deltalake(uri, BadSource(), mode="append")
    assert captured.events == []


def test_an_internal_error_changes_nothing(uri, monkeypatch):
    """When the observer raises, the function returns and raises what the engine does."""
    from deltawitness import internal_errors
    from deltawitness.observe import Observer

    def fail(*args, **kwargs):
        raise OSError("ours")

    with capture_writes():
        with monkeypatch.context() as patch:
            patch.setattr(Observer, "begin", fail)
            assert write_deltalake(uri, DATA, mode="ignore") is None
            with pytest.raises(RuntimeError, match="bad source"):
                write_deltalake(uri, BadSource(), mode="append")
        assert internal_errors.error_counts() == {("seam", "OSError"): 2}
        internal_errors.reset_counts()


@pytest.mark.internal_errors
@pytest.mark.parametrize("mode", ["append", "ignore", "overwrite"])
def test_a_write_that_could_not_be_observed_is_not_delivered_as_unreached(uri, monkeypatch, mode):
    """A write that reached the engine, and whose observation failed, has no event."""

    def fail(*args, **kwargs):
        raise OSError("ours")

    with capture_writes() as captured, monkeypatch.context() as patch:
        patch.setattr("deltawitness.observe.Observer.open", fail)
        write_deltalake(f"{uri}_new" if mode == "ignore" else uri, DATA, mode=mode)
        with pytest.raises(DeltaError):
            write_deltalake(uri, DATA)
    assert captured.events == []


def test_the_public_function_is_unchanged(uri):
    """The object, signature, source, name and pickle are unchanged; the code is restored at the end."""
    seen = {
        "signature": inspect.signature(write_deltalake),
        "source": inspect.getsource(write_deltalake),
        "code": write_deltalake.__code__,
        "attributes": dict(vars(write_deltalake)),
    }
    with capture_writes():
        assert deltalake.write_deltalake is write_deltalake
        assert pickle.loads(pickle.dumps(write_deltalake)) is write_deltalake
        assert inspect.signature(write_deltalake) == seen["signature"]
        assert inspect.getsource(write_deltalake) == seen["source"]
        assert write_deltalake.__code__ is not seen["code"]
        with pytest.raises(TypeError, match=r"write_deltalake\(\) missing 1 required positional"):
            write_deltalake(uri)
        with pytest.raises(RuntimeError) as caught:
            write_deltalake(uri, BadSource(), mode="append")
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names.count("write_deltalake") == 2
    assert write_deltalake.__code__ is seen["code"]
    assert vars(write_deltalake) == seen["attributes"]


@pytest.mark.slow
def test_writes_succeed_while_instrumentation_is_switched(uri):
    """Writes of other threads do not fail while the instrumentation is switched on and off."""
    is_over, errors = threading.Event(), []

    def write():
        while not is_over.is_set():
            try:
                write_deltalake(uri, DATA, mode="ignore")
            except Exception as error:  # noqa: BLE001 - none is expected
                errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        with capture_writes():
            write_deltalake(uri, DATA, mode="ignore")
    is_over.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_function_that_another_package_replaced_is_not_restored(uri, monkeypatch):
    """A function that is no plain function any more is not patched; its engine calls are observed."""
    module = importlib.import_module("deltalake.writer.writer")
    monkeypatch.setattr(module, "write_deltalake", functools.partial(write_deltalake))
    with capture_writes() as captured:
        write_deltalake(uri, DATA, mode="ignore")
        write_deltalake(uri, DATA, mode="append")
    assert [type(event.outcome).__name__ for event in captured] == ["Committed"]
