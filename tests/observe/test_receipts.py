"""Receipts of observed writes: of a block, of a context and of a run."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    Receipts,
    Settings,
    current_run,
    flush,
    last_commit,
    read_commit_metadata,
    receipts,
    run,
    suppressed,
    table_id,
)
from deltawitness.commit.receipts import Receipt
from deltawitness.locations import canonical_uri
from deltawitness.observe import completion
from deltawitness.observe import receipts as receipts_module
from deltawitness.observe.receipts import PendingReceipt
from deltawitness.run_commits import CAPACITY
from deltawitness.semconv import CacheResult, ErrorType, Operation
from deltawitness.testing import capture_writes

DATA = pa.table({"x": [1, 2, 3]})


@pytest.fixture(autouse=True)
def instrumented():
    DeltaLakeInstrumentor().instrument()


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "t")


def append(place, data=DATA):
    write_deltalake(place, data, mode="append")


def versions(found):
    return [receipt.version for receipt in found]


# --- the values of a receipt -----------------------------------------------------------------------------


def test_a_receipt_has_what_the_commit_has(place):
    """Table, version, counts, ids and trace of a receipt are those of the commit in the log."""
    with run("nightly") as nightly, receipts() as got:
        append(place)
    (receipt,) = got
    commit = read_commit_metadata(place)
    assert receipt.table == canonical_uri(place)
    assert receipt.table_id == table_id(place)
    assert (receipt.table_name, receipt.operation) == ("t", Operation.WRITE)
    assert (receipt.version, receipt.versions, receipt.result) == (0, (0,), CacheResult.WRITE)
    assert (receipt.rows, receipt.files, receipt.retries) == (3, 1, 0)
    assert receipt.metrics.bytes_added > 0
    assert receipt.write_id == commit.write_id
    assert receipt.run_id == nightly.run_id == commit.run_id
    assert (receipt.error_type, receipt.landed, receipt.is_new) == (None, None, True)


def test_a_receipt_has_the_traceparent_of_the_commit(place):
    """With an SDK, the trace context of the receipt is the one in the commit."""
    pytest.importorskip("opentelemetry.sdk")
    from deltawitness.testing import capture_telemetry

    with capture_telemetry(), receipts() as got:
        append(place)
        early = got[0].traceparent
        flush()
        append(place)
        flush()
    assert early == read_commit_metadata(place, 0).metadata["traceparent"]
    assert got[1].traceparent == read_commit_metadata(place, 1).metadata["traceparent"]


def test_each_operation_has_a_receipt(place):
    """DELETE, UPDATE, MERGE and OPTIMIZE have receipts with their counts, in order."""
    append(place)
    with receipts() as got:
        DeltaTable(place).delete("x = 1")
        DeltaTable(place).update({"x": "x + 10"}, predicate="x = 2")
        source = pa.table({"x": [3, 99]})
        merge = DeltaTable(place).merge(source, "s.x = t.x", "s", "t")
        merge.when_not_matched_insert_all().execute()
        append(place)
        DeltaTable(place).optimize.compact()
    assert [receipt.operation.value for receipt in got] == [
        *("DELETE", "UPDATE", "MERGE", "WRITE", "OPTIMIZE"),
    ]
    assert versions(got) == [1, 2, 3, 4, 5]
    assert got[0].metrics.rows_deleted == 1
    assert got[1].metrics.rows_updated == 1
    assert got[2].rows == 1


def test_a_write_that_fails_has_a_receipt_with_its_error(place):
    """The receipt of a failed write has the error's type, and whether the commit landed."""
    append(place)
    with receipts() as got:
        with pytest.raises(Exception, match="already exists"):
            write_deltalake(place, DATA)
        with pytest.raises(Exception, match="nothing"):
            DeltaTable(place).delete("nothing = 1")
    assert versions(got) == [None, None]
    assert [receipt.result for receipt in got] == [CacheResult.ERROR] * 2
    assert got[0].error_type is ErrorType.TABLE_EXISTS
    assert [receipt.landed.value for receipt in got] == ["no", "no"]


def test_a_write_that_fails_after_its_commit_has_landed(place):
    """The receipt of a commit whose post-commit hook fails has its version and `landed`."""
    write_deltalake(place, DATA, configuration={"delta.checkpointInterval": "2"})
    os.makedirs(f"{place}/_delta_log/00000000000000000001.checkpoint.parquet")
    with receipts() as got, pytest.raises(Exception, match="Is a directory"):
        append(place)
    assert (got[0].version, got[0].landed.value, got[0].rows) == (1, "yes", 3)
    assert last_commit() == got[0]


def test_a_write_without_a_commit_has_a_receipt_and_is_no_commit(place):
    """A DELETE of nothing and a write with the mode `ignore` have no version."""
    append(place)
    first = last_commit()
    with receipts() as got:
        DeltaTable(place).delete("x = 77")
        write_deltalake(place, DATA, mode="ignore")
    assert [(receipt.version, receipt.result.value) for receipt in got] == [(None, "noop")] * 2
    assert last_commit() == first


