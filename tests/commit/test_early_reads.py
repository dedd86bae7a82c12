"""Reads of commits that start before their results are needed."""

from __future__ import annotations

import os
import threading

import pytest

from deltawitness.commit.early_reads import (
    MAX_THREADS,
    current_early_reads,
    early_reads,
    forget_early_reads,
)


def test_reads_run_at_the_same_time():
    """Each waits for the other, so that one after the other would fail."""
    together = threading.Barrier(2, timeout=60)

    def read(content):
        together.wait()
        return content

    with early_reads() as reads:
        for version in (0, 1):
            reads.start(("t", version), lambda version=version: read(b"%d" % version))
        assert [reads.take(("t", version))() for version in (0, 1)] == [b"0", b"1"]


def test_a_result_is_taken_once():
    """A result is as old as its start, so a second check of the same commit reads again."""
    with early_reads() as reads:
        reads.start(("t", 0), lambda: None)
        assert reads.take(("t", 0))() is None
        assert reads.take(("t", 0)) is None


def test_a_commit_is_read_once_until_its_result_is_taken():
    calls = []
    with early_reads() as reads:
        for _ in range(3):
            reads.start(("t", 0), lambda: calls.append(0))
        reads.take(("t", 0))()
    assert calls == [0]


def test_an_error_is_raised_where_the_result_is_needed():
    def fail():
        msg = "unreachable"
        raise OSError(msg)

    with early_reads() as reads:
        reads.start(("t", 0), fail)
        with pytest.raises(OSError, match="unreachable"):
            reads.take(("t", 0))()


def test_no_read_is_lost_beyond_the_number_of_threads():
    """The thread that needs a result reads, where no background thread has begun to."""
    release, count = threading.Event(), MAX_THREADS + 8

    def read(version):
        if version < MAX_THREADS:
            assert release.wait(60)
        return b"%d" % version

    with early_reads() as reads:
        for version in range(count):
            reads.start(("t", version), lambda version=version: read(version))
        late = [reads.take(("t", version))() for version in range(MAX_THREADS, count)]
        release.set()
        early = [reads.take(("t", version))() for version in range(MAX_THREADS)]
    assert early + late == [b"%d" % version for version in range(count)]


def test_a_block_inside_has_its_own_reads():
    """A check inside another does not take its older results, and a write inside drops them."""
    with early_reads() as outer:
        outer.start(("t", 0), lambda: b"old")
        with early_reads() as inner:
            assert inner.take(("t", 0)) is None
            assert current_early_reads() is inner
            forget_early_reads()
        assert current_early_reads() is outer
        assert outer.take(("t", 0)) is None
    assert current_early_reads() is None


def test_no_thread_reads_after_the_block():
    """The end of a block waits for reads whose results were not taken."""
    begun, ended = threading.Event(), threading.Event()

    def read():
        begun.set()
        ended.set()

    with early_reads() as reads:
        reads.start(("t", 0), read)
        assert begun.wait(60)
    assert ended.is_set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_reads_itself():
    """The child does not have the thread that has begun to read, and does not wait for it."""
    begun, release = threading.Event(), threading.Event()

    def read():
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            release.wait(60)
        return b"content"

    with early_reads() as reads:
        reads.start(("t", 0), read)
        assert begun.wait(60)
        child = os.fork()
        if child == 0:
            os._exit(0 if reads.take(("t", 0))() == b"content" else 1)
        _, status = os.waitpid(child, 0)
        release.set()
        assert os.waitstatus_to_exitcode(status) == 0
