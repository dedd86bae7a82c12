"""From which columns a write has made each of its columns: as values, and as one line of JSON.

A session reads this from the logical plan of the rows. The text is in the ledger; it has names of
columns and no literals:

    {"sources":[0,"rates"],"columns":{"id":[[0,"id"]],"euros":[[0,"price","t"],[1,"rate","t"]]},
     "rows":[[0,"state","f"]]}

`sources` are the tables: a number is the position of a Delta table in the inputs of the write, and a
text is the name of a table that is no Delta table. Each member of `columns` is a column that was written,
with the columns that its values come from: position in `sources`, name, and the letter of the use, which
is left out for `identity`. It is null where the plan does not show them. `rows` are the columns that
decided which rows were written, and null where the plan does not show them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["MAX_TEXT", "ColumnSource", "ColumnUse", "WriteColumns"]

MAX_TEXT = 1 << 16
"""Maximum length of the text of a write; the columns of a longer one are not recorded."""


class ColumnUse(StrEnum):
    """How a write has used a column. The first four are about values of a column, the others about rows."""

    IDENTITY = "identity"
    """The value itself, renamed, or cast to another type."""

    TRANSFORMATION = "transformation"
    """The value is computed from it and from other values of the same row."""

    AGGREGATION = "aggregation"
    """The value is computed from several rows: by an aggregate or a window function."""

    CONDITION = "condition"
    """It decided which value was written: WHEN, FILTER, PARTITION BY, ORDER BY, a subquery's WHERE."""

    FILTER = "filter"
    """It decided which rows were written: WHERE or HAVING."""

    JOIN = "join"
    """It decided which rows were joined."""

    GROUP = "group"
    """Rows were grouped by it."""

    SORT = "sort"
    """Rows were sorted by it before a LIMIT."""


_LETTERS = {use: use.value[0] for use in ColumnUse}
_USES = {letter: use for use, letter in _LETTERS.items()}


@dataclass(frozen=True, slots=True)
class ColumnSource:
    """A column that a write has read.

    Attributes:
        table: position of the table in the inputs of the write; for a table that is no Delta table, its name.
        column: name of the column.
        use: how it was used.
    """

    table: int | str
    column: str
    use: ColumnUse


@dataclass(frozen=True, slots=True)
class WriteColumns:
    """From which columns a write has made each of its columns.

    Attributes:
        columns: the columns that were written, each with those that its values come from; None where the
            plan does not show them.
        rows: the columns that decided which rows were written; None where the plan does not show them.
        reason: why the columns are not known; None if they are.
    """

    columns: Mapping[str, tuple[ColumnSource, ...] | None] = field(default_factory=dict)
    rows: tuple[ColumnSource, ...] | None = ()
    reason: str | None = None

    def to_text(self) -> str:
        """Return the value as one line of JSON.

        >>> source = ColumnSource(0, "price", ColumnUse.TRANSFORMATION)
        >>> WriteColumns({"euros": (source,)}).to_text()
        '{"sources":[0],"columns":{"euros":[[0,"price","t"]]}}'
        """
        if self.reason is not None:
            return _json({"unknown": self.reason})
        places: dict[int | str, int] = {}

        def listed(sources: Iterable[ColumnSource]) -> list[list[Any]]:
            found = []
            for each in sources:
                item = [places.setdefault(each.table, len(places)), each.column]
                is_plain = each.use is ColumnUse.IDENTITY
                found.append(item if is_plain else [*item, _LETTERS[each.use]])
            return found

        columns = {
            name: None if sources is None else listed(sources)
            for name, sources in self.columns.items()
        }
        content: dict[str, Any] = {"columns": columns}
        if self.rows or self.rows is None:
            content["rows"] = None if self.rows is None else listed(self.rows)
        text = _json({"sources": list(places), **content})
        if len(text) > MAX_TEXT:
            return _json({"unknown": "the write has too many columns"})
        return text

    @classmethod
    def parse(cls, text: str) -> WriteColumns:
        """Return the value of a text; one that cannot be parsed has a reason and no columns.

        >>> WriteColumns.parse('{"sources":["rates"],"columns":{"rate":[[0,"rate"]]}}').columns
        {'rate': (ColumnSource(table='rates', column='rate', use=<ColumnUse.IDENTITY: 'identity'>),)}
        """
        try:
            content = json.loads(text)
            if "unknown" in content:
                return cls(reason=str(content["unknown"]))
            places = content["sources"]

            def sources(listed: list[list[Any]]) -> tuple[ColumnSource, ...]:
                return tuple(
                    ColumnSource(places[place], column, _USES[rest[0]] if rest else _PLAIN)
                    for place, column, *rest in listed
                )

            columns = {
                name: None if listed is None else sources(listed)
                for name, listed in content["columns"].items()
            }
            rows = content.get("rows", [])
            return cls(columns, None if rows is None else sources(rows))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return cls(reason="the recorded columns cannot be read")


_PLAIN = ColumnUse.IDENTITY


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)
