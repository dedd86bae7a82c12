"""Check the commits of a table against the ledger: observation, gaps, and conflicts of writers."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from deltawitness.answers.health.checks import Checkup, versions_text
from deltawitness.answers.health.values import HealthCheck, HealthFinding, Severity
from deltawitness.answers.logged_files import LoggedCommit
from deltawitness.answers.predicates import is_since
from deltawitness.ledger.drain.drain import GRACE
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.ledger.tables.shards import open_parts
from deltawitness.plurals import count_of
from deltawitness.semconv import CONFLICT_TYPES, EXPIRED_PROPERTY, CacheResult, CommitKey
from deltawitness.sql_quoting import quote_literal

__all__ = ["LedgerSide", "check_conflicts", "check_ledger", "check_observation"]

CONFLICT_DAYS = 30
"""Days of the ledger that are searched for conflicts."""

_COMMITTED = (CacheResult.WRITE.value, CacheResult.ERROR.value)


@dataclass(frozen=True, slots=True)
class LedgerSide:
    """The ledger of a question.

    Attributes:
        listing: the ledger to query.
        expired_before: time before which its rows were expired; None if none were.
    """

    listing: LedgerListing
    expired_before: dt.datetime | None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def query(self, sql: str) -> list[Row]:
        """Return the rows of a query; tables on object stores are checked by several threads.

        Args:
            sql: the query.

        Raises:
            OSError: the ledger's storage cannot be read.
        """
        with self._lock:
            return self.listing.query(sql)

    @classmethod
    def of(cls, listing: LedgerListing) -> LedgerSide | None:
        """Return the ledger; None if it has no operations.

        Raises:
            OSError: the ledger's storage cannot be read.
        """
        if not listing.has(INVENTORY):
            return None
        main = open_parts(listing.root, [INVENTORY])[INVENTORY].main
        day = None if main is None else main.metadata().configuration.get(EXPIRED_PROPERTY)
        expired = None if day is None else dt.datetime.fromisoformat(f"{day}T00:00+00:00")
        return cls(listing, expired)


# --- observation -------------------------------------------------------------------------------------


def check_observation(checkup: Checkup) -> Iterator[HealthFinding]:
    """Yield a finding if commits do not have our metadata."""
    commits = checkup.state.commits
    observed = [commit.version for commit in commits if commit.metadata.witness]
    foreign = [each for each in commits if not each.metadata.witness and not each.is_damaged]
    later = [commit for commit in foreign if observed and commit.version > observed[0]]
    if not foreign:
        return
    if not later:
        text = f"{count_of(len(foreign), 'commit')} made before the table was observed"
        if not observed:
            count = count_of(len(foreign), "commit")
            text = f"none of {count} is observed: start writers with `deltawitness run`"
        severity, shown = Severity.INFO, foreign
    else:
        text = (
            f"{len(later):,} of {count_of(len(commits), 'commit')} not observed:"
            f" {versions_text(commit.version for commit in later)}, by {_engines(later)}"
        )
        severity, shown = Severity.WARNING, later
    yield checkup.finding(
        HealthCheck.UNANNOTATED,
        severity,
        text,
        command=checkup.repairs.question("reconcile", "--apply"),
        commits=len(shown),
        versions=[commit.version for commit in shown[-100:]],
        engines=dict(Counter(_engine(commit) for commit in shown)),
    )


def _engine(commit: LoggedCommit) -> str:
    return commit.metadata.engine_info or "an unknown engine"


def _engines(commits: Sequence[LoggedCommit]) -> str:
    return ", ".join(name for name, _ in Counter(map(_engine, commits)).most_common(3))


# --- gaps --------------------------------------------------------------------------------------------


def check_ledger(checkup: Checkup, side: LedgerSide) -> Iterator[HealthFinding]:
    """Yield findings about observed commits without a row, and about rows without a commit."""
    commits = checkup.state.commits
    if not commits:
        return
    conditions = [
        f"table_uri = {quote_literal(checkup.state.uri)}",
        is_in("result", _COMMITTED),
        f"version >= {commits[0].version}",
    ]
    rows = side.query(
        f"SELECT write_id, version, versions FROM inventory WHERE {' AND '.join(conditions)}"  # noqa: S608 - quoted
    )
    ids = {row["write_id"] for row in rows}
    oldest, newest = side.expired_before, checkup.now - dt.timedelta(seconds=GRACE)
    missing = [
        commit.version
        for commit in commits
        if commit.metadata.write_ids
        and not commit.metadata.write_ids & ids
        and _is_between(_time(commit), oldest, newest)
    ]
    if missing:
        yield checkup.finding(
            HealthCheck.LEDGER_GAP,
            Severity.WARNING,
            f"the ledger lacks {count_of(len(missing), 'observed commit')}: {versions_text(missing)}",
            command=checkup.repairs.question("reconcile", "--apply"),
            versions=missing[-100:],
        )
    there = set(checkup.state.versions)
    phantom = sorted(
        {
            version
            for row in rows
            for version in row["versions"] or [row["version"]]
            if version not in there and version >= commits[0].version
        }
    )
    if phantom:
        yield checkup.finding(
            HealthCheck.LEDGER_GAP,
            Severity.WARNING,
            f"the ledger has {versions_text(phantom)}, which the log lacks: the table was recreated or"
            " restored from a copy",
            command=checkup.repairs.question("reconcile", "--full"),
            phantom=phantom[-100:],
        )


def _is_between(time: dt.datetime | None, oldest: dt.datetime | None, newest: dt.datetime) -> bool:
    return time is None or ((oldest is None or time >= oldest) and time <= newest)


def _time(commit: LoggedCommit) -> dt.datetime | None:
    if commit.metadata.timestamp is None:
        return None
    try:
        return dt.datetime.fromtimestamp(commit.metadata.timestamp / 1000, tz=dt.UTC)
    except (OverflowError, OSError, ValueError):  # a log may have any number
        return None


# --- conflicts ---------------------------------------------------------------------------------------


def check_conflicts(checkup: Checkup, side: LedgerSide) -> Iterator[HealthFinding]:
    """Yield a finding about writes that have lost against concurrent commits: who against whom."""
    since = checkup.now - dt.timedelta(days=CONFLICT_DAYS)
    table = f"table_uri = {quote_literal(checkup.state.uri)}"
    conditions = [table, is_in("error_type", CONFLICT_TYPES), *is_since("event_time", since)]
    rows = side.query(
        "SELECT event_time, duration_ms, write_id, run_id, job, operation FROM inventory"  # noqa: S608 - quoted
        f" WHERE {' AND '.join(conditions)} ORDER BY event_time"
    )
    if not rows:
        return
    pairs: Counter[tuple[str, str]] = Counter()
    for row in rows:
        winners = {_writer(commit) for commit in _during(row, checkup.state.commits)}
        for winner in winners or {"a commit that is not in the log"}:
            pairs[f"{row['operation']} of {row['job'] or 'no job'}", winner] += 1
    named = "; ".join(
        f"{loser} lost {count_of(count, 'time')} against {winner}"
        for (loser, winner), count in pairs.most_common(3)
    )
    more = f", and {count_of(len(pairs) - 3, 'more pair')}" if len(pairs) > 3 else ""  # noqa: PLR2004 - as above
    yield checkup.finding(
        HealthCheck.CONFLICTS,
        Severity.WARNING,
        f"{count_of(len(rows), 'write')} failed by conflicts in {CONFLICT_DAYS} days: {named}{more}",
        command=checkup.repairs.question_of("errors", "--since", f"{CONFLICT_DAYS}d"),
        failures=len(rows),
        pairs=[
            {"loser": loser, "winner": winner, "count": count}
            for (loser, winner), count in pairs.most_common()
        ],
        last=rows[-1]["event_time"],
    )


def _during(row: dict[str, Any], commits: Sequence[LoggedCommit]) -> list[LoggedCommit]:
    """Return the commits of others while a write was in the engine, else the last one before its end.

    A write through a handle that was opened before may lose against a commit before its start.
    """
    start, end = row["event_time"], row["event_time"]
    end += dt.timedelta(milliseconds=(row["duration_ms"] or 0) + 1)
    others = [
        (time, commit)
        for commit in commits
        if row["write_id"] not in commit.metadata.write_ids
        and (time := _time(commit)) is not None
        and time <= end
    ]
    during = [commit for time, commit in others if time >= start]
    return during or [commit for _, commit in others[-1:]]


def _writer(commit: LoggedCommit) -> str:
    job = commit.metadata.witness.get(CommitKey.JOB_NAME)
    who = job if isinstance(job, str) else _engine(commit)
    return f"{commit.metadata.operation or 'a commit'} of {who}"
