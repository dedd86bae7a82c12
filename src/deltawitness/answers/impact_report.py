"""The tables that depend on a table, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from deltawitness.answers.lineage_graph import EdgeKind
from deltawitness.answers.rows import TableVersion
from deltawitness.html_display import HtmlDisplay

__all__ = ["Dependent", "DependentInput", "Impact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DependentInput:
    """An input of a table: the table of the question, or one that depends on it.

    Attributes:
        table: the input, at the version that was read last.
        newest: the newest version of the input that changed rows; None if the ledger has no write of it.
        kind: how the input is known.
        read_by: the version of the dependent that read it last.
        is_replaced: whether the dependent was overwritten later without a read of this input, or a RESTORE
            has undone all of its reads. Then it is not stale, because it has no row of the input any more.
        stale_since: when the first write began that changed rows of the input after the version that
            was read; None if there is none, and if a RESTORE has made the content of that version the
            newest.
    """

    table: TableVersion
    newest: int | None
    kind: EdgeKind
    read_by: int
    is_replaced: bool
    stale_since: datetime | None

    @property
    def is_stale(self) -> bool:
        """Whether rows of the input have changed after the version that was read."""
        return self.stale_since is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependent:
    """A table that depends on another one, directly or through others.

    Attributes:
        table: the table, at its newest version.
        distance: number of tables from the table of the question: 1 for a direct dependent.
        first_version: the first version that depends on the table of the question.
        time: when the write of the newest version began.
        run_id: id of the run of this write.
        job: name of its job.
        inputs: what it has read of the table of the question and of its other dependents.
        has_stale_input: whether an input is stale itself, directly or through others.
    """

    table: TableVersion
    distance: int
    first_version: int
    time: datetime | None
    run_id: str | None
    job: str | None
    inputs: tuple[DependentInput, ...]
    has_stale_input: bool

    @property
    def is_stale(self) -> bool:
        """Whether it has read an older version of an input than the newest one that changed rows."""
        return any(each.is_stale for each in self.inputs)

    @property
    def stale_since(self) -> datetime | None:
        """When the first write began after which it is stale; None if it is not stale."""
        return min((each.stale_since for each in self.inputs if each.stale_since), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact(HtmlDisplay):
    """The tables that depend on a table.

    Attributes:
        table: the table; its version is the requested one, or the newest one that changed rows.
        from_version: the first version whose readers count; 0 if no version was requested.
        depth: maximum distance of a dependent; None for all.
        dependents: the tables that depend on it, by distance and name.
        cut: number of further tables that were left out because of the depth; they depend on the last
            ones directly.
    """

    table: TableVersion
    from_version: int
    depth: int | None
    dependents: tuple[Dependent, ...]
    cut: int

    @property
    def stale(self) -> tuple[Dependent, ...]:
        """The dependents that are stale."""
        return tuple(each for each in self.dependents if each.is_stale)
