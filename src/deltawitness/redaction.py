"""Redact paths, SQL, rows and secrets before anything is exported. All exported text passes through here.

All that looks like a path, a URI, a literal, a credential or a preview of rows is replaced by a
placeholder. The patterns run in linear time, and the text is truncated before they run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any, TypeAlias

from deltawitness.events import Failed, InputVersion, WriteEvent, WriteIntent, WriteOutcome
from deltawitness.locations import last_segment, spellings, strip_credentials, table_id
from deltawitness.quoted_text import quoted_spans
from deltawitness.run_context import RunContext
from deltawitness.run_origin import RunOrigin
from deltawitness.settings import LedgerMessages, Settings, TableNames

__all__ = [
    "key_hash",
    "message_for_ledger",
    "redact",
    "redact_message",
    "redact_text",
    "redact_value",
    "redact_version",
    "redacted_intent",
    "redacted_origin",
    "redacted_run",
    "table_name_for",
    "without_location",
    "without_source_words",
]

TEXT_LIMIT = 300
"""Maximum length in characters of exported free text."""

_READ_LIMIT = 8192
"""Characters of a text that are processed; the rest is dropped."""

CAST_PLACEHOLDER = "cast value ? "

_Placeholders: TypeAlias = tuple[tuple[re.Pattern[str], str], ...]

_PLACEHOLDERS: _Placeholders = tuple(
    (re.compile(pattern), placeholder)
    for pattern, placeholder in (
        (r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0e-\x1b\x7f]", ""),
        # A preview of rows: everything from its first line to the end.
        (r"(?is)preview of invalid data.*", "[rows]"),
        (r"(?s)\+-[-+]*\+.*", "[rows]"),
        (r"(?s)[┌│].*", "[rows]"),
        (r"(?m)^\s*\|.*\|\s*$", "[rows]"),
        (r"(?is)\b(?:in row|rows?|values?)\s*:?\s*\[.*?(?:\]|$)", "[rows]"),
        # A regular expression shown with a caret under its error: everything from there to the end.
        (r"(?is)regex(?:p)? parse error:.*", "regex parse error: ?"),
        (r"(?is)\bdid not compile:.*", "did not compile: ?"),
        # A literal without quotes between words of the engine; the literal may contain the same words.
        (r"(?is)\bcast (?:value|string)\s.{0,2000}\s(?=to value of \w+ type)", CAST_PLACEHOLDER),
        (r"(?is)\bcast (?:value|string)\s.{0,2000}?\s(?=to\b)", CAST_PLACEHOLDER),
        (r"(?s)\$([A-Za-z_]*)\$.*?(?:\$\1\$|$)", "?"),
        (r"(?s)-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|$)", "[secret]"),
        (r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_.-]+", "[secret]"),
        (r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{4,}", "[secret]"),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b", "[secret]"),
        # Access tokens that have a known prefix.
        (
            (
                r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
                r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|dapi[0-9a-f]{24,}|AIza[\w-]{30,}|sk-[\w-]{20,})"
            ),
            "[secret]",
        ),
        # Any URI, including its credentials and its query.
        (r"\b[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s\"'`<>|]*", "[uri]"),
        (r"(?i)\bfile:[^\s\"'`<>|]+", "[uri]"),
        (
            (
                r"(?i)\b[\w.-]{0,40}(?:passw(?:or)?d|passwd|secret|token|credential|api[_-]?key"
                r"|access[_-]?key|account[_-]?key|private[_-]?key|signature|\bpwd|\bsig|\bsas)"
                r"[\w.-]{0,40}[\"']?\s*(?:[:=]|\bis\b)\s*(?:\"[^\"]*\"|'[^']*'|(?:[^\s,;&)}\]]|,\S)+)"
            ),
            "[secret]",
        ),
        (r"(?i)\b(?:sig|signature)%3d[^\s\"'&]+", "[secret]"),
        (r"(?i)[?&](?:sig|sv|se|sp|sr|st|x-[a-z]+-[a-z-]+)=[^\s\"'&]+", "[secret]"),
        (r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,253}\.[A-Za-z]{2,24}\b", "[email]"),
    )
)
"""Patterns that are replaced before what is quoted. They may match a part of what is quoted."""

_UNQUOTED_PLACEHOLDERS: _Placeholders = tuple(
    (re.compile(pattern), placeholder)
    for pattern, placeholder in (
        # To the end of the line: the end of a path with blanks cannot be recognized.
        (r"(?<![\w])[A-Za-z]:\\[^\n\"'<>|]*", "[path]"),
        (r"\\\\[^\s\"'<>|]+", "[path]"),
        (r"(?<![\w<])(?:~|\.{1,2})?/[^\s\"'`<>|,;:)\]}]*", "[path]"),
        (r"\b[\w.%=+-]+(?:/[\w.%=+@-]+)+/?", "[path]"),
        (r"\b[\w.%=+-]+\.(?:parquet|json|csv|arrow|crc|checkpoint|py)\b", "[path]"),
        (r"(?<![\w.?-])[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])", "?"),
    )
)
"""Patterns that are replaced after what is quoted."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
_TOKEN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,63}")
_LABEL_DIGITS = 8
"""Maximum number of digits in the words of a label that do not begin with a letter: those of a date."""

