"""Records of a spool segment: one line each, with a kind, an id and a checksum.

A line is `<crc32> <kind> <id> <json>`; the checksum covers the text after it. A process that dies,
a full disk or later damage can leave a partial line. Lines that do not match their checksum are
skipped and counted; the other lines remain valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from zlib import crc32

__all__ = ["Record", "RecordKind", "Records", "decode", "encode"]


class RecordKind(StrEnum):
    """The kinds of records."""

    PROVISIONAL = "N"
    """Provisional record of a write that has ended, from the caller's thread."""
    ROW = "R"
    """Final row of an operation; replaces the provisional record with the same id."""
    RUN_START = "S"
    """A run is open; repeated at the head of each segment until the run ends."""
    RUN_END = "E"
    """Row of a run that has ended."""
    SNAPSHOT = "M"
    """Row of a metadata snapshot."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record; `body` is its JSON, not parsed."""

    kind: str
    key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Records:
    """The decoded content of a segment.

    Attributes:
        valid: its records, in order.
        damaged: number of lines that did not match their checksum.
        torn: whether the last line is incomplete.
    """

    valid: tuple[Record, ...]
    damaged: int = 0
    torn: bool = False


def encode(kind: RecordKind, key: str, body: str) -> bytes:
    r"""Return a record as a line.

    Args:
        kind: its kind.
        key: id of the write or run; without spaces.
        body: JSON in ASCII, without line breaks.

    >>> encode(RecordKind.PROVISIONAL, "w-1", "{}")
    b'2b5b947e N w-1 {}\n'
    """
    # `_value_`: the property `value` of an enumeration is slow, on the path of every write.
    content = f"{kind._value_} {key} {body}".encode("ascii")
    return b"%08x %b\n" % (crc32(content), content)


def decode(content: bytes) -> Records:
    r"""Decode the content of a segment; skip and count damaged lines.

    >>> decode(encode(RecordKind.PROVISIONAL, "w-1", "{}") + b"00000000 N w-2 {}\n00ff").damaged
    1
    """
    valid: list[Record] = []
    damaged = 0
    texts = content.split(b"\n")
    tail = texts.pop()
    for text in filter(None, texts):
        line = _parse_record(text)
        if line is None:
            damaged += 1
        else:
            valid.append(line)
    return Records(tuple(valid), damaged, torn=bool(tail))


def _parse_record(text: bytes) -> Record | None:
    try:
        if int(text[:8], 16) != crc32(text[9:]):
            return None
        kind, key, body = text[9:].split(b" ", 2)
        return Record(kind.decode("ascii"), key.decode("ascii"), body)
    except ValueError:
        return None
