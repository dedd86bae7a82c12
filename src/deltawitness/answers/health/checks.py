"""What the checks of a table have in common: their input, and how a finding is made."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from deltawitness.answers.health.repairs import Repairs
from deltawitness.answers.health.table_state import TableState
from deltawitness.answers.health.values import HealthCheck, HealthFinding, Severity
from deltawitness.plurals import form_for

__all__ = ["Checkup", "in_words", "versions_text"]

SHOWN = 5
"""Maximum number of versions or names that a text lists."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """The input of the checks of one table.

    Attributes:
        state: what was read of it.
        repairs: makes the commands.
        now: the time of the question.
    """

    state: TableState
    repairs: Repairs
    now: dt.datetime

    def finding(
        self,
        check: HealthCheck,
        severity: Severity,
        text: str,
        *,
        command: str | None = None,
        **evidence: Any,
    ) -> HealthFinding:
        """Return a finding about the table."""
        return HealthFinding(
            check=check,
            severity=severity,
            table=self.state.name,
            uri=self.state.shown_uri,
            text=text,
            evidence=evidence,
            command=command,
        )


def versions_text(values: Iterable[int]) -> str:
    """Return versions as text; of many, the last ones.

    >>> versions_text([3]), versions_text(range(9))
    ('version 3', 'versions ..., 4, 5, 6, 7, 8')
    """
    found = list(values)
    more = "..., " if len(found) > SHOWN else ""
    return f"{form_for(len(found), 'version')} {more}{', '.join(map(str, found[-SHOWN:]))}"


_KIBI = 1024


def in_words(size: float) -> str:
    """Return a number of bytes in the largest unit that leaves at least 1.

    >>> in_words(0), in_words(1536)
    ('0 B', '2 KiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _KIBI:
            return f"{size:.0f} {unit}"
        size /= _KIBI
    return f"{size:.1f} TiB"
