"""The result of `blame`: the commits that wrote the present values of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deltawitness.answers.rows import TableVersion
from deltawitness.answers.shown_commit import ShownCommit

__all__ = ["BlameResult", "BlamedRow", "BlamedWrite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlamedWrite:
    """A commit that wrote copies of a row.

    Attributes:
        version: the version; None if the commit is older than the log, or than the files that are still there.
        rows: number of the copies of the row that it wrote and that are still there.
        is_certain: False if it may only have copied the row from a file that was deleted since.
        copied_by: later versions that copied the row without a change, newest first.
        commit: the commit.
    """

    version: int | None
    rows: int
    is_certain: bool = True
    copied_by: tuple[int, ...] = ()
    commit: ShownCommit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlamedRow:
    """A row, and the commits that wrote its present values.

    Attributes:
        values: the values by column; None unless they were requested.
        rows: number of equal rows in the table.
        writes: the commits, newest first; several if equal rows were written by several.
    """

    values: Mapping[str, Any] | None
    rows: int
    writes: tuple[BlamedWrite, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlameResult:
    """The rows of a version that a condition selects, and the commits that wrote them.

    Attributes:
        table: the table and the version.
        where: the condition.
        rows: the rows, each once.
        is_cut: whether more rows meet the condition than were requested.
        notes: what a reader should know, one sentence each.
    """

    table: TableVersion
    where: str
    rows: tuple[BlamedRow, ...]
    is_cut: bool = False
    notes: tuple[str, ...] = ()

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions that wrote the rows, in order."""
        found = {each.version for row in self.rows for each in row.writes}
        return tuple(sorted(each for each in found if each is not None))
