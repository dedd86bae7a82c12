"""The one place where paths, SQL, rows and secrets are made fit to leave the process.

Text is reduced, never trusted: what looks like a path, a URI, a literal, a credential or a preview
of rows is replaced by a mark. The patterns are linear and the text is cut before they run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from deltawitness.events import Failed, InputVersion, WriteEvent, WriteIntent, WriteOutcome
from deltawitness.hashing import table_id
from deltawitness.run import RunContext
from deltawitness.settings import LedgerMessages, Settings, TableNames

__all__ = [
    "key_hash",
    "message_for_ledger",
    "redact",
    "redact_text",
    "redact_value",
    "redacted_intent",
    "redacted_run",
    "strip_credentials",
    "table_name_for",
    "without_location",
    "without_source_words",
]

TEXT_LIMIT = 300
"""Characters of free text that may leave the process."""

_READ_LIMIT = 8192
"""Characters of free text that are looked at."""

CAST_MARK = "cast value ? "

_MARKS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), mark)
    for pattern, mark in (
        (r"\x1b\[[0-9;]*[A-Za-z]", ""),
        # A preview of rows: everything from its first line on.
        (r"(?is)preview of invalid data.*", "[rows]"),
        (r"(?s)\+-[-+]*\+.*", "[rows]"),
        (r"(?s)[┌│].*", "[rows]"),
        (r"(?m)^\s*\|.*\|\s*$", "[rows]"),
        (r"(?is)\b(?:in row|rows?|values?)\s*:?\s*\[.*?(?:\]|$)", "[rows]"),
        # A pattern that is shown with a mark under its fault: everything from there on.
        (r"(?is)regex(?:p)? parse error:.*", "regex parse error: ?"),
        (r"(?is)\bdid not compile:.*", "did not compile: ?"),
        # A literal without quotes, between the engine's own words; it may hold them itself.
        (r"(?is)\bcast (?:value|string)\s.{0,2000}\s(?=to value of \w+ type)", CAST_MARK),
        (r"(?is)\bcast (?:value|string)\s.{0,2000}?\s(?=to\b)", CAST_MARK),
        (r"(?s)\$([A-Za-z_]*)\$.*?(?:\$\1\$|$)", "?"),
        (r"(?s)-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|$)", "[secret]"),
        (r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_.-]+", "[secret]"),
        (r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{4,}", "[secret]"),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b", "[secret]"),
        # Tokens that are known by how they begin.
        (
            (
                r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
                r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|dapi[0-9a-f]{24,}|AIza[\w-]{30,}|sk-[\w-]{20,})"
            ),
            "[secret]",
        ),
        # Any URI, whole, with the credentials and the query that it may hold.
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
        # SQL and error literals between quotes; a doubled or an escaped quote goes on.
        # After an escaped one nobody knows where it ends: in some dialects that is the end, in some not.
        (r"(?s)'(?:[^'\\]|''|\\[^'])*(?:'|\\'.*|$)", "?"),
        (r"\"(?:[^\"\\]|\"\"|\\.)*(?:\"|$)", "?"),
        # To the end of the line: nothing says where a path with blanks ends.
        (r"(?<![\w])[A-Za-z]:\\[^\n\"'<>|]*", "[path]"),
        (r"\\\\[^\s\"'<>|]+", "[path]"),
        (r"(?<![\w<])(?:~|\.{1,2})?/[^\s\"'`<>|,;:)\]}]*", "[path]"),
        (r"\b[\w.%=+-]+(?:/[\w.%=+@-]+)+/?", "[path]"),
        (r"\b[\w.%=+-]+\.(?:parquet|json|csv|arrow|crc|checkpoint|py)\b", "[path]"),
        (r"(?<![\w.?-])[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])", "?"),
    )
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
_TOKEN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,63}")
_SECRET_NAME = re.compile(
    r"(?i)passw(?:or)?d|passwd|secret|token|credential|api[_-]?key|access[_-]?key|eyJ[A-Za-z0-9_-]{8}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|[A-Za-z0-9+/_-]{40,}|[0-9a-f]{24,}"
)
_HOMES = frozenset({"home", "Users", "users", "Documents and Settings"})
_SECRET_KEY = re.compile(
    r"(?i)passw(?:or)?d|passwd|secret|token|credential|authorization|cookie|api[_-]?key"
    r"|access[_-]?key|account[_-]?key|private[_-]?key|(?:^|[._-])sas(?:$|[._-])|connection[_-]?string"
)

_DATA_KEY = re.compile(
    r"(?i)(?:.*[._-])?(?:rows?|records?|values?|samples?|preview|predicate|filters?|where|sql|query"
    r"|statement|literals?|data)"
)


def redact(event: WriteEvent, settings: Settings) -> WriteEvent:
    """Return the event as it may leave the process.

    Args:
        event: the full record, which stays as it is.
        settings: whether table ids are keyed.

    Returns:
        The same event without locations, its cache key hashed, its texts reduced, its table id
        keyed when a key is set. Redacting it again changes nothing.
    """
    return replace(
        event,
        run=redacted_run(event.run),
        intent=redacted_intent(event.intent, settings),
        outcome=_redacted_outcome(event.outcome, event.intent.table_uri),
        table_id=_keyed(event.table_id, event.intent.table_uri, settings),
        thread=None,
    )


def redacted_run(run: RunContext) -> RunContext:
    """Return the run with its job and its attributes as they may leave the process."""
    attributes = {
        redact_label(name): redact_named(name, value) for name, value in run.attributes.items()
    }
    return replace(run, job=redact_label(run.job), attributes=MappingProxyType(attributes))


def redacted_intent(intent: WriteIntent, settings: Settings) -> WriteIntent:
    """Return what a write means to do as it may leave the process."""
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
        # Its type stands beside it, in `exception_type`.
        return replace(outcome, message="")
    message = without_source_words(outcome.message)
    return replace(outcome, message=redact_text(message, location=location))


_SOURCE = re.compile(r"(?is)\b(?:C Data interface error|Python exception|PyErr)\b.*")
_TRACEBACK = re.compile(
    r"(?m)Traceback \(most recent call last\):\n(?:[ \t].*\n)*([A-Za-z_][\w.]{0,127})"
)


def without_source_words(text: str) -> str:
    """Return an engine's text without what the source of a write said, but for its exception's type.

    >>> without_source_words("Arrow error: C Data interface error: Invalid: no age for Ann")
    'Arrow error: the source of the rows failed'
    """
    found = _SOURCE.search(text)
    if found is None:
        return text
    raised = _TRACEBACK.search(text, found.start())
    kind = "" if raised is None else f" with {raised[1].rpartition('.')[2]}"
    return f"{text[: found.start()]}the source of the rows failed{kind}"


def _keyed(known: str | None, uri: str | None, settings: Settings) -> str | None:
    if settings.table_id_key is None or uri is None:
        return known
    return table_id(uri, key=settings.table_id_key)


_HASHED = re.compile(r"key:[0-9a-f]{32}")


@lru_cache(maxsize=1024)
def key_hash(cache_key: str) -> str:
    """Return what stands for a cache key outside the process: its hash, marked as one.

    >>> key_hash("k") == key_hash(key_hash("k"))
    True
    """
    if _HASHED.fullmatch(cache_key):
        return cache_key
    return "key:" + sha256(cache_key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def redact_text(text: str, *, location: str | None = None) -> str:
    """Return free text without literals, rows, paths, URIs, credentials and e-mail addresses.

    Args:
        text: any text; what is beyond the first 8,192 characters is not looked at and is dropped.
        location: of the table that the text is about, found in it in any spelling: no pattern can
            tell where a path with blanks ends.

    Returns:
        One line of at most 300 characters.

    >>> redact_text("cannot read /home/ann/t/part-1.parquet: id = 'x' and n > 3")
    'cannot read [path]: id = ? and n > ?'
    """
    # Half a surrogate pair is no text that an exporter could encode.
    reduced = without_location(text[:_READ_LIMIT].encode("utf-8", "replace").decode(), location)
    for pattern, mark in _MARKS:
        reduced = pattern.sub(mark, reduced)
    line = " ".join(reduced.split())
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 1] + "…"


def without_location(text: str, location: str | None) -> str:
    """Return a text in which a location, in any spelling, is a `/`: a path with blanks has no end."""
    for spelling in () if location is None else _spellings(location):
        text = text.replace(spelling, "/")
    return text


def message_for_ledger(text: str, mode: LedgerMessages) -> str | None:
    """Return an error's text as the ledger and the terminal show it, which lie beside the data.

    Args:
        text: any text; what is beyond the first 8,192 characters is dropped.
        mode: `safe` keeps numbers, paths and quoted names, without previews of rows, values that
            could not be cast, and secrets; `full` keeps all but secrets; `type` keeps nothing.

    Returns:
        One line of at most 1,000 characters; None where there is nothing to keep.

    >>> message_for_ledger("expected 1 column, got 2: can't read /data/t", LedgerMessages.SAFE)
    "expected 1 column, got 2: can't read /data/t"
    """
    if mode is LedgerMessages.TYPE:
        return None
    reduced = text[:_READ_LIMIT].encode("utf-8", "replace").decode()
    reduced = _URI.sub(_uri_without_credentials, reduced)
    for pattern, mark in _LOCAL_MARKS[mode]:
        reduced = pattern.sub(mark, reduced)
    line = " ".join(reduced.split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…"


MESSAGE_LIMIT = 1000
"""Characters of an error's text that the ledger keeps."""

