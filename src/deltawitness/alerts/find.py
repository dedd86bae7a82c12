"""Find what has newly happened in a ledger, given the alerts that were sent before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from deltawitness.alerts.values import Alert, AlertKind, subject_of
from deltawitness.answers.trends.overdue import read_overdue
from deltawitness.answers.trends.past import past_runs
from deltawitness.answers.trends.regressions import read_regressions
from deltawitness.answers.trends.values import Regression, RegressionKind, TableCadence, TableState
from deltawitness.html_report.markup import visible
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.plurals import count_of

__all__ = ["find_alerts"]

NAME_CHARACTERS = 200
"""Maximum number of characters of a name in the text of an alert."""


def find_alerts(
    ledger: LedgerListing,
    sent: Mapping[str, Alert],
    *,
    at: datetime,
    tolerance: float,
    kinds: Iterable[AlertKind] = tuple(AlertKind),
) -> tuple[Alert, ...]:
    """Return the alerts that were not sent yet, oldest problem first.

    Args:
        ledger: the ledger to query.
        sent: the problems that were sent and have not recovered, by job or table.
        at: the time for which the ledger is judged.
        tolerance: number of standard deviations that is not unusual, for tables that are overdue.
        kinds: the kinds of alerts to return.

    Raises:
        OSError: the ledger's storage cannot be read.
    """
    wanted = set(kinds)
    found = [*_of_jobs(ledger, sent, at), *_of_tables(ledger, sent, at, tolerance)]
    return tuple(
        sorted(
            (each for each in found if each.kind in wanted),
            key=lambda each: (each.since, each.subject),
        )
    )


def _of_jobs(ledger: LedgerListing, sent: Mapping[str, Alert], at: datetime) -> Iterator[Alert]:
    for each in read_regressions(ledger, at=at).of_kind(RegressionKind.BROKEN):
        subject = subject_of("job", each.job)
        if subject not in sent or sent[subject].since != each.time:
            yield _broken(subject, each)
    open_jobs = {subject for subject in sent if sent[subject].problem is AlertKind.BROKEN}
    if not open_jobs:
        return
    for name, runs in past_runs(ledger, at):
        subject, last = subject_of("job", name), runs[-1]
        # A job that fails for more runs than are read is not `broken` any more, but has not recovered.
        if subject in open_jobs and last.is_ok:
            yield _recovered(sent[subject], last.run_id)


def _of_tables(
    ledger: LedgerListing, sent: Mapping[str, Alert], at: datetime, tolerance: float
) -> Iterator[Alert]:
    for each in read_overdue(ledger, at=at, tolerance=tolerance).tables:
        subject = subject_of("table", each.table.table_id or str(each.table.uri))
        before = sent.get(subject)
        if each.state is TableState.LATE:
            if before is None or before.since != each.last:
                yield _overdue(subject, each)
        elif before is not None and each.last > before.since:
            yield _recovered(before, each.run_id)


def _broken(subject: str, found: Regression) -> Alert:
    error = f" ({_shown(found.error_type)})" if found.error_type else ""
    name = _shown(found.job)
    return Alert(
        kind=AlertKind.BROKEN,
        problem=AlertKind.BROKEN,
        subject=subject,
        name=name,
        since=found.time,
        run_id=found.run_id,
        text=f"job {name} is broken since {_time(found.time)}:"
        f" {found.value:g} of its last {count_of(found.typical, 'run')} failed{error}",
    )


def _overdue(subject: str, found: TableCadence) -> Alert:
    name = _shown(found.table.name or found.table.table_id)
    due = "" if found.due is None else f", due until {_time(found.due)}"
    job = f"; job {_shown(found.job)}" if found.job else ""
    return Alert(
        kind=AlertKind.OVERDUE,
        problem=AlertKind.OVERDUE,
        subject=subject,
        name=name,
        since=found.last,
        run_id=found.run_id,
        text=f"table {name} is overdue: last change {_time(found.last)}{due}{job}",
    )


def _recovered(before: Alert, run_id: str | None) -> Alert:
    kind = before.subject.partition(":")[0]
    was = (
        f"it was broken since {_time(before.since)}"
        if before.problem is AlertKind.BROKEN
        else f"it was overdue, with the last change {_time(before.since)}"
    )
    return Alert(
        kind=AlertKind.RECOVERED,
        problem=before.problem,
        subject=before.subject,
        name=before.name,
        since=before.since,
        run_id=run_id,
        text=f"{kind} {before.name} has recovered: {was}",
    )


def _time(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")


def _shown(name: str | None) -> str:
    return visible(name or "?", NAME_CHARACTERS)