_SECRET_NAME = re.compile(
    r"(?i)passw(?:or)?d|passwd|secret|token|credential|api[_-]?key|access[_-]?key|eyJ[A-Za-z0-9_-]{8}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|[A-Za-z0-9+/_-]{40,}|[0-9a-f]{24,}"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|sk-)[\w-]{10,}|\bAIza[\w-]{20,}"
)
_SECRET_KEY = re.compile(
    r"(?i)passw(?:or)?d|passwd|secret|token|credential|authorization|cookie|api[_-]?key"
    r"|access[_-]?key|account[_-]?key|private[_-]?key|(?:^|[._-])sas(?:$|[._-])|connection[_-]?string"
)

_DATA_KEY = re.compile(
    r"(?i)(?:.*[._-])?(?:rows?|records?|values?|samples?|preview|predicate|filters?|where|sql|query"
    r"|statement|literals?|data)"
)


def redact(event: WriteEvent, settings: Settings) -> WriteEvent:
    """Return a copy of an event that is safe to export.

    Args:
        event: the full event; not changed.
        settings: provides the key for table ids, if one is set.

    Returns:
        The event without locations and thread name, with a hashed cache key, redacted texts, and
        table ids that are keyed when a key is set. The function is idempotent.
    """
    return replace(
        event,
        run=redacted_run(event.run),
        intent=redacted_intent(event.intent, settings),
        outcome=_redacted_outcome(event.outcome, event.intent.table_uri),
        table_id=_keyed(event.table_id, event.intent.table_uri, settings),
        thread=None,
        expectations=event.expectations and replace(event.expectations, quarantine=None),
    )


def redacted_run(run: RunContext) -> RunContext:
    """Return a copy of a run with redacted job name, attributes, message and origin."""
    attributes = {
        redact_label(name): redact_named(name, value) for name, value in run.attributes.items()
    }
    return replace(
        run,
        job=redact_label(run.job),
        attributes=MappingProxyType(attributes),
        message=None if run.message is None else redact_text(run.message),
        origin=redacted_origin(run.origin),
    )


@lru_cache(maxsize=64)
def redacted_origin(origin: RunOrigin) -> RunOrigin:
    """Return a copy of an origin without credentials, paths of the machine and secrets. Idempotent."""
    return replace(
        origin,
        job=_label_or_none(origin.job),
        run_id=_label_or_none(origin.run_id),
        task=_label_or_none(origin.task),
        pod=_label_or_none(origin.pod),
        link=None if origin.link is None else _redact_link(origin.link),
        image=None if origin.image is None else _redact_image(origin.image),
        code_version=None if origin.code_version is None else redact_version(origin.code_version),
        author=None if origin.author is None else redact_message(origin.author),
    )


def _label_or_none(label: str | None) -> str | None:
    return None if label is None else redact_label(label)


_LINK = re.compile(
    r"(https?://)(?:[^/@?#]*@)?([A-Za-z0-9.-]+(?::\d{1,5})?(?:/[\w.:%+~/-]*)?)(?:[?#].*)?"
)


