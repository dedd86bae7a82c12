"""The public function `time`: where the time of a run went."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deltawitness.answers.lookup import find_run_id
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.rows import WriteRow
from deltawitness.answers.run_report import RunReport, read_run
from deltawitness.answers.storage import storage_options_for
from deltawitness.commit.log import open_log, read_commits
from deltawitness.commit.reader import parse_commit
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.literals import is_in
from deltawitness.locations import last_segment
from deltawitness.semconv import CacheResult, Operation
from deltawitness.settings import Settings

__all__ = ["OperationTime", "RunTime", "time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationTime:
    """The time of the operations of one kind on one table.

    Attributes:
        name: name of the table; None for an operation without a table.
        uri: its location, without credentials.
        operation: the operation, as the log spells it.
        mode: save mode of a WRITE.
        count: number of operations.
        errors: how many of them failed.
        total_ms: milliseconds of the engine's calls.
        execution_ms: those of the engine's execution, before the commit; None if the engine does not say.
        scan_ms: those of its scans; they are part of the execution.
        rewrite_ms: those of its rewrites; they are part of the execution.
        commit_ms: the rest of the calls with a known execution: commits with their retries, checkpoints.
        retries: attempts to commit after the first.
        overhead_ms: milliseconds that the observation took on the calling threads; None if the ledger's rows
            are of an earlier release.
    """

    name: str | None
    uri: str | None
    operation: str | None
    mode: str | None
    count: int
    errors: int
    total_ms: float
    execution_ms: float | None = None
    scan_ms: float | None = None
    rewrite_ms: float | None = None
    commit_ms: float | None = None
    retries: int = 0
    overhead_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTime:
    """Where the time of a run and its child runs went.

    Attributes:
        run_id: id of the run.
        job: its job.
        status: its status; None if it has not ended.
        wall_ms: milliseconds from its start to its end; to the end of its last operation if it has not ended.
        operations_ms: milliseconds in which at least one operation was in progress.
        program_ms: the rest of `wall_ms`: the program between its operations.
        overhead_ms: milliseconds that the observation took on the calling threads, over all operations.
        hits: operations that the cache served.
        saved_ms: milliseconds that these would have taken: those of the last write of each entry, without
            those of the read.
        operations: the time by table and operation, the longest first.
        notes: what is not known, and why.
    """

    run_id: str
    job: str | None
    status: str | None
    wall_ms: float | None
    operations_ms: float
    program_ms: float | None
    overhead_ms: float | None
    hits: int = 0
    saved_ms: float = 0.0
    operations: tuple[OperationTime, ...] = ()
    notes: tuple[str, ...] = ()


def time(
    run: str,
    *,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> RunTime:
    """Return where the time of a run and its child runs went, by table and operation.

    Durations of calls are those of the ledger. The durations of scans and rewrites are read from the logs of
    the tables, because only they have them.

    Args:
        run: id of the run, or an unambiguous prefix of it.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no such run, or several.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor, Settings, run, time
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = Settings(cache_root=f"{folder}/ledger")
    ...     DeltaLakeInstrumentor().instrument(settings=settings)
    ...     with run("nightly") as nightly:
    ...         write_deltalake(f"{folder}/flights", pa.table({"x": [1, 2]}))
    ...     found = time(nightly.run_id, settings=settings)
    ...     [(each.name, each.operation, each.count) for each in found.operations]
    ...     found.operations_ms <= found.wall_ms
    ...     DeltaLakeInstrumentor().uninstrument()
    [('flights', 'WRITE', 1)]
    True
    """
    chosen = settings_with(root, storage_options, settings)
    ledger = ledger_of(chosen)
    report = read_run(ledger, find_run_id(ledger, run))
    rows = [WriteRow.of(row) for row in report.writes]
    phases, notes = _phases(rows, chosen)
    wall, end_note = _wall(report, rows)
    busy = _union_ms(rows)
    overheads = [row.overhead_ms for row in rows if row.overhead_ms is not None]
    hits, saved = _saved(ledger, rows)
    if rows and not overheads:
        notes.append(
            "the overhead of the observation is not known: an earlier release wrote the rows, or their"
            " process was killed"
        )
    return RunTime(
        run_id=report.run["run_id"],
        job=report.run["job"],
        status=report.run["status"],
        wall_ms=wall,
        operations_ms=busy,
        program_ms=None if wall is None else max(0.0, wall - busy),
        overhead_ms=sum(overheads) if overheads else None,
        hits=hits,
        saved_ms=saved,
        operations=_operations(rows, phases),
        notes=(*end_note, *notes),
    )


def _wall(report: RunReport, rows: Sequence[WriteRow]) -> tuple[float | None, list[str]]:
    """Return the milliseconds of a run, and a note if its end is not known."""
    start, end = report.run["start_time"], report.run["end_time"]
    notes = []
    status = report.run["status"]
    if status is None or end is None or status == "abandoned":
        state = "was abandoned" if status == "abandoned" else "has not ended"
        notes = [f"the run {state}: its time is that until the end of its last operation"]
        end = max((_end(row) for row in rows if row.event_time is not None), default=None)
    if start is None or end is None:
        return None, notes
    return max(0.0, _ms(end - start)), notes


def _ms(length: dt.timedelta) -> float:
    return length / dt.timedelta(milliseconds=1)


def _end(row: WriteRow) -> dt.datetime:
    assert row.event_time is not None
    return row.event_time + dt.timedelta(milliseconds=row.duration_ms or 0)


def _union_ms(rows: Iterable[WriteRow]) -> float:
    """Return the milliseconds in which at least one operation was in progress."""
    spans = sorted((row.event_time, _end(row)) for row in rows if row.event_time is not None)
    total, until = dt.timedelta(), None
    for start, end in spans:
        if until is None or start > until:
            total += end - start
        elif end > until:
            total += end - until
        until = end if until is None else max(until, end)
    return _ms(total)


# --- by table and operation --------------------------------------------------------------------------

_Phases = Mapping[tuple[str | None, int | None], tuple[int | None, int | None]]
"""Milliseconds of scan and rewrite, by location of the table and version."""


def _operations(rows: Sequence[WriteRow], phases: _Phases) -> tuple[OperationTime, ...]:
    groups: dict[tuple[str | None, ...], list[WriteRow]] = {}
    for row in rows:
        key = row.table_uri or row.table_id, row.operation, row.mode
        groups.setdefault(key, []).append(row)
    found = [_operation(own, phases) for own in groups.values()]
    return tuple(sorted(found, key=lambda each: -each.total_ms))


def _operation(rows: Sequence[WriteRow], phases: _Phases) -> OperationTime:
    last = rows[-1]
    timed = [row for row in rows if row.execution_ms is not None]
    own = [phases.get((row.table_uri, row.version), (None, None)) for row in rows]
    return OperationTime(
        name=last.table_name or last_segment(last.table_uri or "") or last.table_id,
        uri=last.table_uri,
        operation=last.operation,
        mode=last.mode,
        count=len(rows),
        errors=sum(row.result == CacheResult.ERROR.value for row in rows),
        total_ms=sum(row.duration_ms or 0.0 for row in rows),
        execution_ms=_sum(row.execution_ms for row in rows),
        scan_ms=_sum(scan for scan, _ in own),
        rewrite_ms=_sum(rewrite for _, rewrite in own),
        commit_ms=_sum(
            max(0.0, (row.duration_ms or 0.0) - (row.execution_ms or 0)) for row in timed
        ),
        retries=sum(row.retries or 0 for row in rows),
        overhead_ms=_sum(row.overhead_ms for row in rows),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return float(sum(known)) if known else None


_PHASED = frozenset({Operation.DELETE.value, Operation.UPDATE.value, Operation.MERGE.value})
"""Operations for which the engine reports a scan or a rewrite."""


def _phases(rows: Iterable[WriteRow], settings: Settings) -> tuple[_Phases, list[str]]:
    """Return the phases in the logs, and a note for each log that cannot be read."""
    versions: dict[str, list[int]] = {}
    for row in rows:
        if row.operation in _PHASED and row.table_uri is not None and row.version is not None:
            versions.setdefault(row.table_uri, []).append(row.version)
    found: dict[tuple[str | None, int | None], tuple[int | None, int | None]] = {}
    notes = []
    for uri, numbers in versions.items():
        try:
            log = open_log(uri, storage_options_for(uri, settings))
            raws = read_commits(log, numbers)
        except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
            reason = type(error).__name__
            notes.append(f"scans and rewrites of {last_segment(uri)} are not known: {reason}")
            continue
        for version, raw in zip(numbers, raws, strict=True):
            if raw is not None:
                metrics = parse_commit(version, raw).operation_metrics
                found[uri, version] = (
                    _count(metrics, "scan_time_ms", "scanTimeMs"),
                    _count(metrics, "rewrite_time_ms", "rewriteTimeMs"),
                )
    return found, notes


def _count(metrics: Mapping[str, object], *keys: str) -> int | None:
    for key in keys:
        value = metrics.get(key)
        if isinstance(value, int | str) and str(value).isdecimal():
            return int(value)
    return None


# --- the cache ---------------------------------------------------------------------------------------


def _saved(ledger: LedgerListing, rows: Iterable[WriteRow]) -> tuple[int, float]:
    """Return the number of cache hits, and the milliseconds that computing their entries took last."""
    hits = [row for row in rows if row.result == CacheResult.HIT.value]
    uris = sorted({row.table_uri for row in hits if row.table_uri is not None})
    if not uris:
        return len(hits), 0.0
    written = ledger.query(
        "SELECT table_uri, event_time, duration_ms FROM inventory"  # noqa: S608 - quoted
        f" WHERE {is_in('table_uri', uris)} AND result = '{CacheResult.WRITE.value}'"
        f" AND cache_operation = 'write' ORDER BY event_time"
    )
    saved = 0.0
    for hit in hits:
        lasts = [
            row["duration_ms"] or 0.0
            for row in written
            if row["table_uri"] == hit.table_uri
            and hit.event_time is not None
            and row["event_time"] <= hit.event_time
        ]
        if lasts:
            saved += max(0.0, lasts[-1] - (hit.duration_ms or 0.0))
    return len(hits), saved
