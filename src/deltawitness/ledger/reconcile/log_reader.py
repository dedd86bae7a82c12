"""Read a table's log for a reconcile, reducing each commit to what its row needs."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeAlias, TypeGuard

from deltawitness.commit.log import CommitLog, LocalLog
from deltawitness.commit.outcome import RawCommit, metrics_of
from deltawitness.commit.parallel import LogReaders
from deltawitness.commit.reader import CommitMetadata, parse_commit
from deltawitness.events import CommitMetrics
from deltawitness.ledger.reconcile.targets import Target
from deltawitness.ledger.tables.operation_names import metrics_operation_of
from deltawitness.semconv import CommitKey

__all__ = [
    "FOREIGN",
    "Commit",
    "LogRead",
    "Progress",
    "first_action",
    "read_log",
    "time_of",
    "versions_in",
]

Progress: TypeAlias = Callable[[str, int, int], None]
"""`(table, done, of)`: called now and then with the number of commits read of a table's log."""

FOREIGN = "foreign:"
"""Prefix of the write id of a commit without one of deltawitness. A caller's own id may be on many
commits."""

UNNAMED = "spark:"
"""Prefix of the write id of a commit that has a run, and no write id: one of a streaming query of Spark."""

COMMITS_PER_PROGRESS = 200
"""Commits between two calls of `progress`."""

LONGEST_GAP = 1000
"""Longest gap of versions in a listing whose commits are read nevertheless."""

_LATEST_MS = 253_402_300_799_999
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VERSION_7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
"""The form of the ids that this library creates (UUIDv7); a caller's own UUID rarely has it."""


class _Unknown:
    """The table's name before the first commit that was read, not looked up yet."""


UNKNOWN = _Unknown()


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit, reduced to what its row needs.

    Attributes:
        info: its `commitInfo`.
        row_id: the write id of its row, if the row is made from the log.
        ids: every write id that identifies it.
        is_witnessed: whether it has our metadata.
        is_named: whether it has a write id in deltawitness's form, and so belongs to that write only.
        time: milliseconds since the Unix epoch; None if the commit has no time.
        metrics: its metrics; empty if the commit has a row already.
        name: the table's name in its metadata before this commit.
    """

    info: CommitMetadata
    row_id: str
    ids: frozenset[str]
    is_witnessed: bool
    is_named: bool
    time: int | None
    metrics: CommitMetrics
    name: str | _Unknown | None

    @property
    def version(self) -> int:
        """The version of the commit."""
        return self.info.version


@dataclass(slots=True)
class LogRead:
    """The part of a table's log that was read.

    Attributes:
        target: the table.
        guid: the id in the table's metadata; another table at the same location has another id.
        created_ms: time of commit 0 in milliseconds since the Unix epoch; of the table's creation
            when commit 0 is gone; None if unknown.
        start: the first version to read.
        versions: the versions in the log, including those before `start`.
        commits: the commits from `start` on, ascending.
    """

    target: Target
    guid: str | None
    created_ms: int | None
    start: int
    versions: list[int]
    commits: list[Commit] = field(default_factory=list)
    _first_name: str | _Unknown | None = UNKNOWN

    def name_before(self, commit: Commit) -> str | None:
        """Return the table's name in its metadata before a commit."""
        if not isinstance(commit.name, _Unknown):
            return commit.name
        if isinstance(self._first_name, _Unknown):
            self._first_name = _name_at(self.target, self.commits[0].version)
        return self._first_name


def _name_at(target: Target, version: int) -> str | None:
    """Return the table's name before a version, or at it if the earlier version is gone.

    A local log is searched backwards, because delta-rs would read all of it from its checkpoint on.
    """
    log = target.log()
    earlier = reversed([v for v in log.versions() if v < version])
    for at in earlier if isinstance(log, LocalLog) else ():
        metadata = first_action(log.read(at) or b"", "metaData")
        if metadata is not None:
            return _name_in(metadata)
    return _name_opened(target, version)


def _name_opened(target: Target, version: int) -> str | None:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    for at in (version - 1, version):
        try:
            table = DeltaTable(target.location, at, storage_options=target.storage_options)
            return table.metadata().name
        except Exception:  # noqa: BLE001, S112 - the name is optional
            continue
    return None


def _name_in(metadata: dict[str, Any]) -> str | None:
    name = metadata.get("name")
    return name if isinstance(name, str) else None


def versions_in(log: CommitLog) -> list[int]:
    """Return the versions of a log, ascending, with short gaps filled.

    Listing a directory during commits can return a later version without an earlier one. Whether a
    version in a gap exists is found when it is read.
    """
    listed = [version for version in log.versions() if version < 1 << 63]
    filled = listed[:1]
    for before, version in itertools.pairwise(listed):
        filled += range(before + 1, version) if version - before <= LONGEST_GAP else ()
        filled.append(version)
    return filled


