"""A frame shows the runs of its statement; a repeated run warns once and is counted."""

from __future__ import annotations

import asyncio
import copy
import inspect
import threading
import warnings

import pyarrow as pa
import pytest
from datafusion import SessionContext, col
from deltalake import DeltaTable, write_deltalake
from deltalake._internal import RawDeltaTable

from deltawitness import (
    DataFusionInstrumentor,
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    suppressed,
)
from deltawitness.exceptions import DeltaWitnessError, RepeatedStatementWarning, StatementError
from deltawitness.testing import InMemoryTelemetry

METRIC = "deltawitness.statement.repeats"


@pytest.fixture
def telemetry():
    """Providers with in-memory exporters."""
    return InMemoryTelemetry.create()


def fill(ctx, folder):
    write_deltalake(folder / "t", pa.table({"id": [0]}))
    write_deltalake(folder / "t", pa.table({"id": [1]}), mode="overwrite")
    ctx.register_delta("t", folder / "t")
    ctx.sql("CREATE TABLE m AS SELECT 1 AS id")
    ctx.sql("PREPARE p AS INSERT INTO t VALUES ($1)")
    return ctx


@pytest.fixture
def ctx(tmp_path, telemetry):
    """A session with a Delta table and an in-memory table, observed with in-memory exporters."""
    DeltaLakeInstrumentor().instrument(meter_provider=telemetry.meter_provider)
    return fill(ObservedSessionContext(), tmp_path)


def text_of(frame):
    return repr(frame).removeprefix("DataFrame()\n")


def repeats(telemetry):
    """Return the counted repetitions, by operation."""
    points = telemetry.metric_points().get(METRIC, [])
    return {dict(point.attributes)["db.operation.name"]: point.value for point in points}


