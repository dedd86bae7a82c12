"""Count the rows of a version of a table that equal a given row, by data file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from deltawitness.answers.diff.datasets import RowSource, canonical
from deltawitness.answers.table_queries import ALL_FILES
from deltawitness.run import suppressed

__all__ = ["count_equal", "same_row"]


def same_row(row: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal rows; NaN equals NaN, and -0.0 equals 0.0."""
    return canonical({name: row[name] for name in sorted(row)})


def count_equal(
    source: RowSource, row: Mapping[str, Any], paths: Iterable[str] | None = None
) -> dict[str, int]:
    """Return the number of rows that equal a row, by path of the file; files without one are left out.

    A column of the row that the source lacks equals NULL.

    Args:
        source: the rows of a version.
        row: the values by column.
        paths: the files to read; None for all. All rows count as one file where rows are not those of files.

    Raises:
        OSError: a file cannot be read.
    """
    names = [name for name in row if name in source.schema.names]
    if any(row[name] is not None for name in row if name not in names):
        return {}
    wanted = same_row({name: row[name] for name in names})
    with suppressed():
        if source.files is None:
            found = sum(
                _count(batch, wanted) for read in source.reads for batch in read(tuple(names))
            )
            return {ALL_FILES: found} if found else {}
        chosen = source.files if paths is None else [each for each in paths if each in source.files]
        condition = _condition(source.schema, row, names)
        counts: dict[str, int] = {}
        for path in chosen:
            batches = source.files[path].to_batches(
                schema=source.schema, columns=names, filter=condition
            )
            count = sum(_count(batch, wanted) for batch in batches)
            if count:
                counts[path] = count
        return counts


def _count(batch: pa.RecordBatch, wanted: str) -> int:
    return sum(same_row(each) == wanted for each in batch.to_pylist())


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
