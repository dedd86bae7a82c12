"""A block in which each write commits once per key."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextvars import copy_context
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake._internal import RawDeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError
from deltalake.transaction import AddAction
from pyarrow import parquet

from deltawitness import (
    DeltaLakeInstrumentor,
    NoCommitReason,
    exactly_once,
    once,
    suppressed,
)
from deltawitness.app_transactions import creation
from deltawitness.exceptions import ConfigurationError, OnceError
from helpers.engine_versions import pretended_release

KEY = "load-2026-11-26"


@pytest.fixture
def uri(tmp_path, captured_writes):
    """Return the location of a table that does not exist, observed."""
    return str(tmp_path / "t")


@pytest.fixture
def table(uri):
    write_deltalake(uri, rows(1, 2))
    return uri


def rows(*ids):
    return pa.table({"id": pa.array(ids, pa.int64()), "n": pa.array([0] * len(ids), pa.int64())})


def content(uri):
    return sorted(tuple(row.values()) for row in DeltaTable(uri).to_pyarrow_table().to_pylist())


def merge(table, source):
    merger = table.merge(source, "t.id = s.id", source_alias="s", target_alias="t")
    return merger.when_matched_update({"n": "t.n + 1"}).when_not_matched_insert_all().execute()


def versions(block):
    return [(receipt.version, receipt.rows, receipt.is_new) for receipt in block.receipts]


def test_each_kind_of_write_commits_once(table):
    """The second block returns what the first one returned, and changes nothing."""

    def work():
        handle = DeltaTable(table)
        write_deltalake(table, rows(3), mode="append")
        updated = handle.update({"n": "n + 1"}, predicate="id = 1")
        deleted = handle.delete("id = 2"), handle.delete("id = 99")["num_deleted_rows"]
        merged = merge(DeltaTable(table), rows(3, 4))
        write_deltalake(handle, rows(5), mode="append")
        return updated, deleted, merged

    with once(KEY) as first:
        returned = work()
    after = content(table)
    assert after == [(1, 1), (3, 1), (4, 0), (5, 0)]
    with once(KEY) as second:
        assert work() == returned
    assert content(table) == after
    assert [version for version, _, _ in versions(first)] == [1, 2, 3, None, 4, 5]
    assert [(*receipt[:2], False) for receipt in versions(first)] == versions(second)
    assert DeltaTable(table).version() == 5


def test_another_key_and_another_table_commit(table, tmp_path):
    """A key counts per table, and another key commits again."""
    other = str(tmp_path / "other")
    for key in (KEY, "load-2026-11-27", KEY):
        with once(key):
            write_deltalake(table, rows(3), mode="append")
            write_deltalake(other, rows(3), mode="append")
    assert (len(content(table)), len(content(other))) == (4, 2)


def test_each_key_has_its_own_application_id():
    """Two keys with one id would skip each other's writes."""
    DeltaLakeInstrumentor().instrument()
    blocks = []
    for number in range(500):
        with once(f"load-{number}") as block:
            blocks.append(block)
    assert len({block.app_id for block in blocks}) == 500


@pytest.mark.slow
def test_a_merge_after_an_abandoned_one_is_made(table):
    """A merge outside any block may get the memory address of one that was built in a block."""
    for _ in range(20):
        with once(KEY):
            DeltaTable(table).merge(rows(1), "t.id = s.id", source_alias="s", target_alias="t")
        merge(DeltaTable(table), rows(1))
    assert content(table) == [(1, 20), (2, 0)]


def test_the_order_of_the_tables_may_change(table, tmp_path):
    """The number of a write counts the block's writes to its table, and not those to other tables."""
    other = str(tmp_path / "other")
    write_deltalake(other, rows())
    for uris in ((table, table, other), (other, table, table)):
        with once(KEY):
            for uri in uris:
                write_deltalake(uri, rows(3), mode="append")
    assert content(table) == [(1, 0), (2, 0), (3, 0), (3, 0)]
    assert content(other) == [(3, 0)]


