"""Count the rows of a version of a table that equal a given row, by data file."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pd
import pyarrow.types as pt

from deltawitness.answers.diff.datasets import canonical, source_of
from deltawitness.answers.table_queries import ALL_FILES
from deltawitness.run import suppressed

if TYPE_CHECKING:
    from deltawitness.answers.diff.versions import OpenVersion

__all__ = ["VersionRows", "same_row"]


def same_row(row: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal rows; NaN equals NaN, and -0.0 equals 0.0."""
    return canonical({name: row[name] for name in sorted(row)})


class VersionRows:
    """The rows of a version of a table.

    Args:
        version: the open version.
    """

    def __init__(self, version: OpenVersion) -> None:
        self._source = source_of(version)
        with suppressed():
            is_of_files = self._source.files is not None
            self._dataset = version.table.to_pyarrow_dataset() if is_of_files else None

    def count_equal(
        self, row: Mapping[str, Any], paths: Collection[str] | None = None
    ) -> dict[str, int]:
        """Return the number of rows that equal a row, by path of the file; files without one are left out.

        A column of the row that the version lacks equals NULL. All rows have the key `ALL_FILES` where rows
        are not those of files.

        Args:
            row: the values by column.
            paths: the files to read; None for all.

        Raises:
            OSError: a file cannot be read.
        """
        schema = self._source.schema
        names = [name for name in row if name in schema.names]
        if any(row[name] is not None for name in row if name not in names):
            return {}
        wanted = same_row({name: row[name] for name in names})
        with suppressed():
            if self._source.files is None or self._dataset is None:
                batches = (each for read in self._source.reads for each in read(tuple(names)))
                found = sum(_count(_filtered(each, row), wanted) for each in batches)
                return {ALL_FILES: found} if found else {}
            # Statistics of the log ignore NaN, and truncate times.
            exact = [name for name in names if _has_exact_statistics(schema.field(name).type)]
            candidates = self._dataset.get_fragments(filter=_condition(schema, row, exact))
            counts: dict[str, int] = {}
            for path in (each.path for each in candidates):
                if paths is None or path in paths:
                    count = self._count_in_file(self._source.files[path], row, names, wanted)
                    if count:
                        counts[path] = count
            return counts

    def _count_in_file(
        self, file: pd.Fragment, row: Mapping[str, Any], names: Sequence[str], wanted: str
    ) -> int:
        schema = self._source.schema
        there = file.physical_schema
        # A file may have another type of the same values, which its filter does not compare.
        same = [
            name
            for name in names
            if name not in there.names or there.field(name).type == schema.field(name).type
        ]
        batches = file.to_batches(
            schema=schema, columns=list(names), filter=_condition(schema, row, same)
        )
        return sum(_count(batch, wanted) for batch in batches)


def _has_exact_statistics(kind: pa.DataType) -> bool:
    return bool(
        pt.is_integer(kind) or pt.is_string(kind) or pt.is_date(kind) or pt.is_boolean(kind)
    )


def _filtered(batch: pa.RecordBatch, row: Mapping[str, Any]) -> pa.Table:
    """Return the rows of a batch that may equal a row: Python compares only a few."""
    rows = _without_views(pa.Table.from_batches([batch]))
    condition = _condition(rows.schema, row, rows.schema.names)
    return rows if condition is None else rows.filter(condition)


def _without_views(rows: pa.Table) -> pa.Table:
    """Return rows with plain types for views, which Arrow's functions do not filter."""
    plain = [
        column.with_type(pa.string())
        if pt.is_string_view(column.type)
        else column.with_type(pa.binary())
        if pt.is_binary_view(column.type)
        else column
        for column in rows.schema
    ]
    return rows.cast(pa.schema(plain))


def _count(rows: pa.RecordBatch | pa.Table, wanted: str) -> int:
    return sum(same_row(each) == wanted for each in rows.to_pylist())


def _condition(
    schema: pa.Schema, row: Mapping[str, Any], names: Iterable[str]
) -> pc.Expression | None:
    """Return a condition that equal rows meet; others may meet it, too. It lets the reader skip files."""
    found = None
    for name in names:
        kind, value = schema.field(name).type, row[name]
        if pt.is_nested(kind) or (isinstance(value, float) and math.isnan(value)):
            continue
        if value is None:
            one = pc.field(name).is_null()
        else:
            try:
                one = pc.field(name) == pa.scalar(value, kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError, OverflowError):
                continue  # the column had another type
        found = one if found is None else found & one
    return found
