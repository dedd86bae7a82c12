"""Check the files of a table: their sizes, their partitions, and what is on the storage besides them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from deltawitness.answers.health.checks import Checkup, in_words
from deltawitness.answers.health.table_state import ActiveFile, TableState
from deltawitness.answers.health.values import HealthCheck, HealthFinding, Severity, SizeBucket
from deltawitness.answers.stored_files import StoredFile
from deltawitness.plurals import count_of

__all__ = [
    "Leftovers",
    "check_file_sizes",
    "check_files",
    "check_leftovers",
    "check_partitions",
    "leftovers_of",
    "size_histogram",
]

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30

BOUNDS = (64 * _KIB, _MIB, 16 * _MIB, 128 * _MIB, _GIB)
"""The upper bounds of the histogram's buckets in bytes; the last bucket has none."""

TARGET = 100 * _MIB
"""The size in bytes of the files that a compaction of delta-rs writes by default."""

FEW_FILES = 10
"""Files that a compaction would save, below which there is no finding."""

MANY_FILES = 100
"""The same number from which on the finding is a warning."""

SKEW = 10
"""How many times the median a partition has to be, to be named."""

LARGE_PARTITION = 64 * _MIB
"""Size in bytes from which on a skewed partition is a warning."""

ORPHAN_AGE = dt.timedelta(hours=1)
"""Age of an unknown file from which on it is not that of a write that has not committed yet."""

RETENTION = dt.timedelta(days=7)
"""How long delta-rs retains removed files, if the table has no property for it."""


def size_histogram(files: Iterable[ActiveFile]) -> tuple[SizeBucket, ...]:
    """Return the number and size of files by size.

    >>> [(each.below, each.files) for each in size_histogram([ActiveFile("a", 5, 1)]) if each.files]
    [(65536, 1)]
    """
    counts = [0] * (len(BOUNDS) + 1)
    sizes = [0] * (len(BOUNDS) + 1)
    for file in files:
        number = sum(file.size >= bound for bound in BOUNDS)
        counts[number] += 1
        sizes[number] += file.size
    return tuple(
        SizeBucket(bound, count, size)
        for bound, count, size in zip((*BOUNDS, None), counts, sizes, strict=True)
    )


# --- small files, partitions -------------------------------------------------------------------------


def check_files(checkup: Checkup) -> Iterator[HealthFinding]:
    """Yield findings about small files, and about files that are missing on the storage."""
    state = checkup.state
    if state.snapshot is None:
        return
    groups = _by_partition(state.snapshot.files)
    saved = sum(_saved(files) for files in groups.values())
    if saved >= FEW_FILES:
        files = state.snapshot.files
        mean = sum(file.size for file in files) // len(files)
        yield checkup.finding(
            HealthCheck.SMALL_FILES,
            Severity.WARNING if saved >= MANY_FILES else Severity.INFO,
            f"{count_of(len(files), 'file')} of {in_words(mean)} on average: a compaction would leave about"
            f" {len(files) - saved:,}",
            command=checkup.repairs.write("optimize.compact()"),
            files=len(files),
            mean_bytes=mean,
            files_after=len(files) - saved,
        )
    if state.stored is None:
        return
    paths = (file.path for file in state.snapshot.files)
    missing = sorted(path for path in paths if "://" not in path and path not in state.stored)
    if missing:
        yield checkup.finding(
            HealthCheck.MISSING_FILES,
            Severity.ERROR,
            f"{count_of(len(missing), 'file')} of version {state.snapshot.version} not on the storage, such"
            f" as {missing[0]}: restore them from a copy. `repair()` removes them and their rows from the"
            " table; with `dry_run=True` it only lists them",
            command=checkup.repairs.write("repair(dry_run=True)"),
            files=missing[:100],
            version=state.snapshot.version,
        )


def check_file_sizes(checkup: Checkup) -> Iterator[HealthFinding]:
    """Yield a finding if files of the newest version have another size than the log says."""
    state = checkup.state
    if state.snapshot is None or state.stored is None:
        return
    found = {
        file.path: (file.size, state.stored[file.path].size)
        for file in state.snapshot.files
        if file.size and file.path in state.stored and state.stored[file.path].size != file.size
    }
    if found:
        path, (logged, stored) = next(iter(found.items()))
        yield checkup.finding(
            HealthCheck.DAMAGED_FILES,
            Severity.ERROR,
            f"{count_of(len(found), 'file')} of version {state.snapshot.version} with another size than in the"
            f" log, such as {path} ({count_of(logged, 'byte')} in the log, {stored:,} stored): restore from"
            " a copy",
            files=list(found)[:100],
            version=state.snapshot.version,
        )