def _redact_link(link: str) -> str | None:
    """Return a URL without user, query and fragment; None for anything else.

    >>> _redact_link("https://ann:pw@ci.example.com/o/r/actions/runs/7?token=x#step")
    'https://ci.example.com/o/r/actions/runs/7'
    """
    found = _LINK.fullmatch(link)
    return None if found is None else found[1] + found[2]


_IMAGE = re.compile(r"[a-z0-9][a-z0-9.:/_-]{0,254}(?::[\w.-]{1,128})?(?:@sha256:[0-9a-f]{64})?")


def _redact_image(image: str) -> str | None:
    """Return the name of a container image; None for a text that is not one.

    >>> _redact_image("ghcr.io/org/app:1.2"), _redact_image("user:pw@registry/app")
    ('ghcr.io/org/app:1.2', None)
    """
    return image if _IMAGE.fullmatch(image) else None


_VERSION = re.compile(r"[0-9a-f]{7,64}")


def redact_version(version: str) -> str:
    """Return a commit id unchanged, and any other version redacted as a label.

    >>> redact_version("1f3a" * 10) == "1f3a" * 10, redact_version("v1.2.3")
    (True, 'v1.2.3')
    """
    return version if _VERSION.fullmatch(version) else redact_label(version)


def redacted_intent(intent: WriteIntent, settings: Settings) -> WriteIntent:
    """Return a copy of a write's intent without location, with redacted policy, cache key and inputs."""
    key = intent.cache_key
    inputs, run_inputs = (
        tuple(
            InputVersion(_keyed(read.table_id, read.uri, settings) or read.table_id, read.version)
            for read in reads
        )
        for reads in (intent.inputs, intent.run_inputs)
    )
    return replace(
        intent,
        message=None if intent.message is None else redact_text(intent.message),
        table_uri=None,
        policy=redact_label(intent.policy),
        cache_key=None if key is None else key_hash(key),
        inputs=inputs,
        run_inputs=run_inputs,
    )


def _redacted_outcome(outcome: WriteOutcome, location: str | None) -> WriteOutcome:
    if not isinstance(outcome, Failed):
        return outcome
    if outcome.is_programs_own:
        # `exception_type` remains.
        return replace(outcome, message="")
    message = without_source_words(outcome.message)
    return replace(outcome, message=redact_text(message, location=location))


_SOURCE = re.compile(r"(?is)\b(?:C Data interface error|Python exception|PyErr)\b.*")
_TRACEBACK = re.compile(
    r"(?m)Traceback \(most recent call last\):\n(?:[ \t].*\n)*([A-Za-z_][\w.]{0,127})"
)


def without_source_words(text: str) -> str:
    """Remove the error text of a source of rows from an engine's text; keep the exception's type.

    >>> without_source_words("Arrow error: C Data interface error: Invalid: no age for Ann")
    'Arrow error: the source of the rows failed'
    """
    found = _SOURCE.search(text)
    if found is None:
        return text
    raised = _TRACEBACK.search(text, found.start())
    kind = "" if raised is None else f" with {raised[1].rpartition('.')[2]}"
    return f"{text[: found.start()]}the source of the rows failed{kind}"


def _keyed(unkeyed: str | None, uri: str | None, settings: Settings) -> str | None:
    if settings.table_id_key is None or uri is None:
        return unkeyed
    return table_id(uri, key=settings.table_id_key)


_HASHED = re.compile(r"key:[0-9a-f]{32}")


@lru_cache(maxsize=1024)
def key_hash(cache_key: str) -> str:
    """Return the exported form of a cache key: `key:` and 32 hex digits of its SHA-256. Idempotent.

    >>> key_hash("k") == key_hash(key_hash("k"))
    True
    """
    if _HASHED.fullmatch(cache_key):
        return cache_key
    return "key:" + sha256(cache_key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def redact_text(text: str, *, location: str | None = None) -> str:
    """Return free text without literals, rows, paths, URIs, credentials and e-mail addresses.

    Args:
        text: any text; characters after the first 8,192 are dropped.
        location: location of the table that the text is about. Its spellings are replaced first,
            because no pattern can recognize the end of a path with blanks.

    Returns:
        One line of at most 300 characters.

    >>> redact_text("cannot read /home/ann/t/part-1.parquet: id = 'x' and n > 3")
    'cannot read [path]: id = ? and n > ?'
    """
    # An exporter cannot encode a lone surrogate.
    reduced = without_location(text[:_READ_LIMIT].encode("utf-8", "replace").decode(), location)
    reduced = _without_quoted(_with_placeholders(reduced, _PLACEHOLDERS))
    for pattern, placeholder in _UNQUOTED_PLACEHOLDERS:
        reduced = pattern.sub(placeholder, reduced)
    line = " ".join(reduced.split())
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 1] + "…"


