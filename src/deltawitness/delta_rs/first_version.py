"""Refuse a RESTORE to a timestamp before the first version in a table's log.

delta-rs silently restores the first version for such a timestamp.
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
        timestamps: when it was committed, by each clock that is available: the commit's in-commit
            timestamp, its plain timestamp, and the modification time of its file, by which delta-rs
            finds a version.
    """

    number: int
    timestamps: tuple[dt.datetime, ...]


def check_not_before_first(table: DeltaTable, timestamp: dt.datetime) -> None:
    """Refuse to restore a table to a timestamp before its first version.

    Clocks of writers and of storage differ, so the timestamp is refused only where it is before the
    first version by all of them.

    Args:
        table: the open table.
        timestamp: the timestamp, with a time zone.

    Raises:
        StatementError: the timestamp is before the first version.
    """
    first = _first_version(table)
    if first is None or not first.timestamps:
        return
    # A Delta log has timestamps in milliseconds.
    requested = _milliseconds(timestamp)
    if all(requested < _milliseconds(each) for each in first.timestamps):
        which = (
            "the table's first version" if first.number == 0 else "what the table's log still has"
        )
        msg = (
            f"RESTORE: the timestamp is before {which}: version {first.number} is of"
            f" {first.timestamps[0].isoformat(timespec='milliseconds')}"
        )
        raise StatementError(msg)


def _milliseconds(timestamp: dt.datetime) -> int:
    """Return the milliseconds since the Unix epoch, rounded down."""
    return (timestamp - _EPOCH) // dt.timedelta(milliseconds=1)


def _first_version(table: DeltaTable) -> FirstVersion | None:
    log = open_log(table.table_uri, storage_options_of(table))
    versions = log.versions()
    if not versions:
        return None
    number = versions[0]
    info = _commit_info(log.read(number) or b"")
    values = (info.get(name) for name in ("inCommitTimestamp", "timestamp"))
    timestamps = [_EPOCH + dt.timedelta(milliseconds=ms) for ms in values if isinstance(ms, int)]
    modified = modified_at(table, commit_path(number))
    return FirstVersion(number, (*timestamps, *(() if modified is None else (modified,))))


def _commit_info(content: bytes) -> dict[str, Any]:
    """Return the `commitInfo` of a commit; empty where there is none, or where it cannot be parsed."""
    for line in content.splitlines():
        try:
            action = json.loads(line)
        except ValueError:
            continue
        if isinstance(action, dict) and isinstance(action.get("commitInfo"), dict):
            found: dict[str, Any] = action["commitInfo"]
            return found
    return {}
