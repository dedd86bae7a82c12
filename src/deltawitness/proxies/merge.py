"""MERGE INTO: its clauses, which DataFusion plans and does not hand out, and how delta-rs gets them.

DataFusion has planned the whole statement before anything here runs, so the text is a valid one.
It is cut at its keywords, and each expression is planned once more by itself, so that DataFusion
alone says what a name in it means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltawitness.exceptions import StatementError
from deltawitness.proxies.calls import SqlCall
from deltawitness.proxies.changes import (
    SOURCE,
    TARGET,
    Change,
    apply_changes,
    changed_rows,
    matching,
)
from deltawitness.proxies.expressions import NotTold, unaliased, value_sql
from deltawitness.proxies.sql import Words, quoted

if TYPE_CHECKING:
    from datafusion import DataFrame
    from deltalake import DeltaTable

__all__ = ["Clause", "Merge", "carry_out_merge"]


@dataclass(frozen=True, slots=True)
class Clause:
    """One WHEN clause.

    Attributes:
        kind: `matched`, `not matched` or `not matched by source`.
        condition: its text after AND, or None.
        action: `update`, `delete`, `insert` or `nothing`.
        columns: the columns that get a value; None means all of the table's, in their order.
        values: the texts of the values.
    """

    kind: str
    condition: str | None
    action: str
    columns: tuple[str, ...] | None = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Merge:
    """A MERGE statement, cut into its parts; each is the text that stands in the statement.

    Attributes:
        target: the table.
        target_alias: its alias, or None.
        source: a table, or a query in parentheses.
        source_alias: its alias, or None.
        condition: what stands after ON.
        clauses: the WHEN clauses, in order.
        clauses_text: all from ON to the end.
    """

    target: str
    target_alias: str | None
    source: str
    source_alias: str | None
    condition: str
    clauses: tuple[Clause, ...]
    clauses_text: str

    @classmethod
    def parsed(cls, text: str, *, normalize: bool = True) -> Merge:
        """Cut the text of a statement.

        Args:
            text: a MERGE statement that DataFusion has planned.
            normalize: whether unquoted names are folded to lower case.

        Raises:
            StatementError: it has a clause that delta-rs has no counterpart of.

        >>> Merge.parsed("MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE").clauses
        (Clause(kind='matched', condition=None, action='delete', columns=(), values=()),)
        """
        words = Words(text, normalize=normalize)
        words.expect("MERGE")
        words.take("INTO")
        target = _relation(words)
        target_alias = _alias(words)
        words.expect("USING")
        source = _source(words)
        source_alias = _alias(words)
        start = words.position
        words.expect("ON")
        condition = words.until({"WHEN"})
        clauses = []
        while words.take("WHEN"):
            clauses.append(_clause(words))
        words.expect_end()
        return cls(
            target, target_alias, source, source_alias, condition, tuple(clauses), text[start:]
        )

    def target_sql(self) -> str:
        """Return the target as a FROM clause names it."""
        return self.target if self.target_alias is None else f"{self.target} AS {self.target_alias}"

    def source_sql(self) -> str:
        """Return the source as a FROM clause names it."""
        return self.source if self.source_alias is None else f"{self.source} AS {self.source_alias}"


def _relation(words: Words) -> str:
    start = words.position
    words.reference()
    return words.text[start : words.end_position]


def _source(words: Words) -> str:
    if not words.peek("("):
        return _relation(words)
    start = words.position
    words.take("(")
    words.rest()
    words.expect(")")
    return words.text[start : words.end_position]


def _alias(words: Words) -> str | None:
    words.take("AS")
    if words.peek("USING") or words.peek("ON"):
        return None
    start = words.position
    words.name()
    if words.peek("("):
        msg = "MERGE INTO: an alias with a list of columns is not supported; name them in the query"
        raise StatementError(msg)
    return words.text[start : words.end_position]


def _clause(words: Words) -> Clause:
    is_not = words.take("NOT")
    words.expect("MATCHED")
    is_by_source = words.take("BY", "SOURCE")
    if not is_by_source and words.take("BY"):
        words.take("TARGET")
    kind = "matched"
    if is_not:
        kind = "not matched by source" if is_by_source else "not matched"
    condition = words.until({"THEN"}) if words.take("AND") else None
    words.expect("THEN")
    if words.take("DELETE"):
        return Clause(kind, condition, "delete")
    if words.take("DO", "NOTHING"):
        return Clause(kind, condition, "nothing")
    if words.take("UPDATE"):
        words.expect("SET")
        columns, values = zip(*_assignments(words), strict=True)
        return Clause(kind, condition, "update", columns, values)
    words.expect("INSERT")
    named = words.names() if words.peek("(") else None
    words.expect("VALUES")
    words.expect("(")
    inserted = [words.until({","})]
    while words.take(","):
        inserted.append(words.until({","}))
    words.expect(")")
    return Clause(kind, condition, "insert", named, tuple(inserted))


def _assignments(words: Words) -> Iterator[tuple[str, str]]:
    while True:
        column = words.reference()[-1]
        words.expect("=")
        yield column, words.until({",", "WHEN"})
        if not words.take(","):
            return


# --- carrying it out -----------------------------------------------------------------------------------


def carry_out_merge(merge: Merge, call: SqlCall, table: DeltaTable, source: DataFrame) -> int:
    """Carry a MERGE out, and return how many rows it inserted, updated and deleted.

    Args:
        merge: the statement.
        call: what it was planned from: its parameters are those of its parts.
        table: the table, at the version that the session serves.
        source: the rows of its source.
    """
    if not merge.clauses:
        return 0
    try:
        condition, changes = _told(merge, call, _schema_of(table))
    except NotTold:
        return _Evaluated(merge, call, table).carry_out()
    return changed_rows(apply_changes(table, source, condition, changes))


def _schema_of(table: DeltaTable) -> list[str]:
    return [field.name for field in table.schema().fields]


def _told(merge: Merge, call: SqlCall, columns: list[str]) -> tuple[str, list[Change]]:
    """Return the statement's condition and changes in the SQL that delta-rs reads.

    Raises:
        NotTold: it holds an expression that delta-rs is not given.
    """
    joined = f"{merge.target_sql()} CROSS JOIN {merge.source_sql()}"
    scopes = {
        "matched": joined,
        "not matched": merge.source_sql(),
        "not matched by source": merge.target_sql(),
    }
    sides = _sides(merge, call)
    (condition,) = _translated(call, joined, [merge.condition], sides)
    changes = []
    for clause in merge.clauses:
        texts = [*clause.values, *([clause.condition] if clause.condition is not None else [])]
        told = _translated(call, scopes[clause.kind], texts, sides)
        only_if = told.pop() if clause.condition is not None else None
        if clause.action == "nothing":
            raise NotTold(clause.action)
        values = dict(zip(_columns(clause, columns), told, strict=True))
        changes.append(Change(clause.action, values, only_if, clause.kind == "matched"))
    return condition, changes


def _columns(clause: Clause, columns: list[str]) -> list[str]:
    """Return the columns that a clause gives values to, under the table's own names."""
    if clause.columns is None:
        return columns[: len(clause.values)]
    return list(clause.columns)


