"""Alerts, and the result of sending them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["Alert", "AlertKind", "MessageFormat", "NotifyResult", "subject_of"]


class AlertKind(StrEnum):
    """What has happened."""

    BROKEN = "broken"
    """The last runs of a job failed, and earlier ones did not."""
    OVERDUE = "overdue"
    """The next write of a table is late."""
    RECOVERED = "recovered"
    """A job that was broken has a run that ended with `ok`; or a table that was overdue was written."""


class MessageFormat(StrEnum):
    """How alerts are written."""

    JSON = "json"
    """A JSON object with the alerts."""
    SLACK = "slack"
    """A message of an incoming webhook of Slack."""
    TEAMS = "teams"
    """An adaptive card for a workflow of Microsoft Teams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A job or a table that has a problem, or has recovered from it.

    Attributes:
        kind: what has happened.
        problem: `broken` or `overdue`; for a recovery, what it has recovered from.
        subject: identity of the job or table: `job:` and its name, or `table:` and its id.
        name: name of the job or table.
        since: when the problem began: the start of the first run that failed, or the last write of the table.
        run_id: id of the last run of the job, or of the run that made the last write.
        text: the alert in one line.
    """

    kind: AlertKind
    problem: AlertKind
    subject: str
    name: str
    since: datetime
    run_id: str | None
    text: str

    @property
    def id(self) -> str:
        """Identity of the alert, the same each time that it is sent; a receiver skips one that it has."""
        text = f"{self.kind}\n{self.problem}\n{self.subject}\n{self.since.isoformat()}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def subject_of(kind: str, name: str) -> str:
    """Return the identity of a job (`job`, its name) or of a table (`table`, its id)."""
    return f"{kind}:{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyResult:
    """The result of :func:`deltawitness.notify`.

    Attributes:
        at: the time for which the ledger was judged.
        destination: scheme and host of the URL.
        alerts: the alerts that were sent, or would be sent without `dry_run`; oldest problem first.
        sent: number of alerts that the receiver has accepted.
        attempts: number of requests.
        error: why alerts were not delivered, without the URL; None if all were. The next call sends them.
        is_dry_run: whether nothing was sent.
    """

    at: datetime
    destination: str
    alerts: tuple[Alert, ...]
    sent: int = 0
    attempts: int = 0
    error: str | None = None
    is_dry_run: bool = False

    @property
    def is_ok(self) -> bool:
        """Whether no alert is left to send because of an error."""
        return self.error is None