def test_an_old_handle_sees_the_commits_of_its_block(table):
    """A write through another handle of the same block is no conflict, not even without time to retry."""
    old = DeltaTable(table)
    with once(KEY, deadline=0) as block:
        DeltaTable(table).update({"n": "n + 1"})
        old.update({"n": "n + 10"})
    assert (content(table), block.conflict) == ([(1, 11), (2, 11)], None)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal on this platform")
def test_an_exception_of_the_program_is_raised_although_the_commit_is_in_the_log(table):
    """A handler of a signal, such as that of a time limit, interrupts the program after the commit."""

    class TooLate(Exception):
        pass

    def interrupt(number, frame):
        raise TooLate

    def batches():
        signal.raise_signal(signal.SIGUSR1)
        yield rows(3).to_batches()[0]

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with once(KEY), pytest.raises(TooLate):
            reader = pa.RecordBatchReader.from_batches(rows().schema, batches())
            write_deltalake(table, reader, mode="append")
    finally:
        signal.signal(signal.SIGUSR1, before)
    with once(KEY) as block:
        write_deltalake(table, rows(3), mode="append")
    assert (content(table)[2:], versions(block)) == ([(3, 0)], [(1, 1, False)])


def test_the_event_of_a_skipped_write_has_no_commit(table, captured_writes):
    """Its outcome is a noop with the reason, and counts no rows."""
    for _ in range(2):
        with once(KEY):
            DeltaTable(table).update({"n": "n + 1"})
    outcome = captured_writes.last.outcome
    assert outcome.reason is NoCommitReason.ALREADY_COMMITTED
    assert outcome.metrics.rows_updated == 0


def test_a_missing_table_is_created_empty_and_written(uri):
    """Creation and rows are two commits; a second block writes nothing, whatever the save mode."""
    with once(KEY) as block:
        write_deltalake(uri, rows(1), partition_by=["n"], name="people")
    assert versions(block) == [(1, 1, True)]
    metadata = DeltaTable(uri).metadata()
    assert (metadata.name, metadata.partition_columns) == ("people", ["n"])
    with once(KEY) as again:
        write_deltalake(uri, rows(1), partition_by=["n"], name="people")
    assert versions(again) == [(1, 1, False)]
    with once("other"), pytest.raises(DeltaError, match="already exists"):
        write_deltalake(uri, rows(1), partition_by=["n"])
    assert content(uri) == [(1, 0)]


def test_create_commits_once(uri):
    """`DeltaTable.create` in a second block returns the table."""
    for _ in range(2):
        with once(KEY):
            DeltaTable.create(uri, rows().schema)
            write_deltalake(uri, rows(1), mode="append")
    assert (content(uri), DeltaTable(uri).version()) == ([(1, 0)], 1)


def racing(uri, work):
    """Return a source of one row that does other work, in another thread, while the engine reads it."""

    def batches():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        yield rows(7).to_batches()[0]

    return pa.RecordBatchReader.from_batches(rows().schema, batches())


@pytest.mark.parametrize("exists", [True, False])
def test_of_two_concurrent_writes_of_a_key_one_commits(tmp_path, captured_writes, exists):
    """The loser returns the receipt of the winner, also where both create the table."""
    uri = str(tmp_path / "t")
    if exists:
        write_deltalake(uri, rows())

    def winner():
        with once(KEY):
            write_deltalake(uri, rows(7), mode="append")

    with once(KEY) as block:
        write_deltalake(uri, racing(uri, winner), mode="append")
    assert content(uri) == [(7, 0)]
    assert versions(block) == [(1, 1, False)]


def test_an_error_after_the_commit_returns_the_receipt(uri, captured_writes):
    """The engine fails to write a checkpoint after its commit: the write has landed, so it returns."""
    write_deltalake(uri, rows(1), configuration={"delta.checkpointInterval": "1"})
    for version in (1, 2):
        Path(uri, "_delta_log", f"{version:020d}.checkpoint.parquet", "x").mkdir(parents=True)
    with once(KEY) as block:
        write_deltalake(uri, rows(2), mode="append")
    assert versions(block) == [(1, 1, True)]
    assert captured_writes.last.outcome.versions == (1,)
    with pytest.raises(DeltaError, match="rename"):
        write_deltalake(uri, rows(3), mode="append")


