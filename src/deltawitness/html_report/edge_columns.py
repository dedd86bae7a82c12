"""Read which columns of a table were made from which columns of another one, for the graph of the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from deltawitness.answers.column_lineage import NO_PLAN, NOT_RECORDED, NOT_SHOWN
from deltawitness.column_sources import ColumnSource, WriteColumns
from deltawitness.html_report.content import ColumnPair, EdgeColumns, InputEdge
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in
from deltawitness.ledger.tables.schema import INVENTORY

__all__ = ["MAX_PAIRS", "MAX_PAIRS_OF_EDGE", "with_columns"]

MAX_PAIRS_OF_EDGE = 200
"""Maximum number of pairs of columns of an edge in the report."""

MAX_PAIRS = 5_000
"""Maximum number of pairs of columns in the report."""


def with_columns(ledger: LedgerListing, edges: Sequence[InputEdge]) -> list[InputEdge]:
    """Return the edges with the columns that their last writes have read.

    Args:
        ledger: the ledger to query.
        edges: the edges.
    """
    writes = _writes(ledger, [each for each in edges if not each.is_inferred])
    left, found = MAX_PAIRS, []
    for edge in edges:
        columns = _columns(edge, writes.get(edge.write_id or ""))
        bounded = _bounded(columns, min(left, MAX_PAIRS_OF_EDGE))
        left -= len(bounded.pairs)
        found.append(replace(edge, columns=bounded))
    return found


def _writes(ledger: LedgerListing, edges: Sequence[InputEdge]) -> dict[str, Row]:
    """Return the last writes of edges by their ids."""
    days = sorted({f"DATE '{each.time.date()}'" for each in edges})
    ids = sorted({each.write_id for each in edges if each.write_id})
    if not ids or "inputs" not in ledger.columns(INVENTORY):
        return {}
    rows = ledger.query(
        "SELECT write_id, plan_hash, column_lineage, inputs FROM inventory"  # noqa: S608 - quoted
        f" WHERE event_date IN ({', '.join(days)}) AND {is_in('write_id', ids)}"
    )
    return {row["write_id"]: row for row in rows}


def _columns(edge: InputEdge, write: Row | None) -> EdgeColumns:
    """Return the columns of an edge."""
    if write is None or (write["plan_hash"] is None and write["column_lineage"] is None):
        return EdgeColumns(reason=NO_PLAN)
    if write["column_lineage"] is None:
        return EdgeColumns(reason=NOT_RECORDED)
    known = WriteColumns.parse(write["column_lineage"])
    if known.reason is not None:
        return EdgeColumns(reason=known.reason)
    inputs = write["inputs"] or ()

    def used(sources: Sequence[ColumnSource] | None, target: str | None) -> Iterator[ColumnPair]:
        for source in sources or ():
            if _place(source, inputs) == edge.source:
                yield ColumnPair(target, source.column, source.use.value)

    pairs = [pair for name, sources in known.columns.items() for pair in used(sources, name)]
    is_hidden = known.rows is None or any(sources is None for sources in known.columns.values())
    reason = NOT_SHOWN if is_hidden and not pairs else None
    return EdgeColumns((*pairs, *used(known.rows, None)), reason=reason)


def _place(source: ColumnSource, inputs: Sequence[Any]) -> str | None:
    """Return the location of the table of a column, else its id."""
    if isinstance(source.table, str):
        return None  # no Delta table
    if source.table >= len(inputs):
        return None
    read = inputs[source.table]
    place: str | None = read["uri"] or read["table_id"]
    return place


def _bounded(columns: EdgeColumns, limit: int) -> EdgeColumns:
    """Return the columns without those above a limit, and the number of these."""
    left_out = max(len(columns.pairs) - limit, 0)
    return replace(columns, pairs=columns.pairs[:limit], left_out=left_out) if left_out else columns
