"""Snapshots of a session's metadata: one Delta table per part, written only when its content has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.definitions import Candidate, EntryDefinition, checked_name
from deltawitness.cache.entries.entry import DamagedEntryError, Entry
from deltawitness.cache.entries.locks import entry_lock
from deltawitness.cache.entries.policy import METADATA_SNAPSHOT
from deltawitness.cache.entries.store import Entries
from deltawitness.cache.entries.writer import write_entry
from deltawitness.cache.kinds.session_metadata import PARTS, session_metadata
from deltawitness.exceptions import ConfigurationError
from deltawitness.hashing import schema_hash
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.locations import table_id
from deltawitness.observe.observer import current_observer
from deltawitness.run import cache_context, current_run
from deltawitness.semconv import (
    DELTA_TABLE_VERSION,
    DIAGNOSTIC_CACHE_DAMAGED,
    SPAN_CACHE_SNAPSHOT,
    WITNESS_VERSION,
    CacheOperation,
    CacheResult,
    CacheScope,
)
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.fingerprint.model import DataInput, Fingerprint
from deltawitness.session.fingerprint.plan import columns_of
from deltawitness.session.fingerprint.table_digest import digest_table
from deltawitness.telemetry.cache_spans import cache_span

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import SessionContext

__all__ = ["EVERYTHING", "MetadataSnapshot", "write_snapshots"]

EVERYTHING = tuple(PARTS)
"""All parts of a session's metadata."""


@dataclass(frozen=True, slots=True)
class MetadataSnapshot:
    """The snapshot of one part of a session's metadata.

    Attributes:
        name: name of the table: snapshot name and part.
        result: `write`, or `noop` when the content has not changed since the last snapshot.
        path: location of the table, without credentials.
        version: the table version that holds it.
        rows: number of rows.
        files: number of data files.
        schema_hash: hash of the schema.
        content_hash: hash of the rows, independent of their order.
    """

    name: str
    result: CacheResult
    path: str
    version: int | None
    rows: int
    files: int | None
    schema_hash: str
    content_hash: str


def write_snapshots(
    ctx: SessionContext, entries: Entries, locks: Path, what: Sequence[str], name: str
) -> list[MetadataSnapshot]:
    """Write snapshots of parts of a session's metadata.

    Args:
        ctx: the plain context.
        entries: the entry store.
        locks: local folder of the lock files.
        what: the parts.
        name: name of the snapshot.

    Raises:
        ConfigurationError: a part does not exist, or the name is invalid.
        Exception: of the engine, when a part cannot be written; the registry gets an error row.
    """
    parts = [what] if isinstance(what, str) else list(what)
    if unknown := [part for part in parts if part not in PARTS]:
        msg = f"snapshot: {unknown[0]!r} is not a part of the metadata: choose from {', '.join(PARTS)}"
        raise ConfigurationError(msg)
    checked_name(f"{name}_{max(PARTS, key=len)}")
    return [_write_part(ctx, entries, locks, part, f"{name}_{part}") for part in parts]


def _write_part(
    ctx: SessionContext, entries: Entries, locks: Path, part: str, name: str
) -> MetadataSnapshot:
    rows = session_metadata(ctx, part)
    where = ledger_uri(entries.uri_of(CacheScope.METADATA, name))
    snapshot = MetadataSnapshot(
        name,
        CacheResult.ERROR,
        where,
        None,
        rows.num_rows,
        None,
        schema_hash(rows.schema),
        digest_table(rows.schema, rows.to_batches()).hash,
    )
    columns: dict[str, Any] = {
        "table_name": name,
        "table_uri": where,
        "table_id": table_id(where),
        "schema_hash": snapshot.schema_hash,
    }
    details = entries.details_of(CacheScope.METADATA, name)
    began = now_ns()
    try:
        with (
            cache_context(policy=METADATA_SNAPSHOT.name, scope=CacheScope.METADATA),
            cache_span(
                SPAN_CACHE_SNAPSHOT,
                cache_policy=METADATA_SNAPSHOT.name,
                cache_scope=CacheScope.METADATA,
                operation=CacheOperation.SNAPSHOT,
                columns=columns,
                details=details,
            ) as (_, set_result),
            entry_lock(locks, f"{CacheScope.METADATA.value}.{name}"),
        ):
            snapshot = _write_if_changed(entries, rows, snapshot)
            set_result(snapshot.result)
            columns["version"] = details[DELTA_TABLE_VERSION] = snapshot.version
    finally:
        _record_in_ledger(snapshot, began)
    return snapshot


def _write_if_changed(
    entries: Entries, rows: pa.Table, snapshot: MetadataSnapshot
) -> MetadataSnapshot:
    name = snapshot.name
    try:
        entry = entries.read(CacheScope.METADATA, name)
    except DamagedEntryError as damage:
        report("cache", damage)
        entries.diagnose(DIAGNOSTIC_CACHE_DAMAGED, CacheScope.METADATA, name, reason=str(damage))
        entries.quarantine(CacheScope.METADATA, name)
        entry = None
    result = CacheResult.NOOP
    if entry is None or not _has_content(entry, snapshot.content_hash):
        version = _write(entries, rows, snapshot)
        table = entries.open_table(CacheScope.METADATA, name, version)
        result = CacheResult.WRITE
    else:
        version, table = entry.version, entry.table
    files = table.get_add_actions(flatten=True).num_rows
    return replace(snapshot, result=result, version=version, files=files)


def _has_content(entry: Entry, content: str) -> bool:
    fingerprint = entry.fingerprint
    return fingerprint is not None and [each.content for each in fingerprint.data] == [content]


def _write(entries: Entries, rows: pa.Table, snapshot: MetadataSnapshot) -> int:
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    # A separate session: registering the rows would change the session that they describe.
    ctx = SessionContext()
    frame = unpatched(ctx, "from_arrow")(rows)
    fingerprint = Fingerprint(
        schema_hash=snapshot.schema_hash,
        columns=columns_of(rows.schema),
        data=(DataInput("metadata", snapshot.content_hash),),
    )
    definition = EntryDefinition(
        CacheScope.METADATA, snapshot.name, METADATA_SNAPSHOT, lambda: Candidate(frame, fingerprint)
    )
    uri = entries.uri_of(CacheScope.METADATA, snapshot.name)
    return write_entry(frame, uri, definition, fingerprint, entries.storage_options)


def _record_in_ledger(snapshot: MetadataSnapshot, began: int) -> None:
    """Write a row to the ledger's registry of snapshots, if a ledger is recorded."""
    try:
        observer = current_observer()
        if observer is not None and observer.recorder is not None:
            observer.recorder.record_snapshot(snapshot.name, _row(snapshot, began))
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("ledger", error)


def _row(snapshot: MetadataSnapshot, began: int) -> Mapping[str, Any]:
    values = {name: value for name, value in asdict(snapshot).items() if name != "name"}
    return {
        **values,
        "event_time": began // 1000,
        "run_id": current_run().run_id,
        "result": snapshot.result.value,
        "witness_version": WITNESS_VERSION,
    }
