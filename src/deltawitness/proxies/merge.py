"""MERGE INTO: its clauses, which DataFusion plans and does not hand out, and how delta-rs gets them.

DataFusion has planned the whole statement before anything here runs, so the text is a valid one.
It is cut at its keywords, and each expression is planned once more by itself, so that DataFusion
alone says what a name in it means.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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
from deltawitness.proxies.coercion import coerced
from deltawitness.proxies.expressions import NotTold, is_volatile, unaliased, value_sql
from deltawitness.proxies.originals import original
from deltawitness.proxies.sql import Words, quoted
from deltawitness.sources import new_id

if TYPE_CHECKING:
    import pyarrow as pa
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
        source_name: what the expressions call the source; None for a query without an alias.
        clauses: the WHEN clauses, in order.
        clauses_text: all from ON to the end.
    """

    target: str
    target_alias: str | None
    source: str
    source_alias: str | None
    source_name: str | None
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
        source_name = source_alias
        if source_name is None and not source.startswith("("):
            source_name = quoted(Words(source, normalize=normalize).reference()[-1])
        start = words.position
        words.expect("ON")
        condition = words.until({"WHEN"})
        clauses = []
        while words.take("WHEN"):
            clauses.append(_clause(words))
        words.expect_end()
        return cls(
            target=target,
            target_alias=target_alias,
            source=source,
            source_alias=source_alias,
            source_name=source_name,
            condition=condition,
            clauses=tuple(clauses),
            clauses_text=text[start:],
        )

    def with_defaults(self, defaults: Mapping[str, str]) -> Merge:
        """Return the statement whose INSERT clauses give the columns that they leave out defaults.

        Args:
            defaults: SQL of the defaults, by column.
        """
        return replace(self, clauses=tuple(_completed(each, defaults) for each in self.clauses))

    def target_sql(self) -> str:
        """Return the target as a FROM clause names it."""
        return self.target if self.target_alias is None else f"{self.target} AS {self.target_alias}"

    def source_sql(self) -> str:
        """Return the source as a FROM clause names it."""
        return self.source if self.source_alias is None else f"{self.source} AS {self.source_alias}"


def _completed(clause: Clause, defaults: Mapping[str, str]) -> Clause:
    if clause.action != "insert" or clause.columns is None:
        return clause
    missing = [name for name in defaults if name not in clause.columns]
    columns = (*clause.columns, *missing)
    return replace(
        clause, columns=columns, values=(*clause.values, *(defaults[name] for name in missing))
    )


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
    try:
        condition, changes = _told(merge, call, _schema_of(table))
    except NotTold:
        return _Evaluated(merge, call, table, source).carry_out()
    return changed_rows(apply_changes(table, coerced(call.ctx, source), condition, changes))


def _schema_of(table: DeltaTable) -> list[str]:
    return [field.name for field in table.schema().fields]


