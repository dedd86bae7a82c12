"""Reading spools: contents of segments, and adoption of the spools of dead processes only."""

from __future__ import annotations

import json
import os
import threading
import time

from deltawitness.ledger.spool.reader import (
    CREATION_TIMEOUT,
    adopt,
    has_abandoned,
    read_segment,
    segments_of,
    spool_app_id,
    spooled_write_ids,
)
from deltawitness.ledger.spool.records import RecordKind, encode
from deltawitness.ledger.spool.writer import OWNER_LOCK
from helpers.ledger_parts import lines_of, spool_in


def written(folder, *lines, name="v1-dead/00000003.seg"):
    """Create a segment as a dead process leaves it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "owner.lock").touch()
    path.write_bytes(b"".join(line if isinstance(line, bytes) else encode(*line) for line in lines))
    return path


def test_a_segment_has_each_operation_once(tmp_path):
    """A final row replaces its provisional record; a record without a row remains."""
    path = written(
        tmp_path,
        (RecordKind.RUN_START, "r-1", '{"run_id":"r-1"}'),
        (RecordKind.RUN_START, "r-2", '{"run_id":"r-2"}'),
        (RecordKind.PROVISIONAL, "a", '{"id":"a"}'),
        (RecordKind.PROVISIONAL, "b", '{"id":"b"}'),
        (RecordKind.ROW, "a", '{"whole":"a"}'),
        (RecordKind.SNAPSHOT, "s", '{"snapshot":"s"}'),
        (RecordKind.RUN_END, "r-1", '{"ended":"r-1"}'),
    )
    contents = read_segment(path)
    assert (contents.app_id, contents.number, contents.damaged) == (
        "deltawitness/spool/v1-dead",
        3,
        0,
    )
    assert [line.body for line in contents.rows] == [b'{"whole":"a"}']
    assert contents.provisional == [{"id": "b"}]
    assert contents.runs == [{"ended": "r-1"}]
    assert contents.open_runs == {"r-2": {"run_id": "r-2"}}
    assert contents.snapshots == [{"snapshot": "s"}]


def test_unreadable_records_are_counted(tmp_path):
    """Records with a wrong checksum or unknown kind are damaged; an incomplete last line is not."""
    line = b'N x {"y":1}'
    from zlib import crc32

    unknown = b"%08x %b\n" % (crc32(b"Z x {}"), b"Z x {}")
    path = written(
        tmp_path, b"00000000 " + line + b"\n", unknown, (RecordKind.ROW, "a", "{}"), b"0000"
    )
    contents = read_segment(path)
    assert (contents.damaged, [row.key for row in contents.rows]) == (2, ["a"])


def test_the_spool_of_a_living_process_is_not_adopted(tmp_path):
    """Only another process's folder with a free lock is adopted, with its oldest segment first."""
    alive = spool_in(tmp_path)
    alive.append(RecordKind.ROW, "alive", "{}")
    for number in (10, 9, 11):
        written(tmp_path, name=f"v1-dead/{number:08d}.seg")
    [dead] = adopt(tmp_path)
    assert [path.name for path in dead.segments] == ["00000009.seg", "00000010.seg", "00000011.seg"]
    dead.delete()
    assert (list(adopt(tmp_path)), alive.home.exists()) == ([], True)


def test_two_drains_never_adopt_the_same_spool(tmp_path):
    """Two concurrent drains never adopt the same spool."""
    written(tmp_path)
    mine = adopt(tmp_path)
    assert next(mine).home.name == "v1-dead"
    others = []
    thread = threading.Thread(target=lambda: others.extend(adopt(tmp_path)))
    thread.start()
    thread.join()
    assert others == []
    mine.close()
    assert [found.home.name for found in adopt(tmp_path)] == ["v1-dead"]


def test_only_spools_that_can_be_read_whole_are_adopted(tmp_path):
    """Folders of other formats, half-created ones, and ones without a lock file are ignored."""
    written(tmp_path, name="v9-newer/00000001.seg")
    written(tmp_path, name=".new-v1-x/00000001.seg")
    (tmp_path / "v1-no-lock").mkdir()
    assert list(adopt(tmp_path)) == []


def test_no_folder_holds_no_spools(tmp_path):
    """A missing spool folder has no segments and no write ids."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "none", tmp_path / "file"):
        assert (list(adopt(folder)), list(segments_of(folder)), spooled_write_ids(folder)) == (
            [],
            [],
            (set(), False),
        )


def test_pending_operations_are_visible_to_other_processes(tmp_path):
    """`spooled_write_ids` returns the ids in all spools, and whether a process is alive."""
    written(tmp_path, (RecordKind.PROVISIONAL, "a", "{}"), (RecordKind.RUN_START, "r", "{}"))
    assert spooled_write_ids(tmp_path) == ({"a"}, False)
    alive = spool_in(tmp_path)
    alive.append(RecordKind.ROW, "b", "{}")
    assert spooled_write_ids(tmp_path) == ({"a", "b"}, True)


def test_a_segment_that_is_sealed_meanwhile_is_read_all_the_same(tmp_path):
    """A segment that is renamed or deleted between listing and reading raises no error."""
    from deltawitness.ledger.spool.reader import _write_ids

    path = written(tmp_path, (RecordKind.ROW, "a", "{}"))
    assert _write_ids(path.with_suffix(".open")) == {"a"}
    path.unlink()
    assert (_write_ids(path), _write_ids(path.with_suffix(".open"))) == (set(), set())


def test_the_application_id_is_that_of_the_folder(tmp_path):
    """A spool's application id contains its folder's unique name."""
    spool = spool_in(tmp_path)
    spool.append(RecordKind.ROW, "a", json.dumps({"pid": os.getpid()}))
    assert spool_app_id(spool.home) == f"deltawitness/spool/{spool.home.name}"
    assert lines_of(spool._active.path) == [("R", "a", {"pid": os.getpid()})]


def test_a_folder_whose_creation_was_interrupted_is_deleted_after_an_hour(tmp_path):
    """Until then its process may be about to rename it."""
    old, fresh = tmp_path / ".new-v1-old", tmp_path / ".new-v1-fresh"
    for folder in (old, fresh):
        folder.mkdir()
        (folder / OWNER_LOCK).touch()
    assert not has_abandoned(tmp_path)
    an_hour_ago = time.time() - CREATION_TIMEOUT - 1
    os.utime(old, (an_hour_ago, an_hour_ago))
    assert has_abandoned(tmp_path)
    assert list(adopt(tmp_path)) == []
    assert [path.name for path in tmp_path.iterdir()] == [fresh.name]
