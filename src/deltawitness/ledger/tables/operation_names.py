"""Map operation names in the logs of any engine to our operations."""

from __future__ import annotations

from deltawitness.commit.seams import FUNCTION_SEAMS, MERGE_EXECUTE, METHOD_SEAMS
from deltawitness.semconv import CacheOperation, Operation

__all__ = ["cache_operation_of", "metrics_operation_of", "operation_of", "save_mode_of"]

_MODES = {"errorifexists": "error"}

_SPELLINGS = {operation.value: operation for operation in Operation} | {
    "VACUUM START": Operation.VACUUM,
    "VACUUM END": Operation.VACUUM,
    "CREATE OR REPLACE TABLE": Operation.CREATE_TABLE,
    "ADD COLUMNS": Operation.ADD_COLUMNS,
}

_CACHE_OPERATIONS = {
    seam.operation: seam.cache_operation for seam in (*FUNCTION_SEAMS, *METHOD_SEAMS, MERGE_EXECUTE)
}

_FIRST_WORDS = {
    "ADD": CacheOperation.ALTER,
    "CHANGE": CacheOperation.ALTER,
    "CLONE": CacheOperation.CREATE,
    "CLUSTER": CacheOperation.ALTER,
    "CREATE": CacheOperation.CREATE,
    "DROP": CacheOperation.ALTER,
    "RENAME": CacheOperation.ALTER,
    "REORG": CacheOperation.OPTIMIZE,
    "SET": CacheOperation.ALTER,
    "TRUNCATE": CacheOperation.DELETE,
    "UNSET": CacheOperation.ALTER,
    "UPDATE": CacheOperation.ALTER,
    "UPGRADE": CacheOperation.ALTER,
}
"""Operations of other engines, by the first word of their name in the log."""

_REPLACING = {
    "REPLACE COLUMNS": CacheOperation.ALTER,
    "REPLACE TABLE": CacheOperation.CREATE,
    "REPLACE TABLE AS SELECT": CacheOperation.CREATE,
}

_METRICS_LIKE = {
    CacheOperation.WRITE: Operation.WRITE,
    CacheOperation.MERGE: Operation.MERGE,
    CacheOperation.UPDATE: Operation.UPDATE,
    CacheOperation.DELETE: Operation.DELETE,
    CacheOperation.OPTIMIZE: Operation.OPTIMIZE,
    CacheOperation.VACUUM: Operation.VACUUM,
    CacheOperation.RESTORE: Operation.RESTORE,
    CacheOperation.REPAIR: Operation.REPAIR,
    CacheOperation.CREATE: Operation.CREATE_TABLE,
    CacheOperation.CONVERT: Operation.CONVERT,
}


def save_mode_of(value: object) -> str | None:
    """Return the save mode of a commit in the spelling of `write_deltalake`; None if it has none.

    Args:
        value: the operation parameter `mode` of the commit.

    >>> save_mode_of("ErrorIfExists"), save_mode_of("Append"), save_mode_of(None)
    ('error', 'append', None)
    """
    if not isinstance(value, str):
        return None
    return _MODES.get(value.lower(), value.lower())


def operation_of(text: str | None) -> Operation | None:
    """Return the operation of a name in a log; None for an unknown name.

    >>> operation_of("VACUUM END"), operation_of("STREAMING UPDATE")
    (<Operation.VACUUM: 'VACUUM'>, None)
    """
    return None if text is None else _SPELLINGS.get(text)


def cache_operation_of(text: str | None, recorded: object = None) -> CacheOperation:
    """Return the cache operation of a commit; an unknown one counts as a write.

    Args:
        text: the operation's name in the log.
        recorded: the cache operation in the commit's metadata, if any.

    >>> cache_operation_of("RENAME COLUMN").value, cache_operation_of("STREAMING UPDATE").value
    ('alter', 'write')
    """
    if isinstance(recorded, str) and recorded in set(CacheOperation):
        return CacheOperation(recorded)
    operation = operation_of(text)
    if operation in _CACHE_OPERATIONS:
        return _CACHE_OPERATIONS[operation]
    if text is None:
        return CacheOperation.WRITE
    return _REPLACING.get(text) or _FIRST_WORDS.get(text.partition(" ")[0], CacheOperation.WRITE)


def metrics_operation_of(text: str | None, recorded: object = None) -> Operation:
    """Return the operation whose metric names fit a commit's metrics.

    Args:
        text: the operation's name in the log.
        recorded: the cache operation in the commit's metadata, if any.
    """
    operation = operation_of(text)
    return operation or _METRICS_LIKE.get(cache_operation_of(text, recorded), Operation.ADD_COLUMNS)
