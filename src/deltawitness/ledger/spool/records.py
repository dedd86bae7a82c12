"""The lines of a spool segment: each says what it is, of whom, and proves that it is whole.

A line is `<crc32> <kind> <id> <json>`, where the checksum covers the rest. A process may die in the
middle of one, a disk may fill up in the middle of one, and a file may be damaged later: what does
not match its checksum is passed over and counted, and the lines beside it still stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from zlib import crc32

__all__ = ["Record", "RecordKind", "Records", "decode", "encode"]


class RecordKind(StrEnum):
    """What a line tells."""

    PROVISIONAL = "N"
    """A write has ended: what its own thread knew of it."""
    ROW = "R"
    """The whole row of an operation; it takes the place of the note of the same id."""
    RUN_START = "S"
    """A run is open; told again at the head of each segment until it ends."""
    RUN_END = "E"
    """The whole row of a run that has ended."""
    SNAPSHOT = "M"
    """The whole row of a metadata snapshot."""


@dataclass(frozen=True, slots=True)
class Record:
    """One line, its JSON still as it was written."""

    kind: str
    key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Records:
    """What a segment holds.

    Attributes:
        whole: its lines, in order.
        damaged: how many lines in it did not match their checksum.
        torn: whether its end was cut off in the middle of a line.
    """

    valid: tuple[Record, ...]
    damaged: int = 0
    torn: bool = False


def encode(kind: RecordKind, key: str, body: str) -> bytes:
    r"""Return a line.

    Args:
        kind: what it tells.
        key: of which write or run; without blanks.
        body: JSON without line breaks, in ASCII.

    >>> encode(RecordKind.PROVISIONAL, "w-1", "{}")
    b'2b5b947e N w-1 {}\n'
    """
    content = f"{kind.value} {key} {body}".encode("ascii")
    return b"%08x %b\n" % (crc32(content), content)


def decode(content: bytes) -> Records:
    r"""Return what is whole in the content of a segment.

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
