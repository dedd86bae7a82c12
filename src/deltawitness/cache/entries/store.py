"""The entries of a cache: where they lie, what their tables say of them, how they are written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deltawitness.cache.fingerprint.model import Fingerprint
from deltawitness.commit.log import local_path, open_log
from deltawitness.commit.reader import CommitMetadata, parse_commit
from deltawitness.forks import mark_delta_rs_used
from deltawitness.hashing import table_id
from deltawitness.ids_and_clock import new_id
from deltawitness.internal_errors import report
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.observe.observer import current_observer
from deltawitness.redaction import key_hash, table_name_for
from deltawitness.semconv import (
    CACHE_ENTRY,
    CACHE_KEY,
    CACHE_NAME,
    CACHE_POLICY,
    DELTA_TABLE_ID,
    DELTA_TABLE_VERSION,
    CacheScope,
    Operation,
)
from deltawitness.settings import Settings
from deltawitness.telemetry.diagnostics import DiagnosticsSink, diagnostics_sink

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from opentelemetry.util.types import AttributeValue

__all__ = [
    "DamagedEntryError",
    "Entries",
    "Entry",
    "check_files",
    "details_of_entry",
    "entry_metadata",
]

PRUNED = "pruned"
"""The fact that an entry has lost its rows to `prune`."""

RETENTION = "retention_s"
"""The fact of how long an entry is kept, in seconds: its policy's, when it was written."""

_FOLDERS = {
    CacheScope.VIEW: "cache_views",
    CacheScope.DATASET: "cache_datasets",
    CacheScope.ARTIFACT: "cache_artifacts",
    CacheScope.METADATA: "cache_metadata",
}


class DamagedEntryError(Exception):
    """An entry that cannot be served, and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A kept result.

    Attributes:
        scope: what kind of thing it is.
        name: its name.
        uri: where it lies.
        table: its table, at the version to serve.
        version: the version that holds it.
        made_at: milliseconds since the Unix epoch.
        policy: name of the policy that it was kept under.
        fingerprint: what it was made from; None when it was invalidated.
        facts: what else its kind keeps of it.
        rows: how many it holds, if its files say so.
    """

    scope: CacheScope
    name: str
    uri: str
    table: DeltaTable
    version: int
    made_at: int
    policy: str
    fingerprint: Fingerprint | None
    facts: dict[str, Any]
    rows: int | None = None


_HARMLESS = frozenset(
    {
        Operation.OPTIMIZE,
        "VACUUM START",
        "VACUUM END",
        Operation.SET_TABLE_PROPERTIES,
        Operation.UPDATE_TABLE_METADATA,
    }
)
"""Commits on top of an entry's own that leave what it holds as it is."""


