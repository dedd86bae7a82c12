"""Artifacts: what a program makes at run time, kept with its type.

Whatever it is, it is kept as bytes, cut in parts: an Arrow table as Arrow's own stream, so that its
types, its order and its metadata come back as they were, also those that Delta has no word for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.definitions import Candidate, EntryDefinition, checked_name
from deltawitness.cache.entries.policy import CachePolicy
from deltawitness.cache.entries.store import Entry
from deltawitness.cache.fingerprint.content_digest import content_hash
from deltawitness.cache.fingerprint.model import DataInput, Fingerprint
from deltawitness.cache.fingerprint.plan import columns_of
from deltawitness.exceptions import CacheError, ConfigurationError
from deltawitness.hashing import schema_hash
from deltawitness.semconv import CacheScope
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["define_artifact", "load"]

_KIND = "kind"
_PART = "part"
_PAYLOAD = "payload"
_PART_SIZE = 32 << 20
"""Bytes of one row: neither Arrow nor Parquet is at ease with larger ones."""


class ArtifactKind(StrEnum):
    """What an artifact was before it was kept."""

    TABLE = "arrow_table"
    BATCH = "arrow_record_batch"
    JSON = "json"
    BYTES = "bytes"


def define_artifact(name: str, payload: Any, *, policy: CachePolicy) -> EntryDefinition:
    """Return the recipe of an artifact.

    Args:
        name: the entry's name.
        payload: an Arrow table or record batch, bytes, a mapping, or anything that JSON can hold.
        policy: how it is kept.

    Raises:
        ConfigurationError: it is none of these, or would not come back as what it is.
    """
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    kind, content = _content(payload)
    rows = _cut(content)
    # In a session of its own: the program's would hold it as a table for as long as it lives.
    frame = unpatched(SessionContext(), "from_arrow")(rows)
    fingerprint = Fingerprint(
        schema_hash=schema_hash(rows.schema),
        columns=columns_of(rows.schema),
        data=(DataInput(_PAYLOAD, content_hash(rows.to_batches())),),
        version=kind.value,
    )
    return EntryDefinition(
        CacheScope.ARTIFACT,
        checked_name(name),
        policy,
        lambda: Candidate(frame, fingerprint),
        {_KIND: kind.value},
    )


def _content(payload: Any) -> tuple[ArtifactKind, bytes | memoryview]:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    match payload:
        case pa.Table():
            return ArtifactKind.TABLE, _stream(payload.combine_chunks())
        case pa.RecordBatch():
            return ArtifactKind.BATCH, _stream(pa.Table.from_batches([payload]))
        case bytes() | bytearray() | memoryview():
            return ArtifactKind.BYTES, bytes(payload)
        case _:
            return ArtifactKind.JSON, _as_json(payload).encode()


def _stream(table: pa.Table) -> memoryview:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def _cut(content: bytes | memoryview) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    whole = memoryview(content)
    starts = range(0, max(len(whole), 1), _PART_SIZE)
    parts = [bytes(whole[start : start + _PART_SIZE]) for start in starts]
    return pa.table(
        {
            _PART: pa.array(range(len(parts)), pa.int64()),
            _PAYLOAD: pa.array(parts, pa.large_binary()),
        }
    )


def _as_json(payload: Any) -> str:
    plain = dict(payload) if isinstance(payload, Mapping) else payload
    try:
        text = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"an artifact is Arrow, bytes, or what JSON can hold: {error}"
        raise ConfigurationError(msg) from None
    if json.loads(text) != plain:
        # Keys that are no text, tuples: they would come back as something else.
        msg = "an artifact must come back as what it is: JSON keeps text as keys, and lists"
        raise ConfigurationError(msg)
    return text


def load(entry: Entry) -> Any:
    """Return an artifact as what it was.

    Raises:
        CacheError: it is of a kind that this release does not know, or cannot be read.
    """
    try:
        kind = ArtifactKind(entry.facts.get(_KIND, ""))
    except ValueError:
        msg = f"{entry.name} is an artifact of an unknown kind"
        raise CacheError(msg) from None
    try:
        return _as(kind, _whole(entry))
    except Exception as error:
        msg = f"{entry.name} cannot be read"
        raise CacheError(msg) from error


def _whole(entry: Entry) -> bytes:
    from deltawitness.ledger.tables.arrow import query  # noqa: PLC0415 - heavy

    rows = query(entry.table, "SELECT payload FROM ledger ORDER BY part")
    whole = io.BytesIO()
    for part in rows[_PAYLOAD]:
        whole.write(part.as_buffer())
    return whole.getvalue()


def _as(kind: ArtifactKind, content: bytes) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    match kind:
        case ArtifactKind.BYTES:
            return content
        case ArtifactKind.JSON:
            return json.loads(content)
    table = pa.ipc.open_stream(content).read_all()
    if kind is ArtifactKind.TABLE:
        return table
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], table.schema)
