"""Findings of a reconcile: writes without a row, rows without a commit, and contradictory rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["Difference", "DifferingRow", "PhantomRow", "UnreadableTable", "UnrecordedWrite"]


@dataclass(frozen=True, slots=True)
class UnrecordedWrite:
    """A write in a table's log that has no row in the inventory.

    Attributes:
        table_uri: location of the table.
        write_id: the write id of its row; a hash of the commit if the commit has none.
        versions: the versions it committed.
        operation: its operation, according to the commit.
        run_id: its run, if it was observed.
        engine: the engine, as it names itself.
        committed_at: time of the commit, if the commit has one.
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
    """A row whose version is missing from the table's log, although the log covers that range.

    Attributes:
        table_uri: location of the table.
        write_id: write id of the row.
        version: the missing version.
    """

    table_uri: str
    write_id: str
    version: int


class Difference(StrEnum):
    """How a row and the log differ."""

    OTHER_WRITE = "other_write"
    """Another write committed the row's version."""
    MISSING_COMMIT = "untold_commit"
    """The log contains a commit of the write that the row does not name."""
    UNTOLD_COMMIT = MISSING_COMMIT
    """The former name of `MISSING_COMMIT`."""
    DOUBLED = "doubled"
    """Another row names the same commit."""


@dataclass(frozen=True, slots=True)
class DifferingRow:
    """A row that contradicts the log.

    Attributes:
        table_uri: location of the table.
        write_id: write id of the row.
        difference: how they differ.
        result: the write's result, according to the row.
        versions: the versions it committed, according to the row.
        found: the versions it committed, according to the log.
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
        table_uri: its location, or the caller's text that matches no table.
        text: the error.
    """

    table_uri: str
    text: str
