"""Compare the rows of two versions with DataFusion, with bounded memory.

Files that both versions have are not compared: their rows are in both. With a key, only the key columns of
these files are read, to check that no key of a changed file is in one of them.
"""

# ruff: noqa: S608 - the SQL has only column numbers and a limit

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltawitness.answers.diff.engine import Engine, Pair, compared
from deltawitness.answers.diff.table_values import DiffChange, RowChanges, RowExample
from deltawitness.answers.diff.versions import OpenVersion
from deltawitness.exceptions import DiffError

if TYPE_CHECKING:
    from deltawitness.answers.diff.datasets import RowSource

__all__ = ["RowOptions", "Sources", "compare_rows", "open_sources"]


@dataclass(frozen=True, slots=True)
class RowOptions:
    """How rows are compared.

    Attributes:
        key: the columns that identify a row; empty to compare complete rows as multisets.
        limit: maximum number of examples of each kind of change.
        show_rows: whether examples are returned.
    """

    key: tuple[str, ...] = ()
    limit: int = 10
    show_rows: bool = False


@dataclass(frozen=True, slots=True)
class Sources:
    """The rows of two versions.

    Attributes:
        a: all rows of the first version.
        b: all rows of the second version.
        changed_a: the rows of the first version that the second may not have.
        changed_b: the rows of the second version that the first may not have.
        shared: the rows of the files that both have; None if there are no such files.
    """

    a: RowSource
    b: RowSource
    changed_a: RowSource
    changed_b: RowSource
    shared: RowSource | None


def open_sources(a: OpenVersion, b: OpenVersion) -> Sources:
    """Return the rows of two versions."""
    from deltawitness.answers.diff.datasets import source_of  # noqa: PLC0415 - heavy

    left, right = source_of(a), source_of(b)
    shared = set(left.files or ()) & set(right.files or ())
    # A table that was created again may use the same file names for other rows.
    if not shared or a.incarnation != b.incarnation:
        return Sources(left, right, left, right, None)
    return Sources(left, right, left.without(shared), right.without(shared), left.only(shared))


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
        return _compare_multisets(sources, common, options)
    columns = [*options.key, *(name for name in common if name not in options.key)]
    return _compare_by_key(sources, columns, options, names)


# --- complete rows -----------------------------------------------------------------------------------


def _compare_multisets(sources: Sources, columns: Sequence[str], options: RowOptions) -> RowChanges:
    engine = Engine()
    pair = Pair(sources.changed_a, sources.changed_b, columns)
    engine.register("a", pair.a)
    engine.register("b", pair.b)
    left, right = pair.expressions()
    names = ", ".join(f"c{number}" for number in range(len(columns)))
    group = f" GROUP BY {names}" if columns else ""
    both = f"SELECT {_list([*left, '-1 AS n'])} FROM a UNION ALL SELECT {_list([*right, '1 AS n'])} FROM b"
    counts = f"SELECT {_list([names, 'sum(n) AS n'])} FROM ({both}){group}"
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


def _list(parts: Sequence[str]) -> str:
    return ", ".join(part for part in parts if part)


# --- by key ------------------------------------------------------------------------------------------


def _compare_by_key(
    sources: Sources, columns: Sequence[str], options: RowOptions, names: tuple[str, str]
) -> RowChanges:
    keys, width = len(options.key), len(columns)
    _check_unique(sources, options.key, names)
    engine = Engine()
    pair = Pair(sources.changed_a, sources.changed_b, columns)
    engine.register("a", pair.a)
    engine.register("b", pair.b)
    join = _join(pair, keys)
    differs = [f"d{at}" for at in range(keys, width)]
    is_changed = " OR ".join(differs) or "false"
    found = engine.row(
        "SELECT count(*) FILTER (WHERE in_a IS NULL) AS added,"
        " count(*) FILTER (WHERE in_b IS NULL) AS removed,"
        f" count(*) FILTER (WHERE {is_changed}) AS changed"
        + "".join(f", count(*) FILTER (WHERE {each}) AS {each}" for each in differs)
        + f" FROM ({join})"
    )
    by_column = {name: found[f"d{at}"] for at, name in enumerate(columns) if at >= keys}
    counts = {DiffChange(kind): found[kind] for kind in ("added", "removed", "changed")}
    examples = _key_examples(engine, join, columns, options, counts) if options.show_rows else ()
    return RowChanges(
        options.key,
        counts[DiffChange.ADDED],
        counts[DiffChange.REMOVED],
        counts[DiffChange.CHANGED],
        {name: count for name, count in by_column.items() if count},
        examples,
    )


