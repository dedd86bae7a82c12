"""What a reconcile finds: writes without a row, rows without a write, and rows that say otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["Difference", "DifferingRow", "PhantomRow", "UnreadableTable", "UnrecordedWrite"]


@dataclass(frozen=True, slots=True)
class UnrecordedWrite:
    """A write in a table's log that no row of the inventory tells of.

    Attributes:
        table_uri: where the table lies.
        write_id: the id of its row; of a commit without one, made from what the commit holds.
        versions: what it committed.
        operation: what it says it did.
        run_id: the run that made it, when it was witnessed.
        engine: what made it, as it calls itself.
        committed_at: when, if the commit says so.
    """

    table_uri: str
    write_id: str
    versions: tuple[int, ...]
    operation: str | None
    run_id: str | None
    engine: str | None
    committed_at: datetime | None


@dataclass(frozen=True, slots=True)
class PhantomRow:
    """A row whose version is not in the table's log, although the log reaches over it.

    Attributes:
        table_uri: where the table lies.
        write_id: the row's.
        version: the version that it tells of.
    """

    table_uri: str
    write_id: str
    version: int


class Difference(StrEnum):
    """How a row and the log differ."""

    OTHER_WRITE = "other_write"
    """The row's version was committed by another write."""
    MISSING_COMMIT = "untold_commit"
    """The log holds a commit of the write that the row does not tell of."""
    DOUBLED = "doubled"
    """Another row stands for the same commit."""


@dataclass(frozen=True, slots=True)
class DifferingRow:
    """A row that says otherwise than the log.

    Attributes:
        table_uri: where the table lies.
        write_id: the row's.
        difference: how they differ.
        result: how the write ended, as the row says.
        versions: what it committed, as the row says.
        found: what it committed, as the log says.
    """

    table_uri: str
    write_id: str
    difference: Difference
    result: str | None
    versions: tuple[int, ...]
    found: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UnreadableTable:
    """A table whose log cannot be read.

    Attributes:
        table_uri: where it lies, or what was asked for.
        text: what was seen.
    """

    table_uri: str
    text: str
