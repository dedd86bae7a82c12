"""The spool loses and duplicates no record, whatever happens to disk, folder and process."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawitness.ledger.spool import writer as spool_module
from deltawitness.ledger.spool.reader import adopt, read_segment
from deltawitness.ledger.spool.records import RecordKind, decode
from deltawitness.ledger.spool.writer import OWNER_LOCK, Spool
from helpers.ledger_parts import lines_of, spool_in


def ids_in(path):
    """Return the ids of the operations in a segment, one for a provisional record and its row."""
    contents = read_segment(path)
    return [line.key for line in contents.rows] + [record["id"] for record in contents.provisional]


def as_note(number):
    return f'{{"id":"{number}"}}'


def files_of(spool):
    return sorted(path.name for path in spool.home.iterdir() if path.name != OWNER_LOCK)


def die(spool):
    """Close descriptors and release locks, as the kernel does for a killed process."""
    descriptors = [
        segment.descriptor
        for segment in (*spool._retired, *([spool._active] if spool._active else []))
    ]
    for descriptor in (*descriptors, *([] if spool._owner is None else [spool._owner])):
        os.close(descriptor)


# --- exactly once -------------------------------------------------------------------


class Life:
    """A state machine of spools in one folder that counts which operations must be found."""

    def __init__(self, folder, segment_bytes):
        self.folder, self.segment_bytes = folder, segment_bytes
        self.spool = spool_in(folder, segment_bytes=segment_bytes)
        self.number = 0
        self.recorded, self.found = Counter(), Counter()
        self.open = []

    def note(self):
        self.number += 1
        key = str(self.number)
        self.open.append((self.spool.append_provisional(key, as_note(key)), key))
        self.recorded[key] += 1

    def settle(self):
        if self.open:
            segment, key = self.open.pop(0)
            assert self.spool.append_row(segment, key, as_note(key))

    def row(self):
        self.number += 1
        assert self.spool.append(RecordKind.ROW, str(self.number), "{}")
        self.recorded[str(self.number)] += 1

    def rotate(self):
        self.spool.rotate()

    def drain(self):
        self.spool.rotate()
        ready = self.spool.sealed()
        for segment in ready:
            self.found.update(ids_in(segment.path))
        self.spool.delete(ready)
        self.adopt()

    def adopt(self):
        for dead in adopt(self.folder, self.spool.home):
            for path in dead.segments:
                self.found.update(ids_in(path))
            dead.delete()

    def killed(self):
        die(self.spool)
        self.open = []
        self.spool = spool_in(self.folder, segment_bytes=self.segment_bytes)

    def killed_in_a_line(self):
        self.number += 1
        segment = self.spool.append_provisional(str(self.number), as_note(self.number))
        length = len(f"01234567 N {self.number} {as_note(self.number)}\n")
        os.truncate(segment.path, segment.path.stat().st_size - 1 - self.number % (length - 1))
        self.killed()

    def close(self):
        self.spool.close()
        self.open = []
        self.spool = spool_in(self.folder, segment_bytes=self.segment_bytes)


STEPS = ["note", "settle", "row", "rotate", "drain", "killed", "killed_in_a_line", "close"]


@pytest.mark.slow
@given(st.lists(st.sampled_from(STEPS), max_size=40), st.sampled_from([1, 150, 1 << 20]))
def test_every_whole_line_is_found_exactly_once(steps, segment_bytes):
    """Any sequence of records, rotations, drains and deaths keeps each complete record once."""
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder) / "spool", segment_bytes)
        for step in steps:
            getattr(life, step)()
        life.killed()
        life.adopt()
        assert life.found == life.recorded
        assert list((Path(folder)).glob("spool/*")) == []


# --- folder -----------------------------------------------------------------------------------------


def test_no_folder_is_created_before_the_first_record(tmp_path):
    """A process without records creates no folder."""
    spool = spool_in(tmp_path / "s")
    spool.rotate()
    spool.close()
    assert (spool.home, (tmp_path / "s").exists()) == (None, False)


def test_a_spool_is_readable_by_its_owner_only(tmp_path):
    """Folder and segments are readable by their owner only."""
    spool = spool_in(tmp_path / "s")
    segment = spool.append_provisional("a", "{}")
    assert stat.S_IMODE(spool.home.stat().st_mode) == 0o700
    assert stat.S_IMODE(segment.path.stat().st_mode) == 0o600
    assert spool.home.name.startswith("v1-")


def test_a_line_is_in_the_file_when_the_call_returns(tmp_path):
    """A record is in the file when the call returns, without a buffer and without a sync."""
    spool = spool_in(tmp_path)
    segment = spool.append_provisional("a", '{"x":1}')
    assert lines_of(segment.path) == [("N", "a", {"x": 1})]


# --- segments ----------------------------------------------------------------------------------------


def test_a_segment_waits_for_the_rows_of_its_provisional_records(tmp_path):
    """A rotation retires a segment, and its last missing row seals it."""
    spool = spool_in(tmp_path)
    first, second = spool.append_provisional("a", "{}"), spool.append_provisional("b", "{}")
    spool.rotate()
    later = spool.append_provisional("c", "{}")
    assert (first, later.number, spool.sealed()) == (second, 2, [])
    spool.append_row(first, "a", "{}")
    assert (spool.sealed(), files_of(spool)) == ([], ["00000001.open", "00000002.open"])
    spool.append_row(first, "b", "{}")
    assert (spool.sealed(), files_of(spool)) == ([first], ["00000001.seg", "00000002.open"])


def test_segments_are_drained_in_their_order(tmp_path):
    """A sealed segment is not drained before an older one that is still being written."""
    spool = spool_in(tmp_path)
    first = spool.append_provisional("a", "{}")
    spool.rotate()
    second = spool.append_provisional("b", "{}")
    spool.append_row(second, "b", "{}")
    spool.rotate()
    assert (second.is_sealed, spool.sealed()) == (True, [])
    spool.append_row(first, "a", "{}")
    assert spool.sealed() == [first, second]


def test_a_segment_does_not_wait_for_a_missing_row_forever(tmp_path, monkeypatch):
    """After `ROW_TIMEOUT` a segment is sealed with the provisional record only."""
    spool = spool_in(tmp_path)
    segment = spool.append_provisional("a", "{}")
    spool.rotate()
    monkeypatch.setattr(spool_module, "ROW_TIMEOUT", -1.0)
    spool.rotate()
    assert spool.sealed() == [segment]
    assert spool.append_row(segment, "a", '{"late":1}')
    assert lines_of(segment.path) == [("N", "a", {})]


def test_a_large_segment_is_closed_at_once(tmp_path):
    """A segment that has reached its size takes no more provisional records."""
    spool = spool_in(tmp_path, segment_bytes=100)
    numbers = [
        spool.append_provisional(str(n), '{"x":"' + "x" * 60 + '"}').number for n in range(4)
    ]
    assert numbers == [1, 1, 2, 2]


def test_a_row_without_a_provisional_record_is_appended(tmp_path):
    """A row whose provisional record could not be written is appended by itself."""
    spool = spool_in(tmp_path)
    assert spool.append_row(None, "a", "{}")
    assert spool.pending == 1


def test_every_segment_begins_with_the_runs_that_are_open(tmp_path):
    """Every segment starts with the open runs, which do not count as pending."""
    runs = [(RecordKind.RUN_START, "r", '{"run":1}')]
    spool = spool_in(tmp_path, open_runs=lambda: list(runs))
    spool.append(RecordKind.RUN_START, "r", '{"run":1}')
    first = spool._active
    assert spool.pending == 0
    spool.append(RecordKind.ROW, "a", "{}")
    spool.rotate()
    second = spool._active
    assert [line[:2] for line in lines_of(first.path)] == [("S", "r"), ("S", "r"), ("R", "a")]
    assert [line[:2] for line in lines_of(second.path)] == [("S", "r")]
    spool.rotate()
    assert spool._active is second, "a segment that tells only of runs is not worth a drain"
    runs.clear()
    spool.append(RecordKind.RUN_END, "r", "{}")
    spool.rotate()
    assert (spool._active, spool.sealed()[-1].number) == (None, 2)


def test_pending_counts_events_until_they_are_drained(tmp_path):
    """Provisional records, rows, runs and snapshots are pending until their segment is drained."""
    spool = spool_in(tmp_path)
    note = spool.append_provisional("a", "{}")
    for kind in (RecordKind.ROW, RecordKind.RUN_END, RecordKind.SNAPSHOT):
        spool.append(kind, "b", "{}")
    spool.rotate()
    spool.append_provisional("c", "{}")
    assert spool.pending == 5
    spool.append_row(note, "a", "{}")
    spool.delete(spool.sealed())
    assert spool.pending == 1


# --- limits and errors ---------------------------------------------------------------------------------


def test_a_full_spool_drops_the_newest_records(tmp_path):
    """A full spool drops and counts new records, and takes records again after a drain."""
    errors = []
    spool = Spool(tmp_path, limit=400, on_error=errors.append)
    body = '{"x":"' + "x" * 70 + '"}'
    kept = [spool.append(RecordKind.ROW, str(n), body) for n in range(6)]
    assert kept == [True, True, True, True, False, False]
    assert spool.append_provisional("n", body) is None
    assert (spool.dropped, [error.errno for error in errors]) == (2, [errno.EDQUOT] * 3)
    spool.rotate()
    spool.delete(spool.sealed())
    assert spool.append(RecordKind.ROW, "7", body)


def test_dropped_records_of_runs_are_not_dropped_operations(tmp_path):
    """Records of runs do not count as dropped operations."""
    spool = Spool(tmp_path, limit=1, on_error=lambda _: None)
    assert not spool.append(RecordKind.RUN_START, "r", "{}")
    assert spool.dropped == 0


def test_a_spool_that_cannot_be_created_is_reported_and_retried(tmp_path, monkeypatch):
    """A spool that cannot be created is reported, and retried once a second."""
    (tmp_path / "s").write_text("a file is in the way")
    errors = []
    spool = Spool(tmp_path / "s", limit=1 << 20, on_error=errors.append)
    assert [spool.append_provisional("a", "{}"), spool.append(RecordKind.ROW, "b", "{}")] == [
        None,
        False,
    ]
    assert [type(error) for error in errors] == [NotADirectoryError]
    (tmp_path / "s").unlink()
    monkeypatch.setattr(spool, "_not_before", 0.0)
    assert spool.append_provisional("c", "{}") is not None


@contextmanager
def files_at_most(size):
    """Limit the file size, so that a write is partial and later ones fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def open_files():
    """Return the numbers of the open file descriptors of this process."""
    return {int(name) for name in os.listdir("/dev/fd")}


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/fd lists no other descriptors")
def test_a_spool_that_cannot_be_created_leaves_no_open_file(tmp_path, monkeypatch):
    """A long-running process tries again each second while a disk is full: nothing of an attempt stays."""
    errors = []
    spool = Spool(tmp_path / "s", limit=1 << 20, shard="a", on_error=errors.append)
    before = open_files()
    with files_at_most(0):
        for _ in range(3):
            monkeypatch.setattr(spool, "_not_before", 0.0)
            spool.begin()
    assert [error.errno for error in errors] == [errno.EFBIG] * 3
    assert (open_files(), list((tmp_path / "s").iterdir())) == (before, [])
    monkeypatch.setattr(spool, "_not_before", 0.0)
    assert spool.append_provisional("a", "{}") is not None


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/fd lists no other descriptors")
def test_a_failed_copy_of_open_segments_leaves_no_open_file(tmp_path):
    """The disk is full when the content of a deleted folder is copied."""
    errors = []
    spool = Spool(tmp_path / "s", limit=1 << 20, on_error=errors.append)
    spool.append_provisional("a", "{}")
    before = open_files()
    shutil.rmtree(tmp_path / "s")
    with files_at_most(0):
        spool.rotate()
    assert [error.errno for error in errors] == [errno.EFBIG]
    assert len(open_files()) == len(before)