def _sides(merge: Merge, call: SqlCall) -> Callable[[str | None, str], str]:
    """Return what names a column of the target or the source in the SQL for delta-rs."""
    relations: dict[str | None, str] = {}
    for sql, alias in ((merge.target_sql(), TARGET), (merge.source_sql(), SOURCE)):
        for expression in _planned(call, f"SELECT * FROM {sql}"):
            parts = unaliased(expression).to_variant()
            relations[parts.relation()] = alias

    def column(relation: str | None, name: str) -> str:
        if relation not in relations:
            raise NotTold(str(relation))
        return f"{relations[relation]}.{quoted(name)}"

    return column


def _translated(
    call: SqlCall, scope: str, texts: list[str], column: Callable[[str | None, str], str]
) -> list[str]:
    """Return expressions in the SQL that delta-rs reads.

    Args:
        call: the statement's call.
        scope: the FROM clause in which they have their meaning.
        texts: the expressions.
        column: names their columns.
    """
    if not texts:
        return []
    listed = ", ".join(f"({text}) AS told_{place}" for place, text in enumerate(texts))
    return [
        value_sql(expression, column)
        for expression in _planned(call, f"SELECT {listed} FROM {scope}")
    ]


def _planned(call: SqlCall, text: str) -> list[Any]:
    parts = call.plan(text).logical_plan().to_variant()
    if type(parts).__name__ != "Projection":
        raise NotTold(type(parts).__name__)
    expressions: list[Any] = parts.projections()
    return expressions


