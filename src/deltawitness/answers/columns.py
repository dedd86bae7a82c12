"""The public function that follows columns: the command `lineage --columns`, as a value."""

from __future__ import annotations

import os

from deltawitness.answers.column_graph import ColumnLineage
from deltawitness.answers.column_lineage import read_column_lineage
from deltawitness.answers.lineage import DEPTH
from deltawitness.answers.lineage_graph import LineageDirection
from deltawitness.answers.questions import check_depth, ledger_of, settings_with
from deltawitness.settings import Settings

__all__ = ["column_lineage"]


def column_lineage(  # noqa: PLR0913 - keyword-only options
    table: str,
    *,
    column: str | None = None,
    direction: LineageDirection | str = LineageDirection.UP,
    depth: int = DEPTH,
    history: bool = False,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> ColumnLineage:
    """Return the columns that columns of a version were made from, or that were made from them.

    The columns are those of the plans with which observed DataFusion sessions have made rows. The result
    lists the versions and columns for which there is no such plan, with the reason.

    Args:
        table: the table, optionally with `@VERSION` (by default the last one that changed rows): its
            name, id (or a prefix of it), path or URI.
        column: name of a column; by default all columns that are known.
        direction: `up` for what the columns were made from, `down` for what was made from them.
        depth: maximum number of writes between a requested column and another one.
        history: also follow the earlier (up) or later (down) versions of each table.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no such table, version or column, or several
            tables.
        ValueError: there is no such direction, or the depth is negative.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import (
    ...     DeltaLakeInstrumentor,
    ...     ObservedSessionContext,
    ...     Settings,
    ...     column_lineage,
    ...     run,
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = Settings(cache_root=f"{folder}/ledger")
    ...     DeltaLakeInstrumentor().instrument(settings=settings)
    ...     with run("nightly"):
    ...         write_deltalake(f"{folder}/sold", pa.table({"price": [2], "pieces": [3]}))
    ...         ctx = ObservedSessionContext()
    ...         ctx.register_delta("sold", f"{folder}/sold")
    ...         rows = ctx.sql("SELECT price * pieces AS total FROM sold WHERE pieces > 0")
    ...         write_deltalake(f"{folder}/totals", rows)
    ...     graph = column_lineage("totals", settings=settings)
    ...     for edge in [*graph.edges, *graph.rows]:
    ...         print(edge.target, edge.use.value, edge.source)
    ...     DeltaLakeInstrumentor().uninstrument()
    totals@0.total transformation sold@0.pieces
    totals@0.total transformation sold@0.price
    totals@0 filter sold@0.pieces
    """
    check_depth(depth)
    ledger = ledger_of(settings_with(root, storage_options, settings))
    return read_column_lineage(
        ledger,
        table,
        column=column,
        direction=LineageDirection(direction),
        depth=depth,
        has_history=history,
    )