def test_a_partially_written_line_is_truncated(tmp_path):
    """A partial write on a full disk is truncated; the records around it are valid."""
    errors = []
    spool = Spool(tmp_path, limit=1 << 30, on_error=errors.append)
    body = '{"x":"' + "x" * 300_000 + '"}'
    with files_at_most(1 << 20):
        kept = [spool.append(RecordKind.ROW, str(n), body) for n in range(5)]
    assert kept == [True, True, True, False, False]
    assert [error.errno for error in errors] == [errno.ENOSPC, errno.ENOSPC]
    assert spool.append(RecordKind.ROW, "later", body)
    lines = decode(spool._active.path.read_bytes())
    assert ([line.key for line in lines.valid], lines.damaged, lines.torn) == (
        ["0", "1", "2", "later"],
        0,
        False,
    )
    assert spool._size == spool._active.path.stat().st_size


def test_a_row_that_cannot_be_written_leaves_its_provisional_record(tmp_path):
    """If a row cannot be written, its provisional record remains and its segment does not wait."""
    spool = Spool(tmp_path, limit=1 << 30, on_error=lambda _: None)
    segment = spool.append_provisional("a", "{}")
    with files_at_most(segment.size):
        assert spool.append_row(segment, "a", '{"x":1}')
    spool.rotate()
    assert [line[:2] for line in lines_of(spool.sealed()[0].path)] == [("N", "a")]


