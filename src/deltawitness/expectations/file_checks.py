"""Check the rules about rows for data files that another writer has made, from their statistics alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deltawitness.commit.reader import is_integer
from deltawitness.events import ExpectationCheck
from deltawitness.expectations.row_checks import nulls_check, rows_check, unchecked, values_check
from deltawitness.expectations.rules import Bounds, Rules
from deltawitness.semconv import ExpectationRule

__all__ = ["FileStatistics", "file_checks", "statistics_of"]

_NO_STATISTICS = "the statistics of the files do not suffice"


@dataclass(frozen=True, slots=True)
class FileStatistics:
    """The statistics of one data file, as the Delta log has them.

    Attributes:
        rows: number of rows; None if it is not known.
        partition: the value of each partition column.
        nulls: number of nulls of each column that has it.
        low: the smallest value of each column that has it.
        high: the largest value.
    """

    rows: int | None
    partition: Mapping[str, Any]
    nulls: Mapping[str, Any]
    low: Mapping[str, Any]
    high: Mapping[str, Any]


def statistics_of(actions: Iterable[Any]) -> list[FileStatistics]:
    """Return the statistics of the files of add actions; remove actions are left out.

    Args:
        actions: `deltalake.transaction.AddAction` and others.
    """
    return [_statistics(each) for each in actions if hasattr(each, "stats")]


def _statistics(add: Any) -> FileStatistics:
    try:
        found = json.loads(add.stats)
    except (TypeError, ValueError):
        found = None
    stats = found if isinstance(found, dict) else {}
    rows = stats.get("numRecords")
    nulls, low, high = (
        value if isinstance(value := stats.get(name), dict) else {}
        for name in ("nullCount", "minValues", "maxValues")
    )
    return FileStatistics(
        rows if is_integer(rows) else None, dict(add.partition_values or {}), nulls, low, high
    )


def file_checks(
    rules: Rules, bounds: Bounds | None, files: list[FileStatistics], columns: Iterable[str]
) -> list[ExpectationCheck]:
    """Return the results of the rules about rows, except `rows_added` without bounds.

    Args:
        rules: the rules.
        bounds: the bounds of `rows_added`; None if there are none for this write.
        files: the statistics of the files.
        columns: the columns of the table.
    """
    known, rows = set(columns), _total(file.rows for file in files)
    checks: list[ExpectationCheck] = []
    if bounds is not None:
        checks.append(
            unchecked(ExpectationRule.ROWS_ADDED, (), _NO_STATISTICS)
            if rows is None
            else rows_check(rows, bounds)
        )
    for column, most in rules.nulls.items():
        count = rows if column not in known else _total(_nulls(file, column) for file in files)
        checks.append(
            unchecked(ExpectationRule.NULLS, (column,), _NO_STATISTICS)
            if rows is None or count is None
            else nulls_check(column, count, rows, most)
        )
    checks += [unchecked(ExpectationRule.UNIQUE, key, _NO_STATISTICS) for key in rules.unique]
    for column, allowed in rules.values.items():
        outside = _files_outside(files, column, allowed)
        checks.append(
            unchecked(ExpectationRule.VALUES, (column,), _NO_STATISTICS)
            if outside is None
            else values_check(column, outside, "file")
        )
    return checks


def _total(counts: Iterable[int | None]) -> int | None:
    known = list(counts)
    return None if None in known else sum(each for each in known if each is not None)


def _nulls(file: FileStatistics, column: str) -> int | None:
    if column in file.partition:
        return file.rows if file.partition[column] is None else 0
    count = file.nulls.get(column)
    return count if is_integer(count) else None


def _files_outside(
    files: list[FileStatistics], column: str, allowed: Bounds | frozenset[Any]
) -> int | None:
    """Return the number of files with a value outside of a range; None if the statistics do not suffice.

    Only integers are compared: statistics of text are truncated, those of floats ignore NaN.
    """
    if isinstance(allowed, frozenset):
        return None
    outside = 0
    for file in files:
        low, high = file.low.get(column), file.high.get(column)
        if file.rows is not None and file.nulls.get(column) == file.rows:
            continue
        if not (is_integer(low) and is_integer(high)):
            return None
        try:
            outside += not _is_inside(low, high, allowed)
        except TypeError:
            return None
    return outside


def _is_inside(low: Any, high: Any, allowed: Bounds) -> bool:
    lowest, highest = allowed
    return (lowest is None or low >= lowest) and (highest is None or high <= highest)
