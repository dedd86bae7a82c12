"""Snapshots of a session's metadata: each part a Delta table, written when it is another than the last time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.definitions import Candidate, EntryDefinition, checked_name
from deltawitness.cache.entries.locks import entry_lock
from deltawitness.cache.entries.policy import METADATA_SNAPSHOT
from deltawitness.cache.entries.store import DamagedEntryError, Entries, Entry
from deltawitness.cache.entries.writer import write_entry
from deltawitness.cache.fingerprint.model import DataInput, Fingerprint
from deltawitness.cache.fingerprint.plan import columns_of
from deltawitness.cache.fingerprint.table_digest import digest_table
from deltawitness.cache.kinds.session_metadata import PARTS, session_metadata
from deltawitness.exceptions import ConfigurationError
from deltawitness.hashing import schema_hash, table_id
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.ledger.tables.write_rows import ledger_uri
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
from deltawitness.telemetry.cache_spans import cache_span

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import SessionContext

__all__ = ["EVERYTHING", "MetadataSnapshot", "write_snapshots"]

EVERYTHING = tuple(PARTS)
"""The parts of a session's metadata."""


@dataclass(frozen=True, slots=True)
class MetadataSnapshot:
    """A part of a session's metadata, as it was kept.

    Attributes:
        name: the table's name: that of the snapshot and of the part.
        result: `write`, or `noop` when the content is what it was the last time.
        path: where it lies, without credentials.
        version: the version that holds it.
        rows: how many.
        files: how many.
        schema_hash: hash of its schema.
        content_hash: hash of its rows, in any order.
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
    """Keep parts of a session's metadata.

    Args:
        ctx: the plain context.
        entries: where they are kept.
        locks: a local folder for the locks of those who write.
        what: the parts.
        name: of the snapshot.

    Raises:
        ConfigurationError: there is no such part, or the name is none.
        Exception: the engine's, when one cannot be written; it is in the registry as an error.
    """
    parts = [what] if isinstance(what, str) else list(what)
    if unknown := [part for part in parts if part not in PARTS]:
        msg = f"snapshot: {unknown[0]!r} is no part of the metadata: one of {', '.join(PARTS)}"
        raise ConfigurationError(msg)
    checked_name(f"{name}_{max(PARTS, key=len)}")
    return [_kept(ctx, entries, locks, part, f"{name}_{part}") for part in parts]


def _kept(
    ctx: SessionContext, entries: Entries, locks: Path, part: str, name: str
) -> MetadataSnapshot:
    facts = session_metadata(ctx, part)
    where = ledger_uri(entries.uri_of(CacheScope.METADATA, name))
    snapshot = MetadataSnapshot(
        name,
        CacheResult.ERROR,
        where,
        None,
        facts.num_rows,
        None,
        schema_hash(facts.schema),
        digest_table(facts.schema, facts.to_batches()).hash,
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
            snapshot = _written(entries, facts, snapshot)
            set_result(snapshot.result)
            columns["version"] = details[DELTA_TABLE_VERSION] = snapshot.version
    finally:
        _register(snapshot, began)
    return snapshot


def _written(entries: Entries, facts: pa.Table, snapshot: MetadataSnapshot) -> MetadataSnapshot:
    name = snapshot.name
    try:
        entry = entries.read(CacheScope.METADATA, name)
    except DamagedEntryError as damage:
        report("cache", damage)
        entries.diagnose(DIAGNOSTIC_CACHE_DAMAGED, CacheScope.METADATA, name, reason=str(damage))
        entries.set_aside(CacheScope.METADATA, name)
        entry = None
    result = CacheResult.NOOP
    if entry is None or not _holds(entry, snapshot.content_hash):
        version = _write(entries, facts, snapshot)
        table = entries.opened(CacheScope.METADATA, name, version)
        result = CacheResult.WRITE
    else:
        version, table = entry.version, entry.table
    files = table.get_add_actions(flatten=True).num_rows
    return replace(snapshot, result=result, version=version, files=files)


def _holds(entry: Entry, content: str) -> bool:
    known = entry.fingerprint
    return known is not None and [mark.content for mark in known.data] == [content]


def _write(entries: Entries, facts: pa.Table, snapshot: MetadataSnapshot) -> int:
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    # In a session of its own: one that is told of would change by being told of.
    ctx = SessionContext()
    frame = unpatched(ctx, "from_arrow")(facts)
    fingerprint = Fingerprint(
        schema_hash=snapshot.schema_hash,
        columns=columns_of(facts.schema),
        data=(DataInput("metadata", snapshot.content_hash),),
    )
    recipe = EntryDefinition(
        CacheScope.METADATA, snapshot.name, METADATA_SNAPSHOT, lambda: Candidate(frame, fingerprint)
    )
    uri = entries.uri_of(CacheScope.METADATA, snapshot.name)
    return write_entry(frame, uri, recipe, fingerprint, entries.storage_options)


def _register(snapshot: MetadataSnapshot, began: int) -> None:
    """Leave a row in the ledger's registry of snapshots, if a ledger is kept."""
    try:
        observer = current_observer()
        if observer is not None and observer.recorder is not None:
            observer.recorder.record_snapshot(snapshot.name, _row(snapshot, began))
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("ledger", error)


def _row(snapshot: MetadataSnapshot, began: int) -> Mapping[str, Any]:
    told = {name: value for name, value in asdict(snapshot).items() if name != "name"}
    return {
        **told,
        "event_time": began // 1000,
        "run_id": current_run().run_id,
        "result": snapshot.result.value,
        "witness_version": WITNESS_VERSION,
    }