def quietly(call):
    """Return the result of a call and the number of our warnings that it raised."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = call()
    assert all(issubclass(each.category, RepeatedStatementWarning) for each in seen)
    return result, len(seen)


STATEMENTS = {
    "INSERT INTO t VALUES (7)": ("INSERT INTO t", "WRITE"),
    "INSERT OVERWRITE t VALUES (7)": ("INSERT OVERWRITE t", "WRITE"),
    "UPDATE t SET id = id + 1": ("UPDATE t", "UPDATE"),
    "DELETE FROM t WHERE id = 1": ("DELETE FROM t", "DELETE"),
    "TRUNCATE TABLE t": ("TRUNCATE TABLE t", "DELETE"),
    "MERGE INTO t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET id = 5": ("MERGE INTO t", "MERGE"),
    "EXECUTE p(7)": ("INSERT INTO t", "WRITE"),
    "OPTIMIZE t": ("OPTIMIZE t", "OPTIMIZE"),
    "VACUUM t RETAIN 200 HOURS": ("VACUUM t", "VACUUM"),
    "RESTORE t TO VERSION 0": ("RESTORE t", "RESTORE"),
    "COPY t TO 'd' STORED AS DELTATABLE OPTIONS ('mode' 'append')": ("COPY TO a Delta table", "WRITE"),
    "COPY t TO 'f.csv' STORED AS CSV": ("COPY TO", "COPY"),
    "INSERT INTO m VALUES (7)": ("DML on m", "WRITE"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("sql", STATEMENTS)
def test_a_frame_counts_its_runs_and_the_second_warns(ctx, tmp_path, monkeypatch, telemetry, sql):
    """Only the second run warns; all repeated runs are counted by operation."""
    monkeypatch.chdir(tmp_path)
    title, operation = STATEMENTS[sql]
    frame = ctx.sql(sql)
    assert text_of(frame) == f"{title}: not run yet; collect() or show() runs it"
    assert quietly(frame.collect)[1] == 0
    assert text_of(frame) == f"{title}: has run (1 time); collect() or show() runs it again"
    assert repeats(telemetry) == {}
    with pytest.warns(RepeatedStatementWarning, match=f"^{title}: this statement has run before"):
        frame.collect()
    assert quietly(frame.collect)[1] == 0
    assert text_of(frame) == f"{title}: has run (3 times); collect() or show() runs it again"
    assert repeats(telemetry) == {operation: 2}


def test_a_notebook_shows_the_same(ctx):
    """The HTML display shows the runs too."""
    frame = ctx.sql("INSERT INTO t VALUES (7)")
    frame.collect()
    text = "INSERT INTO t: has run (1 time); collect() or show() runs it again"
    assert frame._repr_html_() == f"<pre>{text}</pre>"


async def all_of(frame):
    return [batch async for batch in frame]


AGAIN = {
    "__aiter__": lambda frame, folder: asyncio.run(all_of(frame)),
    "__iter__": lambda frame, folder: list(frame),
    "arrow": lambda frame, folder: pa.table(frame),
    "cache": lambda frame, folder: frame.cache(),
    "count": lambda frame, folder: frame.count(),
    "describe": lambda frame, folder: frame.describe(),
    "execute_stream": lambda frame, folder: frame.execute_stream(),
    "show": lambda frame, folder: frame.show(),
    "tail": lambda frame, folder: frame.tail(),
    "to_pandas": lambda frame, folder: frame.to_pandas(),
    "to_polars": lambda frame, folder: frame.to_polars(),
    "to_pylist": lambda frame, folder: frame.to_pylist(),
    "write_csv": lambda frame, folder: frame.write_csv(folder / "out.csv"),
    "write_delta": lambda frame, folder: frame.write_delta(folder / "out"),
    "write_parquet": lambda frame, folder: frame.write_parquet(folder / "out.parquet"),
    "write_table": lambda frame, folder: frame.select(col("count").cast(pa.int64())).write_table("t"),
    "a derived frame": lambda frame, folder: frame.filter("count > 0").limit(1).collect(),
    "a copy": lambda frame, folder: copy.copy(frame).collect(),
}  # fmt: skip


@pytest.mark.parametrize("how", AGAIN)
@pytest.mark.one_case_in(3)
def test_every_repeated_run_of_a_statement_warns(ctx, tmp_path, telemetry, how):
    """A derived frame shares its source's runs, and the warning points at the program's line."""
    frame = ctx.sql("INSERT INTO t VALUES (7)")
    derived = frame.limit(1)
    frame.collect()
    assert "has run (1 time)" in text_of(derived)
    with pytest.warns(RepeatedStatementWarning) as seen:
        AGAIN[how](frame, tmp_path)
    assert [warning.filename for warning in seen] == [__file__]
    assert "has run (2 times)" in text_of(frame)
    assert text_of(frame) == text_of(derived)
    assert repeats(telemetry) == {"WRITE": 1}


@pytest.mark.parametrize("how", ["collect", "show", "to_pandas", "count"])
def test_a_patched_class_warns_at_the_programs_line_too(tmp_path, how):
    """The warning points at the program's line also with patched classes."""
    DataFusionInstrumentor().instrument()
    try:
        frame = fill(SessionContext(), tmp_path).sql("INSERT INTO t VALUES (7)")
        getattr(frame, how)()
        with pytest.warns(RepeatedStatementWarning) as seen:
            getattr(frame, how)()
    finally:
        DataFusionInstrumentor().uninstrument()
    assert [warning.filename for warning in seen] == [__file__]


def test_other_frames_of_the_same_statement_are_other_statements(ctx, telemetry):
    """Another frame of the same text or plan has its own runs."""
    for _ in range(2):
        ctx.sql("INSERT INTO t VALUES (7)").collect()
    memory = ctx.sql("INSERT INTO m VALUES (7)")
    memory.collect()
    ctx.create_dataframe_from_logical_plan(memory.logical_plan()).collect()
    assert repeats(telemetry) == {}


