"""The public function `ci_report`: problems of the last runs as Markdown for a pull request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from deltawitness.answers.lists import WriteFilter, list_runs, list_writes
from deltawitness.answers.predicates import recorded_job
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.rows import RunRow, WriteRow
from deltawitness.answers.trends.ci_values import CiCheck, CiProblem, CiReport
from deltawitness.answers.trends.markdown import report_text
from deltawitness.answers.trends.overdue import TOLERANCE, read_overdue
from deltawitness.answers.trends.past import now
from deltawitness.answers.trends.regressions import MIN_SECONDS, read_regressions
from deltawitness.answers.trends.values import (
    OverdueResult,
    Regression,
    RegressionKind,
    UnusualVolume,
)
from deltawitness.events import Landed
from deltawitness.ids_and_clock import in_utc
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.plurals import count_of
from deltawitness.semconv import CacheResult
from deltawitness.settings import Settings

__all__ = ["FAIL_ON", "PERIOD", "ci_report", "read_ci_report"]

FAIL_ON = tuple(check for check in CiCheck if check is not CiCheck.FLAKY)
"""The checks that fail a report unless the caller says otherwise."""

PERIOD = timedelta(days=1)
"""The time before the end of a report that it is about, unless the caller says otherwise."""

_LIMIT = 200
"""Maximum number of runs and of failed operations."""


def ci_report(  # noqa: PLR0913 - keyword-only options
    *,
    since: datetime | None = None,
    at: datetime | None = None,
    job: str | None = None,
    fail_on: Iterable[CiCheck | str] = FAIL_ON,
    tolerance: float = TOLERANCE,
    min_seconds: float = MIN_SECONDS,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> CiReport:
    """Return a report about the last runs, with what :func:`overdue` and :func:`regressions` find.

    Args:
        since: start of the time of the report; a day before `at` when None. UTC without a time zone.
        at: its end; now when None. UTC without a time zone.
        job: only this job; late tables are left out unless it made their last change.
        fail_on: the checks that fail the report; others are warnings. All but `flaky` by default.
        tolerance: as for :func:`overdue`.
        min_seconds: as for :func:`regressions`.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no finished run of the job.
        ValueError: there is no such check, or the tolerance is not positive.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import tempfile
    >>> from contextlib import suppress
    >>> from deltawitness import DeltaLakeInstrumentor, Settings, ci_report, run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = Settings(cache_root=f"{folder}/ledger")
    ...     DeltaLakeInstrumentor().instrument(settings=settings)
    ...     with run("load"):
    ...         pass
    ...     with suppress(OSError), run("load"):
    ...         raise OSError
    ...     report = ci_report(settings=settings)
    ...     DeltaLakeInstrumentor().uninstrument()
    >>> report.is_ok, report.markdown.splitlines()[1]
    (False, '## deltawitness: 1 problem')
    """
    ledger = ledger_of(settings_with(root, storage_options, settings))
    return read_ci_report(
        ledger,
        since=in_utc(since),
        at=in_utc(at),
        job=job,
        fail_on=fail_on,
        tolerance=tolerance,
        min_seconds=min_seconds,
    )


def read_ci_report(  # noqa: PLR0913 - keyword-only options
    ledger: LedgerListing,
    *,
    since: datetime | None = None,
    at: datetime | None = None,
    job: str | None = None,
    fail_on: Iterable[CiCheck | str] = FAIL_ON,
    tolerance: float = TOLERANCE,
    min_seconds: float = MIN_SECONDS,
) -> CiReport:
    """Return a report about the last runs; arguments and errors as for :func:`ci_report`.

    Args:
        ledger: the ledger to query.
        since: start of the time of the report.
        at: its end.
        job: only this job.
        fail_on: the checks that fail the report.
        tolerance: as for :func:`overdue`.
        min_seconds: as for :func:`regressions`.
    """
    failing = frozenset(map(CiCheck, fail_on))
    end = at or now()
    start = end - PERIOD if since is None else since
    late = read_overdue(ledger, at=end, since=start, tolerance=tolerance)
    worse = read_regressions(ledger, job, at=end, min_seconds=min_seconds)
    runs = _runs(ledger, start, end, job)
    found = [
        *map(_regression, worse.regressions),
        *_failures(ledger, start, end, job),
        *_overdue(late, recorded_job(job)),
    ]
    checks = list(CiCheck)
    problems = sorted(
        (
            CiProblem(
                check=check, subject=subject, detail=detail, run_id=run, fails=check in failing
            )
            for check, subject, detail, run in found
        ),
        key=lambda each: (not each.fails, checks.index(each.check), each.subject),
    )
    return CiReport(
        since=start,
        at=end,
        problems=tuple(problems),
        runs=tuple(runs),
        markdown=report_text(problems, runs, start, end),
    )


_Found = tuple[CiCheck, str, str, str | None]
"""A check, the job or table, what is wrong, and the id of the run."""


def _runs(ledger: LedgerListing, start: datetime, end: datetime, job: str | None) -> list[RunRow]:
    rows = list_runs(ledger, job=job, since=start, limit=_LIMIT)
    runs = map(RunRow.of, rows)
    return [run for run in runs if run.start_time is None or in_utc(run.start_time) <= end]


def _regression(each: Regression) -> _Found:
    before = f", last ok run {each.good_run_id}" if each.good_run_id else ""
    code = f", code {each.good_code_version} -> {each.code_version}" if each.has_new_code else ""
    match each.kind:
        case RegressionKind.BROKEN:
            what = f"the last {each.value:.0f} of {count_of(each.typical, 'run')} failed"
            error = f": {each.error_type}" if each.error_type else ""
            text = f"{what}{error}{before}{code}"
        case RegressionKind.FLAKY:
            text = f"{each.value:.0f} of the last {count_of(each.typical, 'run')} failed, others did not"
        case RegressionKind.SLOWER:
            text = f"{each.value:.1f} s, median {each.typical:.1f} s{code}"
        case RegressionKind.SMALLER:
            text = f"{count_of(each.value, 'row')}, median {each.typical:,.0f}{code}"
    return CiCheck(each.kind.value), each.job, text, each.run_id


def _failures(
    ledger: LedgerListing, start: datetime, end: datetime, job: str | None
) -> Iterator[_Found]:
    chosen = WriteFilter(since=start, job=job, result=CacheResult.ERROR)
    for row in map(WriteRow.of, list_writes(ledger, chosen, limit=_LIMIT)):
        time = in_utc(row.event_time)
        if time is not None and time > end:
            continue
        landed = ", and it is in the table: do not retry" if row.landed == Landed.YES else ""
        error = f"{row.error_type or 'error'}: {row.error_message or ''}".rstrip(": ")
        text = f"{row.operation or 'operation'} failed: {error}{landed}"
        yield CiCheck.FAILED, row.table_name or row.table_uri or "?", text, row.run_id


def _overdue(found: OverdueResult, job: str | None) -> Iterator[_Found]:
    for table in found.late:
        if job in {None, table.job}:
            due = "" if table.due is None else f", due until {table.due:%Y-%m-%d %H:%M:%S}"
            text = f"last changed {table.last:%Y-%m-%d %H:%M:%S}{due}"
            yield CiCheck.LATE, str(table.table.name), text, None
    for run in found.empty_runs:
        if job in {None, run.job}:
            text = f"changed nothing; {run.wrote} of {count_of(run.history, 'earlier run')} did"
            yield CiCheck.EMPTY, run.job, text, run.run_id
    for volume in found.volumes:
        if job in {None, volume.job}:
            yield CiCheck.VOLUME, str(volume.table), volume_text(volume), volume.run_id


def volume_text(volume: UnusualVolume) -> str:
    """Return an unusual number of rows, and what is usual, in one line."""
    usual = f"usual are {volume.low:,.0f} to {volume.high:,.0f}"
    return f"{count_of(volume.rows, 'row')}; {usual}, median {volume.typical:,.0f}"
