"""The public function `overdue`: what is late, empty or far from its own past."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

from deltawitness.answers.lookup import table_condition
from deltawitness.answers.questions import in_utc, ledger_of, settings_with
from deltawitness.answers.trends.past import PastRun, PastWrite, now, past_runs, past_writes
from deltawitness.answers.trends.statistics import Typical, is_common, quantile
from deltawitness.answers.trends.values import (
    EmptyRun,
    OverdueResult,
    TableCadence,
    TableState,
    UnusualVolume,
)
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
    writes: Sequence[PastWrite], at: datetime, tolerance: float = TOLERANCE
) -> TableCadence | None:
    """Return how often rows of a table change, and whether the next change is late.

    Args:
        writes: the writes of the table, oldest first.
        at: the time for which the question is answered.
        tolerance: number of standard deviations that is not unusual.

    Returns:
        None if no write has changed rows.
    """
    last = next((each for each in reversed(writes) if each.has_changed), None)
    if last is None:
        return None
    changes = sorted(time for each in writes for time in each.changes)
    gaps = [(b - a).total_seconds() for a, b in pairwise(changes)][-_GAPS:]
    found = TableCadence(
        table=last.table,
        state=TableState.UNKNOWN,
        last=changes[-1],
        job=last.job,
        run_id=last.run_id,
        changes=len(changes),
    )
    if len(gaps) < _LEAST_GAPS or _is_of_one_session(writes):
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


def _is_of_one_session(writes: Sequence[PastWrite]) -> bool:
    """Return whether one run that ended has made all changes: nothing says that there will be another one."""
    changing = [each for each in writes if each.has_changed]
    return len(changing) == 1 and changing[0].run_id is not None and changing[0].is_complete


def _state(age: float, limit: float, interval: float) -> TableState:
    if age <= limit:
        return TableState.FRESH
    late = age - limit
    is_stopped = late > _STOPPED_INTERVALS * interval and late > _STOPPED.total_seconds()
    return TableState.STOPPED if is_stopped else TableState.LATE


# --- volume ------------------------------------------------------------------------------------------


def _volumes(
    writes: Sequence[PastWrite], since: datetime | None, tolerance: float
) -> Iterator[UnusualVolume]:
    """Yield the unusual writes of a table, each compared with the earlier ones of its job."""
    by_job: dict[str | None, list[PastWrite]] = {}
    for each in writes:
        if each.rows is not None and each.is_complete:
            by_job.setdefault(each.job, []).append(each)
    for same in by_job.values():
        for number in _judged([each.time for each in same], since):
            found = _volume(same[number], [each.rows or 0 for each in same[:number]], tolerance)
            if found is not None:
                yield found


def _judged(times: Sequence[datetime], since: datetime | None) -> Iterable[int]:
    """Return the positions of what is judged: the last one, or all since a time."""
    if since is None:
        return range(len(times))[-1:]
    return (number for number, time in enumerate(times) if time >= since)


def _volume(write: PastWrite, earlier: Sequence[int], tolerance: float) -> UnusualVolume | None:
    if len(earlier) < _LEAST_RUNS or write.rows is None:
        return None
    typical = Typical.of([math.log1p(rows) for rows in earlier])
    width = max(tolerance * max(typical.spread, _LEAST_SPREAD), math.log(_FACTOR))
    low = math.expm1(max(typical.center - width, 0.0))
    high = math.expm1(typical.center + width)
    if low <= write.rows <= high:
        return None
    # Numbers of rows that are about as far on the same side.
    alike = [
        rows <= write.rows * 1.25 if write.rows < low else rows >= write.rows / 1.25
        for rows in earlier
    ]
    if is_common(sum(alike), len(earlier)):
        return None
    return UnusualVolume(
        table=write.table,
        job=write.job,
        run_id=write.run_id,
        time=write.time,
        rows=write.rows,
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
        for number in _judged([each.start_time for each in runs], since):
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