def test_looking_is_no_run(ctx, telemetry):
    """Display, plan, schema and a refused view do not count as runs."""
    frame = ctx.sql("INSERT INTO t VALUES (7)")
    frame.collect()
    for look in (repr, lambda f: f._repr_html_(), lambda f: f.schema(), lambda f: f.logical_plan()):
        look(frame)
    with pytest.raises(StatementError, match="not a source of rows"):
        ctx.register_view("v", frame)
    with pytest.raises(StatementError, match="not a source of rows"):
        ctx.register_table("v", frame.into_view())
    assert "has run (1 time)" in text_of(frame)
    assert repeats(telemetry) == {}


def test_a_statement_that_only_reads_may_run_again(ctx, telemetry):
    """VACUUM ... DRY RUN shows its runs and never warns."""
    frame = ctx.sql("VACUUM t RETAIN 200 HOURS DRY RUN")
    assert quietly(lambda: [frame.collect(), frame.collect()])[1] == 0
    assert "VACUUM t DRY RUN: has run (2 times)" in text_of(frame)
    assert repeats(telemetry) == {}


def test_queries_may_run_again(ctx, telemetry):
    """Repeated queries do not warn."""
    frame = ctx.sql("SELECT * FROM t")
    assert quietly(lambda: [frame.collect(), frame.collect()])[1] == 0
    assert repeats(telemetry) == {}


def test_a_display_that_runs_a_statement_counts(tmp_path, telemetry, monkeypatch):
    """With the setting that runs statements on display, a display counts as a run."""
    monkeypatch.setenv("DELTAWITNESS_REPR_RUNS_DML", "true")
    DeltaLakeInstrumentor().instrument(meter_provider=telemetry.meter_provider)
    frame = fill(ObservedSessionContext(), tmp_path).sql("INSERT INTO t VALUES (7)")
    repr(frame)
    with pytest.warns(RepeatedStatementWarning):
        repr(frame)
    assert repeats(telemetry) == {"WRITE": 1}


# --- warnings that are errors -----------------------------------------------------------------------


def test_with_warnings_as_errors_no_repeated_run_reaches_the_engine(ctx, tmp_path, telemetry):
    """If warnings are errors, a repeated run never reaches the engine and is not counted."""
    frame = ctx.sql("INSERT INTO t VALUES (7)")
    frame.collect()
    for _ in range(2):
        with warnings.catch_warnings(), pytest.raises(RepeatedStatementWarning):
            warnings.simplefilter("error")
            frame.collect()
    assert DeltaTable(tmp_path / "t").version() == 2
    assert "has run (1 time);" in text_of(frame)
    assert repeats(telemetry) == {}
    with pytest.warns(RepeatedStatementWarning):
        frame.collect()
    assert repeats(telemetry) == {"WRITE": 1}


def test_the_warning_is_a_user_warning():
    """The warning is a `UserWarning`, which Python shows by default, and no internal error."""
    assert issubclass(RepeatedStatementWarning, UserWarning)
    assert not issubclass(RepeatedStatementWarning, DeltaWitnessError)


def test_without_telemetry_it_warns_and_counts_nothing(ctx, telemetry):
    """The warning does not depend on observation."""
    frame = ctx.sql("INSERT INTO t VALUES (7)")
    with suppressed():
        frame.collect()
        with pytest.warns(RepeatedStatementWarning):
            frame.collect()
    assert repeats(telemetry) == {}


# --- failures ----------------------------------------------------------------------------------------


FAILING = {
    "INSERT INTO t VALUES ('x')": "INSERT INTO t: failed with ",
    "INSERT INTO m VALUES ('x')": "DML on m: failed with ",
    "RESTORE t TO VERSION 99": "RESTORE t: failed with DeltaError",
    "COPY (SELECT 1 AS other) TO 't' STORED AS DELTATABLE": "COPY TO a Delta table: failed with DeltaError",
}  # fmt: skip


@pytest.mark.parametrize("sql", FAILING)
def test_a_failed_run_is_shown_and_may_be_repeated(ctx, tmp_path, monkeypatch, telemetry, sql):
    """A run after a failed run is no repetition if no commit landed."""
    monkeypatch.chdir(tmp_path)
    frame = ctx.sql(sql)
    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017 - the engine's errors have several classes
            quietly(frame.collect)
        assert text_of(frame).startswith(FAILING[sql])
        assert text_of(frame).endswith("; collect() or show() runs it again")
        assert "landed" not in text_of(frame)
    assert repeats(telemetry) == {}