ROW = "deltawitness_row"
"""A number for each row of the source: two rows that are alike are still two."""


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """A MERGE whose expressions the session evaluates.

    The session joins target and source and works out, for each clause, which rows it is about and
    which values they get. What delta-rs then merges is that list: a row for each change, with the
    number of its clause, and the columns of the target that the change depends on as its key.
    """

    merge: Merge
    call: SqlCall
    table: DeltaTable

    def carry_out(self) -> int:
        """Work the changes out, apply them, and return how many rows they changed."""
        columns = _schema_of(self.table)
        is_about_target = any(clause.kind != "not matched" for clause in self._clauses())
        keys = [name for name in columns if is_about_target and self._may_matter(name)]
        source = self.call.plan(self._source_sql(columns, keys))
        changes = [
            self._change(number, clause, columns)
            for number, clause in enumerate(self.merge.clauses)
            if clause.action != "nothing"
        ]
        return changed_rows(apply_changes(self.table, source, self._condition(keys), changes))

    def _clauses(self) -> list[Clause]:
        return [clause for clause in self.merge.clauses if clause.action != "nothing"]

    def _change(self, number: int, clause: Clause, columns: list[str]) -> Change:
        values = {
            name: f"{SOURCE}.{quoted(_value(name, columns))}"
            for name in self._set_by(clause, columns)
        }
        only_if = f"({SOURCE}.clause = {number})"
        return Change(clause.action, values, only_if, is_matched=clause.kind != "not matched")

    def _condition(self, keys: list[str]) -> str:
        about_target = ", ".join(
            str(number)
            for number, clause in enumerate(self.merge.clauses)
            if clause.kind != "not matched"
        )
        match = matching(keys, [f"key_{place}" for place in range(len(keys))])
        return f"({SOURCE}.clause IN ({about_target})) AND {match}" if about_target else "false"

    def _may_matter(self, name: str) -> bool:
        """Tell whether a column of the target may play a part; in doubt it does."""
        return name.lower() in self.merge.clauses_text.lower() or '"' in name

    def _set_by(self, clause: Clause, columns: list[str]) -> Mapping[str, str]:
        if clause.action not in {"update", "insert"}:
            return {}
        return dict(zip(_columns(clause, columns), clause.values, strict=True))

    def _source_sql(self, columns: list[str], keys: list[str]) -> str:
        """Return the query of all changes; its first branch is empty and gives the columns types."""
        assigned = [
            name
            for name in columns
            if any(name in self._set_by(clause, columns) for clause in self.merge.clauses)
        ]
        listed = ["CAST(0 AS INT) AS clause", f"CAST(NULL AS BIGINT) AS {ROW}"]
        listed += [f"{quoted(name)} AS key_{place}" for place, name in enumerate(keys)]
        listed += [f"{quoted(name)} AS {_value(name, columns)}" for name in assigned]
        types = f"SELECT {', '.join(listed)} FROM {self.merge.target} WHERE false"
        branches = [
            self._branch_sql(number, clause, columns, keys, assigned)
            for number, clause in enumerate(self.merge.clauses)
            if clause.action != "nothing"
        ]
        return " UNION ALL ".join([types, *branches])

    def _branch_sql(
        self, number: int, clause: Clause, columns: list[str], keys: list[str], assigned: list[str]
    ) -> str:
        """Return the query of the changes of one clause."""
        has_source, has_target = (
            clause.kind != "not matched by source",
            clause.kind != "not matched",
        )
        values = self._set_by(clause, columns)
        listed = [f"CAST({number} AS INT) AS clause"]
        listed.append(
            f"{self._source_name()}.{ROW} AS {ROW}"
            if has_source
            else f"CAST(NULL AS BIGINT) AS {ROW}"
        )
        for place, name in enumerate(keys):
            key = f"{self._target_name()}.{quoted(name)}" if has_target else "NULL"
            listed.append(f"{key} AS key_{place}")
        for name in assigned:
            value = f"({values[name]})" if name in values else "NULL"
            listed.append(f"{value} AS {quoted(_value(name, columns))}")
        return f"SELECT DISTINCT {', '.join(listed)} FROM {self._from(clause)} WHERE {self._where(number)}"

    def _from(self, clause: Clause) -> str:
        target, source, on = self.merge.target_sql(), self._numbered_source(), self.merge.condition
        match clause.kind:
            case "matched":
                return f"{target} JOIN {source} ON ({on})"
            case "not matched":
                return f"{source} LEFT ANTI JOIN {target} ON ({on})"
            case _:
                return f"{target} LEFT ANTI JOIN {source} ON ({on})"

    def _where(self, number: int) -> str:
        """Return when a clause applies: its own condition holds, and no earlier one's of its kind."""
        clause = self.merge.clauses[number]
        earlier = [c for c in self.merge.clauses[:number] if c.kind == clause.kind]
        terms = [f"({c.condition or 'true'}) IS NOT TRUE" for c in earlier]
        return " AND ".join([f"({clause.condition or 'true'})", *terms])

    def _target_name(self) -> str:
        return self.merge.target_alias or self.merge.target

    def _source_name(self) -> str:
        """Return what the statement's expressions call the source."""
        if self.merge.source_alias is not None:
            return self.merge.source_alias
        if self.merge.source.startswith("("):
            return "deltawitness_rows"
        return quoted(Words(self.merge.source).reference()[-1])

    def _numbered_source(self) -> str:
        inner = self.merge.source_sql()
        return f"(SELECT *, row_number() OVER () AS {ROW} FROM {inner}) AS {self._source_name()}"


def _value(name: str, columns: list[str]) -> str:
    return f"value_{columns.index(name)}"