def _with_placeholders(text: str, placeholders: _Placeholders) -> str:
    """Replace the patterns in a text, each with all of what is quoted that it matches a part of.

    >>> _with_placeholders("password='it''s x' for 'y'", _PLACEHOLDERS)
    "[secret] for 'y'"
    """
    for pattern, placeholder in placeholders:
        if ("'" in text or '"' in text) and pattern.search(text):
            found = [match.span() for match in pattern.finditer(text)]
            text = _replaced(text, _extended(found, quoted_spans(text)), placeholder)
        else:
            text = pattern.sub(placeholder, text)
    return text


def _without_quoted(text: str) -> str:
    """Replace what may be quoted, and other apostrophes by typographic ones, which begin no literal.

    >>> _without_quoted("can't read 'x' of the users' folder").replace(chr(0x2019), "^")
    'can^t read ? of the users^ folder'
    """
    return _replaced(text, quoted_spans(text), "?").replace("'", "\u2019")


def _extended(
    found: list[tuple[int, int]], quoted: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield spans, each extended to the quoted spans that it contains a part of. Both lists are sorted."""
    reached, index = 0, 0
    for first, last in found:
        start, end = max(first, reached), last
        if end < start or (end == start and first != last):
            continue
        while index < len(quoted) and quoted[index][1] <= start:
            index += 1
        while index < len(quoted) and quoted[index][0] < end:
            start, end = min(start, quoted[index][0]), max(end, quoted[index][1])
            index += 1
        reached = end
        yield start, end


def _replaced(text: str, spans: Iterable[tuple[int, int]], placeholder: str) -> str:
    parts, reached = [], 0
    for start, end in spans:
        parts += [text[reached:start], placeholder]
        reached = end
    return "".join([*parts, text[reached:]])


def without_location(text: str, location: str | None) -> str:
    """Replace each spelling of a location in a text by `/`. The patterns cannot match paths with blanks."""
    for spelling in () if location is None else spellings(location):
        text = text.replace(spelling, "/")
    return text


def message_for_ledger(text: str, mode: LedgerMessages) -> str | None:
    """Return an error's text for the ledger and the terminal, which stay next to the data.

    Args:
        text: any text; characters after the first 8,192 are dropped.
        mode: `safe` removes secrets, previews of rows, e-mail addresses and values that could not be
            cast, and leaves numbers, paths and quoted names; `full` removes only secrets; `type`
            removes everything.

    Returns:
        One line of at most 1,000 characters; None when `mode` is `type`.

    >>> message_for_ledger("expected 1 column, got 2: can't read /data/t", LedgerMessages.SAFE)
    "expected 1 column, got 2: can't read /data/t"
    """
    if mode is LedgerMessages.TYPE:
        return None
    reduced = text[:_READ_LIMIT].encode("utf-8", "replace").decode()
    reduced = _URI.sub(_uri_without_credentials, reduced)
    reduced = _with_placeholders(reduced, _LEDGER_PLACEHOLDERS[mode])
    line = " ".join(reduced.split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…"


_HOME = re.compile(r"(?:/home|/Users|[A-Za-z]:\\Users)[/\\][^\s/\\\"'`<>|,;:)\]}]+|/root(?=/|\b)")


@lru_cache(maxsize=256)
def redact_message(text: str) -> str:
    """Return a message of the program for commits and the ledger, which stay next to the data.

    Numbers and names stay. Secrets, previews of rows, e-mail addresses and home directories do not.

    >>> redact_message("backfill 2024-03 for ticket 12, see /home/ann/notes, password=x")
    'backfill 2024-03 for ticket 12, see ~/notes, [secret]'
    """
    return message_for_ledger(_HOME.sub("~", text), LedgerMessages.SAFE) or ""


MESSAGE_LIMIT = 1000
"""Maximum length in characters of an error's text in the ledger."""

_URI = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s\"'`<>|]*")
_ALWAYS_MASKED = frozenset({"", "[secret]"})
_LEDGER_PLACEHOLDERS = {
    LedgerMessages.FULL: tuple(entry for entry in _PLACEHOLDERS if entry[1] in _ALWAYS_MASKED),
    LedgerMessages.SAFE: tuple(
        entry
        for entry in _PLACEHOLDERS
        if entry[1] in _ALWAYS_MASKED | {"[rows]", "[email]", CAST_PLACEHOLDER}
    ),
}


