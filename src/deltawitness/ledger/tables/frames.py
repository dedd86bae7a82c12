"""The ledger's tables as DataFusion frames, in the schema of this release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from deltawitness.ledger.tables.copies import TableCopies, open_readable
from deltawitness.ledger.tables.dataset import dataset_of
from deltawitness.ledger.tables.run_rows import RunStatus
from deltawitness.ledger.tables.schema import (
    INVENTORY,
    OPENER_COLUMNS,
    PARTITION,
    RUNS,
    UNSUMMED_COUNTS,
    LedgerRoot,
    LedgerTable,
    Source,
)
from deltawitness.ledger.tables.shards import ROW_KEYS, ShardPart, TableParts, shard_names

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from datafusion.expr import Expr, SortExpr
    from deltalake import DeltaTable

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
    copies = TableCopies.of(root)
    parts = open_readable(root, [table], shard_names(root), copies)[table]
    frame = _all_rows(ctx, root, parts, copies)
    return _one_row_per_run(_without_superseded(frame)) if table is RUNS else frame


def _all_rows(
    ctx: SessionContext, root: LedgerRoot, parts: TableParts, copies: TableCopies | None
) -> DataFrame:
    """Return a frame of the rows of the main table and the shards, each once."""
    table = parts.table
    main = None if parts.main is None else _raw_frame(ctx, root, table, parts.main, copies)
    shards = [_raw_frame(ctx, part.root, table, part.opened) for part in parts.shards]
    if main is None and not shards:
        # Not registered by name, so that the session's tables do not change.
        main = ctx.from_arrow(table.schema.empty_table())
    extra = _extra_columns(table, [*shards, *([] if main is None else [main])])
    frame = None if main is None else _completed(main, table, extra)
    for part, shard in zip(parts.shards, shards, strict=True):
        rows = shard if parts.main is None else _not_in_main(shard, main, part, table)
        completed = _completed(rows, table, extra)
        frame = completed if frame is None else frame.union(completed)
    assert frame is not None
    return frame


def _raw_frame(
    ctx: SessionContext,
    root: LedgerRoot,
    table: LedgerTable,
    opened: DeltaTable,
    lease: object = None,
) -> DataFrame:
    from datafusion.catalog import Table  # noqa: PLC0415 - heavy

    return ctx.read_table(Table(dataset_of(root, table, opened, lease)))


def _extra_columns(table: LedgerTable, frames: Iterable[DataFrame]) -> dict[str, pa.DataType]:
    """Return the columns of frames that this release does not know, with their types."""
    known = set(table.schema.names)
    return {
        field.name: field.type
        for frame in frames
        for field in frame.schema()
        if field.name not in known
    }


def _completed(frame: DataFrame, table: LedgerTable, extra: Mapping[str, pa.DataType]) -> DataFrame:
    """Select all columns of this release and the further ones; null where the frame lacks them."""
    there = set(frame.schema().names)
    columns = [*table.schema, *(pa.field(name, kind) for name, kind in extra.items())]
    return frame.select(*(_column_or_null(column, column.name in there) for column in columns))


def _not_in_main(
    rows: DataFrame, main: DataFrame | None, part: ShardPart, table: LedgerTable
) -> DataFrame:
    """Drop rows of a shard that the main table has, as :meth:`TableParts.union` does."""
    from datafusion import lit  # noqa: PLC0415 - heavy

    if main is None or not (part.may_repeat or table is INVENTORY):
        return rows
    found = main.filter(_quoted_column(PARTITION) >= lit(part.since))
    if not part.may_repeat:
        found = found.filter(_quoted_column("source") != lit(Source.OBSERVED.value))
    present = found.select(_row_key(table).alias("main_key")).distinct()
    return rows.with_column("shard_key", _row_key(table)).join(
        present, how="anti", left_on="shard_key", right_on="main_key"
    )


def _row_key(table: LedgerTable) -> Expr:
    from datafusion import functions as f  # noqa: PLC0415 - heavy
    from datafusion import lit  # noqa: PLC0415 - heavy

    names = ROW_KEYS[table.name]
    if len(names) == 1:
        return _quoted_column(names[0])
    texts = [f.coalesce(_quoted_column(name).cast(pa.string()), lit("")) for name in names]
    return f.concat_ws("|", *texts)


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
    from datafusion import lit  # noqa: PLC0415 - heavy

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
    end = _quoted_column("end_time")
    is_known = _quoted_column("status") != lit(RunStatus.ABANDONED.value)
    table_ids = f.array_distinct(joined("table_ids"))
    text_list = RUNS.schema.field("table_ids").type
    return frame.aggregate(
        [_quoted_column("run_id")],
        [
            *(f.min(_quoted_column(name)).alias(name) for name in _MINIMA),
            # As LAST_END: the end of an abandoned process is when it was found.
            f.coalesce(f.max(end, filter=is_known), f.max(end)).alias("end_time"),
            *(last(name) for name in OPENER_COLUMNS),
            f.count(process, distinct=True).alias("processes"),
            *sums,
            joined("operations").alias("operations"),
            f.cardinality(table_ids).cast(pa.int64()).alias("tables_touched"),
            table_ids.cast(text_list).alias("table_ids"),
            last("attributes"),
        ],
    )
