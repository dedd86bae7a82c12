"""A MERGE whose expressions the session evaluates, because they cannot be translated for delta-rs."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from deltawitness.exceptions import StatementError
from deltawitness.ids_and_clock import new_id
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.coercion import coerce
from deltawitness.session.sql.delta_sql import NotTranslatable, is_volatile
from deltawitness.session.sql.merge_apply import (
    SOURCE,
    Change,
    apply_changes,
    changed_rows,
    matching,
)
from deltawitness.session.sql.merge_parser import Clause, Merge
from deltawitness.session.sql.planner import Planner
from deltawitness.sql_quoting import quote_identifier
from deltawitness.sql_statements import contains_word

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame
    from deltalake import DeltaTable

__all__ = ["EvaluatedMerge", "plan_expressions"]


def plan_expressions(planner: Planner, text: str) -> list[Any]:
    """Return the expressions that a query selects, as DataFusion planned them.

    Raises:
        NotTranslatable: the plan's outermost node is not a projection.
    """
    parts = unpatched(planner.frame(text), "logical_plan")().to_variant()
    if type(parts).__name__ != "Projection":
        raise NotTranslatable(type(parts).__name__)
    expressions: list[Any] = parts.projections()
    return expressions


@dataclass(frozen=True, slots=True)
class EvaluatedMerge:
    """A MERGE whose expressions the session evaluates.

    The session joins target and source, and computes for each clause the rows that it applies to and
    their new values. delta-rs then merges this list of changes. Each row of the list has the number of
    its clause, and as its key the columns of the target that the change depends on.
    """

    merge: Merge
    planner: Planner
    table: DeltaTable
    source: DataFrame
    row: str = field(default_factory=lambda: f"deltawitness_row_{new_id()}")
    """The name of a column that numbers the source rows, so that equal rows stay distinct."""

    def execute(self) -> int:
        """Compute the changes, apply them, and return the number of changed rows."""
        if self._may_differ_between_reads():
            return self._execute_over_cached_rows()
        return self._execute()

    def _may_differ_between_reads(self) -> bool:
        """Return whether the source is a query that more than one clause reads."""
        branches = [clause for clause in self.merge.clauses if clause.action != "nothing"]
        return self.merge.source.startswith("(") and len(branches) > 1

    def _execute_over_cached_rows(self) -> int:
        """Read the source once, register its rows under a new name, and run the MERGE over them."""
        name = f"deltawitness_rows_{new_id()}"
        rows = unpatched(coerce(self.planner.ctx, self.source), "cache")()
        self.planner.register_rows(name, rows)
        source = self.merge.spelling.quote_identifier(name)
        merge = replace(self.merge, source=source, source_alias=self._source_name())
        return EvaluatedMerge(merge, self.planner, self.table, self.source)._execute()  # noqa: SLF001 - its own class

    def _execute(self) -> int:
        target = self.planner.frame(f"SELECT * FROM {self.merge.target}").schema()
        numbered = [
            (number, clause)
            for number, clause in enumerate(self.merge.clauses)
            if clause.action != "nothing"
        ]
        if not numbered:
            return 0
        is_about_target = any(clause.kind != "not matched" for _, clause in numbered)
        keys = [name for name in target.names if is_about_target and self._may_be_used(name)]
        assigned = [
            name
            for name in target.names
            if any(name in clause.assigned(target.names) for _, clause in numbered)
        ]
        branches = [
            self._branch(number, clause, target, keys, assigned) for number, clause in numbered
        ]
        source = functools.reduce(lambda one, other: unpatched(one, "union")(other), branches)
        changes = [self._change(number, clause, target.names) for number, clause in numbered]
        # This condition is never true, but delta-rs must not recognize that: it must still detect
        # rows that another writer inserts concurrently.
        condition = self._condition(keys) if is_about_target else f"({SOURCE}.clause < 0)"
        return changed_rows(apply_changes(self.table, source, condition, changes))

    def _change(self, number: int, clause: Clause, columns: list[str]) -> Change:
        values = {
            name: f"{SOURCE}.{quote_identifier(_value(name, columns))}"
            for name in clause.assigned(columns)
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

    def _may_be_used(self, name: str) -> bool:
        """Return whether a clause may use a column of the target; True in doubt."""
        if self.planner.named:
            return True  # a frame that replaces a `$name` is not in the text
        return name.lower() in self.merge.clauses_text.lower() or '"' in name

    def _branch(
        self, number: int, clause: Clause, target: pa.Schema, keys: list[str], assigned: list[str]
    ) -> DataFrame:
        """Return the changes of one clause, with values cast to the types of their columns."""
        from datafusion import col  # noqa: PLC0415 - heavy, already loaded

        rows = self.planner.frame(self._branch_sql(number, clause, target.names, keys, assigned))
        types = {f"key_{place}": target.field(name).type for place, name in enumerate(keys)}
        types |= {_value(name, target.names): target.field(name).type for name in assigned}
        columns = [
            col(name).cast(types[name]).alias(name) if name in types else col(name)
            for name in rows.schema().names
        ]
        if clause.kind != "not matched":
            self._check_deterministic(clause)
        frame: DataFrame = unpatched(rows, "select")(*columns)
        return coerce(self.planner.ctx, frame, frame.schema())

    def _check_deterministic(self, clause: Clause) -> None:
        texts = [*clause.values, *([clause.condition] if clause.condition else [])]
        if not texts:
            return
        listed = ", ".join(f"({text}) AS expression_{place}" for place, text in enumerate(texts))
        joined = f"{self.merge.target_sql()} CROSS JOIN {self.merge.source_sql()}"
        scope = joined if clause.kind == "matched" else self.merge.target_sql()
        if any(map(is_volatile, plan_expressions(self.planner, f"SELECT {listed} FROM {scope}"))):
            msg = (
                "MERGE INTO: the statement is not deterministic: a clause calls a volatile function"
            )
            raise StatementError(msg)

    def _branch_sql(
        self, number: int, clause: Clause, columns: list[str], keys: list[str], assigned: list[str]
    ) -> str:
        """Return the SQL query for the changes of one clause."""
        has_target = clause.kind != "not matched"
        values = clause.assigned(columns)
        # A row that matches two source rows is deleted once; for an update the source row matters.
        # Inserted rows are always distinguished: two equal source rows insert two rows.
        is_row_distinguished = clause.kind == "not matched" or (
            clause.kind == "matched" and not self._only_deletes()
        )
        number_of_row = self.merge.spelling.quote_identifier(self.row)
        row = f"{self._source_name()}.{number_of_row}"
        row = row if is_row_distinguished else "CAST(NULL AS BIGINT)"
        listed = [f"CAST({number} AS INT) AS clause", f"{row} AS source_row"]
        for place, name in enumerate(keys):
            column = f"{self._target_name()}.{self.merge.spelling.quote_identifier(name)}"
            key = column if has_target else "NULL"
            listed.append(f"{key} AS key_{place}")
        for name in assigned:
            value = f"({values[name]})" if name in values else "NULL"
            listed.append(f"{value} AS {_value(name, columns)}")
        query = f"SELECT DISTINCT {', '.join(listed)} FROM {self._from(clause)}"
        return f"{query} WHERE {self._where(number)}"

    def _only_deletes(self) -> bool:
        """Return whether the only clause for matched rows is a DELETE without a condition."""
        matched = [clause for clause in self.merge.clauses if clause.kind == "matched"]
        return [(c.action, c.condition) for c in matched] == [("delete", None)]

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
        """Return the condition of a clause: its own holds, and that of no earlier clause of its kind."""
        clause = self.merge.clauses[number]
        earlier = [c for c in self.merge.clauses[:number] if c.kind == clause.kind]
        # 1 = 1 is valid in every dialect; the literal true is not.
        terms = [f"({c.condition or '1 = 1'}) IS NOT TRUE" for c in earlier]
        own = f"({clause.condition or '1 = 1'})"
        if not contains_word(own, ["SELECT"]):
            # Without IS TRUE the engine uses an equality in the filter as a null-safe join key.
            own += " IS TRUE"
        return " AND ".join([own, *terms])

    def _target_name(self) -> str:
        return self.merge.target_alias or self.merge.target

    def _source_name(self) -> str:
        """Return the name of the source in the statement's expressions.

        Raises:
            StatementError: the source is a query without an alias.
        """
        if self.merge.source_name is None:
            msg = "MERGE INTO: a query as the source needs an alias"
            raise StatementError(msg)
        return self.merge.source_name

    def _numbered_source(self) -> str:
        inner = self.merge.source_sql()
        numbered = f"CAST(row_number() OVER () AS BIGINT) AS {self.merge.spelling.quote_identifier(self.row)}"
        return f"(SELECT *, {numbered} FROM {inner}) AS {self._source_name()}"


def _value(name: str, columns: list[str]) -> str:
    return f"value_{columns.index(name)}"
