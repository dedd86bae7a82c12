"""A table's log as a reconcile reads it: each commit reduced to what a row needs, the rest let go."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeAlias, TypeGuard

from deltawitness.commit.log import CommitLog, LocalLog
from deltawitness.commit.outcome import RawCommit, metrics_of
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
"""`(table, done, of)`: is told now and then how many of a table's commits have been read."""

FOREIGN = "foreign:"
"""What the id of a row begins with whose commit has none of ours: a caller's own may be that of many."""

READERS = 16
"""Threads that read a remote log."""

COMMITS_PER_PROGRESS = 200
"""Commits after which progress is told."""

LONGEST_GAP = 1000
"""Versions that a listing may leave out in a row and are asked for all the same."""

_LATEST_MS = 253_402_300_799_999
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VERSION_7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
"""The form of the ids that this library makes; a caller's own UUID is seldom of it."""


class _Unknown:
    """The name of a table before the first commit that was read."""


UNKNOWN = _Unknown()


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit, as far as a row is made of it.

    Attributes:
        info: its `commitInfo`.
        row_id: the write id that its row has when it is made from the log.
        ids: every write id that it answers to.
        is_witnessed: whether it carries our metadata.
        is_named: whether it carries a write id of our form, so that it belongs to that write alone.
        time: milliseconds since the Unix epoch, if anything in it says so.
        metrics: its own; not looked at when a row was is_recorded to tell of it.
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
        """The version that it made."""
        return self.info.version


@dataclass(slots=True)
class LogRead:
    """What was read of a table's log.

    Attributes:
        target: the table.
        guid: the id in its metadata, which another table in its place does not have.
        created_ms: milliseconds of commit 0, when the log still has it.
        start: the first version that was to be read.
        versions: what the log holds, below `start` as well.
        commits: the commits from there on, ascending.
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
    """Return the name that a table had before a version, or at it where that is gone.

    A local log is looked through backwards: the engine reads all of it from its checkpoint on.
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
        except Exception:  # noqa: BLE001, S112 - a name is no reason to fail
            continue
    return None


def _name_in(metadata: dict[str, Any]) -> str | None:
    name = metadata.get("name")
    return name if isinstance(name, str) else None


def versions_in(log: CommitLog) -> list[int]:
    """Return the versions of a log, in order.

    A directory that is listed while commits come in may show a later one and not the one before it,
    so short gaps are counted in: whether there is a commit is seen when it is read.
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
) -> None:
    """Read the commits of a table from where it is to begin.

    Args:
        found: takes what is read.
        log: the table's log.
        is_recorded: tells whether a row is is_recorded already, so that none will be made.
        progress: is told how far it is.

    Raises:
        OSError: the storage cannot be read.
    """
    uri = found.target.uri
    wanted = [version for version in found.versions if version >= found.start]
    name: str | _Unknown | None = None if found.start == 0 and wanted[:1] == [0] else UNKNOWN
    for done, (version, raw) in enumerate(_contents(log, wanted)):
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


def _contents(log: CommitLog, versions: list[int]) -> Iterator[tuple[int, bytes | None]]:
    if isinstance(log, LocalLog):
        for version in versions:
            yield version, log.read(version)
        return
    with ThreadPoolExecutor(READERS, "deltawitness-reconcile") as readers:
        for batch in _batched(versions):
            yield from zip(batch, readers.map(log.read, batch), strict=True)


def _batched(versions: list[int]) -> Iterator[list[int]]:
    """Yield a few at a time, so that no more than those are held as they were read."""
    for start in range(0, len(versions), COMMITS_PER_PROGRESS):
        yield versions[start : start + COMMITS_PER_PROGRESS]


def _commit(
    uri: str,
    version: int,
    raw: bytes,
    name: str | _Unknown | None,
    is_recorded: Callable[[frozenset[str]], bool],
) -> Commit:
    info = parse_commit(version, raw)
    own = _own_id(info)
    row_id = own or _foreign_id(uri, version, raw)
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
    """Return the id that we have given to a write; from the mirror where the caller has put its own."""
    flat = info.metadata.get(CommitKey.WRITE_ID)
    # What is not the flat one is the mirrored one, which is ours.
    said = sorted(info.write_ids, key=lambda name: name == flat)
    return next((name for name in said if _ID.fullmatch(name)), None)


def _foreign_id(uri: str, version: int, raw: bytes) -> str:
    """Return an id made of what a commit holds: found again, and no other commit's."""
    place = f"{uri}\0{version}\0".encode("utf-8", "surrogatepass")
    return FOREIGN + sha256(place + raw).hexdigest()[:32]


def _metrics(info: CommitMetadata, raw: bytes) -> CommitMetrics:
    operation = metrics_operation_of(info.operation, info.witness.get(CommitKey.CACHE_OPERATION))
    try:
        return metrics_of(operation, [RawCommit(info.version, raw)])
    except (
        ValueError,
        TypeError,
        AttributeError,
    ):  # damaged actions: the commit stands all the same
        return CommitMetrics()


def time_of(info: CommitMetadata, raw: bytes) -> int | None:
    """Return the milliseconds of a commit; those of its files where it does not say so itself."""
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
    """Return the first action of a kind in a commit, if there is one that can be read."""
    mark = f'"{kind}"'.encode()
    lines: Iterable[bytes] = raw.splitlines() if mark in raw else ()
    found = (_content(line) for line in lines if mark in line[: len(mark) + 4])
    return next((action for action in found if action), None)


def _content(line: bytes) -> dict[str, Any]:
    try:
        action = json.loads(line)
        content = next(iter(action.values()))
    except (ValueError, AttributeError, StopIteration):
        return {}
    return content if isinstance(content, dict) else {}
