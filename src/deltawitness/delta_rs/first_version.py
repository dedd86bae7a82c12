"""The first version that a table's log still has: there is nothing before it to restore.

delta-rs takes a timestamp before the first version for the first version, and says nothing.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from deltawitness.commit.log import commit_path, open_log
from deltawitness.commit.private_api import modified_at, storage_options_of
from deltawitness.exceptions import StatementError

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["check_not_before_first"]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class FirstVersion(NamedTuple):
    """The first version whose commit is in the log.

    Attributes:
        number: the version.
        moments: when it was committed, by each clock that tells: the commit's in-commit timestamp,
            its plain timestamp, and the time of its file, by which delta-rs finds a version.
    """

    number: int
    moments: tuple[dt.datetime, ...]


def check_not_before_first(table: DeltaTable, moment: dt.datetime) -> None:
    """Refuse to restore a table to a moment before its first version.

    Clocks of writers and of storage differ: a moment that is not before the first version by any of
    them is left to delta-rs.

    Args:
        table: the open table.
        moment: the moment, with its time zone.

    Raises:
        StatementError: the moment is before the first version.
    """
    first = _first_version(table)
    if first is None or not first.moments:
        return
    # Milliseconds are the finest that a log knows.
    asked = (moment - _EPOCH) // dt.timedelta(milliseconds=1)
    if all(asked < (each - _EPOCH) // dt.timedelta(milliseconds=1) for each in first.moments):
        which = (
            "the table's first version" if first.number == 0 else "what the table's log still has"
        )
        msg = (
            f"RESTORE: the timestamp is before {which}: version {first.number} is of"
            f" {first.moments[0].isoformat(timespec='milliseconds')}"
        )
        raise StatementError(msg)


def _first_version(table: DeltaTable) -> FirstVersion | None:
    log = open_log(table.table_uri, storage_options_of(table))
    versions = log.versions()
    if not versions:
        return None
    number = versions[0]
    info = _commit_info(log.read(number) or b"")
    said = (info.get(name) for name in ("inCommitTimestamp", "timestamp"))
    moments = [_EPOCH + dt.timedelta(milliseconds=ms) for ms in said if isinstance(ms, int)]
    modified = modified_at(table, commit_path(number))
    return FirstVersion(number, (*moments, *(() if modified is None else (modified,))))


def _commit_info(content: bytes) -> dict[str, Any]:
    """Return what a commit says of itself; nothing where it does not, or cannot be parsed."""
    for line in content.splitlines():
        try:
            action = json.loads(line)
        except ValueError:
            continue
        if isinstance(action, dict) and isinstance(action.get("commitInfo"), dict):
            found: dict[str, Any] = action["commitInfo"]
            return found
    return {}