# --- blocks ----------------------------------------------------------------------------------------------


def test_a_block_has_only_its_writes(place):
    """Writes before, after and in a `suppressed()` block have no receipt in the block."""
    append(place)
    with receipts() as got:
        append(place)
        with suppressed():
            append(place)
        assert len(got) == 1
    append(place)
    assert versions(got) == [1]
    assert versions(got[:]) == [1]
    assert got[-1].version == 1
    assert repr(got).startswith("Receipts([Receipt(version=1,")
    assert isinstance(got, Receipts)


def test_an_inner_block_adds_to_the_outer_one(place):
    """The outer block has the writes of both, in order; the inner one its own."""
    with receipts() as outer:
        append(place)
        with receipts() as inner:
            append(place)
        append(place)
    assert (versions(outer), versions(inner)) == ([0, 1, 2], [1])


def test_a_block_that_raises_still_has_its_receipts(place):
    """An exception leaves the block unchanged and the receipts readable."""
    with pytest.raises(RuntimeError, match="of the program"), receipts() as got:
        append(place)
        msg = "of the program"
        raise RuntimeError(msg)
    assert versions(got) == [0]


def test_writes_of_libraries_have_receipts(place):
    """A library that calls delta-rs is untouched code."""
    polars = pytest.importorskip("polars")
    with receipts() as got:
        polars.DataFrame({"x": [1]}).write_delta(place)
    assert [(receipt.version, receipt.rows) for receipt in got] == [(0, 1)]


def test_threads_of_the_block_are_in_it_and_others_are_not(tmp_path):
    """Threads, pools and tasks that the block starts are in the block; a thread from before it is not."""
    go, stop = threading.Event(), threading.Event()

    def from_before():
        go.wait(30)
        append(str(tmp_path / "other"))
        stop.set()

    outsider = threading.Thread(target=from_before)
    outsider.start()
    with receipts() as got:
        thread = threading.Thread(target=append, args=(str(tmp_path / "thread"),))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(append, [str(tmp_path / "p0"), str(tmp_path / "p1")]))

        async def tasks():
            await asyncio.gather(
                asyncio.to_thread(append, str(tmp_path / "a0")),
                asyncio.get_running_loop().run_in_executor(None, append, str(tmp_path / "a1")),
                asyncio.create_task(in_task()),
            )

        async def in_task():
            append(str(tmp_path / "a2"))

        asyncio.run(tasks())
        go.set()
        assert stop.wait(30)
    outsider.join()
    names = sorted(receipt.table_name for receipt in got)
    assert names == ["a0", "a1", "a2", "p0", "p1", "thread"]


def test_a_thread_that_outlives_the_block_adds_nothing_after_it(place):
    """The receipts do not change after the end of the block."""
    go = threading.Event()

    def late():
        go.wait(30)
        append(place)

    with receipts() as got:
        thread = threading.Thread(target=late)
        thread.start()
    go.set()
    thread.join()
    assert len(got) == 0
    assert DeltaTable(place).version() == 0


@pytest.mark.slow
def test_blocks_of_many_threads_do_not_mix(tmp_path, size):
    """Each thread's block has exactly the commits of the thread, while all of them write."""
    threads, writes = 8, size(6, 40, 3)

    def work(number):
        place = str(tmp_path / f"t{number}")
        with run(f"job {number}") as opened, receipts() as got:
            for _ in range(writes):
                append(place)
                assert last_commit().table_name == f"t{number}"
        return [(r.table_name, r.version, r.run_id) for r in got], opened

    with receipts() as everything, ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(work, range(threads)))
    for number, (found, opened) in enumerate(results):
        assert found == [(f"t{number}", version, opened.run_id) for version in range(writes)]
        assert versions(opened.commits) == list(range(writes))
    assert len(everything) == threads * writes


# --- laziness --------------------------------------------------------------------------------------------


def test_a_receipt_is_parsed_when_it_is_read_and_not_twice(place, monkeypatch):
    """Unread receipts cause no parse besides that of the delivery; a read one uses the delivery's event."""
    parsed = []
    complete = completion.complete_event

    def counted(write, tail):
        parsed.append(write.write_id)
        return complete(write, tail)

    monkeypatch.setattr(receipts_module, "complete_event", counted)
    with receipts() as got:
        append(place)
        append(place)
        flush()
    assert last_commit().version == 1
    assert versions(got) == [0, 1]
    assert parsed == []
    with receipts() as got:
        append(place)
        first = got[0]
        assert got[0] is first
    assert len(parsed) <= 1  # 0 if the delivery was faster
    flush()
    assert got[0] is first


def test_a_delivered_write_is_released(place):
    """After the delivery, a receipt holds neither the content of the commit nor the write."""
    with receipts() as got:
        append(place)
        flush()
    (pending,) = got._writes
    assert pending._write is None


def test_a_receipt_survives_the_table(place, tmp_path):
    """The commit was read when the write ended, so the table may be gone."""
    import shutil

    with receipts() as got:
        append(place)
        shutil.rmtree(place)
    assert (got[0].version, got[0].rows) == (0, 3)