def test_a_failed_run_after_others_is_shown_with_them(ctx, tmp_path):
    """The display shows a failure after successful runs, until the next run succeeds."""
    frame = ctx.sql(f"COPY t TO '{tmp_path}/d' STORED AS DELTATABLE")
    frame.collect()
    with pytest.raises(Exception, match="already exists"), pytest.warns(RepeatedStatementWarning):
        frame.collect()
    title = "COPY TO a Delta table"
    told = f"{title}: has run (1 time), failed with DeltaError; collect() or show() runs it again"
    assert text_of(frame) == told
    (tmp_path / "d").rename(tmp_path / "elsewhere")
    frame.collect()
    assert text_of(frame) == f"{title}: has run (2 times); collect() or show() runs it again"


@pytest.fixture
def interrupts(monkeypatch):
    """Exceptions that appends raise after their commits have landed, until the list is empty."""
    commit = RawDeltaTable.write
    interrupts = []

    def write(self, *args, **kwargs):
        commit(self, *args, **kwargs)
        if interrupts:
            raise interrupts.pop()

    write.__signature__ = inspect.signature(commit)
    monkeypatch.setattr(RawDeltaTable, "write", write)
    return interrupts


@pytest.mark.slow
def test_a_failed_run_that_landed_is_shown_as_such(interrupts, ctx, tmp_path, telemetry):
    """A run after a failed run whose commit landed is a repetition, and warns."""
    interrupts.append(KeyboardInterrupt())
    frame = ctx.sql("INSERT INTO t VALUES (7)")
    with pytest.raises(KeyboardInterrupt):
        frame.collect()
    assert text_of(frame) == (
        "INSERT INTO t: failed with KeyboardInterrupt, but its commit has landed;"
        " collect() or show() runs it again"
    )
    with pytest.warns(RepeatedStatementWarning):
        frame.collect()
    assert repeats(telemetry) == {"WRITE": 1}
    assert sorted(ctx.table("t").to_pydict()["id"]) == [1, 7, 7]


def test_whether_an_unobserved_run_landed_is_not_known(interrupts, ctx, telemetry):
    """The display says that an unobserved failed run may have landed, unless it was refused before."""
    interrupts.append(KeyboardInterrupt())
    frame = ctx.sql("INSERT INTO t VALUES (7)")
    with suppressed(), pytest.raises(KeyboardInterrupt):
        frame.collect()
    assert "failed with KeyboardInterrupt, and may have landed;" in text_of(frame)
    refused = ctx.sql("DELETE FROM t WHERE id > random() * 9")
    with suppressed(), pytest.raises(StatementError):
        refused.collect()
    assert "failed with StatementError;" in text_of(refused)


# --- threads -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_threads_that_run_one_frame_warn_once(ctx, telemetry):
    """Each thread runs the statement, all but the first count as repetitions, and one warns."""
    frame = ctx.sql("INSERT INTO t VALUES (7)")
    at_once = threading.Barrier(4)

    def run():
        at_once.wait()
        frame.collect()

    def run_all():
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert quietly(run_all)[1] == 1
    assert repeats(telemetry) == {"WRITE": 3}
    assert "has run (4 times)" in text_of(frame)
    assert ctx.table("t").count() == 5


def test_the_display_of_a_running_frame_shows_that_it_runs(ctx, monkeypatch):
    """The display in another thread shows that the statement is running."""
    looks = []
    frame = ctx.sql("INSERT INTO t VALUES (7)")
    commit = RawDeltaTable.write

    def write(self, *args, **kwargs):
        looks.append(text_of(frame))
        return commit(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(RawDeltaTable, "write", write)
        frame.collect()
    assert looks == ["INSERT INTO t: is running; collect() or show() runs it again"]
