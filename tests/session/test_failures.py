"""After a write that raised, the session serves the newest version of the table."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time

import pyarrow as pa
import pytest
from datafusion import udf
from deltalake import DeltaTable, write_deltalake
from deltalake._internal import RawDeltaTable
from deltalake.writer import writer

from deltawitness import ObservedSessionContext, WritePipeline, WriteRequest, internal_errors
from deltawitness.events import Failed, Landed
from deltawitness.testing import capture_writes

ENGINE = [
    *((RawDeltaTable, name) for name in ("write", "update", "delete", "merge_execute")),
    *((RawDeltaTable, name) for name in ("compact_optimize", "z_order_optimize", "restore")),
    (writer, "write_deltalake_rust"),
]
"""What makes a commit in delta-rs."""


@pytest.fixture
def uri(tmp_path):
    """A Delta table whose first version has two rows and whose second has three, in two files."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2]}))
    write_deltalake(tmp_path / "t", pa.table({"id": [3]}), mode="append")
    return str(tmp_path / "t")


@pytest.fixture
def late_errors(monkeypatch):
    """Errors that delta-rs raises after its commit has landed, until the list is empty."""
    errors = []

    def failing(commit):
        @functools.wraps(commit)
        def commit_and_raise(*args, **kwargs):
            result = commit(*args, **kwargs)
            if errors:
                raise errors.pop()
            return result

        return commit_and_raise

    for owner, name in ENGINE:
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    return errors


def session(uri):
    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri)
    ctx.register_delta("same", uri)
    ctx.sql("CREATE VIEW v AS SELECT * FROM t WHERE id > 0")
    return ctx


def ids(ctx, name):
    return sorted(ctx.sql(f"SELECT id FROM {name}").to_pydict()["id"])


WRITES = {
    "INSERT": (lambda ctx, uri: ctx.sql("INSERT INTO t VALUES (4)").collect(), [1, 2, 3, 4]),
    "INSERT from itself": (lambda ctx, uri: ctx.sql("INSERT INTO t SELECT id + 3 FROM t").show(), [1, 2, 3, 4, 5, 6]),
    "INSERT OVERWRITE": (lambda ctx, uri: ctx.sql("INSERT OVERWRITE t VALUES (4)").collect(), [4]),
    "UPDATE": (lambda ctx, uri: ctx.sql("UPDATE t SET id = id + 1").collect(), [2, 3, 4]),
    "UPDATE, evaluated": (lambda ctx, uri: ctx.sql("UPDATE t SET id = 9 WHERE id IN (SELECT max(id) FROM t)").collect(), [1, 2, 9]),
    "DELETE": (lambda ctx, uri: ctx.sql("DELETE FROM t WHERE id = 1").collect(), [2, 3]),
    "DELETE, evaluated": (lambda ctx, uri: ctx.sql("DELETE FROM t WHERE abs(id) = 1").collect(), [2, 3]),
    "TRUNCATE": (lambda ctx, uri: ctx.sql("TRUNCATE TABLE t").collect(), []),
    "MERGE": (lambda ctx, uri: ctx.sql("MERGE INTO t USING (SELECT 4 AS id) s ON t.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id)").collect(), [1, 2, 3, 4]),
    "MERGE, evaluated": (lambda ctx, uri: ctx.sql("MERGE INTO t USING (SELECT 4 AS id) s ON t.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (abs(s.id))").collect(), [1, 2, 3, 4]),
    "EXECUTE": (lambda ctx, uri: (ctx.sql("PREPARE p AS INSERT INTO t VALUES ($1)"), ctx.sql("EXECUTE p(4)").collect()), [1, 2, 3, 4]),
    "RESTORE": (lambda ctx, uri: ctx.sql("RESTORE t TO VERSION 0").collect(), [1, 2]),
    "OPTIMIZE": (lambda ctx, uri: ctx.sql("OPTIMIZE t").collect(), [1, 2, 3]),
    "OPTIMIZE ZORDER": (lambda ctx, uri: ctx.sql("OPTIMIZE t ZORDER BY (id)").collect(), [1, 2, 3]),
    "COPY TO": (lambda ctx, uri: ctx.sql(f"COPY (SELECT 4 AS id) TO '{uri}' STORED AS DELTATABLE OPTIONS ('mode' 'append')").collect(), [1, 2, 3, 4]),
    "CREATE OR REPLACE TABLE AS": (lambda ctx, uri: ctx.sql(f"CREATE OR REPLACE TABLE t STORED AS DELTATABLE LOCATION '{uri}' AS SELECT 4 AS id"), [4]),
    "write_delta": (lambda ctx, uri: ctx.sql("SELECT 4 AS id").write_delta(uri, mode="append"), [1, 2, 3, 4]),
    "write_table": (lambda ctx, uri: ctx.sql("SELECT 4 AS id").write_table("t"), [1, 2, 3, 4]),
    "a statement of derived rows": (lambda ctx, uri: ctx.sql("INSERT INTO t VALUES (4)").limit(1).to_pylist(), [1, 2, 3, 4]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), OSError("lost")], ids=str)
