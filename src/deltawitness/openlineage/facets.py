"""Facets of OpenLineage events about a write, as JSON objects."""

from __future__ import annotations

import json
from typing import Any

from deltawitness.events import Committed, Failed, NoCommit, WriteEvent
from deltawitness.openlineage.datasets import DatasetName, NamingOptions, table_symlink
from deltawitness.openlineage.names import (
    COMMIT_REPORT_SCHEMA,
    PRODUCER,
    TAG_SOURCE,
    facet_schema,
)
from deltawitness.semconv import CacheOperation, Operation

__all__ = [
    "committed_versions",
    "facet",
    "input_facets",
    "output_facets",
    "schema_fields",
    "statistics_facets",
    "tags",
]

Facet = dict[str, Any]
Facets = dict[str, Facet]


def facet(name: str, /, **content: Any) -> Facet:
    """Return a facet of the specification with its content.

    Args:
        name: name of its schema, such as `SchemaDatasetFacet`.
        **content: its members.
    """
    return {"_producer": PRODUCER, "_schemaURL": facet_schema(name), **content}


def tags(name: str, values: dict[str, object]) -> Facets:
    """Return the facet with tags; no facet without a value.

    Args:
        name: name of the schema of the facet.
        values: the values by key; None is left out.
    """
    listed = [
        {"key": key, "value": str(value), "source": TAG_SOURCE}
        for key, value in values.items()
        if value is not None
    ]
    return {"tags": facet(name, tags=listed)} if listed else {}


def input_facets(
    location: str, version: int, options: NamingOptions, *, is_inferred: bool
) -> Facets:
    """Return the facets of a table that a write has read.

    Args:
        location: location of the table.
        version: the version that was read; negative if it is not known.
        options: names of tables in a catalog.
        is_inferred: whether the run had read the table before the write, and the write is not
            necessarily made from it.
    """
    is_made_from = {"deltawitness.input": "inferred" if is_inferred else None}
    return {
        **(_version(version) if version >= 0 else {}),
        "storage": _storage(),
        **_symlinks(location, options),
        **tags("TagsDatasetFacet", dict(is_made_from)),
    }


def output_facets(event: WriteEvent, options: NamingOptions) -> Facets:
    """Return the facets of the table that a write has written."""
    intent = event.intent
    location = intent.table_uri or ""
    versions = committed_versions(event)
    facets = _symlinks(location, options)
    if intent.operation is not Operation.COPY:
        facets["storage"] = _storage()
    if versions:
        facets |= _version(versions[-1])
    if intent.schema is not None:
        facets["schema"] = facet("SchemaDatasetFacet", fields=schema_fields(intent.schema))
    if change := _lifecycle_change(event):
        facets["lifecycleStateChange"] = facet(
            "LifecycleStateChangeDatasetFacet", lifecycleStateChange=change
        )
    return facets


def statistics_facets(event: WriteEvent) -> Facets:
    """Return the output facets of a write: its statistics, and the report of its commit."""
    outcome = event.outcome
    metrics = outcome.metrics
    rows = [count for count in (metrics.rows_added, metrics.rows_updated) if count is not None]
    statistics = {
        "rowCount": sum(rows) if rows else None,
        "size": metrics.bytes_added,
        "fileCount": metrics.files_added,
    }
    known = {name: count for name, count in statistics.items() if count is not None}
    facets = {"outputStatistics": facet("OutputStatisticsOutputDatasetFacet", **known)}
    if event.intent.operation is not Operation.COPY:
        facets["deltaCommitReport"] = _commit_report(event)
    return facets


def committed_versions(event: WriteEvent) -> tuple[int, ...]:
    """Return the versions that a write has committed, also one that raised after its commit."""
    outcome = event.outcome
    return outcome.versions if isinstance(outcome, Committed | Failed) else ()