def test_conflicts_of_updates_are_retried(table):
    """An update through an old handle is applied to the newest version."""
    handle = DeltaTable(table)
    DeltaTable(table).update({"n": "n + 1"})
    with once(KEY):
        handle.update({"n": "n + 1"})
    assert content(table) == [(1, 2), (2, 2)]


def test_conflicts_of_appends_are_retried_where_the_rows_can_be_read_again(table):
    """An append without retries of the engine loses once; a one-time source raises the conflict."""
    properties = CommitProperties(max_commit_retries=0)

    def append(data):
        handle = DeltaTable(table)
        write_deltalake(table, rows(3), mode="append")
        write_deltalake(handle, data, mode="append", commit_properties=properties)

    with once(KEY) as block:
        handle = DeltaTable(table)
        with suppressed():
            write_deltalake(table, rows(3), mode="append")
        write_deltalake(handle, rows(4), mode="append", commit_properties=properties)
    assert versions(block) == [(2, 1, True)]
    handle = DeltaTable(table)
    write_deltalake(table, rows(5), mode="append")
    with once("other"), pytest.raises(CommitFailedError):
        write_deltalake(handle, rows(6).to_reader(), mode="append", commit_properties=properties)
    assert [row[0] for row in content(table)] == [1, 2, 3, 4, 5]


def test_a_deadline_of_zero_raises_the_conflict(table):
    """Without time to retry, the engine's error is raised unmodified."""
    handle = DeltaTable(table)
    DeltaTable(table).update({"n": "n + 1"})
    with once(KEY, deadline=0) as block, pytest.raises(CommitFailedError) as raised:
        handle.update({"n": "n + 1"})
    assert block.conflict is raised.value


def test_a_table_that_another_writer_creates_first_is_written(uri, monkeypatch):
    """The block finds no table, and has lost when it creates one."""
    find = creation._open_existing

    def find_too_early(*location):
        found = find(*location)
        if found is None:
            with suppressed():
                write_deltalake(uri, rows(1))
        return found

    monkeypatch.setattr(creation, "_open_existing", find_too_early)
    with once(KEY) as block:
        write_deltalake(uri, rows(2), mode="append")
    assert content(uri) == [(1, 0), (2, 0)]
    assert versions(block) == [(1, 1, True)]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_decorated_function_is_not_called_again_after_another_error(table, is_async):
    """The conflict of a write that the function has handled is not the error of the function."""
    calls = []

    def work():
        calls.append(1)
        handle = DeltaTable(table)
        with suppressed():
            DeltaTable(table).update({"n": "n + 1"})
        with pytest.raises(CommitFailedError):
            merge(handle, rows(1))
        raise ZeroDivisionError

    async def coroutine():
        work()

    decorated = exactly_once(key=KEY, deadline=1)(coroutine if is_async else work)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(decorated()) if is_async else decorated()
    assert len(calls) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_a_decorated_function_is_called_again_after_a_conflict(table, is_async):
    """Writes of the first call that have committed are not repeated."""
    calls = []

    def work(day):
        calls.append(day)
        write_deltalake(table, rows(3), mode="append")
        handle = DeltaTable(table)
        if len(calls) == 1:
            with suppressed():
                DeltaTable(table).update({"n": "n + 10"})
        merge(handle, rows(1))
        return len(calls)

    if is_async:

        async def coroutine(day):
            return work(day)

        decorated = exactly_once(key=lambda day: f"load-{day}")(coroutine)
        assert asyncio.run(decorated("monday")) == 2
    else:
        decorated = exactly_once(key=lambda day: f"load-{day}")(work)
        assert decorated("monday") == 2
    assert content(table) == [(1, 11), (2, 10), (3, 10)]


