"""The columns that an expression of a plan can name, each with the columns of tables that it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from deltawitness.column_sources import ColumnSource, ColumnUse

__all__ = ["Column", "Scope", "Sources", "merged", "used_as"]

Sources: TypeAlias = Mapping[tuple[int | str, str], ColumnUse] | None
"""The use of each column of a table, by table and column; None where they are not known."""

_RANK = {
    use: rank
    for rank, use in enumerate(
        (
            ColumnUse.CONDITION,
            ColumnUse.IDENTITY,
            ColumnUse.TRANSFORMATION,
            ColumnUse.AGGREGATION,
        )
    )
}
"""Of several uses of one column, the last one of these is recorded."""


def merged(parts: Iterable[Sources]) -> Sources:
    """Return the sources of a value that is made from several; None if one of them is not known."""
    found: dict[tuple[int | str, str], ColumnUse] = {}
    for part in parts:
        if part is None:
            return None
        for key, use in part.items():
            known = found.get(key)
            if known is None or _RANK.get(use, 0) > _RANK.get(known, 0):
                found[key] = use
    return found


def used_as(sources: Sources, use: ColumnUse) -> Sources:
    """Return sources of a value that is used to compute another one.

    A use that only decides about a value remains one; an aggregation remains one after a transformation.
    """
    if sources is None:
        return None
    if use not in _RANK:
        return dict.fromkeys(sources, use)

    def outer(inner: ColumnUse) -> ColumnUse:
        if ColumnUse.CONDITION in {inner, use}:
            return ColumnUse.CONDITION
        return max(inner, use, key=lambda each: _RANK.get(each, 0))

    return {key: outer(inner) for key, inner in sources.items()}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the result of a plan's node.

    Attributes:
        qualified: its name, with the relation if it has one: how expressions name it.
        name: its name alone.
        sources: the columns of tables that its values come from.
    """

    qualified: str
    name: str
    sources: Sources

    def within(self, relation: str) -> Column:
        """Return the column as one of another relation."""
        return Column(f"{relation}.{self.name}", self.name, self.sources)


class Scope:
    """The columns of the inputs of a plan's node.

    Args:
        columns: the columns in order; None if they are not known.
    """

    def __init__(self, columns: list[Column] | None) -> None:
        self.columns = columns
        self._named = {each.qualified: each for each in reversed(columns or [])}

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns or ())

    def get(self, qualified: str) -> Column | None:
        """Return the column with a name; None if there is none."""
        found = self._named.get(qualified)
        if found is None:
            # A generated column has a relation in some nodes, and none in others.
            found = next((each for each in self if each.name == qualified), None)
        return found

    def sources(self, qualified: str) -> Sources:
        """Return the sources of the column with a name; None if they are not known."""
        found = self.get(qualified)
        return None if found is None else found.sources

    def named_in(self, text: str) -> Sources:
        """Return the sources of all columns that a text names."""
        if self.columns is None:
            return None
        words = set(_WORD.findall(text))
        found = [
            each.sources
            for each in self
            if each.qualified in words
            or (not _WORD.fullmatch(each.qualified) and each.qualified in text)
        ]
        return merged(found)


_WORD = re.compile(r"[^\W\d]\w*(?:\.\w+)*")
"""A name in a plan's text, with its relation."""


def sources_of(keys: Iterable[tuple[int | str, str]], use: ColumnUse) -> Sources:
    """Return the same use of some columns."""
    return dict.fromkeys(keys, use)


def listed(sources: Mapping[tuple[int | str, str], ColumnUse]) -> tuple[ColumnSource, ...]:
    """Return sources as values, in order of table and column."""
    ordered = sorted(sources.items(), key=lambda item: (str(item[0][0]), item[0][1], item[1]))
    return tuple(ColumnSource(table, column, use) for (table, column), use in ordered)
