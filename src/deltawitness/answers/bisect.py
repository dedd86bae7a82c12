"""The public function `bisect`: the first version of a table for which a condition is true."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from deltawitness.answers.bisect_search import Search
from deltawitness.answers.bisect_values import (
    BisectInput,
    BisectResult,
    BisectState,
    TestedVersion,
)
from deltawitness.answers.commits import read_commit
from deltawitness.answers.committed_writes import reads_query
from deltawitness.answers.diff.operations import operations_between
from deltawitness.answers.lookup import NamedTable, find_table
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.rows import TableVersion
from deltawitness.answers.shown_commit import ShownCommit
from deltawitness.answers.table_queries import (
    TABLE,
    check_query,
    condition,
    error_text,
    keeps_rows,
    lacks_column,
    log_of,
    open_table,
    query,
    subquery,
)
from deltawitness.exceptions import LedgerLookupError, QuestionError
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.literals import is_in
from deltawitness.locations import table_id
from deltawitness.settings import Settings
from deltawitness.sql_quoting import quote_literal
from deltawitness.sql_statements import may_be_query

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["CHECKS", "DEPTH", "answer_bisect", "bisect"]

CHECKS = 16
"""Versions that are tested beyond the search unless the caller says otherwise."""

DEPTH = 10
"""Number of tables that are followed, one an input of the other."""


def bisect(  # noqa: PLR0913 - keyword-only options
    table: str,
    bad: str,
    *,
    good: int | None = None,
    checks: int = CHECKS,
    depth: int = DEPTH,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> BisectResult:
    """Return the first bad version of a table, its commit and run, and the inputs that show the cause.

    The versions are searched by a binary search. Versions whose files were deleted are skipped. Some further
    versions are tested to find out whether a later version is good again (`is_monotone`); the result is
    the earliest bad version that is known. An input of the first bad version shows the cause if the condition
    is true for the version that was read, and not for the one that was read before. It is searched in turn.

    Args:
        table: the table, as for :func:`show`. With `@VERSION`, later versions are left out.
        bad: SQL that is true for a bad version: a condition on a row, of which one is enough
            (`euros < 0`), a condition on all rows (`count(*) = 0`), or a query of one boolean value, in
            which the table has the name `t` and the name of the table of the question.
        good: a version; it and earlier versions are left out of the search.
        checks: number of versions that are tested beyond the search.
        depth: maximum number of tables that are followed, one an input of the other.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        QuestionError: the SQL is invalid, or no version can be tested.
        LedgerLookupError: there is no such table, or several, or no version in the range.
        ValueError: a number is negative.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the log or the ledger cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import bisect
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for euros in (3, 5, -1, 4):
    ...         write_deltalake(f"{folder}/orders", pa.table({"euros": [euros]}), mode="append")
    ...     found = bisect(f"{folder}/orders", "euros < 0", root=f"{folder}/ledger")
    >>> found.state.value, found.table.version, found.last_good, found.is_monotone
    ('found', 2, 1, True)
    """
    chosen = settings_with(root, storage_options, settings)
    ledger = ledger_of(chosen, is_required=False)
    return answer_bisect(ledger, table, bad, good=good, checks=checks, depth=depth, settings=chosen)


def answer_bisect(  # noqa: PLR0913 - keyword-only options
    ledger: LedgerListing,
    table: str,
    bad: str,
    *,
    good: int | None,
    checks: int,
    depth: int,
    settings: Settings,
) -> BisectResult:
    """Return the first bad version of a table; arguments and errors as for :func:`bisect`.

    Args:
        ledger: the ledger to query; it may have no tables.
        table: the table.
        bad: SQL that is true for a bad version.
        good: the last version that is left out.
        checks: number of versions that are tested beyond the search.
        depth: maximum number of tables that are followed.
        settings: the storage options of remote tables.
    """
    for name, number, least in (("good", good, 0), ("checks", checks, 0), ("depth", depth, 1)):
        if number is not None and number < least:
            msg = f"{name}: expected {least} or more"
            raise ValueError(msg)
    named = find_table(ledger, table)
    condition = _Condition.of(bad, named, settings)
    walk = _Walk(ledger, condition, checks, settings)
    return walk.follow(named, good, depth)


# --- the condition -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Condition:
    """SQL that is true for a bad version.

    Attributes:
        sql: the query of one boolean value.
        name: the name of the table of the question, which each tested table has in the query.
        settings: the storage options of remote tables.
    """

    sql: str
    name: str
    settings: Settings

    @classmethod
    def of(cls, text: str, named: NamedTable, settings: Settings) -> _Condition:
        """Return the condition, if it can be planned for the last version.

        Raises:
            QuestionError: it cannot, or the last version cannot be opened.
        """
        if not text.strip():
            msg = "the SQL is empty"
            raise QuestionError(msg)
        try:
            table = open_table(named, named.version, settings)
        except Exception as error:
            if not log_of(named, settings).versions():
                msg = f"{named.name} has no log"
                raise QuestionError(msg) from error
            msg = f"{named.name} cannot be read: {error_text(error)}"
            raise QuestionError(msg) from error
        problem: Exception | None = None
        for sql in _forms(text):
            condition = cls(sql, named.name, settings)
            try:
                condition.plan(table)
            except Exception as error:  # noqa: BLE001 - the engine raises errors of many types
                problem = problem or error
            else:
                return condition
        msg = f"the SQL is not valid for {named.name}: {error_text(problem or Exception())}"
        raise QuestionError(msg) from problem

    def plan(self, table: DeltaTable) -> None:
        """Check that the query can be planned.

        Raises:
            Exception: of the engine.
        """
        check_query(table, self.sql, [self.name])

    def test(self, named: NamedTable, version: int) -> TestedVersion:
        """Return whether a version is bad."""
        try:
            table = open_table(named, version, self.settings)
            return TestedVersion(version, self._value(query(table, self.sql, [self.name])))
        except QuestionError:
            raise
        except Exception as error:  # noqa: BLE001 - the engine raises errors of many types
            # A version that has not the columns of a condition cannot be bad.
            return TestedVersion(version, False if lacks_column(error) else None, error_text(error))

    def _value(self, found: Any) -> bool:
        """Return the only value of a result; NULL and no row are false.

        Raises:
            QuestionError: the result is not one boolean value.
        """
        columns = [column.to_pylist() for column in found.columns]
        values = columns[0] if len(columns) == 1 else [""]
        if len(values) > 1 or not all(each is None or isinstance(each, bool) for each in values):
            msg = (
                "the query does not return one boolean value: select a condition,"
                " such as SELECT count(*) > 0 FROM t WHERE ..."
            )
            raise QuestionError(msg)
        return bool(values and values[0])


def _forms(text: str) -> list[str]:
    """Return the queries that a text may mean: a query, a condition on a row, or one on all rows."""
    inner = subquery(text)
    of_rows = [
        f"SELECT true AS bad FROM {TABLE} WHERE {condition(text)} LIMIT 1",  # noqa: S608 - the caller's SQL, in a query
        f"SELECT {inner} AS bad FROM {TABLE} LIMIT 2",  # noqa: S608 - as above
    ]
    if may_be_query(text):  # also a comparison of the value of a query
        as_query = f"SELECT * FROM {inner} AS question LIMIT 2"  # noqa: S608 - as above
        return [as_query, f"SELECT {inner} AS bad", *of_rows]
    return of_rows


# --- the search --------------------------------------------------------------------------------------


@dataclass
class _Walk:
    """The search in a table, and then in its inputs.

    Attributes:
        ledger: the ledger to query; it may have no tables.
        condition: the condition of a bad version.
        checks: number of versions that are tested beyond each search.
        settings: the storage options of remote tables.
        seen: locations of the tables that are being searched.
    """

    ledger: LedgerListing
    condition: _Condition
    checks: int
    settings: Settings
    seen: set[str] = field(default_factory=set)

    def follow(self, named: NamedTable, good: int | None, depth: int) -> BisectResult:
        """Return the first bad version of a table, up to its version.

        Raises:
            LedgerLookupError: the log has no version in the range.
            QuestionError: no version can be tested.
        """
        versions = self._versions(named, good)
        log = log_of(named, self.settings)
        search = Search(
            versions,
            lambda version: self.condition.test(named, version),
            lambda version: keeps_rows(log.read(version)),
        )
        state, bad, last_good = search.run(self.checks)
        tested = tuple(search.tested[each] for each in sorted(search.tested))
        if all(each.is_bad is None for each in tested):
            msg = f"{named.name}: no version can be tested: {tested[-1].reason}"
            raise QuestionError(msg)
        if last_good is None and good is not None and bad is not None:
            last_good, state = good, search.state_after(bad, good)
        found = BisectResult(
            table=TableVersion(bad, named.name, named.uri, table_id(named.uri)),
            state=state,
            last_good=last_good,
            is_monotone=search.is_monotone(bad),
            tested=tested,
            versions=len(versions),
        )
        return self._with_commit(found, named, depth)

    def _versions(self, named: NamedTable, good: int | None) -> list[int]:
        last = named.version
        found = [
            each
            for each in log_of(named, self.settings).versions()
            if (last is None or each <= last) and (good is None or each > good)
        ]
        if not found:
            msg = f"{named.name}: its log has no version in the range"
            raise LedgerLookupError(msg)
        return found

    def _with_commit(self, found: BisectResult, named: NamedTable, depth: int) -> BisectResult:
        """Return the result with the commit of the first bad version and its inputs."""
        bad = found.table.version
        if bad is None:
            return found
        commit = self._commit(named, bad)
        found = replace(found, commit=commit)
        if found.state is BisectState.RANGE and found.last_good is not None:
            candidates = operations_between(self.ledger, named, found.last_good, bad, self.settings)
            found = replace(found, candidates=candidates)
        if not found.is_found or commit is None:
            return found
        if found.last_good is not None:
            found = replace(found, good_commit=self._commit(named, found.last_good))
        self.seen.add(named.uri)
        before = self._previous_reads(found)
        inputs = [
            self._input(each, before.get(each.table_id or ""), depth, commit.are_inputs_inferred)
            for each in commit.inputs
            if each.uri != named.uri and each.table_id != commit.table.table_id
        ]
        self.seen.discard(named.uri)
        return replace(found, inputs=tuple(inputs))

    def _commit(self, named: NamedTable, version: int) -> ShownCommit | None:
        try:
            return read_commit(self.ledger, replace(named, version=version), self.settings)
        except LedgerLookupError:
            return None

    def _previous_reads(self, found: BisectResult) -> dict[str, int]:
        """Return the version of each input that the last write up to the last good version has read."""
        commit = found.commit
        wanted = [each.table_id for each in commit.inputs if each.table_id] if commit else []
        identity = commit.table.table_id if commit else None
        if found.last_good is None or identity is None or not wanted:
            return {}
        condition = (
            f"table_id = {quote_literal(identity)} AND version <= {found.last_good}"
            f" AND {is_in('read_id', wanted)}"
        )
        columns = "version, read_id, max(read_version) AS read_version"
        rows = self.ledger.query(
            f"{reads_query(self.ledger, columns, condition)} GROUP BY version, read_id ORDER BY version"
        )
        return {row["read_id"]: row["read_version"] for row in rows}

    def _input(
        self, read: TableVersion, previous: int | None, depth: int, is_inferred: bool
    ) -> BisectInput:
        """Return an input, with the search in it if it shows the cause."""
        found = BisectInput(table=read, previous=previous, is_inferred=is_inferred, is_bad=None)
        if read.uri is None or read.version is None:
            return replace(found, reason="its location is not known")
        named = NamedTable(read.uri, read.uri, read.version, read.name or read.uri)
        result = self.condition.test(named, read.version)
        found = replace(found, is_bad=result.is_bad, reason=result.reason)
        if not result.is_bad:
            return found
        if read.uri in self.seen:
            return replace(found, reason="it is one of the tables above")
        if depth <= 1:
            return replace(found, reason="the maximum depth is reached")
        if previous == read.version or (
            previous is not None and self.condition.test(named, previous).is_bad
        ):
            return replace(
                found, reason="it was bad already when the last good version was written"
            )
        return replace(found, cause=self.follow(named, None, depth - 1))