_URI = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s\"'`<>|]*")
_ALWAYS_MASKED = frozenset({"", "[secret]"})
_LOCAL_MARKS = {
    LedgerMessages.FULL: tuple(entry for entry in _MARKS if entry[1] in _ALWAYS_MASKED),
    LedgerMessages.SAFE: tuple(
        entry for entry in _MARKS if entry[1] in _ALWAYS_MASKED | {"[rows]", "[email]", CAST_MARK}
    ),
}


def _uri_without_credentials(found: re.Match[str]) -> str:
    try:
        return strip_credentials(found[0])
    except ValueError:
        return "[uri]"


@lru_cache(maxsize=256)
def _spellings(location: str) -> tuple[str, ...]:
    """Return how an engine may write a location and the folders that it lies in, longest first."""
    path = urlsplit(location).path if "://" in location else location
    plain = unquote(path).strip("/")
    segments = plain.split("/")
    folders = ["/".join(segments[:end]) for end in range(len(segments), 0, -1)]
    # A single word may be a word of the message; with a blank in it, it is none.
    told = [folder for folder in folders if "/" in folder or " " in folder]
    ways = {way for folder in told for way in (folder, quote(folder), quote(folder, safe="/ "))}
    as_it_stands = path.strip("/")
    if "/" in as_it_stands or " " in as_it_stands:
        ways.add(as_it_stands)
    return tuple(sorted(ways, key=len, reverse=True))