@pytest.mark.parametrize("case", WRITES)
@pytest.mark.one_case_in(4)
def test_a_commit_that_landed_is_served(uri, late_errors, case, error):
    """A commit that landed before an error is served under every name and view; the error is unchanged."""
    ctx = session(uri)
    write, expected = WRITES[case]
    late_errors.append(error)
    with pytest.raises(type(error)) as caught:
        write(ctx, uri)
    assert caught.value is error
    assert late_errors == []
    assert sorted(DeltaTable(uri).to_pyarrow_table()["id"].to_pylist()) == expected
    assert {name: ids(ctx, name) for name in ("t", "same", "v")} == dict.fromkeys(
        ("t", "same", "v"), expected
    )
    ctx.sql("INSERT INTO t VALUES (7)").collect()
    assert ids(ctx, "v") == sorted([*expected, 7])


def test_a_landed_write_is_one_event(uri, late_errors):
    """Serving the new version after an error adds no further event."""
    ctx = session(uri)
    late_errors.append(KeyboardInterrupt())
    with capture_writes() as events, pytest.raises(KeyboardInterrupt):
        ctx.sql("INSERT INTO t VALUES (4)").collect()
    (event,) = events
    assert isinstance(event.outcome, Failed)
    assert (event.outcome.landed, event.outcome.version) == (Landed.YES, 2)


def test_a_failed_write_does_not_change_the_session(uri):
    """A failed write raises the engine's error and leaves the served version unchanged."""
    ctx = session(uri)
    with pytest.raises(Exception, match="Cast error"):
        ctx.sql("INSERT INTO t VALUES ('x')").collect()
    assert ids(ctx, "v") == [1, 2, 3]


@pytest.mark.internal_errors
@pytest.mark.parametrize("how", ["open", "publish"])
def test_the_error_leaves_though_the_table_cannot_be_served(uri, late_errors, monkeypatch, how):
    """The write's error is raised even if the new version cannot be opened or published.

    Only a failure to publish it is an internal error.
    """
    ctx = session(uri)
    error = KeyboardInterrupt()

    def fail(*args, **kwargs):
        raise RuntimeError(how)

    late_errors.append(error)
    with monkeypatch.context() as patch:
        if how == "open":
            original = DeltaTable.__init__

            def init(self, *args, **kwargs):
                if not late_errors:
                    fail()
                original(self, *args, **kwargs)

            patch.setattr(DeltaTable, "__init__", init)
        else:
            patch.setattr(
                "deltawitness.session.core.session_tables.SessionTables.publish_location", fail
            )
        with pytest.raises(KeyboardInterrupt) as caught:
            ctx.sql("INSERT INTO t VALUES (4)").collect()
    assert caught.value is error
    assert internal_errors.error_counts() == (
        {} if how == "open" else {("session", "RuntimeError"): 1}
    )
    ctx.refresh()
    assert ids(ctx, "v") == [1, 2, 3, 4]


def test_an_interrupt_while_a_table_is_replaced_does_not_lose_its_name(uri, monkeypatch):
    """An interrupt between deregistering and registering a new version leaves the table registered."""
    ctx = session(uri)
    register = type(ctx.__wrapped__).register_table
    interrupts = [KeyboardInterrupt()]

    def interrupted(self, *args, **kwargs):
        if interrupts:
            raise interrupts.pop()
        return register(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(ctx.__wrapped__), "register_table", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ctx.sql("INSERT INTO t VALUES (4)").collect()
    assert ids(ctx, "t") == ids(ctx, "v") == [1, 2, 3, 4]


@pytest.mark.parametrize("reuse_handles", [False, True])
def test_a_pipeline_continues_from_the_commit_that_landed(uri, late_errors, reuse_handles):
    """A pipeline does not reuse a cached handle after an exception."""
    pipeline = WritePipeline(reuse_handles=reuse_handles)

    def write(number, mode="append"):
        request = WriteRequest(source=pa.table({"id": [number]}), destination=uri, mode=mode)
        return pipeline.write(request).version

    assert write(4) == 2
    late_errors.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write(5)
    assert write(6) == 4
    assert write(7, "overwrite") == 5
    assert DeltaTable(uri).to_pyarrow_table()["id"].to_pylist() == [7]


@pytest.mark.slow
def test_ctrl_c_during_an_insert(uri):
    """After Ctrl-C the commit lands, KeyboardInterrupt is raised, and the session serves the new version."""
    ctx = session(uri)
    started = threading.Event()

    def slow(values):
        started.set()
        time.sleep(0.02)
        return values

    ctx.register_udf(udf(slow, [pa.int64()], pa.int64(), "volatile", name="slow"))
    ctx.sql("SET datafusion.execution.target_partitions = 1")
    batches = [pa.record_batch({"id": [number]}) for number in range(4, 24)]
    ctx.from_arrow(pa.Table.from_batches(batches), name="src")

    def interrupt():
        started.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # The shell may have started the run with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            ctx.sql("INSERT INTO t SELECT slow(id) FROM src").collect()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    table = sorted(DeltaTable(uri).to_pyarrow_table()["id"].to_pylist())
    assert ids(ctx, "t") == ids(ctx, "v") == table == list(range(1, 24))
