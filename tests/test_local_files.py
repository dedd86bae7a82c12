"""Locks of local files, and use of the package without what only POSIX systems have."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from deltawitness.ledger.spool import reader, supervisor, writer
from deltawitness.ledger.spool.reader import adopt, has_abandoned
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.spool.supervisor import Supervision, is_supervised, link_supervisor
from deltawitness.ledger.spool.writer import Spool
from deltawitness.local_files import lock, open_lock_file, open_locked_file, try_lock
from helpers.places import PROGRAMS


def test_a_lock_belongs_to_an_open_file(tmp_path):
    """A second open file gets the lock when the first is closed."""
    first, second = (open_lock_file(tmp_path / "lock") for _ in range(2))
    lock(first)
    assert not try_lock(second)
    assert not try_lock(second, shared=True)
    os.close(first)
    assert try_lock(second)
    os.close(second)


def test_shared_locks_exclude_only_an_exclusive_one(tmp_path):
    """Two readers can have the lock at the same time."""
    readers = [open_lock_file(tmp_path / "lock") for _ in range(2)]
    assert all(try_lock(reader, shared=True) for reader in readers)
    owner = open_lock_file(tmp_path / "lock")
    assert not try_lock(owner)
    for descriptor in (*readers, owner):
        os.close(descriptor)


def test_a_file_is_opened_only_with_its_lock(tmp_path):
    """While another open file has the lock there is no descriptor, and none stays open."""
    owner = open_locked_file(tmp_path / "lock")
    assert owner is not None
    following = os.dup(owner)  # the lowest free number: the next open file gets it again
    os.close(following)
    assert open_locked_file(tmp_path / "lock") is None
    assert open_locked_file(tmp_path / "lock", shared=True) is None
    assert os.dup(owner) == following
    os.close(following)
    os.close(owner)
    readers = [open_locked_file(tmp_path / "lock", shared=True) for _ in range(2)]
    assert None not in readers
    for descriptor in readers:
        os.close(descriptor)


@pytest.mark.slow
def test_a_lock_is_waited_for(tmp_path):
    """It is there as soon as the other open file is closed."""
    first, second = (open_lock_file(tmp_path / "lock") for _ in range(2))
    lock(first)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(lock, second)
        try:
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
        finally:
            os.close(first)
        waiting.result(60)
    os.close(second)


def test_a_file_that_cannot_be_locked_is_no_lock_of_another(tmp_path):
    """The error of the system is raised, so that the file does not seem to be in use."""
    descriptor = open_lock_file(tmp_path / "lock")
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        try_lock(descriptor)


@pytest.mark.skipif(os.name == "nt", reason="files have no such modes there")
def test_only_the_owner_can_open_a_lock_file(tmp_path):
    """Another user cannot hold a lock for which this one waits."""
    before = os.umask(0)
    try:
        os.close(open_lock_file(tmp_path / "lock"))
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def fixed(monkeypatch):
    """Use the spool as where open files can be neither renamed nor deleted."""
    monkeypatch.setattr(writer, "OPEN_FILES_ARE_FIXED", True)
    monkeypatch.setattr(reader, "OPEN_FILES_ARE_FIXED", True)


@pytest.mark.usefixtures("fixed")
def test_a_spool_has_its_final_name_at_once(tmp_path):
    """Another process sees a spool of a live process, and adopts it after the process's end."""
    errors = []
    spool = Spool(tmp_path, limit=1 << 20, on_error=errors.append)
    spool.begin()
    assert [path.name for path in tmp_path.iterdir()] == [spool.home.name]
    assert not has_abandoned(tmp_path)
    assert spool.append(RecordKind.RUN_END, "r", "{}")
    spool._release_home()
    assert [len(found.segments) for found in adopt(tmp_path)] == [1]
    assert errors == []


@pytest.mark.usefixtures("fixed")
def test_a_lock_file_that_was_open_is_deleted_after_the_drain(tmp_path):
    """A spool without segments is deleted when its lock is free."""
    spool = Spool(tmp_path, limit=1 << 20, on_error=print)
    spool.begin()
    home = spool.home
    spool._release_home()
    assert [found.home for found in adopt(tmp_path)] == [home]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("fixed")
def test_a_spool_that_a_drain_has_locked_first_is_tried_again(tmp_path, monkeypatch):
    """The creation fails with an error that is reported; the next one, after a pause, succeeds."""
    errors = []
    spool = Spool(tmp_path, limit=1 << 20, on_error=errors.append)
    monkeypatch.setattr(writer, "open_locked_file", lambda _: None)
    spool.begin()
    assert (spool.home, [type(error) for error in errors]) == (None, [BlockingIOError])
    monkeypatch.undo()
    spool._not_before = 0.0
    spool.begin()
    assert spool.home is not None
    spool.close()


def test_a_supervisor_is_named_by_a_text_file_where_no_link_can_be_made(tmp_path, monkeypatch):
    """A user of Windows needs a privilege for links."""

    def refuse(*_):
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(supervisor.Path, "symlink_to", refuse)
    with Supervision(tmp_path / "lock") as supervision:
        link_supervisor(tmp_path, supervision.lock)
        assert is_supervised(tmp_path)
    assert not is_supervised(tmp_path)


@pytest.mark.slow
def test_the_package_works_without_what_only_posix_systems_have(tmp_path):
    """Each module is imported; a run with a ledger and a cache is recorded and listed."""
    program = subprocess.run(
        [sys.executable, str(PROGRAMS / "without_posix.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert program.returncode == 0, program.stderr
    assert program.stdout.endswith("True 4\n")