def test_open_segments_of_a_deleted_folder_are_copied(tmp_path):
    """If the folder is deleted, the content of open segments is copied to a new folder."""
    spool = spool_in(tmp_path / "s")
    waiting = spool.append_provisional("a", "{}")
    spool.rotate()
    spool.append_provisional("b", "{}")
    old = spool.home
    shutil.rmtree(tmp_path / "s")
    spool.rotate()
    assert (spool.home == old, files_of(spool)) == (False, ["00000001.open", "00000002.open"])
    spool.append_row(waiting, "a", '{"x":1}')
    assert [lines_of(segment.path) for segment in spool.sealed()] == [
        [("N", "a", {}), ("R", "a", {"x": 1})]
    ]


def test_a_failed_copy_of_open_segments_is_reported(tmp_path):
    """If no new folder can be created either, the error is reported and not raised."""
    errors = []
    spool = Spool(tmp_path / "s", limit=1 << 20, on_error=errors.append)
    spool.append_provisional("a", "{}")
    shutil.rmtree(tmp_path / "s")
    (tmp_path / "s").write_text("a file is in the way")
    spool.rotate()
    assert [type(error) for error in errors] == [NotADirectoryError]


def test_a_segment_that_cannot_be_renamed_is_sealed_under_its_old_name(tmp_path):
    """A segment that cannot be renamed is sealed under its old name."""
    spool = spool_in(tmp_path)
    spool.append(RecordKind.ROW, "a", "{}")
    (spool.home / "00000001.seg").mkdir()
    (spool.home / "00000001.seg" / "x").touch()
    spool.rotate()
    assert [segment.path.name for segment in spool.sealed()] == ["00000001.open"]