def schema_fields(schema: object) -> list[dict[str, Any]]:
    """Return the fields of an Arrow schema, with the types of Delta.

    Args:
        schema: an object with `__arrow_c_schema__`.

    >>> import pyarrow as pa
    >>> schema_fields(pa.schema([("id", pa.int64()), ("tags", pa.list_(pa.string()))]))
    [{'name': 'id', 'type': 'long'}, {'name': 'tags', 'type': 'array<string>'}]
    """
    from deltalake import Schema  # noqa: PLC0415 - heavy

    content = json.loads(Schema.from_arrow(schema).to_json())  # type: ignore[arg-type]  # the docstring's
    return [_field(each["name"], each["type"]) for each in content["fields"]]


def _field(name: str, kind: Any) -> dict[str, Any]:
    field: dict[str, Any] = {"name": name, "type": _type_name(kind)}
    if isinstance(kind, dict) and kind["type"] == "struct":
        field["fields"] = [_field(each["name"], each["type"]) for each in kind["fields"]]
    return field


def _type_name(kind: Any) -> str:
    if isinstance(kind, str):
        return kind
    match kind["type"]:
        case "array":
            return f"array<{_type_name(kind['elementType'])}>"
        case "map":
            return f"map<{_type_name(kind['keyType'])},{_type_name(kind['valueType'])}>"
        case other:
            return str(other)


def _version(version: int) -> Facets:
    return {"version": facet("DatasetVersionDatasetFacet", datasetVersion=str(version))}


def _storage() -> Facet:
    return facet("StorageDatasetFacet", storageLayer="delta", fileFormat="parquet")


def _symlinks(location: str, options: NamingOptions) -> Facets:
    symlink: DatasetName | None = table_symlink(location, options) if location else None
    if symlink is None:
        return {}
    identifier = {**symlink._asdict(), "type": "TABLE"}
    return {"symlinks": facet("SymlinksDatasetFacet", identifiers=[identifier])}


_CHANGES = {CacheOperation.CREATE: "CREATE", CacheOperation.ALTER: "ALTER"}


def _lifecycle_change(event: WriteEvent) -> str | None:
    versions = committed_versions(event)
    if not versions:
        return None
    if 0 in versions:
        return "CREATE"
    if event.intent.mode == "overwrite":
        return "OVERWRITE"
    return _CHANGES.get(event.intent.cache_operation)


_COUNTS = {
    "addedDataFiles": "files_added",
    "removedDataFiles": "files_removed",
    "addedRecords": "rows_added",
    "updatedRecords": "rows_updated",
    "removedRecords": "rows_deleted",
    "copiedRecords": "rows_copied",
    "addedFilesSizeInBytes": "bytes_added",
    "removedFilesSizeInBytes": "bytes_removed",
    "deletedFiles": "files_deleted",
    "deletedFilesSizeInBytes": "bytes_deleted",
    "executionDuration": "execution_ms",
}
"""Members of the report, and the counts of a write."""


def _commit_report(event: WriteEvent) -> Facet:
    intent, outcome = event.intent, event.outcome
    known = outcome.metrics.known()
    metrics: dict[str, Any] = {
        name: known[count] for name, count in _COUNTS.items() if count in known
    }
    metrics["totalDuration"] = round(event.duration_ns / 1e6, 3)
    if "retries" in known:
        metrics["attempts"] = known["retries"] + 1
    versions = committed_versions(event)
    report = {
        "version": versions[-1] if versions else None,
        "versions": list(versions) or None,
        "operation": intent.operation.value,
        "mode": intent.mode,
        "writeId": event.write_id,
        "tableId": event.table_id,
        "schemaHash": intent.schema_hash,
        "planHash": intent.plan_hash,
        "noCommitReason": outcome.reason.value if isinstance(outcome, NoCommit) else None,
        "errorType": outcome.error_type.value if isinstance(outcome, Failed) else None,
        "landed": outcome.landed.value if isinstance(outcome, Failed) else None,
    }
    return {
        "_producer": PRODUCER,
        "_schemaURL": COMMIT_REPORT_SCHEMA,
        **{name: value for name, value in report.items() if value is not None},
        "commitMetrics": metrics,
    }