def read_log(
    found: LogRead,
    log: CommitLog,
    is_recorded: Callable[[frozenset[str]], bool],
    progress: Progress,
    readers: LogReaders,
) -> None:
    """Read the commits of a table from `found.start` on.

    Args:
        found: receives the commits.
        log: the table's log.
        is_recorded: returns whether a commit with these write ids has a row, so that none is made.
        progress: called with the number of commits read.
        readers: the threads that read a remote log.

    Raises:
        OSError: the storage cannot be read.
    """
    uri = found.target.uri
    wanted = [version for version in found.versions if version >= found.start]
    name: str | _Unknown | None = None if found.start == 0 and wanted[:1] == [0] else UNKNOWN
    for done, (version, raw) in enumerate(readers.commits(log, wanted)):
        if done % COMMITS_PER_PROGRESS == 0:
            progress(uri, done, len(wanted))
        if raw is None:
            continue
        found.commits.append(_commit(uri, version, raw, name, is_recorded))
        metadata = first_action(raw, "metaData")
        if metadata is not None:
            name = _name_in(metadata)
    there = {commit.version for commit in found.commits}
    found.versions = [v for v in found.versions if v < found.start or v in there]
    progress(uri, len(wanted), len(wanted))


def _commit(
    uri: str,
    version: int,
    raw: bytes,
    name: str | _Unknown | None,
    is_recorded: Callable[[frozenset[str]], bool],
) -> Commit:
    info = parse_commit(version, raw)
    own = _own_id(info)
    row_id = own or _hashed_id(UNNAMED if info.is_from_spark else FOREIGN, uri, version, raw)
    ids = info.write_ids | {row_id}
    return Commit(
        info=info,
        row_id=row_id,
        ids=ids,
        is_witnessed=own is not None or CommitKey.WITNESS_VERSION in info.witness,
        is_named=any(_VERSION_7.fullmatch(name) for name in info.write_ids),
        time=time_of(info, raw),
        metrics=CommitMetrics() if is_recorded(ids) else _metrics(info, raw),
        name=name,
    )


def _own_id(info: CommitMetadata) -> str | None:
    """Return deltawitness's write id in a commit; its mirror where the caller has set another id."""
    flat = info.metadata.get(CommitKey.WRITE_ID)
    # The id other than the flat one is the mirrored one, which is deltawitness's.
    ids = sorted(info.write_ids, key=lambda name: name == flat)
    return next((name for name in ids if _ID.fullmatch(name)), None)


def _hashed_id(prefix: str, uri: str, version: int, raw: bytes) -> str:
    """Return a write id of a prefix and a hash of a commit's location, version and content.

    A later reconcile gets the same id, and no other commit has it.
    """
    place = f"{uri}\0{version}\0".encode("utf-8", "surrogatepass")
    return prefix + sha256(place + raw).hexdigest()[:32]


def _metrics(info: CommitMetadata, raw: bytes) -> CommitMetrics:
    operation = metrics_operation_of(info.operation, info.witness.get(CommitKey.CACHE_OPERATION))
    try:
        return metrics_of(operation, [RawCommit(info.version, raw)])
    except (
        ValueError,
        TypeError,
        AttributeError,
    ):  # damaged actions: the commit counts, without metrics
        return CommitMetrics()


def time_of(info: CommitMetadata, raw: bytes) -> int | None:
    """Return a commit's time in milliseconds, else the newest time of its files."""
    if _is_time(info.timestamp):
        return info.timestamp
    lines = [line for line in raw.splitlines() if line.startswith((b'{"add"', b'{"remove"'))]
    times = [
        action.get(key)
        for action in map(_content, lines)
        for key in ("modificationTime", "deletionTimestamp")
    ]
    return max((time for time in times if _is_time(time)), default=None)


def _is_time(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LATEST_MS


def first_action(raw: bytes, kind: str) -> dict[str, Any] | None:
    """Return the first readable action of a kind in a commit; None if there is none."""
    marker = f'"{kind}"'.encode()
    lines: Iterable[bytes] = raw.splitlines() if marker in raw else ()
    found = (_content(line) for line in lines if marker in line[: len(marker) + 4])
    return next((action for action in found if action), None)


def _content(line: bytes) -> dict[str, Any]:
    try:
        action = json.loads(line)
        content = next(iter(action.values()))
    except (ValueError, AttributeError, StopIteration):
        return {}
    return content if isinstance(content, dict) else {}