def _told(merge: Merge, call: SqlCall, columns: list[str]) -> tuple[str, list[Change]]:
    """Return the statement's condition and changes in the SQL that delta-rs reads.

    Raises:
        NotTold: it holds an expression that delta-rs is not given.
    """
    kinds = {clause.kind for clause in merge.clauses}
    if "not matched by source" in kinds and "matched" not in kinds:
        # delta-rs would write a row once for each row of the source that it matches.
        raise NotTold(merge.clauses[0].kind)
    joined = f"{merge.target_sql()} CROSS JOIN {merge.source_sql()}"
    scopes = {
        "matched": joined,
        "not matched": merge.source_sql(),
        "not matched by source": merge.target_sql(),
    }
    sides = _sides(merge, call)
    target = call.plan(f"SELECT * FROM {merge.target}").schema()
    (condition,) = _translated(call, joined, [(merge.condition, None)], sides)
    changes = []
    for clause in merge.clauses:
        if clause.action == "nothing":
            raise NotTold(clause.action)
        names = _columns(clause, columns)
        wanted: list[tuple[str, Any]] = [
            (text, target.field(name).type) for text, name in zip(clause.values, names, strict=True)
        ]
        if clause.condition is not None:
            wanted.append((clause.condition, None))
        told = _translated(call, scopes[clause.kind], wanted, sides)
        only_if = told.pop() if clause.condition is not None else None
        values = dict(zip(names, told, strict=True))
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
    call: SqlCall,
    scope: str,
    texts: list[tuple[str, Any]],
    column: Callable[[str | None, str], str],
) -> list[str]:
    """Return expressions in the SQL that delta-rs reads.

    Args:
        call: the statement's call.
        scope: the FROM clause in which they have their meaning.
        texts: the expressions, each with the type of the column that it is assigned to, or None.
        column: names their columns.

    Raises:
        NotTold: delta-rs is not given one of them, or would have to cast it: it takes the text of
            a timestamp for another moment.
    """
    if not texts:
        return []
    listed = ", ".join(f"({text}) AS told_{place}" for place, (text, _) in enumerate(texts))
    query = f"SELECT {listed} FROM {scope}"
    given = coerced(call.ctx, call.plan(query)).schema()
    for field, (_, wanted) in zip(given, texts, strict=True):
        if wanted is not None and not _agree(field.type, wanted):
            raise NotTold(str(field.type))
    expressions = _planned(call, query)
    for expression, (_, wanted) in zip(expressions, texts, strict=True):
        if wanted is None and is_volatile(expression):
            raise NotTold(str(wanted))
    return [value_sql(expression, column) for expression in expressions]