@lru_cache(maxsize=1024)
def redact_label(label: str) -> str:
    """Return a name that a person gave (a job, a policy) as it may leave the process.

    A plain name stays what it is, digits included; anything else is treated as free text.

    >>> redact_label("nightly-load_2024.1"), redact_label("/home/ann/job")
    ('nightly-load_2024.1', '[path]')
    """
    words = label.split(" ")
    form = _TOKEN if len(words) == 1 else _NAME
    is_plain = all(form.fullmatch(word) for word in words)
    return label if is_plain and not _SECRET_NAME.search(label) else redact_text(label)


def redact_named(name: str, value: str) -> str:
    """Return a value that is known by a name: a secret's is masked, another's is a label or text."""
    return "[secret]" if _SECRET_KEY.search(name) else redact_label(value)


def redact_value(value: object, *, depth: int = 6, width: int = 64) -> Any:
    """Return a structured payload as it may leave the process.

    Args:
        value: mappings, sequences and scalars; anything else is told by its class only.
        depth: how deep it is followed.
        width: how many members of each mapping or sequence are kept.

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
                    _mark_for(str(name), member)
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


def _mark_for(name: str, member: object) -> str | None:
    """Return what stands for a member whose name says that it is a secret, or data, or SQL."""
    if member is None or isinstance(member, int | float):
        return None  # a count of rows is no row
    if _SECRET_KEY.search(name):
        return "[secret]"
    return "[rows]" if _DATA_KEY.fullmatch(name) else None


@lru_cache(maxsize=4096)
def strip_credentials(uri: str) -> str:
    """Return a location as it may be kept on this machine: no user, password, query or fragment.

    >>> strip_credentials("s3://key:secret@bucket/t?sig=x")
    's3://bucket/t'
    >>> strip_credentials("abfss://container@account/t?sig=x")
    'abfss://container@account/t'
    """
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    user, _, host = parts.netloc.rpartition("@")
    # In abfss://container@account the part before the @ is the container, no credential.
    is_container = parts.scheme.lower() in _CONTAINER_SCHEMES and user and ":" not in user
    netloc = parts.netloc if is_container else host
    return urlunsplit((parts.scheme, netloc, parts.path, "", ""))


_CONTAINER_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs"})


@lru_cache(maxsize=4096)
def table_name_for(
    uri: str | None, metadata_name: str | None, mode: TableNames = TableNames.PATH
) -> str | None:
    """Return the name of a table that may be told.

    Args:
        uri: where it lies.
        metadata_name: the name set in its metadata, which wins.
        mode: which of the two may be told.

    Returns:
        None when there is no name, when it is no plain identifier, looks like a secret, or is a
        person's home folder.

    >>> table_name_for("s3://bucket/lake/flights/", None)
    'flights'
    >>> table_name_for("/home/ann", None) is None
    True
    """
    if mode is TableNames.NONE:
        return None
    candidate = metadata_name
    if not candidate and mode is TableNames.PATH and uri:
        candidate = _last_segment(uri)
    if not candidate or not _NAME.fullmatch(candidate) or _SECRET_NAME.search(candidate):
        return None
    return candidate


def _last_segment(uri: str) -> str | None:
    path = unquote(urlsplit(strip_credentials(uri)).path if "://" in uri else uri)
    segments = [segment for segment in re.split(r"[/\\]", path) if segment not in {"", "."}]
    if not segments or (len(segments) > 1 and segments[-2] in _HOMES) or segments == ["root"]:
        return None
    return segments[-1]
