"""Classify an engine's exception as one of the closed set of `error.type`, by its class and its text.

delta-rs has five exception classes and raises a plain `OSError` or `Exception` for everything else, with
the reason in the text. `tests/test_error_types.py` provokes each type in the real engine.
"""

from __future__ import annotations

import re

from deltawitness.events import ENGINE_PACKAGES
from deltawitness.semconv import CONFLICT_TYPES, ErrorType

__all__ = ["classify", "error_text_of", "is_conflict", "is_programs_own"]

_TEXT_READ = 8192
"""Characters of an error's text that are searched: the reason comes first, rows of data follow."""

_INTERRUPTS = (KeyboardInterrupt, SystemExit, GeneratorExit)

# `re` compiles and caches the patterns at their first use: most programs have no error to classify.

# User data in an engine's text. The rest is the engine's own message.
_USER_DATA = (
    (r"\x1b\[[0-9;]*[A-Za-z]", ""),
    # A preview of rows, and a table: everything from there to the end.
    (r"(?is)(?<=preview of invalid data).*", " "),
    (r"(?s)\+-[-+]*\+.*", " "),
    (r"(?s)[\u250c\u2502].*", " "),
    # The list of existing columns, to the end: their names have no quotes.
    (r"(?is)\bvalid fields are .*", " "),
    (r"(?is)(?<=\bno field named )[^\n]*?(?=\.\s|\.?$)", "?"),
    # Literals and identifiers; an apostrophe inside a word does not start one.
    (r"(?s)(?<!\w)'(?:[^'\\]|''|\\.)*(?:'(?!\w)|$)", "?"),
    (r"(?s)\"(?:[^\"\\]|\"\"|\\.)*(?:\"|$)", "?"),
    (r"(?s)`[^`]*(?:`|$)", "?"),
    (r"\b[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s\"'`<>|]*", "?"),
    (r"(?<![\w])[A-Za-z]:\\[^\n\"'<>|]*", "?"),
    (r"(?<![\w<])(?:~|\.{1,2})?/[^\s\"'`<>|,;:)\]}]*", "?"),
    (r"\b[\w.%=+-]+(?:/[\w.%=+@-]+)+/?", "?"),
)

# The earliest match in the text decides: an engine names the error first, and then shows data.
_TEXTS = (
    (ErrorType.METADATA_REJECTED, r"CommitProperties\.custom_metadata|custom_metadata key"),
    (ErrorType.SOURCE_FAILED, r"C Data interface error|Python exception:"),
    (ErrorType.STORAGE_FULL, r"no space left|StorageFull|disk quota|code: 28\b|os error 28\b"),
    (
        ErrorType.PERMISSION_DENIED,
        (
            r"permission denied|PermissionDenied|read-only file ?system|ReadOnlyFilesystem"
            r"|access ?denied|operation not permitted|lacked (?:valid|the necessary)"
            r"|status(?: code)?:? 40[13]\b|\b40[13] (?:forbidden|unauthori[sz]ed)"
            r"|os \{ code: (?:1|13|30)\b|os error (?:1|13|30)\b"
        ),
    ),
    (ErrorType.CONCURRENT_TRANSACTION, r"concurrent transaction (?:failed|with the same)"),
    (ErrorType.APPEND_ONLY, r"append-only|appendOnly"),
    (
        ErrorType.COMMIT_CONFLICT,
        (
            r"commit failed: a concurrent|version \d+ already exists"
            r"|exceeded \d+ commit|max(?:imum)? commit attempts|metadata changed since last commit"
            r"|protocol changed since last commit|concurrent append"
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
            r"invalid save mode|invalid retention period|must be (?:a|one)"
            r"|expected one of|invalid (?:value|argument|option|table property|predicate)"
        ),
    ),
)

# Ambiguous texts, and prefixes of various reasons; used where none of the patterns above matches.
_WEAK_TEXTS = (
    (ErrorType.COMMIT_CONFLICT, r"failed to commit transaction|commit conflict"),
    (
        ErrorType.LOG_CORRUPT,
        r"invalid json|json error|malformed|corrupt|missing field|EOF while parsing",
    ),
    (ErrorType.INVALID_ARGUMENT, r"does not exist"),
    (
        ErrorType.STORAGE_FAILED,
        r"Generic (?:S3|GCS|MicrosoftAzure|LocalFileSystem)|object ?store",
    ),
)

_PLAIN_CLASSES = {
    "ExpectationError": ErrorType.EXPECTATION_FAILED,
    "PanicException": ErrorType.ENGINE_PANIC,
    "RequirementError": ErrorType.REQUIREMENT_MISSING,
    "SchemaMismatchError": ErrorType.SCHEMA_MISMATCH,
}
"""Exception classes that determine the type regardless of the text."""

_CLASSES = {
    "ArrowInvalid": ErrorType.INVALID_ARGUMENT,
    "CommitFailedError": ErrorType.COMMIT_CONFLICT,
    "DeltaProtocolError": ErrorType.PROTOCOL_UNSUPPORTED,
    "TableNotFoundError": ErrorType.TABLE_NOT_FOUND,
}
"""Exception classes that determine the type where the text matches no pattern."""


def classify(error: BaseException, text: str | None = None) -> ErrorType:
    """Return the type of an engine's exception, from the closed set.

    Rows, names, paths and quoted text are removed first, so that user data does not influence the type.

    Args:
        error: the exception; not changed.
        text: its text after the caller has removed known user data; the exception's own text when None.

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
    kind = None
    if _is_engines(type(error).__module__):
        kind = _from_text(_without_user_data(error_text_of(error) if text is None else text))
    return kind or _CLASSES.get(name) or _from_base(error)


def is_conflict(error: BaseException) -> bool:
    """Return whether an engine's exception says that a write lost against a concurrent commit.

    >>> is_conflict(OSError(28, "No space left on device"))
    False
    """
    return classify(error) in CONFLICT_TYPES


def error_text_of(error: BaseException) -> str:
    """Return an exception's text; empty when its `__str__` raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the exception still has a class
        return ""


def is_programs_own(error: BaseException) -> bool:
    """Return whether the program raised an exception, and not an engine or deltawitness.

    The program raised it if its class is not one of :data:`ENGINE_PACKAGES`, or if its innermost frame is
    in the program: in a function that an engine called. The text of such an exception may be data.
    """
    if not _is_engines(type(error).__module__):
        return True
    traceback = error.__traceback__
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return not _is_engines(str(traceback.tb_frame.f_globals.get("__name__", "")))


def _is_engines(module: str) -> bool:
    return module.partition(".")[0] in ENGINE_PACKAGES


def _without_user_data(text: str) -> str:
    """Return an engine's text without user data."""
    message = text[:_TEXT_READ]
    for pattern, placeholder in _USER_DATA:
        message = re.sub(pattern, placeholder, message)
    return message


def _from_text(message: str) -> ErrorType | None:
    for texts in (_TEXTS, _WEAK_TEXTS):
        found = [
            (match.start(), place, kind)
            for place, (kind, pattern) in enumerate(texts)
            if (match := re.search(pattern, message, re.IGNORECASE))
        ]
        if found:
            return min(found)[2]
    return None


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
