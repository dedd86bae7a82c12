"""The ledger's tables as DataFusion frames, in the schema of this release."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from deltawitness.ledger.tables.dataset import dataset_of
from deltawitness.ledger.tables.run_rows import RunStatus
from deltawitness.ledger.tables.schema import (
    OPENER_COLUMNS,
    PARTITION,
    RUNS,
    UNSUMMED_COUNTS,
    LedgerRoot,
    LedgerTable,
)

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from datafusion.expr import Expr, SortExpr

__all__ = ["frame_of"]


def frame_of(ctx: SessionContext, root: LedgerRoot, table: LedgerTable) -> DataFrame:
    """Return a frame of a ledger table.

    It has all columns of this release (null where the table lacks them) and then any further
    columns of the table. A run is one row, however many processes took part in it.

    Args:
        ctx: the session of the frame.
        root: location of the ledger.
        table: the table.

    Raises:
        OSError: the storage cannot be read.
        DeltaError: the table is damaged.
    """
    frame = _raw_frame(ctx, root, table)
    there = set(frame.schema().names)
    extra = [name for name in frame.schema().names if name not in table.schema.names]
    completed = frame.select(
        *(_column_or_null(column, column.name in there) for column in table.schema),
        *(_quoted_column(name) for name in extra),
    )
    return _one_row_per_run(_without_superseded(completed)) if table is RUNS else completed


def _raw_frame(ctx: SessionContext, root: LedgerRoot, table: LedgerTable) -> DataFrame:
    from datafusion.catalog import Table  # noqa: PLC0415 - heavy

    opened = root.open_table(table)
    if opened is None:
        # Not registered by name, so that the session's tables do not change.
        return ctx.from_arrow(table.schema.empty_table())
    return ctx.read_table(Table(dataset_of(root, table, opened)))


def _column_or_null(column: pa.Field, is_there: bool) -> Expr:
    from datafusion import lit  # noqa: PLC0415 - heavy

    return (
        _quoted_column(column.name) if is_there else lit(None).cast(column.type).alias(column.name)
    )


def _quoted_column(name: str) -> Expr:
    from datafusion import col  # noqa: PLC0415 - heavy

    return col(f'"{name}"')


def _without_superseded(runs: DataFrame) -> DataFrame:
    """Drop reconstructed rows of runs that also have a row from a process."""
    from datafusion import functions as f  # noqa: PLC0415 - heavy
    from datafusion import lit  # noqa: PLC0415 - heavy

    is_rebuilt = f.coalesce(
        _quoted_column("status") == lit(RunStatus.RECONSTRUCTED.value),
        lit(False),  # noqa: FBT003 - a literal
    )
    recorded = runs.filter(~is_rebuilt)
    ids = recorded.select(_quoted_column("run_id")).distinct()
    return recorded.union(runs.filter(is_rebuilt).join(ids, on="run_id", how="anti"))


_MINIMA = (PARTITION, "start_time")


def _one_row_per_run(frame: DataFrame) -> DataFrame:
    """Aggregate a run's rows: sum the counts, take the other columns from the run's opener."""
    from datafusion import functions as f  # noqa: PLC0415 - heavy

    # The opener's row sorts last; of several openings under one id, the latest.
    order: list[Expr | SortExpr | str] = [
        _quoted_column("is_part").sort(ascending=False),
        _quoted_column("end_time").sort(),
    ]

    def last(name: str) -> Expr:
        return f.last_value(_quoted_column(name), order_by=order).alias(name)

    def joined(name: str) -> Expr:
        return f.flatten(f.array_agg(_quoted_column(name)))

    sums = [
        f.sum(_quoted_column(column.name)).alias(column.name)
        for column in RUNS.schema
        if column.type == pa.int64() and column.name not in UNSUMMED_COUNTS
    ]
    process = f.concat_ws(":", _quoted_column("host"), _quoted_column("pid").cast(pa.string()))
    table_ids = f.array_distinct(joined("table_ids"))
    text_list = RUNS.schema.field("table_ids").type
    return frame.aggregate(
        [_quoted_column("run_id")],
        [
            *(f.min(_quoted_column(name)).alias(name) for name in _MINIMA),
            f.max(_quoted_column("end_time")).alias("end_time"),
            *(last(name) for name in OPENER_COLUMNS),
            f.count(process, distinct=True).alias("processes"),
            *sums,
            joined("operations").alias("operations"),
            f.cardinality(table_ids).cast(pa.int64()).alias("tables_touched"),
            table_ids.cast(text_list).alias("table_ids"),
            last("attributes"),
        ],
    )
