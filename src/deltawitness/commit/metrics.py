"""One naming for the metrics of every operation, whatever the engine calls them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from deltawitness.events import CommitMetrics
from deltawitness.semconv import Operation

__all__ = ["normalised"]

Said: TypeAlias = Mapping[str, Any]
"""The engine's `operationMetrics`, or the metrics a call returned: they have the same keys."""

Reader: TypeAlias = Callable[[Said], dict[str, int | None]]


def normalised(operation: Operation, said: Said) -> CommitMetrics:
    """Return the engine's metrics of `operation` under our names: those of delta-rs, or of Spark.

    Args:
        operation: whose metrics they are; an operation without metrics gives none.
        said: the metrics as the engine spells them; unknown keys are passed over.

    >>> normalised(Operation.DELETE, {"num_deleted_rows": 2, "num_removed_files": 1}).known()
    {'rows_deleted': 2, 'files_removed': 1}
    >>> normalised(Operation.DELETE, {"numDeletedRows": "2", "executionTimeMs": "9"}).known()
    {'rows_deleted': 2, 'execution_ms': 9}
    """
    reader = _READERS.get(operation)
    return CommitMetrics(**reader(said)) if reader else CommitMetrics()


def _count(said: Said, *keys: str) -> int | None:
    """Return the first of some metrics that is there and is a count; Spark spells counts as text."""
    for key in keys:
        value = said.get(key)
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _nested(said: Said, key: str) -> Said:
    # OPTIMIZE writes this object as a JSON string in the log, and as either in the result.
    value = said.get(key)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _write(said: Said) -> dict[str, int | None]:
    return {
        "rows_added": _count(said, "num_added_rows", "numOutputRows"),
        # Of an overwrite of some rows by Spark.
        "rows_deleted": _count(said, "numDeletedRows"),
        "rows_copied": _count(said, "numCopiedRows"),
        "files_added": _count(said, "num_added_files", "numFiles", "numAddedFiles"),
        "files_removed": _count(said, "num_removed_files", "numRemovedFiles"),
        "bytes_added": _count(said, "numOutputBytes"),
        "bytes_removed": _count(said, "numRemovedBytes"),
        "retries": _count(said, "num_retries"),
        "execution_ms": _execution(said),
    }


def _execution(said: Said) -> int | None:
    return _count(said, "execution_time_ms", "executionTimeMs")


def _rewritten(said: Said) -> dict[str, int | None]:
    """Return what an UPDATE and a DELETE have in common."""
    return {
        "rows_copied": _count(said, "num_copied_rows", "numCopiedRows"),
        "files_added": _count(said, "num_added_files", "numAddedFiles"),
        "files_removed": _count(said, "num_removed_files", "numRemovedFiles"),
        "bytes_added": _count(said, "numAddedBytes"),
        "bytes_removed": _count(said, "numRemovedBytes"),
        "execution_ms": _execution(said),
    }


def _update(said: Said) -> dict[str, int | None]:
    return {
        "rows_updated": _count(said, "num_updated_rows", "numUpdatedRows"),
        **_rewritten(said),
    }


def _delete(said: Said) -> dict[str, int | None]:
    return {
        "rows_deleted": _count(said, "num_deleted_rows", "numDeletedRows"),
        **_rewritten(said),
    }


def _merge(said: Said) -> dict[str, int | None]:
    return {
        "rows_added": _count(said, "num_target_rows_inserted", "numTargetRowsInserted"),
        "rows_updated": _count(said, "num_target_rows_updated", "numTargetRowsUpdated"),
        "rows_deleted": _count(said, "num_target_rows_deleted", "numTargetRowsDeleted"),
        "rows_copied": _count(said, "num_target_rows_copied", "numTargetRowsCopied"),
        "files_added": _count(said, "num_target_files_added", "numTargetFilesAdded"),
        "files_removed": _count(said, "num_target_files_removed", "numTargetFilesRemoved"),
        "bytes_added": _count(said, "numTargetBytesAdded"),
        "bytes_removed": _count(said, "numTargetBytesRemoved"),
        "execution_ms": _execution(said),
    }


def _optimize(said: Said) -> dict[str, int | None]:
    added, removed = _nested(said, "filesAdded"), _nested(said, "filesRemoved")
    total = _count(added, "totalSize"), _count(removed, "totalSize")
    return {
        "files_added": _count(said, "numFilesAdded", "numAddedFiles"),
        "files_removed": _count(said, "numFilesRemoved", "numRemovedFiles"),
        "bytes_added": _count(said, "numAddedBytes") if total[0] is None else total[0],
        "bytes_removed": _count(said, "numRemovedBytes") if total[1] is None else total[1],
        "execution_ms": _execution(said),
    }


def _vacuum(said: Said) -> dict[str, int | None]:
    return {
        "files_deleted": _count(said, "numDeletedFiles", "numFilesToDelete"),
        "bytes_deleted": _count(said, "sizeOfDataToDelete"),
        "execution_ms": _execution(said),
    }


def _restore(said: Said) -> dict[str, int | None]:
    return {
        "files_added": _count(said, "numRestoredFile", "numRestoredFiles"),
        "files_removed": _count(said, "numRemovedFile", "numRemovedFiles"),
        "bytes_added": _count(said, "restoredFilesSize"),
        "bytes_removed": _count(said, "removedFilesSize"),
        "execution_ms": _execution(said),
    }


def _repair(said: Said) -> dict[str, int | None]:
    removed = said.get("files_removed")
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
