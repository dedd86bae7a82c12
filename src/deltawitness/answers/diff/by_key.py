"""Compare the rows of two versions by key: a full outer join, in passes that fit into memory.

The values of a key must be unique in each version. Whether they are follows from the counts of the join,
which ends as soon as it has more rows than with unique keys. A key with few distinct values is found before.
"""
# ruff: noqa: S608 - the SQL has only column numbers and a limit

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltawitness.answers.diff.engine import Engine, Pair, compared, listed
from deltawitness.answers.diff.sources import RowOptions, Sources
from deltawitness.answers.diff.table_values import DiffChange, RowChanges, RowExample
from deltawitness.exceptions import DiffError

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = ["compare_by_key"]

PASS_BYTES = 384 << 20
"""Approximate size in bytes of the smaller input of a join in one pass."""

_DISTINCT_SHARE = 0.9
"""Share of approximately distinct keys below which the exact number is computed before the join."""

_FIXED_BYTES, _TEXT_BYTES = 8, 32


def compare_by_key(
    sources: Sources, columns: Sequence[str], options: RowOptions, names: tuple[str, str]
) -> RowChanges:
    """Return the rows that differ.

    Args:
        sources: the rows of both versions.
        columns: the columns that both versions have, those of the key first.
        options: the key, and whether to return examples.
        names: the names of both versions, for error messages.

    Raises:
        DiffError: a key is repeated in a version.
    """
    engine = Engine()
    pair = Pair(sources.changed_a, sources.changed_b, columns)
    engine.register("a", pair.a)
    engine.register("b", pair.b)
    plan = _Plan.of(engine, pair, len(options.key))
    if not plan.may_be_unique or _is_any_shared(engine, sources, options.key):
        _check_unique(sources, options.key, names)
    found: Counter[str] = Counter()
    for join in plan.joins():
        found.update({name: count or 0 for name, count in engine.row(plan.counts(join)).items()})
    if not plan.is_unique(found):
        _check_unique(sources, options.key, names)
    return RowChanges(
        options.key,
        found["added"],
        found["removed"],
        found["changed"],
        {columns[at]: found[f"d{at}"] for at in plan.others if found[f"d{at}"]},
        _examples(engine, plan, columns, options, found) if options.show_rows else (),
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """How two inputs are joined.

    Attributes:
        pair: the inputs.
        keys: number of columns of the key.
        rows_a: number of rows of the first input.
        rows_b: number of rows of the second input.
        may_be_unique: whether each key may be unique in both.
        passes: number of joins, each of the keys with one remainder.
    """

    pair: Pair
    keys: int
    rows_a: int
    rows_b: int
    may_be_unique: bool
    passes: int

    @classmethod
    def of(cls, engine: Engine, pair: Pair, keys: int) -> _Plan:
        """Count the rows and, approximately, the keys of both inputs."""
        counts, is_unique = [], True
        for side, kinds in (("a", pair.a.schema.types), ("b", pair.b.schema.types)):
            distinct = _distinct(kinds[:keys])
            found = engine.row(f"SELECT count(*) AS n{distinct} FROM {side}")
            counts.append(found["n"])
            # The product of the columns' distinct values limits that of the key.
            limit = 1
            for at in range(keys):
                limit *= (found.get(f"k{at}") or found["n"]) + 1
            is_unique = is_unique and limit >= found["n"] * _DISTINCT_SHARE
            if is_unique and keys > 1:
                is_unique = not _repeated(engine, side, keys)
        width = sum(map(_width, pair.a.schema.types))
        can_divide = _is_integer(pair.a.schema.types[0]) and _is_integer(pair.b.schema.types[0])
        passes = 1 + min(counts) * width // PASS_BYTES if can_divide else 1
        return cls(pair, keys, counts[0], counts[1], is_unique, passes)

    @property
    def others(self) -> range:
        """The numbers of the columns that are not of the key."""
        return range(self.keys, len(self.pair.columns))

    @property
    def is_changed(self) -> str:
        """The condition that a column differs between rows with the same key."""
        return " OR ".join(f"d{at}" for at in self.others) or "false"

    def joins(self) -> Iterator[str]:
        """Yield the SQL of the join of each pass: the values of both sides, and which columns differ."""
        left, right = self.pair.expressions()
        on = " AND ".join(f"(a.c{at} IS NOT DISTINCT FROM b.c{at})" for at in range(self.keys))
        values = [f"a.c{at} AS a{at}, b.c{at} AS b{at}" for at in range(len(left))]
        is_both = "a.in_a IS NOT NULL AND b.in_b IS NOT NULL"
        differs = [
            f"({is_both} AND (a.c{at} IS DISTINCT FROM b.c{at})) AS d{at}" for at in self.others
        ]
        for number in range(self.passes):
            where = (
                ""
                if self.passes == 1
                else f" WHERE coalesce(abs(c0 % {self.passes}), 0) = {number}"
            )
            yield (
                f"SELECT {listed([*values, *differs, 'a.in_a', 'b.in_b'])}"
                f" FROM (SELECT {listed([*left, '1 AS in_a'])} FROM a{where}) AS a"
                f" FULL OUTER JOIN (SELECT {listed([*right, '1 AS in_b'])} FROM b{where}) AS b ON {on}"
            )

    def counts(self, join: str) -> str:
        """Return the SQL of the counts of a pass."""
        parts = [
            "count(*) AS n",
            "count(*) FILTER (WHERE in_a IS NULL) AS added",
            "count(*) FILTER (WHERE in_b IS NULL) AS removed",
            f"count(*) FILTER (WHERE {self.is_changed}) AS changed",
            *(f"count(*) FILTER (WHERE d{at}) AS d{at}" for at in self.others),
        ]
        if self.keys == 1:
            for kind, missing, key in (("added", "in_a", "b0"), ("removed", "in_b", "a0")):
                nulls = f"count(*) FILTER (WHERE {missing} IS NULL AND {key} IS NULL)"
                distinct = f"count(DISTINCT {key}) FILTER (WHERE {missing} IS NULL)"
                parts += [f"{nulls} AS null_{kind}", f"{distinct} + {nulls} AS distinct_{kind}"]
        # With unique keys the join has no more rows. Many equal keys would have the square of their number.
        limit = self.rows_a + self.rows_b + 1
        return f"SELECT {', '.join(parts)} FROM ({join} LIMIT {limit})"

    def is_unique(self, found: Mapping[str, int]) -> bool:
        """Return whether all keys of both inputs were unique, from the sums of the counts.

        A key that is repeated in an input has more matched rows than there are in the other one, or is
        repeated among the rows without a match.
        """
        if self.keys > 1:
            return True  # checked before
        matched = found["n"] - found["added"] - found["removed"]
        if matched + found["removed"] != self.rows_a or matched + found["added"] != self.rows_b:
            return False
        return all(
            found[f"distinct_{kind}"] == found[kind] and found[f"null_{kind}"] <= 1
            for kind in ("added", "removed")
        )


def _distinct(kinds: Sequence[pa.DataType]) -> str:
    """Return the SQL of the approximate numbers of distinct values, for columns that have one."""
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    return "".join(
        f", approx_distinct(c{at}) AS k{at}"
        for at, kind in enumerate(kinds)
        if pt.is_integer(kind) or pt.is_string(kind) or pt.is_timestamp(kind)
    )


def _is_integer(kind: pa.DataType) -> bool:
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    return bool(pt.is_integer(kind))


def _width(kind: pa.DataType) -> int:
    """Return the approximate size of a value in bytes."""
    is_text = "string" in str(kind) or "binary" in str(kind)
    return _TEXT_BYTES if is_text else _FIXED_BYTES


# --- examples ----------------------------------------------------------------------------------------


def _examples(
    engine: Engine,
    plan: _Plan,
    columns: Sequence[str],
    options: RowOptions,
    counts: Mapping[str, int],
) -> tuple[RowExample, ...]:
    conditions = {
        DiffChange.ADDED: ("in_a IS NULL", "b"),
        DiffChange.REMOVED: ("in_b IS NULL", "a"),
        DiffChange.CHANGED: (plan.is_changed, "a"),
    }
    examples = []
    for kind, (condition, side) in conditions.items():
        if not counts[kind.value]:
            continue
        order = ", ".join(f"{side}{at}" for at in range(plan.keys))
        rows = [
            row
            for join in plan.joins()
            for row in engine.rows(
                f"SELECT * FROM ({join}) WHERE {condition} ORDER BY {order} LIMIT {options.limit}"
            )
        ]
        if plan.passes > 1:
            rows.sort(key=lambda row: (row[f"{side}0"] is None, row[f"{side}0"] or 0))
        examples += [_example(kind, side, row, columns, plan) for row in rows[: options.limit]]
    return tuple(examples)


def _example(
    kind: DiffChange, side: str, row: Mapping[str, Any], columns: Sequence[str], plan: _Plan
) -> RowExample:
    changed = [at for at in plan.others if kind is DiffChange.CHANGED and row[f"d{at}"]]
    return RowExample(
        kind,
        1,
        {columns[at]: row[f"{side}{at}"] for at in range(plan.keys)},
        {columns[at]: row[f"a{at}"] for at in changed},
        {columns[at]: row[f"b{at}"] for at in changed},
    )


# --- repeated keys -----------------------------------------------------------------------------------


def _check_unique(sources: Sources, key: Sequence[str], names: tuple[str, str]) -> None:
    """Check that no key is repeated in a version.

    Raises:
        DiffError: a key is; the message has the number of such keys of both versions.
    """
    engine = Engine()
    engine.register("a", compared(sources.a, key))
    engine.register("b", compared(sources.b, key))
    counts = [
        (_repeated(engine, side, len(key)), name) for side, name in zip("ab", names, strict=True)
    ]
    found = " and ".join(f"{count:,} in {name}" for count, name in counts if count)
    if found:
        columns = ", ".join(key)
        msg = f"key: values of {columns} are repeated: {found}; use columns that identify a row"
        raise DiffError(msg)


def _repeated(engine: Engine, side: str, keys: int) -> int:
    names = ", ".join(f"c{at}" for at in range(keys))
    count: int = engine.row(
        f"SELECT count(*) AS n FROM (SELECT 1 FROM {side} GROUP BY {names} HAVING count(*) > 1)"
    )["n"]
    return count


def _is_any_shared(engine: Engine, sources: Sources, key: Sequence[str]) -> bool:
    """Return whether a key of a changed file is in a file that both versions have."""
    shared = sources.shared
    if shared is None:
        return False
    engine.register("s", compared(shared, key))
    keys = range(len(key))
    for side, source in (("a", sources.changed_a), ("b", sources.changed_b)):
        of_shared = Pair(shared, source, key)
        left, right = of_shared.expressions()
        on = " AND ".join(f"(s.c{at} IS NOT DISTINCT FROM o.c{at})" for at in keys)
        found = engine.row(
            f"SELECT count(*) AS n FROM (SELECT {listed(right)} FROM {side}) AS o"
            f" LEFT SEMI JOIN (SELECT {listed(left)} FROM s) AS s ON {on}"
        )
        if found["n"]:
            return True
    return False
