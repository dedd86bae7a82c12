"""Delete expired entries and vacuum replaced versions.

The age of an entry is the age of its rows. An entry past its retention loses its rows in one commit
that also marks it as pruned, then its files; the next request is a miss and computes it. Of the
other entries, files of versions that were replaced longer ago are deleted. The entry's lock is held,
so that no process of this machine computes the entry meanwhile; a frame that was served before and is
still being read may lose its files. Damaged entries are not touched; quarantined ones only on request.
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

from deltawitness.app_transactions import outside_block
from deltawitness.cache.entries.entry import (
    PRUNED,
    RETENTION,
    DamagedEntryError,
    Entry,
    details_of_entry,
    entry_metadata,
)
from deltawitness.cache.entries.listing import SCOPES
from deltawitness.cache.entries.locks import entry_lock
from deltawitness.cache.entries.plan_store import delete_plans
from deltawitness.cache.entries.policy import CachePolicy, check_duration, check_policy
from deltawitness.cache.entries.store import Entries
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.locations import local_path
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
from deltawitness.session.sql.observe_writes import observe_write
from deltawitness.telemetry.cache_spans import cache_span

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable

__all__ = ["PruneResult", "prune"]


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What `prune` deleted.

    Attributes:
        entries: entries that lost their rows.
        vacuumed: entries of which only files of replaced versions were deleted.
        set_aside: quarantined entries that were deleted.
        damaged: entries that could not be read, and were not touched.
        failed: entries that could not be pruned.
        files: number of data files deleted.
        bytes: their size in bytes, where it could be read.
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

    def to_result(self) -> PruneResult:
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
    """Delete expired entries and vacuum replaced versions.

    Args:
        entries: the entry store.
        locks: local folder of the lock files.
        policy: prune only entries stored under a policy with this name, by its retention; None: all
            entries, each by the retention that it was stored with.
        older_than: use this instead of any retention.
        set_aside: also delete quarantined entries that are older.

    Raises:
        ConfigurationError: `older_than` is not positive.
        OSError: the storage cannot be listed.
    """
    if policy is not None:
        check_policy(policy)
    if older_than is not None:
        check_duration("prune: older_than", older_than)
    tally = _Tally()
    for scope in SCOPES:
        for name in list(entries.names(scope)):
            with entry_lock(locks, f"{scope.value}.{name}"):
                try:
                    _prune_entry(entries, scope, name, policy, older_than, tally)
                except Exception as error:  # noqa: BLE001 - continue with the other entries
                    report("cache", error)
                    tally.names["failed"].append(name)
        limit = older_than or (None if policy is None else policy.retention)
        if set_aside and limit is not None:
            tally.names["set_aside"] += _delete_quarantined(entries, scope, limit)
    return tally.to_result()


@outside_block()
def _prune_entry(  # noqa: PLR0913, PLR0917 - the options of `prune`, an entry, and the result
    entries: Entries,
    scope: CacheScope,
    name: str,
    policy: CachePolicy | None,
    older_than: dt.timedelta | None,
    tally: _Tally,
) -> None:
    try:
        entry = entries.read_unshared(scope, name)  # its table is written below
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
        if age > limit and PRUNED not in entry.properties:
            _delete_rows(entry)
            details[DELTA_TABLE_VERSION] = entry.table.version()
            _wait_next_millisecond()
            _vacuum(entry, dt.timedelta(0), tally, entries.storage_options)
            delete_plans(entry.uri, frozenset())
            entries.remove_copies(entry)
            tally.names["entries"].append(name)
            return
        if _vacuum(entry, limit, tally, entries.storage_options):
            tally.names["vacuumed"].append(name)
        else:
            set_result(CacheResult.NOOP)
        delete_plans(entry.uri, frozenset(_recent_keys(entry, limit)))


def _recent_keys(entry: Entry, limit: dt.timedelta) -> Iterator[str]:
    """Yield the keys of the current version and of versions replaced within the limit."""
    earliest = now_ns() / 1e6 - limit.total_seconds() * 1000
    replaced_at = math.inf
    for commit in entry.table.history():  # newest first
        key = commit.get(CommitKey.CACHE_KEY.value)
        if key is not None:
            if replaced_at > earliest:
                yield key
            replaced_at = float(commit["timestamp"])


def _own_retention(entry: Entry) -> dt.timedelta | None:
    seconds = entry.properties.get(RETENTION)
    try:
        return None if seconds is None else dt.timedelta(seconds=float(seconds))
    except OverflowError:  # `timedelta.max`, rounded
        return None


def _delete_rows(entry: Entry) -> None:
    """Delete the rows of an entry and mark it as pruned, in one commit."""
    metadata = entry_metadata(None, entry.policy, {PRUNED: True})
    with observe_write(NO_ATTRIBUTES):
        before = entry.table.version()
        entry.table.delete(commit_properties=_commit_properties(metadata))
        if entry.table.version() == before:
            _commit_without_rows(entry.table, metadata)  # a delete without rows commits nothing


def _commit_without_rows(table: DeltaTable, metadata: dict[str, str]) -> None:
    from deltalake import write_deltalake  # noqa: PLC0415 - heavy

    with suppressed():  # only its schema is read
        no_rows = table.to_pyarrow_dataset().schema.empty_table()
    write_deltalake(table, no_rows, mode="append", commit_properties=_commit_properties(metadata))


def _wait_next_millisecond() -> None:
    """Sleep until the clock shows the next millisecond.

    Vacuum compares with `<` in milliseconds: it would keep files removed in the current one.
    """
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == now:
        time.sleep(0.0002)


def _commit_properties(metadata: dict[str, str]) -> CommitProperties:
    from deltalake import CommitProperties  # noqa: PLC0415 - heavy

    return CommitProperties(custom_metadata=metadata)


def _vacuum(
    entry: Entry, retention: dt.timedelta, tally: _Tally, storage_options: dict[str, str] | None
) -> int:
    """Delete the files of versions replaced longer ago than `retention`; return the number of files."""
    hours = math.ceil(retention.total_seconds() / 3600)  # the engine takes integer hours
    with suppressed():
        old = entry.table.vacuum(hours, dry_run=True, enforce_retention_duration=False)
    # A dry run also lists files that an earlier vacuum deleted: count only those that exist.
    sizes = _sizes(entry.uri, old, storage_options)
    if not sizes:
        return 0
    with observe_write(NO_ATTRIBUTES):
        entry.table.vacuum(hours, dry_run=False, enforce_retention_duration=False)
    tally.files += len(sizes)
    tally.bytes += sum(sizes.values())
    return len(sizes)


def _sizes(uri: str, paths: list[str], storage_options: dict[str, str] | None) -> dict[str, int]:
    """Return the size in bytes of each of these files that exists."""
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


# --- quarantined entries -------------------------------------------------------------------------------------

_ASIDE = re.compile(r"\.(.+)\.aside-([0-9a-f]{8})-([0-9a-f]{4})-[0-9a-f-]{22}")
"""Entry name, and the first 48 bits of a UUIDv7: milliseconds since the Unix epoch."""


def _delete_quarantined(entries: Entries, scope: CacheScope, limit: dt.timedelta) -> Iterator[str]:
    """Delete entries that were quarantined longer ago than the limit; yield their names."""
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
