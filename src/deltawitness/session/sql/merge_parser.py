"""Parse MERGE INTO into its clauses, at its keywords, because DataFusion's plan does not expose them.

DataFusion has planned the statement before it is parsed here, so the text is valid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from deltawitness.exceptions import StatementError
from deltawitness.ids_and_clock import new_id
from deltawitness.session.core.tokens import GENERIC, Spelling, Words

__all__ = ["Clause", "Merge"]


@dataclass(frozen=True, slots=True)
class Clause:
    """One WHEN clause.

    Attributes:
        kind: `matched`, `not matched` or `not matched by source`.
        condition: the text after AND, or None.
        action: `update`, `delete`, `insert` or `nothing`.
        columns: the assigned columns; None means all columns of the table, in order.
        values: the texts of the assigned values.
    """

    kind: str
    condition: str | None
    action: str
    columns: tuple[str, ...] | None = ()
    values: tuple[str, ...] = ()

    def assigned(self, columns: list[str]) -> dict[str, str]:
        """Return the text of the assigned value, by column.

        Args:
            columns: the columns of the target.
        """
        names = columns[: len(self.values)] if self.columns is None else self.columns
        return dict(zip(names, self.values, strict=True))


@dataclass(frozen=True, slots=True)
class Merge:
    """A parsed MERGE statement; each part is a piece of the statement's text.

    Attributes:
        target: the name of the table.
        target_alias: the alias of the target, or None.
        source: the name of a table, or a query in parentheses.
        source_alias: the alias of the source, or None.
        source_name: the name of the source in expressions; None for a query without an alias.
        condition: the condition after ON.
        clauses: the WHEN clauses, in order.
        clauses_text: the text from ON to the end.
        spelling: how the session's dialect quotes names.
    """

    target: str
    target_alias: str | None
    source: str
    source_alias: str | None
    source_name: str | None
    condition: str
    clauses: tuple[Clause, ...]
    clauses_text: str
    spelling: Spelling = GENERIC

    @classmethod
    def parse(cls, text: str, *, normalize: bool = True, spelling: Spelling = GENERIC) -> Merge:
        """Parse the text of a statement.

        Args:
            text: a MERGE statement that DataFusion has planned.
            normalize: whether unquoted names are folded to lower case.
            spelling: how the session's dialect quotes names and strings.

        Raises:
            StatementError: it has a clause that delta-rs does not support.

        >>> Merge.parse("MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE").clauses
        (Clause(kind='matched', condition=None, action='delete', columns=(), values=()),)
        """
        words = Words(text, normalize=normalize, spelling=spelling)
        words.expect("MERGE")
        words.take("INTO")
        target = _relation(words)
        target_alias = _alias(words)
        words.expect("USING")
        source = _source(words)
        source_alias = _alias(words)
        source_name = source_alias
        if source.startswith("$"):
            # The engine generates a name for a frame, so expressions need an alias to refer to it.
            source_name = source_alias = source_alias or spelling.quote_identifier(
                f"frame_{new_id()}"
            )
        elif source_name is None and not source.startswith("("):
            parts = Words(source, normalize=normalize, spelling=spelling).reference()
            source_name = spelling.quote_identifier(parts[-1])
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
            spelling=spelling,
        )

    def with_defaults(self, defaults: Mapping[str, str]) -> Merge:
        """Return the statement with default values added to its INSERT clauses for missing columns.

        Args:
            defaults: SQL of the default values, by column.
        """
        return replace(self, clauses=tuple(_with_defaults(each, defaults) for each in self.clauses))

    def target_sql(self) -> str:
        """Return the target with its alias, for a FROM clause."""
        return self.target if self.target_alias is None else f"{self.target} AS {self.target_alias}"

    def source_sql(self) -> str:
        """Return the source with its alias, for a FROM clause."""
        return self.source if self.source_alias is None else f"{self.source} AS {self.source_alias}"


def _with_defaults(clause: Clause, defaults: Mapping[str, str]) -> Clause:
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
    if parameter := words.parameter():
        return parameter
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
