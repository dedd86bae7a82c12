"""Two observed compactions of a table at the same time double no row."""

from __future__ import annotations

import errno
import logging
import os
import signal
import stat
import sys

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    DiagnosticsChoice,
    Settings,
    memory_diagnostics,
    suppressed,
)
from deltawitness.commit.duplicates import find_duplicate_rewrites
from deltawitness.commit.engine_version import has_release
from deltawitness.commit.log import open_log
from deltawitness.delta_rs.compaction_lease import CompactionGuard, _lock
from deltawitness.ledger.drain import table_lease
from deltawitness.ledger.drain.table_lease import TableLease
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.local_files import try_lock
from helpers.new_processes import start_process

FILES = 6

needs_doubling = pytest.mark.skipif(
    not has_release("1.6.4"), reason="this release rejects the second compaction"
)


@pytest.fixture
def table(tmp_path):
    """A table with a row in each of its files."""
    return make_table(str(tmp_path / "t"))


def make_table(uri, options=None):
    for number in range(FILES):
        write_deltalake(uri, pa.table({"x": [number]}), mode="append", storage_options=options)
    return uri


def observe(**settings):
    DeltaLakeInstrumentor().instrument(settings=Settings(**settings))


def ids(uri, options=None):
    return sorted(DeltaTable(uri, storage_options=options).to_pyarrow_table()["x"].to_pylist())


def compact_in_a_process(uri, options, method, settings, sending):
    """Open the table, say so, wait for the word, and compact."""
    os.environ["XDG_STATE_HOME"] = settings.pop("state_home", "")
    DeltaLakeInstrumentor().instrument(settings=Settings(**settings))
    handle = DeltaTable(uri, storage_options=options)
    receiving, own = sending
    own.send("ready")
    receiving.recv()
    if method == "compact":
        handle.optimize.compact()
    else:
        handle.optimize.z_order(["x"])
    own.send(handle.version())
    DeltaLakeInstrumentor().uninstrument()


def run_at_once(uri, methods, options=None, **settings):
    """Compact in processes that have all opened the same version before one of them starts."""
    from helpers.new_processes import PROCESSES

    started = []
    for method in methods:
        word, told = PROCESSES.Pipe()
        process, result = start_process(_call, uri, options, method, settings, told)
        started.append((process, result, word))
    for _, result, _ in started:
        assert result.recv() == "ready"
    for _, _, word in started:
        word.send("go")
    versions = [result.recv() for _, result, _ in started]
    for process, *_ in started:
        process.join(60)
        assert process.exitcode == 0
    return versions


def _call(uri, options, method, settings, receiving, sending):
    compact_in_a_process(uri, options, method, settings, (receiving, sending))


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("methods", [("compact", "compact", "compact"), ("compact", "z_order")])
def test_processes_that_compact_at_once_double_no_row(table, methods):
    """Compactions in several processes that have opened the same version double no row."""
    run_at_once(table, methods)
    assert ids(table) == list(range(FILES))
    assert list(find_duplicate_rewrites(open_log(table))) == []


@pytest.mark.slow
@needs_doubling
def test_a_stale_handle_doubles_no_row(table):
    """A compaction through a handle that is older than another compaction starts from the newest version."""
    first, second = DeltaTable(table), DeltaTable(table)
    observe()
    first.optimize.compact()
    assert second.optimize.compact()["numFilesRemoved"] == 0
    assert ids(table) == list(range(FILES))


@needs_doubling
@pytest.mark.parametrize("is_off", [True, False])
def test_compactions_that_are_not_observed_or_take_no_lease_are_as_before(table, is_off):
    """With a wait of 0, and in suppressed code, the engine gets the call unchanged."""
    handles = [DeltaTable(table), DeltaTable(table)]
    observe(**({"compaction_wait": 0.0} if is_off else {}))
    for handle in handles:
        if is_off:
            handle.optimize.compact()
        else:
            with suppressed():
                handle.optimize.compact()
    assert ids(table) == sorted([*range(FILES)] * 2)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the lock is that of a file there")
def test_a_held_lease_delays_a_compaction_for_a_bounded_time(table, caplog):
    """When the wait is over, the compaction proceeds, and a warning names the table and the next step."""
    memory_diagnostics().clear()
    observe(compaction_wait=0.05, diagnostics_sink=DiagnosticsChoice.MEMORY)
    descriptor, is_held = _lock(table, 0.0)
    assert is_held
    try:
        with caplog.at_level(logging.WARNING, "deltawitness"):
            assert DeltaTable(table).optimize.compact()["numFilesRemoved"] == FILES
    finally:
        os.close(descriptor)
    (record,) = caplog.records
    ((event, properties),) = memory_diagnostics().events
    assert (event, properties["wait_s"]) == ("compaction.unguarded", 0.05)
    assert record.getMessage().startswith("t: another process compacts the table")
    assert "deltawitness doctor" in record.getMessage()
    assert ids(table) == list(range(FILES))


def hold(uri, sending):
    sending.send(_lock(uri, 0.0))
    signal.pause()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_the_lease_of_a_killed_process_is_free(table, caplog):
    """The lease ends with its holder, also by SIGKILL."""
    process, receiving = start_process(hold, table)
    assert receiving.recv()[1]
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    observe(compaction_wait=30.0)
    assert DeltaTable(table).optimize.compact()["numFilesRemoved"] == FILES
    assert caplog.records == []


@pytest.mark.slow
def test_the_lease_leaves_no_file_in_the_table(table):
    """After a compaction the table has the files that it would have without observation."""
    names = set(os.listdir(table))
    observe()
    DeltaTable(table).optimize.compact()
    assert {name for name in os.listdir(table) if not name.endswith(".parquet")} == {"_delta_log"}
    assert len(set(os.listdir(table)) - names) == 1