# --- close and fork -----------------------------------------------------------------------------------------


def test_an_empty_spool_is_deleted_on_close(tmp_path):
    """A spool that is closed after a complete drain is deleted."""
    spool = spool_in(tmp_path)
    spool.append(RecordKind.ROW, "a", "{}")
    spool.rotate()
    spool.delete(spool.sealed())
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_closed_spool_with_records_remains_for_adoption(tmp_path):
    """Pending records, also provisional ones, remain after close, and the spool can be adopted."""
    spool = spool_in(tmp_path, open_runs=lambda: [(RecordKind.RUN_START, "r", "{}")])
    spool.append(RecordKind.ROW, "a", "{}")
    spool.rotate()
    spool.append_provisional("b", as_note("b"))
    spool.close()
    assert [[ids_in(path) for path in found.segments] for found in adopt(tmp_path)] == [
        [["a"], ["b"]]
    ]


@pytest.mark.slow
def test_a_forked_child_begins_its_own(tmp_path):
    """A forked child writes to its own folder and does not touch the parent's segments."""
    spool = spool_in(tmp_path)
    spool.append(RecordKind.ROW, "parent", "{}")
    waiting = spool.append_provisional("waiting", '{"id":"waiting"}')
    spool.rotate()
    spool.append_provisional("open", '{"id":"open"}')
    spool.before_fork()
    pid = os.fork()
    if pid == 0:
        try:
            spool.after_fork_in_child()
            spool.append(RecordKind.ROW, "child", "{}")
            os._exit(0 if spool.pending == 1 else 1)
        except BaseException:  # noqa: BLE001 - the child must not continue the test
            os._exit(2)
    spool.after_fork_in_parent()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    [child] = adopt(tmp_path, spool.home)
    assert [ids_in(path) for path in child.segments] == [["child"]]
    spool.append_row(waiting, "waiting", "{}")
    spool.append_provisional("after", "{}")
    assert sorted(ids_in(spool.sealed()[0].path)) == ["parent", "waiting"]
