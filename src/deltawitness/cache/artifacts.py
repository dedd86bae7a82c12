"""Artifacts: what a program makes at run time, kept with its type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from deltawitness.cache.content import content_hash
from deltawitness.cache.entries import Entry
from deltawitness.cache.fingerprint import DataMark, Fingerprint
from deltawitness.cache.plans import columns_of
from deltawitness.cache.policy import CachePolicy
from deltawitness.cache.recipes import Made, Recipe, checked_name
from deltawitness.exceptions import CacheError, ConfigurationError
from deltawitness.hashing import schema_hash
from deltawitness.semconv import CacheScope

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import SessionContext

__all__ = ["artifact_recipe", "loaded"]

_KIND = "kind"
_PAYLOAD = "payload"


class Kind(StrEnum):
    """What an artifact was before it was kept."""

    TABLE = "arrow_table"
    BATCH = "arrow_record_batch"
    JSON = "json"
    BYTES = "bytes"


def artifact_recipe(ctx: SessionContext, name: str, payload: Any, *, policy: CachePolicy) -> Recipe:
    """Return the recipe of an artifact.

    Args:
        ctx: the session.
        name: the entry's name.
        payload: an Arrow table or record batch, bytes, a mapping, or anything that JSON can hold.
        policy: how it is kept.

    Raises:
        ConfigurationError: it is none of these, or would not come back as what it is.
    """
    kind, rows = _rows(payload)
    frame = ctx.from_arrow(rows)
    fingerprint = Fingerprint(
        schema_hash=schema_hash(rows.schema),
        columns=columns_of(rows.schema),
        data=(DataMark("payload", content_hash(rows.to_batches())),),
        version=kind.value,
    )
    return Recipe(
        CacheScope.ARTIFACT,
        checked_name(name),
        policy,
        lambda: Made(frame, fingerprint),
        {_KIND: kind.value},
    )


def _rows(payload: Any) -> tuple[Kind, pa.Table]:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    match payload:
        case pa.Table():
            return Kind.TABLE, payload
        case pa.RecordBatch():
            return Kind.BATCH, pa.Table.from_batches([payload])
        case bytes() | bytearray() | memoryview():
            return Kind.BYTES, pa.table({_PAYLOAD: pa.array([bytes(payload)], pa.large_binary())})
        case _:
            content = [_as_json(payload).encode()]
            return Kind.JSON, pa.table({_PAYLOAD: pa.array(content, pa.large_binary())})


def _as_json(payload: Any) -> str:
    plain = dict(payload) if isinstance(payload, Mapping) else payload
    try:
        text = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"an artifact is Arrow, bytes, or what JSON can hold: {error}"
        raise ConfigurationError(msg) from None
    if json.loads(text) != plain:
        # Keys that are no text, tuples: they would come back as something else.
        msg = "an artifact must come back as what it is: JSON keeps text as keys, and lists"
        raise ConfigurationError(msg)
    return text


def loaded(entry: Entry) -> Any:
    """Return an artifact as what it was.

    Raises:
        CacheError: it is of a kind that this release does not know, or cannot be read.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy

    from deltawitness.ledger.arrow import queried  # noqa: PLC0415 - heavy

    try:
        kind = Kind(entry.facts.get(_KIND, ""))
    except ValueError:
        msg = f"{entry.name} is an artifact of an unknown kind"
        raise CacheError(msg) from None
    rows = queried(entry.table, "SELECT * FROM ledger")
    match kind:
        case Kind.TABLE:
            return rows
        case Kind.BATCH:
            whole = rows.combine_chunks().to_batches()
            return whole[0] if whole else pa.RecordBatch.from_pylist([], rows.schema)
        case Kind.BYTES:
            return bytes(rows[_PAYLOAD][0].as_py())
        case Kind.JSON:
            return json.loads(rows[_PAYLOAD][0].as_py())