def _agree(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Tell whether a value of the one type is one of the other, or becomes one by widening."""
    import pyarrow.types as pt  # noqa: PLC0415 - heavy, and there already

    if pt.is_null(given) or given == wanted:
        return True
    if pt.is_integer(given):
        return bool(pt.is_integer(wanted) or pt.is_floating(wanted))
    return any(
        kind(given) and kind(wanted) for kind in (pt.is_floating, lambda each: str(each) in _TEXTS)
    )


_TEXTS = frozenset({"string", "string_view", "large_string"})


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
    source: DataFrame

    def carry_out(self) -> int:
        """Work the changes out, apply them, and return how many rows they changed."""
        if self._may_differ_between_reads():
            return self._over_kept_rows()
        return self._carry_out()

    def _may_differ_between_reads(self) -> bool:
        """Tell whether the source is a query that is read more than once."""
        branches = [clause for clause in self.merge.clauses if clause.action != "nothing"]
        return self.merge.source.startswith("(") and len(branches) > 1

    def _over_kept_rows(self) -> int:
        """Carry it out over the rows of the source as they are now, kept under a name of their own."""
        ctx, name = self.call.ctx, f"deltawitness_rows_{new_id()}"
        rows = original(coerced(ctx, self.source), "cache")()
        original(ctx, "register_table")(quoted(name), original(rows, "into_view")())
        try:
            merge = replace(self.merge, source=quoted(name), source_alias=self._source_name())
            return _Evaluated(merge, self.call, self.table, self.source)._carry_out()  # noqa: SLF001 - its own class
        finally:
            original(ctx, "deregister_table")(quoted(name))

    def _carry_out(self) -> int:
        target = self.call.plan(f"SELECT * FROM {self.merge.target}").schema()
        numbered = [
            (number, clause)
            for number, clause in enumerate(self.merge.clauses)
            if clause.action != "nothing"
        ]
        if not numbered:
            return 0
        is_about_target = any(clause.kind != "not matched" for _, clause in numbered)
        keys = [name for name in target.names if is_about_target and self._may_matter(name)]
        assigned = [
            name
            for name in target.names
            if any(name in self._set_by(clause, target.names) for _, clause in numbered)
        ]
        branches = [
            self._branch(number, clause, target, keys, assigned) for number, clause in numbered
        ]
        source = functools.reduce(lambda one, other: original(one, "union")(other), branches)
        changes = [self._change(number, clause, target.names) for number, clause in numbered]
        # A condition that never holds, and that delta-rs does not take for one: it must still
        # notice a row that another writer inserts meanwhile.
        condition = self._condition(keys) if is_about_target else f"({SOURCE}.clause < 0)"
        return changed_rows(apply_changes(self.table, source, condition, changes))

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
        return f"({SOURCE}.clause IN ({about_target})) AND {match}"

    def _may_matter(self, name: str) -> bool:
        """Tell whether a column of the target may play a part; in doubt it does."""
        if self.call.named:
            return True  # what stands for a name is not in the text
        return name.lower() in self.merge.clauses_text.lower() or '"' in name

    def _set_by(self, clause: Clause, columns: list[str]) -> Mapping[str, str]:
        if clause.action not in {"update", "insert"}:
            return {}
        return dict(zip(_columns(clause, columns), clause.values, strict=True))

    def _branch(
        self, number: int, clause: Clause, target: pa.Schema, keys: list[str], assigned: list[str]
    ) -> DataFrame:
        """Return the changes of one clause, their values already of the types of their columns."""
        from datafusion import col  # noqa: PLC0415 - heavy, and there already

        rows = self.call.plan(self._branch_sql(number, clause, target.names, keys, assigned))
        types = {f"key_{place}": target.field(name).type for place, name in enumerate(keys)}
        types |= {_value(name, target.names): target.field(name).type for name in assigned}
        columns = [
            col(name).cast(types[name]).alias(name) if name in types else col(name)
            for name in rows.schema().names
        ]
        if clause.kind != "not matched":
            self._check_deterministic(clause)
        frame: DataFrame = original(rows, "select")(*columns)
        return coerced(self.call.ctx, frame, frame.schema())

    def _check_deterministic(self, clause: Clause) -> None:
        texts = [*clause.values, *([clause.condition] if clause.condition else [])]
        if not texts:
            return
        listed = ", ".join(f"({text}) AS told_{place}" for place, text in enumerate(texts))
        joined = f"{self.merge.target_sql()} CROSS JOIN {self.merge.source_sql()}"
        scope = joined if clause.kind == "matched" else self.merge.target_sql()
        if any(map(is_volatile, _planned(self.call, f"SELECT {listed} FROM {scope}"))):
            msg = (
                "MERGE INTO: the statement is not deterministic: a clause calls a volatile function"
            )
            raise StatementError(msg)

    def _branch_sql(
        self, number: int, clause: Clause, columns: list[str], keys: list[str], assigned: list[str]
    ) -> str:
        """Return the query of the changes of one clause."""
        has_source = clause.kind != "not matched by source"
        has_target = clause.kind != "not matched"
        values = self._set_by(clause, columns)
        row = f"{self._source_name()}.{ROW}" if has_source else "CAST(NULL AS BIGINT)"
        listed = [f"CAST({number} AS INT) AS clause", f"{row} AS {ROW}"]
        for place, name in enumerate(keys):
            key = f"{self._target_name()}.{quoted(name)}" if has_target else "NULL"
            listed.append(f"{key} AS key_{place}")
        for name in assigned:
            value = f"({values[name]})" if name in values else "NULL"
            listed.append(f"{value} AS {_value(name, columns)}")
        query = f"SELECT DISTINCT {', '.join(listed)} FROM {self._from(clause)}"
        return f"{query} WHERE {self._where(number)}"

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
        own = f"({clause.condition or 'true'})"
        if "select" not in own.lower():
            # Without it the engine joins on an equality in the filter as null-safely as in ON.
            own += " IS TRUE"
        return " AND ".join([own, *terms])

    def _target_name(self) -> str:
        return self.merge.target_alias or self.merge.target

    def _source_name(self) -> str:
        """Return what the statement's expressions call the source."""
        if self.merge.source_name is None:
            msg = "MERGE INTO: a query as the source needs an alias"
            raise StatementError(msg)
        return self.merge.source_name

    def _numbered_source(self) -> str:
        inner = self.merge.source_sql()
        numbered = f"CAST(row_number() OVER () AS BIGINT) AS {ROW}"
        return f"(SELECT *, {numbered} FROM {inner}) AS {self._source_name()}"


def _value(name: str, columns: list[str]) -> str:
    return f"value_{columns.index(name)}"
