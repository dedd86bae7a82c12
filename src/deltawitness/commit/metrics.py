"""Map the operation metrics of delta-rs and Spark to one set of names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from deltawitness.events import CommitMetrics
from deltawitness.semconv import Operation

__all__ = ["normalize_metrics", "reported_rows_added"]

EngineMetrics: TypeAlias = Mapping[str, Any]
"""`operationMetrics` of a commit, or the metrics that a call returned, which have the same keys."""

Reader: TypeAlias = Callable[[EngineMetrics], dict[str, int | None]]


def normalize_metrics(operation: Operation, raw: EngineMetrics) -> CommitMetrics:
    """Return the metrics of an operation under our names.

    Args:
        operation: the operation; one without metrics gives empty metrics.
        raw: the metrics as delta-rs or Spark spells them; unknown keys are ignored.

    >>> normalize_metrics(Operation.DELETE, {"num_deleted_rows": 2, "num_removed_files": 1}).known()
    {'rows_deleted': 2, 'files_removed': 1}
    >>> normalize_metrics(Operation.DELETE, {"numDeletedRows": "2", "executionTimeMs": "9"}).known()
    {'rows_deleted': 2, 'execution_ms': 9}
    """
    reader = _READERS.get(operation)
    return CommitMetrics(**reader(raw)) if reader else CommitMetrics()


def _count(raw: EngineMetrics, *keys: str) -> int | None:
    """Return the first metric under `keys` that is a count; Spark writes counts as text."""
    for key in keys:
        value = raw.get(key)
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _nested(raw: EngineMetrics, key: str) -> EngineMetrics:
    # OPTIMIZE: a JSON string in the log, and a JSON string or an object in the returned metrics.
    value = raw.get(key)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def reported_rows_added(raw: EngineMetrics) -> int | None:
    """Return the number of rows that a WRITE added, as in :func:`normalize_metrics`.

    Args:
        raw: the metrics as delta-rs or Spark spells them.

    >>> reported_rows_added({"num_added_rows": 2}), reported_rows_added({})
    (2, None)
    """
    return _count(raw, "num_added_rows", "numOutputRows")


def _write(raw: EngineMetrics) -> dict[str, int | None]:
    return {
        "rows_added": reported_rows_added(raw),
        # Spark reports these for an overwrite of some rows.
        "rows_deleted": _count(raw, "numDeletedRows"),
        "rows_copied": _count(raw, "numCopiedRows"),
        "files_added": _count(raw, "num_added_files", "numFiles", "numAddedFiles"),
        "files_removed": _count(raw, "num_removed_files", "numRemovedFiles"),
        "bytes_added": _count(raw, "numOutputBytes"),
        "bytes_removed": _count(raw, "numRemovedBytes"),
        "retries": _count(raw, "num_retries"),
        "execution_ms": _execution(raw),
    }


def _execution(raw: EngineMetrics) -> int | None:
    return _count(raw, "execution_time_ms", "executionTimeMs")


def _rewritten(raw: EngineMetrics) -> dict[str, int | None]:
    """Return the metrics that an UPDATE and a DELETE share."""
    return {
        "rows_copied": _count(raw, "num_copied_rows", "numCopiedRows"),
        "files_added": _count(raw, "num_added_files", "numAddedFiles"),
        "files_removed": _count(raw, "num_removed_files", "numRemovedFiles"),
        "bytes_added": _count(raw, "numAddedBytes"),
        "bytes_removed": _count(raw, "numRemovedBytes"),
        "execution_ms": _execution(raw),
    }


def _update(raw: EngineMetrics) -> dict[str, int | None]:
    return {
        "rows_updated": _count(raw, "num_updated_rows", "numUpdatedRows"),
        **_rewritten(raw),
    }


def _delete(raw: EngineMetrics) -> dict[str, int | None]:
    return {
        "rows_deleted": _count(raw, "num_deleted_rows", "numDeletedRows"),
        **_rewritten(raw),
    }


def _merge(raw: EngineMetrics) -> dict[str, int | None]:
    return {
        "rows_added": _count(raw, "num_target_rows_inserted", "numTargetRowsInserted"),
        "rows_updated": _count(raw, "num_target_rows_updated", "numTargetRowsUpdated"),
        "rows_deleted": _count(raw, "num_target_rows_deleted", "numTargetRowsDeleted"),
        "rows_copied": _count(raw, "num_target_rows_copied", "numTargetRowsCopied"),
        "files_added": _count(raw, "num_target_files_added", "numTargetFilesAdded"),
        "files_removed": _count(raw, "num_target_files_removed", "numTargetFilesRemoved"),
        "bytes_added": _count(raw, "numTargetBytesAdded"),
        "bytes_removed": _count(raw, "numTargetBytesRemoved"),
        "execution_ms": _execution(raw),
    }


def _optimize(raw: EngineMetrics) -> dict[str, int | None]:
    added, removed = _nested(raw, "filesAdded"), _nested(raw, "filesRemoved")
    total = _count(added, "totalSize"), _count(removed, "totalSize")
    return {
        "files_added": _count(raw, "numFilesAdded", "numAddedFiles"),
        "files_removed": _count(raw, "numFilesRemoved", "numRemovedFiles"),
        "bytes_added": _count(raw, "numAddedBytes") if total[0] is None else total[0],
        "bytes_removed": _count(raw, "numRemovedBytes") if total[1] is None else total[1],
        "execution_ms": _execution(raw),
    }


def _vacuum(raw: EngineMetrics) -> dict[str, int | None]:
    return {
        "files_deleted": _count(raw, "numDeletedFiles", "numFilesToDelete"),
        "bytes_deleted": _count(raw, "sizeOfDataToDelete"),
        "execution_ms": _execution(raw),
    }


def _restore(raw: EngineMetrics) -> dict[str, int | None]:
    return {
        "files_added": _count(raw, "numRestoredFile", "numRestoredFiles"),
        "files_removed": _count(raw, "numRemovedFile", "numRemovedFiles"),
        "bytes_added": _count(raw, "restoredFilesSize"),
        "bytes_removed": _count(raw, "removedFilesSize"),
        "execution_ms": _execution(raw),
    }


def _repair(raw: EngineMetrics) -> dict[str, int | None]:
    removed = raw.get("files_removed")
    if isinstance(removed, str):
        try:
            removed = json.loads(removed)
        except ValueError:
            removed = None
    return {"files_removed": len(removed) if isinstance(removed, list) else None}


_READERS: Mapping[Operation, Reader] = {
    Operation.WRITE: _write,
    Operation.CREATE_TABLE: _write,
    Operation.CONVERT: _write,
    Operation.UPDATE: _update,
    Operation.DELETE: _delete,
    Operation.MERGE: _merge,
    Operation.OPTIMIZE: _optimize,
    Operation.VACUUM: _vacuum,
    Operation.RESTORE: _restore,
    Operation.REPAIR: _repair,
}
