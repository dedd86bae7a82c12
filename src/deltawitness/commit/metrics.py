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
    """Return the engine's metrics of `operation` under our names.

    Args:
        operation: whose metrics they are; an operation without metrics gives none.
        said: the metrics as the engine spells them; unknown keys are passed over.

    >>> normalised(Operation.DELETE, {"num_deleted_rows": 2, "num_removed_files": 1}).known()
    {'rows_deleted': 2, 'files_removed': 1}
    """
    reader = _READERS.get(operation)
    return CommitMetrics(**reader(said)) if reader else CommitMetrics()


def _count(said: Said, key: str) -> int | None:
    value = said.get(key)
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


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
        "rows_added": _count(said, "num_added_rows"),
        "files_added": _count(said, "num_added_files"),
        "files_removed": _count(said, "num_removed_files"),
        "retries": _count(said, "num_retries"),
        "execution_ms": _count(said, "execution_time_ms"),
    }


def _update(said: Said) -> dict[str, int | None]:
    return {
        "rows_updated": _count(said, "num_updated_rows"),
        "rows_copied": _count(said, "num_copied_rows"),
        "files_added": _count(said, "num_added_files"),
        "files_removed": _count(said, "num_removed_files"),
        "execution_ms": _count(said, "execution_time_ms"),
    }


def _delete(said: Said) -> dict[str, int | None]:
    return {
        "rows_deleted": _count(said, "num_deleted_rows"),
        "rows_copied": _count(said, "num_copied_rows"),
        "files_added": _count(said, "num_added_files"),
        "files_removed": _count(said, "num_removed_files"),
        "execution_ms": _count(said, "execution_time_ms"),
    }


def _merge(said: Said) -> dict[str, int | None]:
    return {
        "rows_added": _count(said, "num_target_rows_inserted"),
        "rows_updated": _count(said, "num_target_rows_updated"),
        "rows_deleted": _count(said, "num_target_rows_deleted"),
        "rows_copied": _count(said, "num_target_rows_copied"),
        "files_added": _count(said, "num_target_files_added"),
        "files_removed": _count(said, "num_target_files_removed"),
        "execution_ms": _count(said, "execution_time_ms"),
    }


def _optimize(said: Said) -> dict[str, int | None]:
    return {
        "files_added": _count(said, "numFilesAdded"),
        "files_removed": _count(said, "numFilesRemoved"),
        "bytes_added": _count(_nested(said, "filesAdded"), "totalSize"),
        "bytes_removed": _count(_nested(said, "filesRemoved"), "totalSize"),
    }


def _vacuum(said: Said) -> dict[str, int | None]:
    deleted = _count(said, "numDeletedFiles")
    return {
        "files_removed": _count(said, "numFilesToDelete") if deleted is None else deleted,
        "bytes_removed": _count(said, "sizeOfDataToDelete"),
    }


def _restore(said: Said) -> dict[str, int | None]:
    return {
        "files_added": _count(said, "numRestoredFile"),
        "files_removed": _count(said, "numRemovedFile"),
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
    Operation.UPDATE: _update,
    Operation.DELETE: _delete,
    Operation.MERGE: _merge,
    Operation.OPTIMIZE: _optimize,
    Operation.VACUUM: _vacuum,
    Operation.RESTORE: _restore,
    Operation.REPAIR: _repair,
}
