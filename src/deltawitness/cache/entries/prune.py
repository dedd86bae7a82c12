"""Letting go of what is kept longer than it should be: rows of old entries, old versions of the others.

An entry is as old as its rows. One that is older than its retention loses them in one commit, which
says so, and its files with it; asked for again it is a miss, and computed. Of the others the files of
versions that were replaced longer ago are deleted. It is done under the entry's lock, so that nobody
on this machine computes it meanwhile; a frame that was served before and is still read may lose its
files under it. What is damaged is never touched, and what was set aside only when that is asked for.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deltawitness.cache.entries.locks import entry_lock
from deltawitness.cache.entries.plan_store import delete_plans
from deltawitness.cache.entries.policy import CachePolicy, check_duration, check_policy
from deltawitness.cache.entries.store import (
    PRUNED,
    RETENTION,
    DamagedEntryError,
    Entries,
    Entry,
    details_of_entry,
    entry_metadata,
)
from deltawitness.commit.log import local_path
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.observe.write_context import NO_ATTRIBUTES
from deltawitness.run import cache_context, suppressed
from deltawitness.semconv import (
    DELTA_TABLE_VERSION,
    DIAGNOSTIC_CACHE_DAMAGED,
    SPAN_CACHE_PRUNE,
    CacheOperation,
    CacheResult,
    CacheScope,
    CommitKey,
)
from deltawitness.session.sql.write_facts import observe_write
from deltawitness.telemetry.cache_spans import cache_span

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable

__all__ = ["PruneResult", "prune"]


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What was let go of.

    Attributes:
        entries: those that have lost their rows.
        vacuumed: those of which only old versions have lost their files.
        set_aside: entries that had been set aside, and are deleted.
        damaged: those that could not be read, and were left alone.
        failed: those that could not be pruned, and were left as they were.
        files: how many files were deleted of tables.
        bytes: their size, as far as it is known.
    """

    entries: tuple[str, ...] = ()
    vacuumed: tuple[str, ...] = ()
    set_aside: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    files: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _Tally:
    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    files: int = 0
    bytes: int = 0

    def told(self) -> PruneResult:
        names = {kind: tuple(found) for kind, found in self.names.items()}
        return PruneResult(**names, files=self.files, bytes=self.bytes)


def prune(
    entries: Entries,
    locks: Path,
    *,
    policy: CachePolicy | None,
    older_than: dt.timedelta | None,
    set_aside: bool,
) -> PruneResult:
    """Let go of what is older than it should be.

    Args:
        entries: the cache's.
        locks: the local folder of its locks.
        policy: only what was kept under a policy of this name, and its retention; when None
            everything, each by the retention that it was kept with.
        older_than: in place of any retention.
        set_aside: delete as well what was set aside before that.

    Raises:
        ConfigurationError: the length of time is not positive.
        OSError: the storage cannot be listed.
    """
    if policy is not None:
        check_policy(policy)
    if older_than is not None:
        check_duration("prune: older_than", older_than)
    tally = _Tally()
    for scope in (CacheScope.VIEW, CacheScope.DATASET, CacheScope.ARTIFACT, CacheScope.METADATA):
        for name in list(entries.names(scope)):
            with entry_lock(locks, f"{scope.value}.{name}"):
                try:
                    _prune_entries(entries, scope, name, policy, older_than, tally)
                except Exception as error:  # noqa: BLE001 - the others are pruned all the same
                    report("cache", error)
                    tally.names["failed"].append(name)
        limit = older_than or (None if policy is None else policy.retention)
        if set_aside and limit is not None:
            tally.names["set_aside"] += _without_aside(entries, scope, limit)
    return tally.told()


def _prune_entries(  # noqa: PLR0913, PLR0917 - what it is asked for
    entries: Entries,
    scope: CacheScope,
    name: str,
    policy: CachePolicy | None,
    older_than: dt.timedelta | None,
    tally: _Tally,
) -> None:
    try:
        entry = entries.read(scope, name)
    except DamagedEntryError as damage:
        entries.diagnose(DIAGNOSTIC_CACHE_DAMAGED, scope, name, reason=str(damage))
        tally.names["damaged"].append(name)
        return
    if entry is None or (policy is not None and entry.policy != policy.name):
        return
    limit = older_than or (policy.retention if policy else None) or _own_retention(entry)
    if limit is None:
        return
    age = dt.timedelta(milliseconds=now_ns() / 1e6 - entry.made_at)
    details = {**entries.details_of(scope, name), **details_of_entry(entry)}
    with (
        cache_context(policy=entry.policy, scope=scope),
        cache_span(
            SPAN_CACHE_PRUNE,
            cache_policy=entry.policy,
            cache_scope=scope,
            operation=CacheOperation.PRUNE,
            details=details,
        ) as (_, set_result),
    ):
        if age > limit and PRUNED not in entry.facts:
            _delete_rows(entry)
            details[DELTA_TABLE_VERSION] = entry.table.version()
            _wait_next_millisecond()
            _vacuum(entry, dt.timedelta(0), tally, entries.storage_options)
            delete_plans(entry.uri, frozenset())
            tally.names["entries"].append(name)
            return
        if _vacuum(entry, limit, tally, entries.storage_options):
            tally.names["vacuumed"].append(name)
        else:
            set_result(CacheResult.NOOP)
        delete_plans(entry.uri, frozenset(_keys_within(entry, limit)))