def _saved(files: list[ActiveFile]) -> int:
    """Return how many files of one partition a compaction would save."""
    small = [file.size for file in files if file.size < TARGET]
    return max(0, len(small) - max(1, -(-sum(small) // TARGET)))


def _by_partition(files: Iterable[ActiveFile]) -> dict[str, list[ActiveFile]]:
    groups: dict[str, list[ActiveFile]] = {}
    for file in files:
        name = "/".join(f"{column}={value}" for column, value in file.partition)
        groups.setdefault(name, []).append(file)
    return groups


def check_partitions(checkup: Checkup) -> Iterator[HealthFinding]:
    """Yield a finding if one partition is much larger than the others."""
    snapshot = checkup.state.snapshot
    if snapshot is None or not snapshot.partition_columns:
        return
    sizes = {
        name: sum(file.size for file in files)
        for name, files in _by_partition(snapshot.files).items()
    }
    if len(sizes) < MIN_PARTITIONS:
        return
    largest = max(sizes, key=sizes.__getitem__)
    middle = max(1, int(median(sizes.values())))
    if sizes[largest] < SKEW * middle:
        return
    yield checkup.finding(
        HealthCheck.PARTITION_SKEW,
        Severity.WARNING if sizes[largest] >= LARGE_PARTITION else Severity.INFO,
        f"partition {largest} has {in_words(sizes[largest])}, {sizes[largest] // middle} times the median of"
        f" {len(sizes):,} partitions: other partition columns would spread it",
        partition=largest,
        bytes=sizes[largest],
        median_bytes=middle,
        partitions=len(sizes),
    )


MIN_PARTITIONS = 4
"""Number of partitions from which on their sizes are compared."""


# --- files besides those of the newest version -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leftovers:
    """The files on the storage that the newest version does not have.

    Attributes:
        held: files that commits of the log have removed: old versions need them.
        due: those of `held` whose retention is over.
        orphans: files that no commit of the log names, older than `ORPHAN_AGE`.
    """

    held: tuple[StoredFile, ...]
    due: tuple[StoredFile, ...]
    orphans: tuple[StoredFile, ...]


def leftovers_of(state: TableState, now: dt.datetime) -> Leftovers | None:
    """Return the files that the newest version does not have; None if they are not known."""
    if state.stored is None or state.snapshot is None:
        return None
    active = state.snapshot.paths
    removed = {
        path: file.removed_ms for commit in state.commits for path, file in commit.removed.items()
    }
    known = removed.keys() | {path for commit in state.commits for path in commit.added}
    limit_ms = int((now - _retention(state)).timestamp() * 1000)
    held, due, orphans = [], [], []
    for path, file in state.stored.items():
        if path in active:
            continue
        if path in known:
            held.append(file)
            if (removed.get(path) or limit_ms) < limit_ms:
                due.append(file)
        elif file.modified is None or file.modified < now - ORPHAN_AGE:
            orphans.append(file)
    return Leftovers(tuple(held), tuple(due), tuple(orphans))


_INTERVAL = re.compile(r"(?:interval\s+)?(\d+)\s+(second|minute|hour|day|week)s?", re.IGNORECASE)


def _retention(state: TableState) -> dt.timedelta:
    properties = state.snapshot.properties if state.snapshot else {}
    match = _INTERVAL.fullmatch(properties.get("delta.deletedFileRetentionDuration", "").strip())
    return RETENTION if match is None else dt.timedelta(**{f"{match[2].lower()}s": int(match[1])})


def check_leftovers(checkup: Checkup, found: Leftovers | None) -> Iterator[HealthFinding]:
    """Yield findings about files that only old versions need, and about orphans."""
    state = checkup.state
    if found is None or state.snapshot is None:
        return
    size = sum(file.size for file in state.snapshot.files)
    held, due, orphans = (_size(files) for files in (found.held, found.due, found.orphans))
    if found.held:
        is_much = bool(found.due) and due > max(size, _MIB)
        text = f"{count_of(len(found.held), 'file')} of old versions with {in_words(held)}"
        ready = (
            f"; the retention of {len(found.due):,} ({in_words(due)}) is over" if found.due else ""
        )
        yield checkup.finding(
            HealthCheck.OLD_VERSIONS,
            Severity.WARNING if is_much else Severity.INFO,
            f"{text}, and the newest version has {in_words(size)}{ready}",
            command=checkup.repairs.write("vacuum(dry_run=False)") if found.due else None,
            files=len(found.held),
            bytes=held,
            due_files=len(found.due),
            due_bytes=due,
            active_bytes=size,
        )
    if found.orphans:
        yield checkup.finding(
            HealthCheck.ORPHANS,
            Severity.WARNING if orphans > max(size // 10, _MIB) else Severity.INFO,
            f"{count_of(len(found.orphans), 'file')} with {in_words(orphans)} named by no commit of the"
            " log: failed writes left them, or the log's retention deleted their commits",
            command=checkup.repairs.write("vacuum(dry_run=False, full=True)"),
            files=len(found.orphans),
            bytes=orphans,
            examples=[file.path for file in found.orphans[:5]],
        )


def _size(files: Iterable[StoredFile]) -> int:
    return sum(file.size for file in files)
