"""Compare the rows of two versions with DataFusion, with bounded memory.

Files that both versions have are not compared: their rows are in both. With a key, only the key columns of
these files are read, to check that no key of a changed file is in one of them.
"""

# ruff: noqa: S608 - the SQL has only column numbers and a limit

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from deltawitness.answers.diff.by_key import compare_by_key
from deltawitness.answers.diff.engine import Engine, Pair, listed, unreadable_rows
from deltawitness.answers.diff.sources import RowOptions, Sources, open_sources
from deltawitness.answers.diff.table_values import DiffChange, RowChanges, RowExample
from deltawitness.exceptions import DiffError

__all__ = ["RowOptions", "Sources", "compare_rows", "open_sources"]


def compare_rows(sources: Sources, options: RowOptions, names: tuple[str, str]) -> RowChanges:
    """Return the rows that differ.

    Args:
        sources: the rows of both versions.
        options: the key, and whether to return examples.
        names: the names of both versions, for error messages.

    Raises:
        DiffError: a column of the key is missing in a version, or its values are not unique in one.
    """
    common = [name for name in sources.a.schema.names if name in set(sources.b.schema.names)]
    missing = [name for name in options.key if name not in common]
    if missing:
        msg = f"key: {names[0]} and {names[1]} do not both have the column {', '.join(missing)}"
        raise DiffError(msg)
    if not options.key:
        return _with_nested_values(_compare_multisets(sources, common, options), sources)
    columns = [*options.key, *(name for name in common if name not in options.key)]
    return _with_nested_values(compare_by_key(sources, columns, options, names), sources)


# --- examples with nested values ---------------------------------------------------------------------


def _with_nested_values(changes: RowChanges, sources: Sources) -> RowChanges:
    """Return changes whose examples have values of nested types instead of the hashes that were compared."""
    wanted: dict[str, set[object]] = {}
    for example in changes.examples:
        for values in (example.values, example.before, example.after):
            for name, value in values.items():
                if isinstance(value, str):
                    wanted.setdefault(name, set()).add(value)
    if not wanted:
        return changes
    from deltawitness.answers.diff.datasets import nested_values  # noqa: PLC0415 - heavy

    found: dict[str, dict[str, Any]] = {}
    for source in (sources.changed_a, sources.changed_b):
        try:
            for name, values in nested_values(source, wanted).items():
                found.setdefault(name, {}).update(values)
        except Exception as error:
            raise unreadable_rows(source.name, error) from error

    def shown(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: found[name].get(value, value)
            if name in found and isinstance(value, str)
            else value
            for name, value in values.items()
        }

    examples = (
        replace(
            each,
            values=shown(each.values),
            before=shown(each.before),
            after=shown(each.after),
        )
        for each in changes.examples
    )
    return replace(changes, examples=tuple(examples))


# --- complete rows -----------------------------------------------------------------------------------


def _compare_multisets(sources: Sources, columns: Sequence[str], options: RowOptions) -> RowChanges:
    engine = Engine()
    pair = Pair(sources.changed_a, sources.changed_b, columns)
    engine.register("a", pair.a)
    engine.register("b", pair.b)
    left, right = pair.expressions()
    names = ", ".join(f"c{number}" for number in range(len(columns)))
    group = f" GROUP BY {names}" if columns else ""
    both = f"SELECT {listed([*left, '-1 AS n'])} FROM a UNION ALL SELECT {listed([*right, '1 AS n'])} FROM b"
    counts = f"SELECT {listed([names, 'sum(n) AS n'])} FROM ({both}){group}"
    found = engine.row(
        "SELECT sum(CASE WHEN n > 0 THEN n ELSE 0 END) AS added,"
        f" -sum(CASE WHEN n < 0 THEN n ELSE 0 END) AS removed FROM ({counts})"
    )
    changes = RowChanges((), found["added"] or 0, found["removed"] or 0)
    if not options.show_rows or not columns:
        return changes
    examples = []
    for kind, is_it in ((DiffChange.ADDED, "n > 0"), (DiffChange.REMOVED, "n < 0")):
        rows = engine.rows(
            f"SELECT * FROM ({counts}) WHERE {is_it} ORDER BY {names} LIMIT {options.limit}"
        )
        examples += [
            RowExample(
                kind, abs(row["n"]), {name: row[f"c{at}"] for at, name in enumerate(columns)}
            )
            for row in rows
        ]
    return RowChanges((), changes.added, changes.removed, examples=tuple(examples))
