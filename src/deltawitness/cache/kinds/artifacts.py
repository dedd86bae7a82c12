"""Artifacts: values that a program stores at run time, with their type.

The payload is stored as bytes in parts. An Arrow table is stored as an Arrow IPC stream, so that its
types, row order and metadata are preserved, also types that Delta lacks.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.definitions import Candidate, EntryDefinition, checked_name
from deltawitness.cache.entries.entry import Entry
from deltawitness.cache.entries.policy import CachePolicy
from deltawitness.exceptions import CacheError, ConfigurationError
from deltawitness.hashing import schema_hash
from deltawitness.semconv import CacheScope
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.fingerprint.content_digest import content_hash
from deltawitness.session.fingerprint.model import DataInput, Fingerprint
from deltawitness.session.fingerprint.plan import columns_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["define_artifact", "load"]

_KIND = "kind"
_PART = "part"
_PAYLOAD = "payload"
_PART_SIZE = 32 << 20
"""Bytes per row: Arrow and Parquet handle much larger values badly."""


class ArtifactKind(StrEnum):
    """The original type of an artifact."""

    TABLE = "arrow_table"
    BATCH = "arrow_record_batch"
    JSON = "json"
    BYTES = "bytes"


def define_artifact(name: str, payload: Any, *, policy: CachePolicy) -> EntryDefinition:
    """Return the definition of an artifact.

    Args:
        name: name of the entry.
        payload: an Arrow table or record batch, bytes, a mapping, or a JSON-serializable value.
        policy: how the entry is stored.

    Raises:
        ConfigurationError: the payload is of another type, or would not survive the round trip.
    """
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    kind, content = _encode(payload)
    rows = _split(content)
    # A separate session: the caller's session would hold the table for its lifetime.
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


def _encode(payload: Any) -> tuple[ArtifactKind, bytes | memoryview]:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    match payload:
        case pa.Table():
            return ArtifactKind.TABLE, _ipc_stream(payload.combine_chunks())
        case pa.RecordBatch():
            return ArtifactKind.BATCH, _ipc_stream(pa.Table.from_batches([payload]))
        case bytes() | bytearray() | memoryview():
            return ArtifactKind.BYTES, bytes(payload)
        case _:
            return ArtifactKind.JSON, _to_json(payload).encode()


def _ipc_stream(table: pa.Table) -> memoryview:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def _split(content: bytes | memoryview) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    payload = memoryview(content)
    starts = range(0, max(len(payload), 1), _PART_SIZE)
    parts = [bytes(payload[start : start + _PART_SIZE]) for start in starts]
    return pa.table(
        {
            _PART: pa.array(range(len(parts)), pa.int64()),
            _PAYLOAD: pa.array(parts, pa.large_binary()),
        }
    )


def _to_json(payload: Any) -> str:
    plain = dict(payload) if isinstance(payload, Mapping) else payload
    try:
        text = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"an artifact must be Arrow data, bytes or JSON-serializable: {error}"
        raise ConfigurationError(msg) from None
    if json.loads(text) != plain:
        # JSON would change it: non-string keys become strings, tuples become lists.
        msg = "an artifact must survive JSON: keys must be strings, and sequences lists"
        raise ConfigurationError(msg)
    return text


def load(entry: Entry) -> Any:
    """Return an artifact with its original type.

    Raises:
        CacheError: its kind is unknown to this release, or it cannot be read.
    """
    try:
        kind = ArtifactKind(entry.properties.get(_KIND, ""))
    except ValueError:
        msg = f"{entry.name} is an artifact of an unknown kind"
        raise CacheError(msg) from None
    try:
        return _restore(kind, _read_payload(entry))
    except Exception as error:
        msg = f"{entry.name} cannot be read"
        raise CacheError(msg) from error


def _read_payload(entry: Entry) -> bytes:
    from deltawitness.ledger.tables.arrow import query  # noqa: PLC0415 - heavy

    rows = query(entry.table, "SELECT payload FROM ledger ORDER BY part")
    payload = io.BytesIO()
    for part in rows[_PAYLOAD]:
        payload.write(part.as_buffer())
    return payload.getvalue()


def _restore(kind: ArtifactKind, content: bytes) -> Any:
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