@pytest.mark.slow
@needs_doubling
def test_rows_that_an_unobserved_compaction_doubled_are_reported(table, caplog):
    """An error names the version to restore, if another compaction committed during an observed one."""
    other = DeltaTable(table)

    def compact_after_another(handle):
        other.optimize.compact()  # neither observed nor guarded
        return handle.compact_optimize(None, None, None, None, None, None)

    events = []
    guarding = CompactionGuard(Settings(), lambda: True, lambda *event: events.append(event))
    guarded = guarding.guard("compact_optimize", compact_after_another)
    with caplog.at_level(logging.ERROR, "deltawitness"):
        guarded(DeltaTable(table)._table)
    assert f"restore version {FILES}." in caplog.records[0].getMessage()
    ((name, properties),) = events
    assert (name, properties["restore_version"]) == ("rows.doubled", FILES)


@pytest.mark.skipif(sys.platform == "win32", reason="folders are never locked there")
def test_where_a_folder_cannot_be_locked_the_lock_is_that_of_a_file(table, tmp_path, monkeypatch):
    """On NFS, which refuses locks of folders, a file of the user's state folder is locked."""

    def refuse_folders(descriptor, **more):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, "no locks of folders")
        return try_lock(descriptor, **more)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("deltawitness.delta_rs.compaction_lease.try_lock", refuse_folders)
    descriptor, is_held = _lock(table, 0.0)
    second, is_held_twice = _lock(table, 0.0)
    assert (is_held, is_held_twice) == (True, False)
    for each in (descriptor, second):
        os.close(each)
    (tmp_path / "no").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "no"))
    assert _lock(table, 0.0) == (None, True)


@pytest.mark.internal_errors
def test_an_error_of_the_lease_does_not_fail_the_compaction(table, monkeypatch):
    """A compaction succeeds where the lease cannot be used."""
    observe()
    monkeypatch.setattr("deltawitness.delta_rs.compaction_lease._lock", lambda *_: 1 / 0)
    assert DeltaTable(table).optimize.compact()["numFilesRemoved"] == FILES


# --- object stores -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.remote
def test_processes_of_two_hosts_share_the_lease_in_the_ledger(server, tmp_path):
    """Processes as if on two hosts double no row of a table on an object store."""
    uri = make_table("s3://lake/leased", server.options)
    settings = {"cache_root": "s3://lake/ledger", "storage_options": server.options}
    # There can be no lock file, so that the processes are as if on two hosts.
    (tmp_path / "file").touch()
    settings |= {"spool_dir": str(tmp_path / "spools"), "state_home": str(tmp_path / "file")}
    run_at_once(uri, ["compact", "compact"], server.options, **settings)
    assert ids(uri, server.options) == list(range(FILES))
    assert list(find_duplicate_rewrites(open_log(uri, server.options))) == []
    leases = LedgerRoot("s3://lake/ledger", server.options).open_table(table_lease.LEASES)
    assert leases is not None
    assert leases.version() > 0


@pytest.mark.slow
def test_a_lease_in_the_ledger_excludes_others_until_it_is_released_or_expires(
    tmp_path, monkeypatch
):
    """A second lease is acquired after the release of the first one, or when its holder renews it no more."""
    monkeypatch.setattr(table_lease, "EXPIRY", 0.3)
    monkeypatch.setattr(table_lease, "RENEWAL", 3600.0)
    monkeypatch.setattr(table_lease, "POLL", 0.02)
    root = LedgerRoot(str(tmp_path))
    first = TableLease(root, "a")
    assert first.acquire(60.0)
    assert TableLease(root, "b").acquire(60.0)
    monkeypatch.setattr(table_lease, "EXPIRY", 3600.0)
    assert not TableLease(root, "a").acquire(0.1)
    first.release()
    second = TableLease(root, "a")
    assert second.acquire(60.0)
    monkeypatch.setattr(table_lease, "EXPIRY", 0.3)
    third = TableLease(root, "a")
    assert third.acquire(60.0)
    second.release()
    assert not TableLease(root, "a").acquire(0.0)  # the release of a lost lease releases no other
    third.release()


class InterruptedLease(TableLease):
    """A lease whose acquisition is interrupted, as by Ctrl-C."""

    def acquire(self, timeout):
        super().acquire(timeout)
        raise KeyboardInterrupt


def test_an_interrupt_of_the_wait_leaves_no_lease_behind(table, tmp_path, monkeypatch):
    """A notebook goes on after an interrupt: nothing may be locked by then."""
    root = LedgerRoot(str(tmp_path / "ledger"))
    interrupted = InterruptedLease(root, "a")
    monkeypatch.setattr(CompactionGuard, "_remote_lease", lambda *_: interrupted)
    observe()
    with pytest.raises(KeyboardInterrupt):
        DeltaTable(table).optimize.compact()
    descriptor, is_held = _lock(table, 0.0)
    os.close(descriptor)
    again = TableLease(root, "a")
    assert (is_held, again.acquire(5.0)) == (True, True)
    again.release()


def test_a_lease_of_another_host_leaves_the_compaction_unguarded(table, monkeypatch):
    """The diagnostic says so when the lease in the ledger is not acquired in time."""
    lease = TableLease(LedgerRoot(table), "a")
    monkeypatch.setattr(lease, "acquire", lambda timeout: timeout < 0)
    monkeypatch.setattr(CompactionGuard, "_remote_lease", lambda *_: lease)
    monkeypatch.setattr(table_lease, "RELEASE_TIMEOUT", 0.0)
    memory_diagnostics().clear()
    observe(diagnostics_sink=DiagnosticsChoice.MEMORY)
    DeltaTable(table).optimize.compact()
    ((event, _),) = memory_diagnostics().events
    assert event == "compaction.unguarded"
