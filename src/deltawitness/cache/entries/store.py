"""The entry store: where the tables of entries are, and how an entry is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.copies import EntryCopies, NotCopiedError
from deltawitness.cache.entries.entry import (
    DamagedEntryError,
    Entry,
    check_files,
    count_rows,
    parse_metadata,
    written_rows,
)
from deltawitness.commit.log import open_log, read_commits, reuse_reads, start_reads
from deltawitness.commit.reader import CommitMetadata, parse_commit
from deltawitness.forks import mark_delta_rs_used
from deltawitness.ids_and_clock import new_id
from deltawitness.internal_errors import report
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.locations import local_path, table_id
from deltawitness.observe.observer import current_observer
from deltawitness.redaction import table_name_for
from deltawitness.semconv import (
    CACHE_ENTRY,
    CACHE_NAME,
    DELTA_TABLE_ID,
    CacheScope,
    Operation,
)
from deltawitness.session.fingerprint.model import Fingerprint
from deltawitness.settings import Settings
from deltawitness.telemetry.diagnostics import DiagnosticsSink, diagnostics_sink

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from opentelemetry.util.types import AttributeValue

__all__ = ["Entries"]

_FOLDERS = {
    CacheScope.VIEW: "cache_views",
    CacheScope.DATASET: "cache_datasets",
    CacheScope.ARTIFACT: "cache_artifacts",
    CacheScope.METADATA: "cache_metadata",
}


@dataclass(slots=True)
class _Known:
    """A remote entry that was read before.

    Attributes:
        entry: the entry.
        digest: SHA-256 of its table's newest commit, in hexadecimal.
        copied: the same entry with its local copy; None without one.
        is_copied: whether a copy is possible.
    """

    entry: Entry
    digest: str
    copied: Entry | None = None
    is_copied: bool = True


_HARMLESS = frozenset(
    {
        Operation.OPTIMIZE,
        "VACUUM START",
        "VACUUM END",
        Operation.SET_TABLE_PROPERTIES,
        Operation.UPDATE_TABLE_METADATA,
    }
)
"""Operations on top of an entry's commit that do not change its rows."""