def test_other_errors_are_raised_unmodified(table, captured_writes):
    """An error of the program or of the data is not retried, and has no number."""
    with once(KEY, deadline=1) as block:
        with pytest.raises((SchemaMismatchError, DeltaError, ValueError)):
            write_deltalake(table, pa.table({"other": [1]}), mode="append")
        with pytest.raises(ZeroDivisionError):
            write_deltalake(table, [1 // 0], mode="append")
        write_deltalake(table, rows(3), mode="append")
    assert (versions(block), block.conflict) == ([(1, 1, True)], None)
    assert [event.result for event in captured_writes.events[1:]] == ["error", "write"]


def test_an_overwrite_through_a_table_of_the_caller_is_not_retried(table):
    """Its rows may have been computed from the version that the table is at."""
    properties = CommitProperties(max_commit_retries=0)
    handle = DeltaTable(table)
    DeltaTable(table).delete("id = 1")
    with once(KEY) as block, pytest.raises(CommitFailedError) as raised:
        write_deltalake(handle, rows(9), mode="overwrite", commit_properties=properties)
    assert block.conflict is raised.value
    assert content(table) == [(2, 0)]


def test_a_class_of_the_program_is_no_table_whatever_its_name(table):
    """Its rows may be readable once, so the conflict is raised."""
    reads = []

    class Table:
        def __arrow_c_stream__(self, requested_schema=None):
            reads.append(1)
            return rows(9).__arrow_c_stream__(requested_schema)

    handle = DeltaTable(table)
    write_deltalake(table, rows(3), mode="append")
    properties = CommitProperties(max_commit_retries=0)
    with once(KEY), pytest.raises(CommitFailedError):
        write_deltalake(handle, Table(), mode="append", commit_properties=properties)
    assert (len(reads), len(content(table))) == (1, 3)


def test_files_are_added_once(table):
    """`create_write_transaction` leaves its handle where it was; two of one block both commit."""
    paths = [Path(table, name) for name in ("a.parquet", "b.parquet")]
    for path in paths:
        parquet.write_table(rows(3), path)

    def add(handle, path):
        action = AddAction(path.name, path.stat().st_size, {}, 0, data_change=True, stats="{}")
        handle.create_write_transaction([action], "append", handle.schema())

    for is_new in (True, False):
        handle = DeltaTable(table)
        with once(KEY) as block:
            for path in paths:
                add(handle, path)
        assert [receipt[::2] for receipt in versions(block)] == [(1, is_new), (2, is_new)]
    assert len(content(table)) == 4


def test_the_callers_transactions_stay(table):
    """The application transactions of the caller are in the commit as well."""
    properties = CommitProperties(app_transactions=[Transaction("mine", 5)])
    with once(KEY) as block:
        write_deltalake(table, rows(3), mode="append", commit_properties=properties)
    handle = DeltaTable(table)
    assert (handle.transaction_version("mine"), handle.transaction_version(block.app_id)) == (5, 1)


def test_the_transaction_survives_checkpoints_and_log_cleanup(table):
    """A block finds its commit after the commit's file is gone; the receipt has no version then."""
    with once(KEY):
        write_deltalake(table, rows(3), mode="append")
    handle = DeltaTable(table)
    handle.create_checkpoint()
    for log in Path(table, "_delta_log").glob("*.json"):
        log.unlink()
    with once(KEY) as block:
        write_deltalake(table, rows(3), mode="append")
        assert DeltaTable(table).delete("id = 99")["num_deleted_rows"] == 0
    assert [row[0] for row in content(table)] == [1, 2, 3]
    assert versions(block)[0] == (None, None, False)


# --- what a block refuses ----------------------------------------------------------------------------


def test_a_write_in_another_thread_or_task_is_refused(table):
    """Its number would depend on the scheduler; a block of its own in the thread is fine."""
    errors = []

    def write(key=None):
        try:
            if key is None:
                write_deltalake(table, rows(3), mode="append")
            else:
                with once(key):
                    write_deltalake(table, rows(3), mode="append")
        except OnceError as error:
            errors.append(error)

    async def tasks():
        with once(KEY):
            await asyncio.gather(asyncio.to_thread(write), asyncio.create_task(task()))

    async def task():
        write()

    with once(KEY):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        own = threading.Thread(target=write, args=(f"{KEY}/part",))
        own.start()
        own.join()
    asyncio.run(tasks())
    assert len(errors) == 3
    assert [row[0] for row in content(table)] == [1, 2, 3]


def test_a_merge_outside_its_block_is_refused(table):
    """A merge that is built outside the block has no transaction; so has one that another write overtakes."""
    handle = DeltaTable(table)

    def build():
        return handle.merge(
            rows(3), "t.id = s.id", source_alias="s", target_alias="t"
        ).when_not_matched_insert_all()

    outside = build()
    with once(KEY), pytest.raises(OnceError, match="inside one block"):
        outside.execute()
    with once(KEY):
        inside, overtaken = build(), build()
        inside.execute()
        with pytest.raises(OnceError, match="inside one block"):
            overtaken.execute()
        late = build()
    with pytest.raises(OnceError, match="inside one block"):
        late.execute()
    assert len(content(table)) == 3


def test_modes_that_cannot_be_made_once_are_refused(uri):
    """Mode `ignore` for a missing table, and the creation that overwrites."""
    with once(KEY):
        with pytest.raises(OnceError, match="mode `ignore`"):
            write_deltalake(uri, rows(1), mode="ignore")
        with pytest.raises(OnceError, match="mode `overwrite`"):
            DeltaTable.create(uri, rows().schema, mode="overwrite")
    assert not DeltaTable.is_deltatable(uri)


def test_a_block_needs_the_instrumentation():
    """Without it, no write would pass a guard."""
    DeltaLakeInstrumentor().uninstrument()
    with pytest.raises(OnceError, match="not instrumented"), once(KEY):
        pass
    DeltaLakeInstrumentor().instrument()
    with suppressed(), pytest.raises(OnceError, match="suppressed"), once(KEY):
        pass


def test_a_block_needs_a_release_with_sound_conflict_checks(table):
    """Earlier ones could commit a key twice, so no block begins."""
    DeltaLakeInstrumentor().instrument()
    with (
        pretended_release("1.2.0"),
        pytest.raises(OnceError, match=r"needs deltalake 1\.2\.1 or later"),
        once(KEY),
    ):
        pass
    with (
        pretended_release("1.6.2"),
        once(KEY),
        pytest.raises(OnceError, match=r"create_write_transaction needs deltalake 1\.6\.3"),
    ):
        DeltaTable(table).create_write_transaction([], "append", DeltaTable(table).schema())
    assert DeltaTable(table).version() == 0


def test_a_block_needs_every_function_that_writes_rows(monkeypatch):
    """A release with another function, which would write without a check, opens no block."""

    def update(self, *args):
        raise NotImplementedError

    monkeypatch.setattr(RawDeltaTable, "update", update)
    DeltaLakeInstrumentor().instrument()
    with pytest.raises(OnceError, match="lacks update"), once(KEY):
        pass


def test_after_its_end_a_block_covers_no_write(table):
    """Code that continues in a copy of the block's context, as a callback of it, writes outside of it."""
    with once(KEY) as block:
        context = copy_context()
    for _ in range(2):
        context.run(write_deltalake, table, rows(3), mode="append")
    handle = DeltaTable(table)
    assert (handle.version(), handle.transaction_version(block.app_id)) == (2, None)
    assert block.receipts == ()


@pytest.mark.parametrize(("key", "deadline"), [("", 1), (" ", 1), (None, 1), (KEY, -1)])
def test_invalid_arguments_are_refused(key, deadline):
    """The key is text, the deadline is not negative."""
    with pytest.raises(ConfigurationError):
        once(key, deadline=deadline)
    with pytest.raises(ConfigurationError):
        exactly_once(key=key, deadline=deadline)


def test_a_generator_function_is_refused():
    """It is suspended between its items, so a block around it would include its consumer's writes."""
    with pytest.raises(ConfigurationError, match="generator"):

        @exactly_once(key=KEY)
        def work():
            yield


def test_one_object_opens_blocks_in_several_threads(table):
    """Each entry is a block of its own, also while another one is open."""
    shared, both, errors = once(KEY), threading.Barrier(2), []

    def work():
        try:
            with shared as outer, shared as inner:
                both.wait(60)
                assert outer is not inner
                write_deltalake(table, rows(3), mode="append")
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [row[0] for row in content(table)] == [1, 2, 3]