class Entries:
    """The entries under a cache root.

    Args:
        root: the cache root.
        settings: which names telemetry may tell, and where diagnostics go; the defaults when None.
        has_own_sink: whether diagnostics go where these settings say, whatever the process's do.
    """

    def __init__(
        self, root: LedgerRoot, settings: Settings | None = None, *, has_own_sink: bool = False
    ) -> None:
        self._root = root
        self._has_own_sink = has_own_sink
        self._settings = settings or Settings()

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
        """Which names telemetry may tell, and where diagnostics go."""
        return self._settings

    def columns_of(self, scope: CacheScope, name: str) -> dict[str, Any]:
        """Return what the row of an operation says of an entry, whatever becomes of it."""
        where = ledger_uri(self.uri_of(scope, name))
        return {"table_name": name, "table_uri": where, "table_id": table_id(where)}

    def details_of(self, scope: CacheScope, name: str) -> dict[str, AttributeValue | None]:
        """Return what spans and log records say of an entry, whatever becomes of it."""
        uri = self.uri_of(scope, name)
        return {
            CACHE_NAME: table_name_for(uri, name, self._settings.table_names),
            DELTA_TABLE_ID: table_id(uri, key=self._settings.table_id_key),
        }

    def diagnose(self, event: str, scope: CacheScope, name: str, **properties: str | None) -> None:
        """Record a diagnostic event of an entry in the sink that the settings choose.

        Args:
            event: name of the event.
            scope: what kind of thing it is.
            name: its name.
            properties: what happened, without paths and literals; what is None is left out.
        """
        told = {"name": name, "scope": scope.value, **properties}
        try:
            known = {key: text for key, text in told.items() if text is not None}
            self._sink().record_event(event, known)
        except Exception as error:  # noqa: BLE001 - a sink of the program's own may raise
            report("diagnostics", error)

    def uri_of(self, scope: CacheScope, name: str) -> str:
        """Return where an entry lies or is to be made."""
        return f"{self.folder_of(scope)}/{name}"

    def folder_of(self, scope: CacheScope) -> str:
        """Return where the entries of a scope lie."""
        return f"{self._root.uri.rstrip('/')}/{_FOLDERS[scope]}"

    @property
    def storage_options(self) -> dict[str, str] | None:
        """How the tables are opened."""
        return self._root.storage_options

    def read(self, scope: CacheScope, name: str, version: int | None = None) -> Entry | None:
        """Return the entry of a name; None when there is none.

        Args:
            scope: what kind of thing it is.
            name: its name.
            version: of its table; the newest when None.

        Raises:
            Damaged: there is one, and it cannot be served.
        """
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
            return self._told(scope, name, uri, table)
        except DamagedEntryError:
            raise
        except Exception as error:
            msg = "its table cannot be read"
            raise DamagedEntryError(msg) from error

    def _told(self, scope: CacheScope, name: str, uri: str, table: DeltaTable) -> Entry:
        commit, known = self._own_commit(uri, table.version())
        try:
            kept = known.get("fingerprint")
            entry = Entry(
                scope=scope,
                name=name,
                uri=uri,
                table=table,
                version=commit.version,
                made_at=int(known.get("made_at") or commit.timestamp or 0),
                policy=str(known["policy"]),
                fingerprint=None if kept is None else Fingerprint.from_json(kept),
                facts=dict(known.get("facts", {})),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            msg = "the entry's commit metadata is unreadable"
            raise DamagedEntryError(msg) from error
        check_files(table)
        if entry.fingerprint is not None:
            entry = replace(entry, rows=_checked_rows(table, commit))
        return entry

    def _own_commit(self, uri: str, newest: int) -> tuple[CommitMetadata, dict[str, Any]]:
        log = open_log(uri, self.storage_options)
        for version in range(newest, -1, -1):
            raw = log.read(version)
            commit = None if raw is None else parse_commit(version, raw)
            if commit is None:
                break
            if CACHE_ENTRY in commit.metadata:
                return commit, _parse_entry(commit.metadata[CACHE_ENTRY])
            if commit.operation not in _HARMLESS:
                msg = f"somebody else has written it ({commit.operation or 'unknown operation'})"
                raise DamagedEntryError(msg)
        msg = "its table does not say what it was made from"
        raise DamagedEntryError(msg)

    def opened(self, scope: CacheScope, name: str, version: int) -> DeltaTable:
        """Return the table of an entry at a version."""
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy

        uri = self.uri_of(scope, name)
        return DeltaTable(uri, version=version, storage_options=self.storage_options)

    def set_aside(self, scope: CacheScope, name: str) -> None:
        """Move a local entry out of the way, where it is kept; nothing is ever deleted for an error.

        Raises:
            OSError: it cannot be moved, or does not lie on this machine.
        """
        local = local_path(self.uri_of(scope, name))
        if local is None:
            msg = f"the entry {name} cannot be written over, nor moved on an object store"
            raise OSError(msg)
        path = Path(local)
        path.rename(path.with_name(f".{name}.aside-{new_id()}"))

    def names(self, scope: CacheScope) -> Iterator[str]:
        """Yield the names of the entries of a scope, in order.

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


def details_of_entry(entry: Entry) -> dict[str, AttributeValue | None]:
    """Return what spans and log records say of an entry that was read."""
    fingerprint = entry.fingerprint
    return {
        CACHE_POLICY: entry.policy,
        CACHE_KEY: None if fingerprint is None else key_hash(fingerprint.key),
        DELTA_TABLE_VERSION: entry.version,
    }


def entry_metadata(
    fingerprint: Fingerprint | None,
    policy: str,
    facts: dict[str, Any] | None = None,
    *,
    made_at: int | None = None,
) -> dict[str, str]:
    """Return what an entry's commit says of it beside the standard metadata.

    Args:
        fingerprint: what it was made from; None says that it is not to be served any more.
        policy: name of its policy.
        facts: what else its kind keeps of it.
        made_at: when its making began, in milliseconds since the Unix epoch.
    """
    known = {
        "policy": policy,
        "fingerprint": None if fingerprint is None else fingerprint.as_json(),
        "facts": facts or {},
        "made_at": made_at,
    }
    return {CACHE_ENTRY: json.dumps(known, separators=(",", ":"))}


def _parse_entry(text: Any) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(text)
        known["policy"]  # of every release
    except (KeyError, TypeError, ValueError) as error:
        msg = "the entry's commit metadata is unreadable"
        raise DamagedEntryError(msg) from error
    return known


def _checked_rows(table: DeltaTable, commit: CommitMetadata) -> int | None:
    """Return how many rows a table holds, if its files say so.

    They must be as many as its commit has written: files may have been ordered since.

    Raises:
        Damaged: it does not: two have ordered them at the same moment, which doubles them.
    """
    written = commit.operation_metrics.get("num_added_rows")
    counts = table.get_add_actions(flatten=True)["num_records"].to_pylist()
    rows = None if None in counts else sum(counts)
    if isinstance(written, int) and rows is not None and rows != written:
        msg = "it holds other rows than were kept"
        raise DamagedEntryError(msg)
    return rows


def check_files(table: DeltaTable) -> None:
    """Look whether the files of a local table are there, and as long as they were.

    Raises:
        Damaged: one is not.
    """
    folder = local_path(table.table_uri)
    if folder is None:
        return
    actions = table.get_add_actions(flatten=True)
    # The log has paths as URIs have them: values of partitions that are no plain words are escaped.
    for path, size in zip(
        actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True
    ):
        place = os.path.join(folder, unquote(path))  # noqa: PTH118 - of many files
        try:
            found = os.stat(place).st_size  # noqa: PTH116 - as above
        except OSError:
            found = -1
        if found != size:
            msg = "a file of it is missing or damaged"
            raise DamagedEntryError(msg)
