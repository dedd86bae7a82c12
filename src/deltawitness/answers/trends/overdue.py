"""The public function `overdue`: what is late, empty or far from its own past."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import compress, pairwise

from deltawitness.answers.lookup import table_condition
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.trends.past import (
    PastRun,
    PastWrites,
    micros_of,
    now,
    past_runs,
    past_writes,
    time_of,
)
from deltawitness.answers.trends.statistics import Typical, is_common, quantile
from deltawitness.answers.trends.values import (
    EmptyRun,
    OverdueResult,
    TableCadence,
    TableState,
    UnusualVolume,
)
from deltawitness.ids_and_clock import in_utc
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.settings import Settings

__all__ = ["TOLERANCE", "cadence_of", "overdue", "read_overdue"]

TOLERANCE = 3.5
"""Number of standard deviations, from the median absolute deviation, that is not unusual."""

_GAPS = 50
"""Number of the last intervals between changes that are learned from."""

_LEAST_GAPS = 4
"""Number of intervals from which on a table can be late."""

_LEAST_RUNS = 5
"""Number of earlier runs from which on a run can be unusual or empty."""

_GRACE = 0.1
"""Share of the median interval that is always added."""

_LEAST_GRACE = 60.0
"""Seconds that are added at least: a drain may bring rows into the ledger so late."""

_FACTOR = 2.0
"""Number of times that rows must be more or fewer than the median."""

_SURE = 1.9
"""Number of times that rows are certainly not too far from the median: less than `_FACTOR`."""

_SECOND = 1_000_000
"""Microseconds in a second."""

_LEAST_SPREAD = 0.1
"""Spread of the logarithm of a number of rows that is not unusual: 10 %."""

_STOPPED_INTERVALS = 30
_STOPPED = timedelta(days=30)


def overdue(  # noqa: PLR0913 - keyword-only options
    table: str | None = None,
    *,
    at: datetime | None = None,
    since: datetime | None = None,
    tolerance: float = TOLERANCE,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> OverdueResult:
    """Return tables whose next write is late, runs that changed nothing, and unusual numbers of rows.

    What is usual is learned from the history in the ledger, with medians and median absolute deviations: a
    table needs 5 changes, and a job 5 earlier runs. OPTIMIZE, VACUUM and entries of the cache do not count. A
    value that a tenth of the history shares is not unusual, such as the gap over a weekend.

    Args:
        table: only this table: its name, id (or a prefix of it), path or URI; runs are left out.
        at: the time for which the question is answered; now when None. UTC without a time zone.
        since: judges all runs since then; when None, the last run of each job, for each table.
        tolerance: number of standard deviations that is not unusual; larger finds less.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no such table.
        ValueError: the tolerance is not positive.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from datetime import UTC, datetime, timedelta
    >>> from deltalake import write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor, Settings, overdue
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = Settings(cache_root=f"{folder}/ledger")
    ...     DeltaLakeInstrumentor().instrument(settings=settings)
    ...     for day in range(6):
    ...         write_deltalake(f"{folder}/t", pa.table({"day": [day]}), mode="append")
    ...     tomorrow = datetime.now(UTC) + timedelta(days=1)
    ...     found = overdue(at=tomorrow, settings=settings)
    ...     DeltaLakeInstrumentor().uninstrument()
    >>> (table,) = found.tables
    >>> table.table.name, table.state.value, table.changes
    ('t', 'late', 6)
    """
    ledger = ledger_of(settings_with(root, storage_options, settings))
    return read_overdue(ledger, table, at=in_utc(at), since=in_utc(since), tolerance=tolerance)


def read_overdue(  # noqa: PLR0913 - keyword-only options
    ledger: LedgerListing,
    table: str | None = None,
    *,
    at: datetime | None = None,
    since: datetime | None = None,
    tolerance: float = TOLERANCE,
    option: str = "",
) -> OverdueResult:
    """Return what is late, empty or unusual; arguments and errors as for :func:`overdue`.

    Args:
        ledger: the ledger to query.
        table: only this table.
        at: the time for which the question is answered; now when None.
        since: judges all runs since then.
        tolerance: number of standard deviations that is not unusual.
        option: precedes the name of an argument in error messages, such as `--`.
    """
    if not tolerance > 0:
        msg = f"{option}tolerance: expected a number above 0"
        raise ValueError(msg)
    time = at or now()
    condition = None if table is None else table_condition(ledger, table)
    writes = past_writes(ledger, time, condition)
    cadences = [
        found
        for same in writes.values()
        if (found := cadence_of(same, time, tolerance)) is not None
    ]
    volumes = [each for same in writes.values() for each in _volumes(same, since, tolerance)]
    empty = [] if table is not None else _empty_runs(past_runs(ledger, time), since)
    return OverdueResult(
        at=time,
        tables=tuple(sorted(cadences, key=_order)),
        volumes=tuple(sorted(volumes, key=lambda each: each.time, reverse=True)),
        empty_runs=tuple(sorted(empty, key=lambda each: each.start_time, reverse=True)),
    )


_STATES = (TableState.LATE, TableState.STOPPED, TableState.UNKNOWN, TableState.FRESH)


def _order(each: TableCadence) -> tuple[int, str]:
    return _STATES.index(each.state), str(each.table)


# --- cadence -----------------------------------------------------------------------------------------


def cadence_of(
    writes: PastWrites, at: datetime, tolerance: float = TOLERANCE
) -> TableCadence | None:
    """Return how often rows of a table change, and whether the next change is late.

    Args:
        writes: the writes of the table.
        at: the time for which the question is answered.
        tolerance: number of standard deviations that is not unusual.

    Returns:
        None if no write has changed rows.
    """
    changing = list(compress(range(len(writes)), writes.has_changed))
    if not changing:
        return None
    last, changes = changing[-1], writes.changes()
    gaps = [(b - a) / _SECOND for a, b in pairwise(changes[-_GAPS - 1 :])]
    found = TableCadence(
        table=writes.table(last),
        state=TableState.UNKNOWN,
        last=time_of(changes[-1]),
        job=writes.job[last],
        run_id=writes.run_id[last],
        changes=len(changes),
    )
    if len(gaps) < _LEAST_GAPS or _is_of_one_session(writes, changing):
        return found
    typical = Typical.of(gaps)
    longest = max(typical.center + tolerance * typical.spread, quantile(gaps, 0.9))
    limit = longest + max(_GRACE * typical.center, _LEAST_GRACE)
    return replace(
        found,
        state=_state((at - found.last).total_seconds(), limit, typical.center),
        interval_seconds=typical.center,
        due=found.last + timedelta(seconds=limit),
    )


def _is_of_one_session(writes: PastWrites, changing: Sequence[int]) -> bool:
    """Return whether one run that ended has made all changes: nothing says that there will be another one."""
    first = changing[0]
    return len(changing) == 1 and writes.run_id[first] is not None and writes.is_complete[first]


def _state(age: float, limit: float, interval: float) -> TableState:
    if age <= limit:
        return TableState.FRESH
    late = age - limit
    is_stopped = late > _STOPPED_INTERVALS * interval and late > _STOPPED.total_seconds()
    return TableState.STOPPED if is_stopped else TableState.LATE


# --- volume ------------------------------------------------------------------------------------------


def _volumes(
    writes: PastWrites, since: datetime | None, tolerance: float
) -> Iterator[UnusualVolume]:
    """Yield the unusual writes of a table, each compared with the earlier ones of its job."""
    by_job: dict[str | None, list[int]] = {}
    for number, (job, rows, is_complete) in enumerate(
        zip(writes.job, writes.rows, writes.is_complete, strict=True)
    ):
        if is_complete and rows is not None:
            by_job.setdefault(job, []).append(number)
    for same in by_job.values():
        if len(same) <= _LEAST_RUNS:
            continue
        counts = [writes.rows[number] or 0 for number in same]
        for place in _judged([writes.time[number] for number in same], since):
            if place >= _LEAST_RUNS and not _is_near_median(counts[place], counts[:place]):
                yield from _volume(writes, same[place], counts[:place], tolerance)


def _is_near_median(rows: int, earlier: Sequence[int]) -> bool:
    """Return whether a number of rows is so near to the median that it cannot be unusual: a fast test."""
    ordered, half = sorted(earlier), len(earlier) // 2
    low, high = ordered[(len(earlier) - 1) // 2] + 1, ordered[half] + 1
    return high < _SURE * (rows + 1) and rows + 1 < _SURE * low


def _judged(times: Sequence[int], since: datetime | None) -> Iterable[int]:
    """Return the positions of what is judged: the last one, or all since a time."""
    if since is None:
        return range(len(times))[-1:]
    begin = micros_of(since)
    return (number for number, time in enumerate(times) if time >= begin)


def _volume(
    writes: PastWrites, number: int, earlier: Sequence[int], tolerance: float
) -> Iterator[UnusualVolume]:
    found = writes.rows[number] or 0
    typical = Typical.of([math.log1p(rows) for rows in earlier])
    width = max(tolerance * max(typical.spread, _LEAST_SPREAD), math.log(_FACTOR))
    low = math.expm1(max(typical.center - width, 0.0))
    high = math.expm1(typical.center + width)
    if low <= found <= high:
        return
    # Numbers of rows that are about as far on the same side.
    alike = [rows <= found * 1.25 if found < low else rows >= found / 1.25 for rows in earlier]
    if is_common(sum(alike), len(earlier)):
        return
    yield UnusualVolume(
        table=writes.table(number),
        job=writes.job[number],
        run_id=writes.run_id[number],
        time=time_of(writes.time[number]),
        rows=found,
        typical=math.expm1(typical.center),
        low=low,
        high=high,
        history=len(earlier),
    )


# --- runs that changed nothing -----------------------------------------------------------------------


def _empty_runs(
    jobs: Iterable[tuple[str, Sequence[PastRun]]], since: datetime | None
) -> Iterator[EmptyRun]:
    for job, runs in jobs:
        for number in _judged([micros_of(each.start_time) for each in runs], since):
            run, earlier = runs[number], [each for each in runs[:number] if each.is_ok]
            if not run.is_ok or run.rows or run.hits or len(earlier) < _LEAST_RUNS:
                continue
            wrote = [each.rows for each in earlier if each.rows]
            if wrote and not is_common(len(earlier) - len(wrote), len(earlier)):
                yield EmptyRun(
                    job=job,
                    run_id=run.run_id,
                    start_time=run.start_time,
                    typical=Typical.of(wrote).center,
                    history=len(earlier),
                    wrote=len(wrote),
                )