def _join(pair: Pair, keys: int) -> str:
    """Return the SQL of the full outer join: the values of both sides, and which columns differ."""
    left, right = pair.expressions()
    on = " AND ".join(f"(a.c{at} IS NOT DISTINCT FROM b.c{at})" for at in range(keys))
    values = [f"a.c{at} AS a{at}, b.c{at} AS b{at}" for at in range(len(left))]
    is_both = "a.in_a IS NOT NULL AND b.in_b IS NOT NULL"
    differs = [
        f"({is_both} AND (a.c{at} IS DISTINCT FROM b.c{at})) AS d{at}"
        for at in range(keys, len(left))
    ]
    return (
        f"SELECT {_list([*values, *differs, 'a.in_a', 'b.in_b'])}"
        f" FROM (SELECT {_list([*left, '1 AS in_a'])} FROM a) AS a"
        f" FULL OUTER JOIN (SELECT {_list([*right, '1 AS in_b'])} FROM b) AS b ON {on}"
    )


def _key_examples(
    engine: Engine,
    join: str,
    columns: Sequence[str],
    options: RowOptions,
    counts: dict[DiffChange, int],
) -> tuple[RowExample, ...]:
    keys = range(len(options.key))
    others = range(len(options.key), len(columns))
    conditions = {
        DiffChange.ADDED: ("in_a IS NULL", "b"),
        DiffChange.REMOVED: ("in_b IS NULL", "a"),
        DiffChange.CHANGED: (" OR ".join(f"d{at}" for at in others) or "false", "a"),
    }
    examples = []
    for kind, (condition, side) in conditions.items():
        if not counts[kind]:
            continue
        order = ", ".join(f"{side}{at}" for at in keys)
        for row in engine.rows(
            f"SELECT * FROM ({join}) WHERE {condition} ORDER BY {order} LIMIT {options.limit}"
        ):
            changed = [at for at in others if kind is DiffChange.CHANGED and row[f"d{at}"]]
            values: dict[str, Any] = {columns[at]: row[f"{side}{at}"] for at in keys}
            before = {columns[at]: row[f"a{at}"] for at in changed}
            after = {columns[at]: row[f"b{at}"] for at in changed}
            examples.append(RowExample(kind, 1, values, before, after))
    return tuple(examples)


def _check_unique(sources: Sources, key: Sequence[str], names: tuple[str, str]) -> None:
    """Check that no key of a row that may differ is twice in a version.

    Raises:
        DiffError: a key is; the message has the number of such keys of both versions.
    """
    engine = Engine()
    pair = Pair(sources.changed_a, sources.changed_b, key)
    engine.register("a", pair.a)
    engine.register("b", pair.b)
    is_unique = not _repeated(engine, "a", len(key)) and not _repeated(engine, "b", len(key))
    if is_unique and not _is_any_shared(engine, pair, sources.shared):
        return
    whole = Engine()
    whole.register("a", compared(sources.a, key))
    whole.register("b", compared(sources.b, key))
    counts = [
        (_repeated(whole, side, len(key)), name) for side, name in zip("ab", names, strict=True)
    ]
    found = " and ".join(f"{count:,} in {name}" for count, name in counts if count)
    msg = f"key: values of {', '.join(key)} are repeated: {found}; use columns that identify a row"
    raise DiffError(msg)


def _repeated(engine: Engine, side: str, keys: int) -> int:
    names = ", ".join(f"c{at}" for at in range(keys))
    count: int = engine.row(
        f"SELECT count(*) AS n FROM (SELECT 1 FROM {side} GROUP BY {names} HAVING count(*) > 1)"
    )["n"]
    return count


def _is_any_shared(engine: Engine, pair: Pair, shared: RowSource | None) -> bool:
    """Return whether a key of a changed file is in a file that both versions have."""
    if shared is None:
        return False
    engine.register("s", compared(shared, pair.columns))
    keys = range(len(pair.columns))
    for side, source in (("a", pair.a), ("b", pair.b)):
        of_shared = Pair(shared, source.source, pair.columns)
        left, right = of_shared.expressions()
        on = " AND ".join(f"(s.c{at} IS NOT DISTINCT FROM o.c{at})" for at in keys)
        found = engine.row(
            f"SELECT count(*) AS n FROM (SELECT {_list(right)} FROM {side}) AS o"
            f" LEFT SEMI JOIN (SELECT {_list(left)} FROM s) AS s ON {on}"
        )
        if found["n"]:
            return True
    return False
