"""Follow the spools of a folder: read only what processes have appended since the last time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deltawitness.answers.live.values import (
    LiveProcess,
    LiveSource,
    LiveWrite,
    ProcessState,
    RunningWrite,
)
from deltawitness.ledger.spool.reader import lock_spool, segments_in, spools_in
from deltawitness.ledger.spool.records import Record, RecordKind, decode
from deltawitness.ledger.spool.running import read_running
from deltawitness.ledger.spool.supervisor import is_supervised

__all__ = ["SpoolTail", "live_write", "time_of"]

Row = Mapping[str, Any]

_MS = 1000

PROVISIONAL_TIMEOUT = 5
"""Readings after which a provisional record without a final row counts as the write itself."""


def time_of(microseconds: Any) -> datetime:
    """Return a time of a record, which is in microseconds since the Unix epoch."""
    return datetime.fromtimestamp(int(microseconds) / 1e6, tz=UTC)


def live_write(row: Row, source: LiveSource) -> LiveWrite | None:
    """Return an operation from its row or its provisional record; None for a row without id or time."""
    time, write_id = row.get("event_time"), row.get("write_id")
    if time is None or write_id is None:
        return None
    duration = row.get("duration_ms")
    is_failed = row.get("error_type") is not None
    version = row.get("version")
    if version is None and not is_failed and row.get("_version") != row.get("_base"):
        version = row.get("_version")
    return LiveWrite(
        write_id=str(write_id),
        time=time if isinstance(time, datetime) else time_of(time),
        run_id=row.get("run_id"),
        job=row.get("job"),
        table=row.get("table_name"),
        table_id=row.get("table_id"),
        operation=row.get("operation") or row.get("cache_operation"),
        mode=row.get("mode"),
        version=version,
        result=row.get("result") or ("error" if is_failed else None),
        reason=row.get("reason") or row.get("_idle"),
        rows_added=row.get("rows_added"),
        rows_updated=row.get("rows_updated"),
        rows_deleted=row.get("rows_deleted"),
        seconds=None if duration is None else duration / _MS,
        error_type=row.get("error_type"),
        landed=row.get("landed"),
        pid=row.get("pid"),
        host=row.get("host"),
        source=source,
    )


@dataclass(slots=True)
class _Spool:
    """What has been read of one spool."""

    home: Path
    offsets: dict[int, int] = field(default_factory=dict)
    runs: dict[str, Row] = field(default_factory=dict)
    provisional: dict[str, tuple[LiveWrite, int]] = field(default_factory=dict)
    first_run: Row | None = None
    ids: dict[int, set[str]] = field(default_factory=dict)
    running: tuple[RunningWrite, ...] = ()

    @property
    def write_ids(self) -> set[str]:
        """The ids of the operations in its segments."""
        return set().union(*self.ids.values())


class SpoolTail:
    """Follows the spools of a folder.

    Args:
        folder: the folder of all spools.

    Attributes:
        lost: writes that were in the engine when their processes ended, by id.
        vanished: writes that were in the engine when their spools were read last, by id. The spools have
            been drained since: the ledger has the writes, or they are lost.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spools: dict[str, _Spool] = {}
        self.lost: dict[str, RunningWrite] = {}
        self.vanished: dict[str, RunningWrite] = {}

    def read(self) -> tuple[list[LiveProcess], list[LiveWrite]]:
        """Return the processes, and the operations that have finished since the last call.

        Raises:
            OSError: the folder cannot be read.
        """
        homes = spools_in(self._folder, None)
        processes, writes = [], []
        for gone in set(self._spools) - {home.name for home in homes}:
            spool = self._spools.pop(gone)
            self.vanished |= {write.write_id: write for write in spool.running}
            writes += [write for write, _ in spool.provisional.values()]
        for home in homes:
            spool = self._spools.setdefault(home.name, _Spool(home))
            is_alive = self._is_alive(
                home
            )  # before the segments: what a dead process wrote is in them
            with suppress(
                FileNotFoundError, PermissionError
            ):  # drained meanwhile, or of another user
                writes += self._read_segments(spool, is_alive=is_alive)
            processes.append(self._process(spool, is_alive=is_alive))
        return processes, writes

    def _is_alive(self, home: Path) -> bool:
        with lock_spool(home, shared=True) as is_free:
            return not is_free

    def _read_segments(self, spool: _Spool, *, is_alive: bool) -> Iterator[LiveWrite]:
        segments = segments_in(spool.home)
        spool.ids = {int(each.stem): spool.ids.get(int(each.stem), set()) for each in segments}
        for path in segments:
            for record in self._new_records(spool, path):
                yield from self._take(spool, int(path.stem), record)
        for write_id, (write, age) in list(spool.provisional.items()):
            if not is_alive or age >= PROVISIONAL_TIMEOUT:
                del spool.provisional[write_id]
                yield write
            else:
                spool.provisional[write_id] = write, age + 1

    def _new_records(self, spool: _Spool, path: Path) -> tuple[Record, ...]:
        number = int(path.stem)
        offset = spool.offsets.get(number, 0)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                content = file.read()
        except (
            FileNotFoundError
        ):  # it was sealed or drained meanwhile; the next call finds its new name
            return ()
        content = content[: content.rfind(b"\n") + 1]  # without a record that is being written
        spool.offsets[number] = offset + len(content)
        return decode(content).valid

    def _take(self, spool: _Spool, number: int, record: Record) -> Iterator[LiveWrite]:
        row = json.loads(record.body)
        if record.kind == RecordKind.RUN_START:
            spool.runs[record.key] = row
            spool.first_run = spool.first_run or row
        elif record.kind == RecordKind.RUN_END:
            spool.runs.pop(record.key, None)
        elif record.kind in {RecordKind.PROVISIONAL, RecordKind.ROW}:
            spool.ids[number].add(record.key)
            write = live_write(row, LiveSource.SPOOL)
            if write is None:
                return
            if record.kind == RecordKind.PROVISIONAL:
                spool.provisional[record.key] = write, 0
            else:
                spool.provisional.pop(record.key, None)
                yield write

    def _process(self, spool: _Spool, *, is_alive: bool) -> LiveProcess:
        published = read_running(spool.home)
        header: Row = {} if published is None else published.header
        recorded = spool.write_ids
        rows = () if published is None else published.writes
        spool.running = tuple(
            _running(row, header, is_lost=not is_alive)
            for row in rows
            if row["write_id"] not in recorded
        )
        if not is_alive:
            self.lost |= {write.write_id: write for write in spool.running}
        run: Row = spool.first_run or {}
        started = run.get("start_time") or header.get("started_at")
        is_open = is_alive or is_supervised(spool.home)
        return LiveProcess(
            spool=spool.home.name,
            state=ProcessState.ALIVE if is_open else ProcessState.ENDED,
            pid=header.get("pid") or run.get("pid"),
            host=header.get("host") or run.get("host"),
            started_at=None if started is None else time_of(started),
            run_id=run.get("run_id"),
            job=run.get("job"),
            running=spool.running,
            pending=len(recorded),
        )


def _running(row: Row, header: Row, *, is_lost: bool) -> RunningWrite:
    names = ("run_id", "job", "table", "table_id", "operation", "mode", "rows")
    values: dict[str, Any] = {name: row.get(name) for name in names}
    return RunningWrite(
        **values,
        write_id=row["write_id"],
        started_at=time_of(row["started_at"]),
        pid=header.get("pid"),
        host=header.get("host"),
        is_lost=is_lost,
    )