def _keys_within(entry: Entry, limit: dt.timedelta) -> Iterator[str]:
    """Yield the keys of the versions of an entry that are served, or were until no longer ago."""
    earliest = now_ns() / 1e6 - limit.total_seconds() * 1000
    replaced_at = math.inf
    for commit in entry.table.history():  # the newest first
        key = commit.get(CommitKey.CACHE_KEY.value)
        if key is not None:
            if replaced_at > earliest:
                yield key
            replaced_at = float(commit["timestamp"])


def _own_retention(entry: Entry) -> dt.timedelta | None:
    known = entry.facts.get(RETENTION)
    try:
        return None if known is None else dt.timedelta(seconds=float(known))
    except OverflowError:  # `timedelta.max`, rounded
        return None


def _delete_rows(entry: Entry) -> None:
    """Delete the rows of an entry, in the commit that says that it is not to be served any more."""
    said = entry_metadata(None, entry.policy, {PRUNED: True})
    with observe_write(NO_ATTRIBUTES):
        before = entry.table.version()
        entry.table.delete(commit_properties=_properties(said))
        if entry.table.version() == before:
            _mark(entry.table, said)  # it had no rows


def _mark(table: DeltaTable, said: dict[str, str]) -> None:
    from deltalake import write_deltalake  # noqa: PLC0415 - heavy

    with suppressed():  # its schema is all that is wanted
        nothing = table.to_pyarrow_dataset().schema.empty_table()
    write_deltalake(table, nothing, mode="append", commit_properties=_properties(said))


def _wait_next_millisecond() -> None:
    """Wait for the next tick of the engine's clock: what was let go of in this one is not old to it."""
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == now:
        time.sleep(0.0002)


def _properties(said: dict[str, str]) -> CommitProperties:
    from deltalake import CommitProperties  # noqa: PLC0415 - heavy

    return CommitProperties(custom_metadata=said)


def _vacuum(
    entry: Entry, retention: dt.timedelta, tally: _Tally, storage_options: dict[str, str] | None
) -> int:
    """Delete the files of versions that were replaced longer ago; return how many there were."""
    hours = math.ceil(retention.total_seconds() / 3600)  # the engine counts in whole hours
    with suppressed():
        old = entry.table.vacuum(hours, dry_run=True, enforce_retention_duration=False)
    # The log goes on telling of files that were deleted long ago.
    sizes = _sizes(entry.uri, old, storage_options)
    if not sizes:
        return 0
    with observe_write(NO_ATTRIBUTES):
        entry.table.vacuum(hours, dry_run=False, enforce_retention_duration=False)
    tally.files += len(sizes)
    tally.bytes += sum(sizes.values())
    return len(sizes)


def _sizes(uri: str, paths: list[str], storage_options: dict[str, str] | None) -> dict[str, int]:
    """Return the sizes of those files of a table that are there."""
    if not paths:
        return {}
    folder = local_path(uri)
    if folder is not None:
        found = {path: Path(folder, path) for path in paths}
        return {path: file.stat().st_size for path, file in found.items() if file.exists()}
    from deltalake.fs import DeltaStorageHandler  # noqa: PLC0415 - only for remote caches
    from pyarrow.fs import FileType  # noqa: PLC0415 - only for remote caches

    infos = DeltaStorageHandler(uri, storage_options).get_file_info(paths)
    return {info.path: info.size or 0 for info in infos if info.type is FileType.File}


# --- what was set aside --------------------------------------------------------------------------------------

_ASIDE = re.compile(r"\.(.+)\.aside-([0-9a-f]{8})-([0-9a-f]{4})-[0-9a-f-]{22}")
"""The name of an entry, and the milliseconds since the Unix epoch that begin an id of ours."""


def _without_aside(entries: Entries, scope: CacheScope, limit: dt.timedelta) -> Iterator[str]:
    """Delete what was set aside longer ago than a limit, and yield the names."""
    folder = local_path(entries.folder_of(scope))
    if folder is None or not Path(folder).is_dir():
        return
    for path in sorted(Path(folder).iterdir()):
        match = _ASIDE.fullmatch(path.name)
        if match is None or not path.is_dir() or path.is_symlink():
            continue
        age = dt.timedelta(milliseconds=now_ns() / 1e6 - int(match[2] + match[3], 16))
        if age <= limit:
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:
            report("cache", error)
            continue
        yield match[1]