def _uri_without_credentials(found: re.Match[str]) -> str:
    try:
        return strip_credentials(found[0])
    except ValueError:
        return "[uri]"


@lru_cache(maxsize=1024)
def redact_label(label: str) -> str:
    """Return a name that a user chose, such as of a job or a policy, in a form that is safe to export.

    A plain name is unchanged, digits included; anything else is redacted as free text. Words of a name may be
    numbers, dates and times with at most 8 digits together, so that a number of a card or a phone is not one.

    >>> (
    ...     redact_label("nightly-load_2024.1"),
    ...     redact_label("load 2024-03 10"),
    ...     redact_label("/home/ann/job"),
    ... )
    ('nightly-load_2024.1', 'load 2024-03 10', '[path]')
    """
    first, *others = label.split(" ")
    numbers = [word for word in others if not _NAME.fullmatch(word)]
    is_plain = (
        (_NAME if others else _TOKEN).fullmatch(first) is not None
        and all(map(_TOKEN.fullmatch, numbers))
        and sum(map(str.isdigit, "".join(numbers))) <= _LABEL_DIGITS
    )
    return label if is_plain and not _SECRET_NAME.search(label) else redact_text(label)


def redact_named(name: str, value: str) -> str:
    """Redact a named value: mask it if its name is that of a secret, else redact it as a label."""
    return "[secret]" if _SECRET_KEY.search(name) else redact_label(value)


def redact_value(value: object, *, depth: int = 6, width: int = 64) -> Any:
    """Return a copy of a structured payload that is safe to export.

    Args:
        value: mappings, sequences and scalars; any other object is replaced by its class name.
        depth: number of levels that are copied.
        width: number of members that are copied of each mapping or sequence.

    >>> redact_value({"rows": 3, "password": "x", "files": ["/home/ann/a"]})
    {'rows': 3, 'password': '[secret]', 'files': ['[path]']}
    """
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return redact_label(value) if len(value) <= TEXT_LIMIT else redact_text(value)
        case Mapping() if depth > 0:
            return {
                redact_label(str(name)): (
                    _placeholder_for(str(name), member)
                    or redact_value(member, depth=depth - 1, width=width)
                )
                for name, member in list(value.items())[:width]
            }
        case list() | tuple() | set() | frozenset() if depth > 0:
            return [
                redact_value(member, depth=depth - 1, width=width) for member in list(value)[:width]
            ]
        case _:
            return f"[{type(value).__name__}]"


def _placeholder_for(name: str, member: object) -> str | None:
    """Return the placeholder of a member whose name is that of a secret, of data or of SQL, else None."""
    if member is None or isinstance(member, int | float):
        return None  # a number of rows is not a row
    if _SECRET_KEY.search(name):
        return "[secret]"
    return "[rows]" if _DATA_KEY.fullmatch(name) else None


@lru_cache(maxsize=4096)
def table_name_for(
    uri: str | None, metadata_name: str | None, mode: TableNames = TableNames.PATH
) -> str | None:
    """Return the name of a table for telemetry.

    Args:
        uri: location of the table.
        metadata_name: the name in the table's metadata; it has precedence.
        mode: which of the two sources may be used.

    Returns:
        None when there is no name, or when the name is not a plain identifier, looks like a secret,
        or is a user's home folder.

    >>> table_name_for("s3://bucket/lake/flights/", None)
    'flights'
    >>> table_name_for("/home/ann", None) is None
    True
    """
    if mode is TableNames.NONE:
        return None
    candidate = metadata_name
    if not candidate and mode is TableNames.PATH and uri:
        candidate = last_segment(uri)
    if not candidate or not _NAME.fullmatch(candidate) or _SECRET_NAME.search(candidate):
        return None
    return candidate
