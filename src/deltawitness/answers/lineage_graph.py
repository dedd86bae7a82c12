"""The graph of the versions that a version of a table was made from, or that were made from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from deltawitness.answers.rows import TableVersion
from deltawitness.html_display import HtmlDisplay

__all__ = ["EdgeKind", "Lineage", "LineageDirection", "LineageEdge", "LineageNode"]


class EdgeKind(StrEnum):
    """How an input of a write is known."""

    EXACT = "exact"
    """The plan of the write read it."""

    INFERRED = "inferred"
    """The write had no plan; its run had read it before."""

    HISTORY = "history"
    """An earlier version of the same table, on which the write was made."""


class LineageDirection(StrEnum):
    """Which side of a version a graph shows."""

    UP = "up"
    """What it was made from."""

    DOWN = "down"
    """What was made from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """A version of a table, and the write that committed it. None means that a value is not known.

    Attributes:
        table: the table and the version.
        in_ledger: whether the ledger has the write.
        time: when the write began.
        run_id: id of the run.
        job: name of the job.
        operation: the engine's operation.
        mode: save mode.
        write_id: id of the write.
        result: `write`, or `error` for a write that failed after its commit.
        previous: the version of the same table on which the write was made; None for a write that
            replaced or created the table.
        has_other_writes: whether the ledger has several writes of this version, because the table was
            recreated; this is the newest one.
        is_cut: whether the graph leaves out edges of this node, because of its depth or its size.
    """

    table: TableVersion
    in_ledger: bool
    time: datetime | None = None
    run_id: str | None = None
    job: str | None = None
    operation: str | None = None
    mode: str | None = None
    write_id: str | None = None
    result: str | None = None
    previous: int | None = None
    has_other_writes: bool = False
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """An input of a write.

    Attributes:
        source: the version whose rows were read.
        target: the version that was written.
        kind: how the input is known.
        read_version: the version that was read. It is later than that of `source` if only operations
            that change no row, such as OPTIMIZE, are between them.
    """

    source: TableVersion
    target: TableVersion
    kind: EdgeKind
    read_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage(HtmlDisplay):
    """The versions that a version of a table was made from, or that were made from it.

    Attributes:
        requested: the table and the version that were requested.
        direction: `up` for what it was made from, `down` for what was made from it.
        depth: maximum number of edges between the first node and another one.
        has_history: whether the earlier (up) or later (down) versions of each table are included.
        nodes: each version once, by its distance from the first one. The first one is the requested
            version, or the one before it if the requested one changed no row.
        edges: the inputs of the writes.
    """

    requested: TableVersion
    direction: LineageDirection
    depth: int
    has_history: bool
    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]

    @property
    def cut(self) -> tuple[LineageNode, ...]:
        """The nodes with edges that the graph leaves out."""
        return tuple(node for node in self.nodes if node.is_cut)
