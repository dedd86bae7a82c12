"""Check the rules about rows while record batches pass: counts, nulls, repeated keys, values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from deltawitness.events import ExpectationCheck
from deltawitness.expectations.rules import Bounds, Rules
from deltawitness.plurals import count_of
from deltawitness.semconv import ExpectationRule

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "RowCheck",
    "bounds_text",
    "nulls_check",
    "row_checks",
    "rows_check",
    "unchecked",
    "values_check",
]


class RowCheck(Protocol):
    """Checks one rule for the rows of a write."""

    def begin(self, schema: pa.Schema, /) -> None:
        """Take the schema of the rows, before the first of them."""

    def update(self, batch: pa.RecordBatch, /) -> None:
        """Take the next rows."""

    def result(self) -> ExpectationCheck:
        """Return the result for all rows so far."""


def row_checks(rules: Rules, bounds: Bounds | None) -> list[RowCheck]:
    """Return the checks of the rules about rows, except `rows_added` without bounds.

    Args:
        rules: the rules.
        bounds: the bounds of `rows_added`; None if there are none for this write.
    """
    checks: list[RowCheck] = []
    if bounds is not None:
        checks.append(_RowCount(bounds))
    checks += [_Nulls(column, most) for column, most in rules.nulls.items()]
    checks += [_Unique(key) for key in rules.unique]
    checks += [_Values(column, allowed) for column, allowed in rules.values.items()]
    return checks


def unchecked(rule: ExpectationRule, columns: Sequence[str], reason: str) -> ExpectationCheck:
    """Return the result of a rule that cannot be checked for a write.

    Args:
        rule: kind of the rule.
        columns: its columns.
        reason: why.
    """
    return ExpectationCheck(rule, tuple(columns), None, None, f"not checked: {reason}")


def rows_check(rows: int, bounds: Bounds) -> ExpectationCheck:
    """Return the result of `rows_added`.

    Args:
        rows: number of rows that the write adds.
        bounds: the bounds.
    """
    low, high = bounds
    is_met = (low is None or rows >= low) and (high is None or rows <= high)
    detail = f"{count_of(rows, 'row')}, {bounds_text(bounds)} allowed"
    return ExpectationCheck(ExpectationRule.ROWS_ADDED, (), is_met, rows, detail)


def nulls_check(column: str, nulls: int, rows: int, most: float) -> ExpectationCheck:
    """Return the result of `nulls` for a column.

    Args:
        column: the column.
        nulls: number of its nulls.
        rows: number of rows.
        most: the maximum number of nulls; a float is a fraction of the rows.
    """
    is_met = nulls <= most if isinstance(most, int) else not nulls or nulls / rows <= most
    allowed = f"{most:g} of {count_of(rows, 'row')}" if isinstance(most, float) else f"{most}"
    detail = f"{count_of(nulls, 'null')}, at most {allowed} allowed"
    return ExpectationCheck(ExpectationRule.NULLS, (column,), is_met, nulls, detail)


def values_check(column: str, outside: int, counted: str) -> ExpectationCheck:
    """Return the result of `values` for a column.

    Args:
        column: the column.
        outside: number of rows, or of files, with another value.
        counted: `row` or `file`.
    """
    detail = f"{count_of(outside, counted)} with a value that is not allowed"
    return ExpectationCheck(ExpectationRule.VALUES, (column,), outside == 0, outside, detail)


def bounds_text(bounds: Bounds) -> str:
    """Return bounds as text.

    >>> bounds_text((1, None)), bounds_text((None, 9)), bounds_text((3, 3)), bounds_text((1, 9))
    ('at least 1', 'at most 9', '3', '1 to 9')
    """
    low, high = (f"{each:.10g}" if isinstance(each, float) else each for each in bounds)
    if low is None:
        return f"at most {high}"
    if high is None:
        return f"at least {low}"
    return f"{low}" if low == high else f"{low} to {high}"


class _RowCount:
    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._rows = 0

    def begin(self, schema: pa.Schema, /) -> None:
        pass

    def update(self, batch: pa.RecordBatch, /) -> None:
        self._rows += batch.num_rows

    def result(self) -> ExpectationCheck:
        return rows_check(self._rows, self._bounds)


class _Nulls:
    """Counts the nulls of a column; a column that the rows lack is null in each row."""

    def __init__(self, column: str, most: float) -> None:
        self._column = column
        self._most = most
        self._rows = self._nulls = 0

    def begin(self, schema: pa.Schema, /) -> None:
        pass

    def update(self, batch: pa.RecordBatch, /) -> None:
        column = _column(batch, self._column)
        self._rows += batch.num_rows
        self._nulls += batch.num_rows if column is None else column.null_count

    def result(self) -> ExpectationCheck:
        return nulls_check(self._column, self._nulls, self._rows, self._most)


class _Unique:
    """Counts the rows whose key occurs more than once; rows with a null in the key are ignored.

    The columns of the key are held in memory.
    """

    def __init__(self, key: tuple[str, ...]) -> None:
        self._key = key
        self._parts: list[pa.Table] = []
        self._missing: str | None = None

    def begin(self, schema: pa.Schema, /) -> None:
        missing = (name for name in self._key if schema.get_field_index(name) < 0)
        self._missing = next(missing, None)

    def update(self, batch: pa.RecordBatch, /) -> None:
        if self._missing is not None:
            return
        import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

        columns = [_column(batch, name) for name in self._key]
        names = [str(place) for place in range(len(columns))]  # a key may repeat a name
        self._parts.append(pa.table(columns, names=names).drop_null())

    def result(self) -> ExpectationCheck:
        if self._missing is not None:
            return _missing(ExpectationRule.UNIQUE, self._key, self._missing)
        try:
            repeated = self._repeated()
        except Exception as error:  # noqa: BLE001 - Arrow cannot group values of every type
            return _uncheckable(ExpectationRule.UNIQUE, self._key, error)
        detail = f"{count_of(repeated, 'row')} with a key that occurs more than once"
        return ExpectationCheck(ExpectationRule.UNIQUE, self._key, repeated == 0, repeated, detail)

    def _repeated(self) -> int:
        import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded
        import pyarrow.compute as pc  # noqa: PLC0415 - as above

        if not self._parts:
            return 0
        rows = pa.concat_tables(self._parts)
        counts = rows.group_by(rows.column_names).aggregate([([], "count_all")])["count_all"]
        return int(pc.sum(counts.filter(pc.greater(counts, 1))).as_py() or 0)


class _Values:
    """Counts the rows whose value is not allowed; nulls are ignored, NaN is in no range."""

    def __init__(self, column: str, allowed: Bounds | frozenset[Any]) -> None:
        self._column = column
        self._allowed = allowed
        self._outside = 0
        self._is_missing = False
        self._error: Exception | None = None

    def begin(self, schema: pa.Schema, /) -> None:
        self._is_missing = schema.get_field_index(self._column) < 0

    def update(self, batch: pa.RecordBatch, /) -> None:
        if self._is_missing or self._error is not None:
            return
        try:
            self._outside += _outside(_column(batch, self._column), self._allowed)
        except Exception as error:  # noqa: BLE001 - the values are of another type than the column
            self._error = error

    def result(self) -> ExpectationCheck:
        rule, columns = ExpectationRule.VALUES, (self._column,)
        if self._is_missing:
            return _missing(rule, columns, self._column)
        if self._error is not None:
            return _uncheckable(rule, columns, self._error)
        return values_check(self._column, self._outside, "row")


def _outside(column: pa.Array, allowed: Bounds | frozenset[Any]) -> int:
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    values = column.drop_null()
    if isinstance(allowed, frozenset):
        values, known = _with_one_type(values, sorted(allowed, key=repr))
        inside = pc.is_in(values, value_set=known)
    else:
        low, high = allowed
        inside = (
            pa.array([True] * len(values), pa.bool_())
            if low is None
            else pc.greater_equal(values, pa.scalar(low))
        )
        if high is not None:
            inside = pc.and_(inside, pc.less_equal(values, pa.scalar(high)))
    return len(values) - int(pc.sum(inside).as_py() or 0)


def _with_one_type(values: pa.Array, allowed: list[Any]) -> tuple[pa.Array, pa.Array]:
    """Return values and allowed values with the same type.

    It is that of the column, or that of the allowed values if the column cannot have one of them, such as
    300 for an `int8`.

    Raises:
        ArrowException: there is no such type.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    try:
        return values, pa.array(allowed, type=values.type)
    except pa.ArrowInvalid:
        known = pa.array(allowed)
        return values.cast(known.type), known


def _column(batch: pa.RecordBatch, name: str) -> Any:
    """Return a column with plain values; None if there is none or several of this name."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    place = batch.schema.get_field_index(name)
    if place < 0:
        return None
    column: Any = batch.column(place)
    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    elif pa.types.is_run_end_encoded(column.type):
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy, already loaded

        column = pc.run_end_decode(column)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    elif pa.types.is_binary_view(column.type):
        column = column.cast(pa.large_binary())
    return column


def _missing(rule: ExpectationRule, columns: tuple[str, ...], missing: str) -> ExpectationCheck:
    return ExpectationCheck(rule, columns, False, None, f"the rows have no column `{missing}`")  # noqa: FBT003 - not met


def _uncheckable(
    rule: ExpectationRule, columns: tuple[str, ...], error: Exception
) -> ExpectationCheck:
    detail = f"cannot be checked for this type of column ({type(error).__name__})"
    return ExpectationCheck(rule, columns, False, None, detail)  # noqa: FBT003 - not met
