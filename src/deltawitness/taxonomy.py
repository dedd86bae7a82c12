"""The closed set of `error.type`, told from the class and the text of what the engine raised.

delta-rs has five exception classes and raises a bare `OSError` or `Exception` for the rest: the
reason is in the text. `tests/test_taxonomy.py` provokes each in the real engine.
"""

from __future__ import annotations

import re

from deltawitness.semconv import ErrorType

__all__ = ["classify", "text_of"]

_TEXT_READ = 4096
"""Characters of an error's text that are looked at: the reason comes first, rows of data after."""

_INTERRUPTS = (KeyboardInterrupt, SystemExit, GeneratorExit)

# The first pattern that is found decides, so the more particular ones come first.
_TEXTS: tuple[tuple[ErrorType, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        (ErrorType.METADATA_REJECTED, r"CommitProperties\.custom_metadata|custom_metadata key"),
        (ErrorType.SOURCE_FAILED, r"C Data interface error|Python exception:"),
        (ErrorType.STORAGE_FULL, r"no space left|StorageFull|disk quota|code: 28\b|os error 28\b"),
        (
            ErrorType.PERMISSION_DENIED,
            (
                r"permission denied|PermissionDenied|read-only file ?system|ReadOnlyFilesystem"
                r"|access ?denied|forbidden|unauthori[sz]ed|operation not permitted"
                r"|\b40[13]\b|code: (?:1|13|30)\b"
            ),
        ),
        (ErrorType.CONCURRENT_TRANSACTION, r"concurrent transaction (?:failed|with the same)"),
        (ErrorType.APPEND_ONLY, r"append-only|appendOnly"),
        (
            ErrorType.COMMIT_CONFLICT,
            (
                r"commit failed: a concurrent|failed to commit transaction|version \d+ already exists"
                r"|exceeded \d+ commit|max(?:imum)? commit attempts|metadata changed since last commit"
                r"|protocol changed since last commit|concurrent append|conflict"
            ),
        ),
        (
            ErrorType.CONSTRAINT_VIOLATION,
            (
                r"failed validation check|invariant|check or invariant|violates? (?:a )?constraint"
                r"|non-nullable|not nullable|null values? in"
            ),
        ),
        (ErrorType.TABLE_EXISTS, r"table already exists|already a delta table"),
        (
            ErrorType.VERSION_NOT_FOUND,
            r"LogSegment end version|invalid table version|no such version",
        ),
        (
            ErrorType.TABLE_NOT_FOUND,
            (
                r"not a delta table|no files in log segment|table not found|no commits found"
                r"|local path .* does not exist|could not create local directory|no table metadata"
            ),
        ),
        (
            ErrorType.PARTITION_MISMATCH,
            r"partitioning does not match|partition column|partition_by|partitioned by",
        ),
        (
            ErrorType.INVALID_SQL,
            r"sql parser error|ParserError|tokenizer|No field named|invalid function",
        ),
        (ErrorType.CAST_FAILED, r"cast error|cannot cast|can't cast|casting from"),
        (
            ErrorType.SCHEMA_MISMATCH,
            (
                r"not found in schema|schema of data does not match|fields? .* not found|schema mismatch"
                r"|cannot merge|number of fields"
            ),
        ),
        (
            ErrorType.LOG_CORRUPT,
            r"invalid json|json error|malformed|corrupt|missing field|EOF while parsing",
        ),
        (
            ErrorType.PROTOCOL_UNSUPPORTED,
            (
                r"unsupported (?:reader|writer|table)|feature.* not supported|not supported by"
                r"|minimum (?:reader|writer)|TransactionError::Unsupported|writer version"
            ),
        ),
        (
            ErrorType.STORAGE_UNREACHABLE,
            (
                r"error sending request|connection refused|tcp connect|dns error|timed? ?out"
                r"|connection (?:reset|closed)|host unreachable"
            ),
        ),
        (ErrorType.OUT_OF_MEMORY, r"resources exhausted|out of memory|memory limit"),
        (ErrorType.EMPTY_INPUT, r"no data source supplied|empty (?:input|schema)|at least one"),
        (
            ErrorType.INVALID_ARGUMENT,
            (
                r"invalid save mode|invalid retention period|does not exist|must be (?:a|one)"
                r"|expected one of|invalid (?:value|argument|option|table property|predicate)"
            ),
        ),
        (
            ErrorType.STORAGE_FAILED,
            r"Generic (?:S3|GCS|MicrosoftAzure|LocalFileSystem)|object ?store",
        ),
    )
)

_PLAIN_CLASSES = {
    "PanicException": ErrorType.ENGINE_PANIC,
    "SchemaMismatchError": ErrorType.SCHEMA_MISMATCH,
}
"""Classes that say it all."""

_CLASSES = {
    "ArrowInvalid": ErrorType.INVALID_ARGUMENT,
    "CommitFailedError": ErrorType.COMMIT_CONFLICT,
    "DeltaProtocolError": ErrorType.PROTOCOL_UNSUPPORTED,
    "TableNotFoundError": ErrorType.TABLE_NOT_FOUND,
}
"""Classes that count when the text says nothing."""


def classify(error: BaseException) -> ErrorType:
    """Return the kind of an engine's error, from the closed set.

    Args:
        error: what was raised; it is not changed.

    >>> classify(OSError(28, "No space left on device")).value
    'storage_full'
    >>> classify(RuntimeError("something new")).value
    '_OTHER'
    """
    if isinstance(error, _INTERRUPTS):
        return ErrorType.INTERRUPTED
    name = type(error).__name__
    if name in _PLAIN_CLASSES:
        return _PLAIN_CLASSES[name]
    return _from_text(text_of(error)[:_TEXT_READ]) or _CLASSES.get(name) or _from_base(error)


def text_of(error: BaseException) -> str:
    """Return an error's text; empty when it cannot say what it is."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error that cannot say what it is still has a class
        return ""


def _from_text(text: str) -> ErrorType | None:
    return next((kind for kind, pattern in _TEXTS if pattern.search(text)), None)


def _from_base(error: BaseException) -> ErrorType:  # noqa: PLR0911 - one return per class
    match error:
        case PermissionError():
            return ErrorType.PERMISSION_DENIED
        case ConnectionError() | TimeoutError():
            return ErrorType.STORAGE_UNREACHABLE
        case OSError():
            return ErrorType.STORAGE_FAILED
        case MemoryError():
            return ErrorType.OUT_OF_MEMORY
        case TypeError() | ValueError() | KeyError() | AttributeError():
            return ErrorType.INVALID_ARGUMENT
        case Exception():
            return ErrorType.OTHER
        case _:
            return ErrorType.INTERRUPTED