# --- the last commit and those of a run ------------------------------------------------------------------


def test_no_commit_is_none():
    """A context without a commit has no last one, also where nothing is observed."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(last_commit).result() is None
        DeltaLakeInstrumentor().uninstrument()
        assert pool.submit(last_commit).result() is None
    with receipts() as got:
        pass
    assert list(got) == []


def test_the_last_commit_is_that_of_the_context(place):
    """A thread has its own last commit; a task begins with that of its creator."""
    append(place)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(last_commit()))
    thread.start()
    thread.join()

    async def main():
        begins = last_commit().version
        await asyncio.create_task(in_task())
        return begins, last_commit().version

    async def in_task():
        append(place)

    assert seen == [None]
    assert asyncio.run(main()) == (0, 0)
    assert last_commit().version == 0


def test_a_failure_after_a_commit_leaves_the_last_commit(place):
    """A write that failed is skipped, before and after its delivery."""
    append(place)
    for _ in range(3):
        with pytest.raises(Exception, match="nothing"):
            DeltaTable(place).delete("nothing = 1")
        assert last_commit().version == 0
    flush()
    with pytest.raises(Exception, match="nothing"):
        DeltaTable(place).delete("nothing = 1")
    assert last_commit().version == 0


def test_a_run_has_its_commits_and_not_those_of_its_children(place):
    """Failed writes and writes of other runs are not among the commits of a run."""
    with run("outer") as outer:
        append(place)
        with run("inner") as inner:
            append(place)
        with pytest.raises(Exception, match="already exists"):
            write_deltalake(place, DATA)
        append(place)
    assert (versions(outer.commits), versions(inner.commits)) == ([0, 2], [1])
    append(place)
    assert versions(current_run().commits) == [3]
    assert all(isinstance(commit, Receipt) for commit in outer.commits)


def test_the_commits_of_a_run_are_no_part_of_its_value(place):
    """They are neither compared, nor pickled, nor among the fields of the run."""
    with run("nightly") as nightly:
        append(place)
    assert "_commits" not in repr(nightly)
    copied = copy.copy(nightly)
    assert copied == nightly
    assert versions(copied.commits) == [0]
    with capture_writes() as writes:
        append(place)
    values = asdict(writes.last.run.origin) | {
        name: getattr(nightly, name) for name in type(nightly).__dataclass_fields__
    }
    assert "commits" not in values
    assert json.dumps(values, default=str)


def test_a_run_holds_a_bounded_number_of_commits():
    """A service that writes for months under one run does not fill its memory."""

    class Known:
        def __init__(self, version):
            self.version = version

        def receipt(self):
            return Receipt(self.version)

    with run("service") as service:
        for version in range(CAPACITY + 5):
            service.run_commits().add(Known(version))
    assert versions(service.commits) == list(range(5, CAPACITY + 5))


@pytest.mark.slow
def test_a_context_holds_only_its_last_commit_of_an_object_store(server):
    """Whether such a write has committed is known only after its delivery; a service makes millions of them."""
    uri, held = "s3://lake/receipts", []
    for _ in range(4):
        with run("load"):
            write_deltalake(uri, DATA, mode="append", storage_options=server.options)
        with receipts() as got:
            write_deltalake(uri, DATA, mode="ignore", storage_options=server.options)
        assert versions(got) == [None]
        flush()
        gc.collect()
        held.append(sum(isinstance(each, PendingReceipt) for each in gc.get_objects()))
        assert last_commit().version == DeltaTable(uri, storage_options=server.options).version()
    assert held == [held[0]] * 4


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_no_commits_of_its_parent(tmp_path):
    """The commits of a run are those of this process."""
    program = """
        import os, pyarrow as pa
        from deltalake import write_deltalake
        from deltawitness import DeltaLakeInstrumentor, run, receipts
        from deltawitness.commit.receipts import Receipt
        DeltaLakeInstrumentor().instrument()
        class Known:
            def receipt(self):
                return Receipt(1)
        with run("parent") as opened:
            opened.run_commits().add(Known())
            pid = os.fork()
            if pid == 0:
                os._exit(len(opened.commits))
            _, status = os.waitpid(pid, 0)
            print(os.waitstatus_to_exitcode(status), len(opened.commits))
    """
    import textwrap

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.stdout.split() == ["0", "1"], done.stderr


# --- other ways to write ---------------------------------------------------------------------------------


def test_a_callers_write_id_is_found(place):
    """A write whose caller sets the commit key of the write id has its version."""
    with receipts() as got:
        properties = CommitProperties(custom_metadata={"write_id": "mine"})
        write_deltalake(place, DATA, commit_properties=properties)
    assert got[0].version == 0


def test_receipts_do_not_need_a_ledger_or_an_sdk(place):
    """Other settings change nothing."""
    DeltaLakeInstrumentor().uninstrument()
    DeltaLakeInstrumentor().instrument(settings=Settings(call_site=False, user_metadata=False))
    with receipts() as got:
        append(place)
    assert versions(got) == [0]