class Entries:
    """The entries under a cache root.

    Args:
        root: the cache root.
        settings: the redaction of table names, and the sink of diagnostics; None: the defaults.
        has_own_sink: use the diagnostics sink of these settings even if the running observer has
            another one.
    """

    def __init__(
        self, root: LedgerRoot, settings: Settings | None = None, *, has_own_sink: bool = False
    ) -> None:
        self._root = root
        self._has_own_sink = has_own_sink
        self._settings = settings or Settings()
        self._known: dict[tuple[CacheScope, str], _Known] = {}
        is_remote = local_path(root.uri) is None
        self._copies = EntryCopies.of(self._settings) if is_remote else None

    def _sink(self) -> DiagnosticsSink:
        observer = current_observer()
        choice = self._settings.diagnostics_sink
        if observer is not None and (
            not self._has_own_sink or choice is observer.settings.diagnostics_sink
        ):
            return observer.diagnostics
        return diagnostics_sink(self._settings)

    @property
    def settings(self) -> Settings:
        """The redaction of table names, and the sink of diagnostics."""
        return self._settings

    def columns_of(self, scope: CacheScope, name: str) -> dict[str, Any]:
        """Return the ledger columns that identify an entry in the row of an operation."""
        where = ledger_uri(self.uri_of(scope, name))
        return {"table_name": name, "table_uri": where, "table_id": table_id(where)}

    def details_of(self, scope: CacheScope, name: str) -> dict[str, AttributeValue | None]:
        """Return the attributes that identify an entry in spans and log records."""
        uri = self.uri_of(scope, name)
        return {
            CACHE_NAME: table_name_for(uri, name, self._settings.table_names),
            DELTA_TABLE_ID: table_id(uri, key=self._settings.table_id_key),
        }

    def diagnose(self, event: str, scope: CacheScope, name: str, **properties: str | None) -> None:
        """Record a diagnostic event of an entry in the sink that the settings choose.

        Args:
            event: name of the event.
            scope: view, dataset, artifact or metadata.
            name: name of the entry.
            properties: what happened, without paths and literals; None values are left out.
        """
        fields = {"name": name, "scope": scope.value, **properties}
        try:
            present = {key: text for key, text in fields.items() if text is not None}
            self._sink().record_event(event, present)
        except Exception as error:  # noqa: BLE001 - a user-defined sink may raise
            report("diagnostics", error)

    def uri_of(self, scope: CacheScope, name: str) -> str:
        """Return the location of an entry's table, whether or not it exists."""
        return f"{self.folder_of(scope)}/{name}"

    def folder_of(self, scope: CacheScope) -> str:
        """Return the folder of the entries of a scope."""
        return f"{self._root.uri.rstrip('/')}/{_FOLDERS[scope]}"

    @property
    def storage_options(self) -> dict[str, str] | None:
        """Options to open the tables."""
        return self._root.storage_options

    def read(self, scope: CacheScope, name: str, version: int | None = None) -> Entry | None:
        """Return the entry with a name; None without one.

        Args:
            scope: view, dataset, artifact or metadata.
            name: name of the entry.
            version: version of its table; None: the newest.

        Raises:
            DamagedEntryError: it exists and cannot be served.
        """
        uri = self.uri_of(scope, name)
        is_remote = local_path(uri) is None
        if version is None and is_remote:
            known = self._unchanged(scope, name) or self._read_copied(scope, name)
            if known is not None:
                return known
        with reuse_reads():
            entry = self.read_unshared(scope, name, version)
            if version is None and is_remote:
                self._remember(scope, name, entry)
        return entry

    def read_written(
        self, scope: CacheScope, name: str, version: int, partition_by: Sequence[str]
    ) -> Entry | None:
        """Return the entry that was just written; a remote table is opened when it is used.

        Args:
            scope: view, dataset, artifact or metadata.
            name: name of the entry.
            version: version of its table.
            partition_by: the partition columns that it was written with.

        Raises:
            DamagedEntryError: it cannot be served.
        """
        uri = self.uri_of(scope, name)
        if local_path(uri) is not None:
            return self.read(scope, name, version)

        @cache
        def open_table() -> DeltaTable:
            return self.open_table(scope, name, version)

        commit, metadata = self._own_commit(uri, version)
        entry = self._parse_entry(scope, name, version, open_table, commit, metadata)
        entry = replace(
            entry,
            rows=written_rows(commit),
            is_opened=False,
            partition_by=tuple(partition_by),
        )
        self._remember(scope, name, entry)
        return entry

    def has_changed(self, scope: CacheScope, name: str, before: Entry | None) -> bool:
        """Return whether a remote entry has a later version than one that was read: one request.

        Args:
            scope: view, dataset, artifact or metadata.
            name: name of the entry.
            before: the entry that was read; None if there was none.

        Raises:
            OSError: the storage cannot be read.
        """
        log = open_log(self.uri_of(scope, name), self.storage_options)
        return log.read(0 if before is None else before.newest + 1) is not None

    def start_check(self, scope: CacheScope, name: str) -> None:
        """Start the requests with which the next :meth:`read` checks a remote entry that was read before.

        It does nothing outside of a block of :func:`~deltawitness.commit.early_reads.early_reads`.

        Args:
            scope: view, dataset, artifact or metadata.
            name: name of the entry.
        """
        known, uri = self._known.get((scope, name)), self.uri_of(scope, name)
        if known is not None:
            newest: int | None = known.entry.newest
        else:
            copy = None if self._copies is None else self._copies.newest(uri)
            newest = None if copy is None else copy.version
        if newest is not None:
            start_reads(open_log(uri, self.storage_options), (newest, newest + 1))

    def _unchanged(self, scope: CacheScope, name: str) -> Entry | None:
        """Return a remote entry that was read before if its table has not changed since.

        Its table must have no later commit, and the newest commit must have the same content: two
        requests at the same time.
        """
        known = self._known.get((scope, name))
        if known is None:
            return None
        is_newest = self._is_newest(known.entry.uri, known.entry.newest, known.digest)
        return known.entry if is_newest else None

    def _is_newest(self, uri: str, version: int, digest: str) -> bool:
        """Return whether a table is at a version whose commit has a digest: two requests at the same time.

        A listing would be one request. But it shows times of files with a resolution of a second, by which
        a table that was deleted and created again is not always seen; and on S3 it costs more than ten reads.
        """
        log = open_log(uri, self.storage_options)
        try:
            content, later = read_commits(log, (version, version + 1))
        except OSError:
            return False  # reading the table raises the error that the caller expects
        is_same = content is not None and hashlib.sha256(content).hexdigest() == digest
        return is_same and later is None

    # --- local copies ------------------------------------------------------------------------------

    @property
    def has_copies(self) -> bool:
        """Whether hits are served from local copies."""
        return self._copies is not None

    def _read_copied(self, scope: CacheScope, name: str) -> Entry | None:
        """Return an entry that was not read before, from the log of its local copy.

        Its table must be at the version of the copy, as in :meth:`_unchanged`, and is not opened.
        """
        if self._copies is None:
            return None
        uri = self.uri_of(scope, name)
        copy = self._copies.newest(uri)
        if copy is None or not self._is_newest(uri, copy.version, copy.digest):
            return None

        @cache
        def open_table() -> DeltaTable:
            return self.open_table(scope, name, copy.version)

        try:
            commit, metadata = self._own_commit(str(copy.table), copy.version)
            entry = self._parse_entry(scope, name, copy.version, open_table, commit, metadata)
        except (DamagedEntryError, OSError):
            return None  # the table is read instead
        rows = None if entry.fingerprint is None else written_rows(commit)
        entry = replace(entry, rows=rows, is_opened=False)
        self._known[scope, name] = _Known(entry, copy.digest)
        return entry

    def with_copy(self, entry: Entry) -> Entry:
        """Return an entry with its local copy; the table is copied if there is none.

        Args:
            entry: an entry that :meth:`read` has just returned.

        Returns:
            `entry` itself where there can be no copy. An error is reported, not raised.
        """
        known = self._known.get((entry.scope, entry.name))
        if self._copies is None or known is None or known.entry is not entry:
            return entry
        try:
            return self._with_copy(self._copies, known) or entry
        except NotCopiedError:
            known.is_copied = False
        except Exception as error:  # noqa: BLE001 - the entry is served from its table
            known.is_copied = False
            report("cache", error)
        return entry

    def remove_copies(self, entry: Entry) -> None:
        """Remove the local copies of an entry, except those in use. An error is reported, not raised."""
        if self._copies is None:
            return
        try:
            self._copies.remove(entry.uri)
        except OSError as error:
            report("cache", error)

    def _with_copy(self, copies: EntryCopies, known: _Known) -> Entry | None:
        if known.copied is not None and known.copied.copy is not None:
            if known.copied.copy.is_intact():
                known.copied.copy.mark_used()
                return known.copied
            known.copied = None
        if not known.is_copied:
            return None
        entry = known.entry
        copy = copies.lease(entry.uri, entry.newest, known.digest)
        if copy is None:
            copy = copies.make(entry.uri, entry.newest, known.digest, self.storage_options)
        if copy is None:
            return None
        copy.mark_used()
        known.copied = replace(entry, copy=copy)
        return known.copied

    def _remember(self, scope: CacheScope, name: str, entry: Entry | None) -> None:
        """Keep a remote entry in memory for the next read."""
        if entry is None:
            self._known.pop((scope, name), None)
            return
        try:
            content = open_log(entry.uri, self.storage_options).read(entry.newest)
        except OSError:
            content = None
        if content is not None:
            self._known[scope, name] = _Known(entry, hashlib.sha256(content).hexdigest())

    def read_unshared(
        self, scope: CacheScope, name: str, version: int | None = None
    ) -> Entry | None:
        """Read an entry as :meth:`read` does, with an open table that no other read returns."""
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy
        from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415 - heavy

        uri = self.uri_of(scope, name)
        try:
            table = DeltaTable(uri, version, self.storage_options)
        except TableNotFoundError:
            return None
        except Exception as error:
            msg = "its table cannot be opened"
            raise DamagedEntryError(msg) from error
        mark_delta_rs_used()
        try:
            return self._build_entry(scope, name, uri, table)
        except DamagedEntryError:
            raise
        except Exception as error:
            msg = "its table cannot be read"
            raise DamagedEntryError(msg) from error

    def _build_entry(self, scope: CacheScope, name: str, uri: str, table: DeltaTable) -> Entry:
        """Build an entry from its table and the commit metadata of its last own commit.

        Raises:
            DamagedEntryError: the metadata is unreadable, or data files are missing or doubled.
        """
        newest = table.version()
        commit, metadata = self._own_commit(uri, newest)
        entry = self._parse_entry(scope, name, newest, lambda: table, commit, metadata)
        check_files(table)
        if entry.fingerprint is not None:
            entry = replace(entry, rows=count_rows(table, commit))
        return entry

    def _parse_entry(  # noqa: PLR0913, PLR0917 - the parts of an entry
        self,
        scope: CacheScope,
        name: str,
        newest: int,
        open_table: Callable[[], DeltaTable],
        commit: CommitMetadata,
        metadata: dict[str, Any],
    ) -> Entry:
        try:
            fingerprint = metadata.get("fingerprint")
            return Entry(
                scope=scope,
                name=name,
                uri=self.uri_of(scope, name),
                open_table=open_table,
                newest=newest,
                version=commit.version,
                made_at=int(metadata.get("made_at") or commit.timestamp or 0),
                policy=str(metadata["policy"]),
                fingerprint=None if fingerprint is None else Fingerprint.from_json(fingerprint),
                properties=dict(metadata.get("facts", {})),
                storage_options=self.storage_options,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            msg = "the entry's commit metadata is unreadable"
            raise DamagedEntryError(msg) from error

    def _own_commit(self, uri: str, newest: int) -> tuple[CommitMetadata, dict[str, Any]]:
        """Return the newest commit of the cache in a table's log, with its parsed cache metadata.

        Raises:
            DamagedEntryError: another writer changed the rows since, or there is no such commit.
        """
        log = open_log(uri, self.storage_options)
        for version in range(newest, -1, -1):
            raw = log.read(version)
            commit = None if raw is None else parse_commit(version, raw)
            if commit is None:
                break
            if CACHE_ENTRY in commit.metadata:
                return commit, parse_metadata(commit.metadata[CACHE_ENTRY])
            if commit.operation not in _HARMLESS:
                msg = (
                    f"another writer changed its table ({commit.operation or 'unknown operation'})"
                )
                raise DamagedEntryError(msg)
        msg = "its table has no cache metadata"
        raise DamagedEntryError(msg)

    def open_table(self, scope: CacheScope, name: str, version: int) -> DeltaTable:
        """Open the table of an entry at a version."""
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy

        uri = self.uri_of(scope, name)
        return DeltaTable(uri, version=version, storage_options=self.storage_options)

    def quarantine(self, scope: CacheScope, name: str) -> None:
        """Rename a local damaged entry to a hidden name, so that an error never deletes data.

        Raises:
            OSError: it cannot be renamed, or is on an object store.
        """
        local = local_path(self.uri_of(scope, name))
        if local is None:
            msg = f"the entry {name} is damaged and cannot be moved on an object store"
            raise OSError(msg)
        path = Path(local)
        path.rename(path.with_name(f".{name}.aside-{new_id()}"))

    def names(self, scope: CacheScope) -> Iterator[str]:
        """Yield the names of the entries of a scope, sorted.

        Raises:
            OSError: the storage cannot be read.
        """
        local = local_path(self.folder_of(scope))
        if local is not None:
            if Path(local).is_dir():
                found = (path for path in Path(local).iterdir() if path.is_dir())
                yield from sorted(path.name for path in found if not path.name.startswith("."))
            return
        from deltalake.fs import DeltaStorageHandler  # noqa: PLC0415 - only for remote caches
        from pyarrow.fs import FileSelector, FileType  # noqa: PLC0415 - only for remote caches

        store = DeltaStorageHandler(self._root.uri, self.storage_options)
        selector = FileSelector(_FOLDERS[scope], allow_not_found=True)
        infos = store.get_file_info_selector(selector)
        yield from sorted(info.base_name for info in infos if info.type is FileType.Directory)
