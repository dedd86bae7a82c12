"""Check the rows of one write, while the engine reads them or before it gets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from deltawitness.events import ExpectationCheck, ExpectationReport
from deltawitness.exceptions import ExpectationError
from deltawitness.expectations.block import Expectation
from deltawitness.expectations.file_checks import FileStatistics, file_checks
from deltawitness.expectations.history import bounds_from_history
from deltawitness.expectations.row_buffer import RowBuffer
from deltawitness.expectations.row_checks import RowCheck, row_checks, unchecked
from deltawitness.expectations.rules import Bounds, SchemaRule, Within
from deltawitness.expectations.schema_check import check_schema
from deltawitness.semconv import ExpectationAction, ExpectationResult, ExpectationRule

if TYPE_CHECKING:
    import pyarrow as pa

    from deltawitness.commit.log import CommitLog

__all__ = ["Audit", "AuditedExpectation", "SourceRowsError", "TableBefore", "combine", "error_of"]

_RESULTS = {
    ExpectationAction.FAIL: ExpectationResult.FAILED,
    ExpectationAction.QUARANTINE: ExpectationResult.QUARANTINED,
    ExpectationAction.WARN: ExpectationResult.WARNED,
}
"""Result of a write for the action of an expectation that is not met, the strictest first."""


class SourceRowsError(Exception):
    """The source of the rows has raised; its error is the cause."""


class TableBefore:
    """The table before the write.

    Args:
        log: its log; None if the table does not exist.
        version: its version.
        types: the type of each column; None if the table does not exist.
        mode: the save mode of the write; None for an operation without one.
    """

    def __init__(
        self,
        log: CommitLog | None,
        version: int | None,
        types: dict[str, str] | None,
        mode: str | None,
    ) -> None:
        self.log = log
        self.version = version
        self.types = types
        self.mode = mode

    def bounds(
        self, rule: Bounds | Within | None
    ) -> tuple[Bounds | None, tuple[ExpectationCheck, ...]]:
        """Return the bounds of `rows_added`, and a result that says why there are none for a rule.

        Raises:
            OSError: the log cannot be read.
        """
        if not isinstance(rule, Within):
            return rule, ()
        reason, bounds = "the table does not exist yet", None
        if self.log is not None and self.version is not None:
            mode = self.mode if self.mode in {"append", "overwrite"} else "append"
            bounds = bounds_from_history(rule, self.log, self.version, mode)
            reason = f"the log has fewer than {rule.min_commits} such commits"
        if bounds is not None:
            return bounds, ()
        return None, (unchecked(ExpectationRule.ROWS_ADDED, (), reason),)

    def schema_checks(
        self, rule: SchemaRule | None, written: dict[str, str]
    ) -> list[ExpectationCheck]:
        """Return the result of the rule `schema`, if there is one."""
        return [] if rule is None else [check_schema(rule, written, self.types)]


class AuditedExpectation:
    """One expectation for one write.

    Args:
        expectation: the expectation.
        early: results of rules that need no rows.
        rows: checks of the other rules.
    """

    def __init__(
        self,
        expectation: Expectation,
        early: Sequence[ExpectationCheck],
        rows: Sequence[RowCheck] = (),
    ) -> None:
        self.expectation = expectation
        self.action: ExpectationAction = expectation.rules.on_failure
        self.rows = rows
        self._early = early

    @classmethod
    def of_rows(
        cls, expectation: Expectation, before: TableBefore, written: dict[str, str]
    ) -> AuditedExpectation:
        """Return the expectation for a write of rows.

        Args:
            expectation: the expectation.
            before: the table before the write.
            written: the type of each column of the rows, if the rule `schema` needs it.
        """
        rules = expectation.rules
        bounds, early = before.bounds(rules.rows_added)
        return cls(
            expectation,
            [*before.schema_checks(rules.schema, written), *early],
            row_checks(rules, bounds),
        )

    @classmethod
    def of_source(cls, expectation: Expectation) -> AuditedExpectation:
        """Return the expectation for the source rows of a merge."""
        rules = expectation.rules
        early = []
        if rules.schema is not None:
            reason = "the source of a merge may have other columns"
            early.append(unchecked(ExpectationRule.SCHEMA, (), reason))
        if rules.rows_added is not None:
            reason = "what a merge adds is known only after the commit"
            early.append(unchecked(ExpectationRule.ROWS_ADDED, (), reason))
        return cls(expectation, early, row_checks(rules, None))

    @classmethod
    def of_files(
        cls,
        expectation: Expectation,
        before: TableBefore,
        written: dict[str, str],
        files: list[FileStatistics],
    ) -> AuditedExpectation:
        """Return the expectation for a write of files that exist already.

        Args:
            expectation: the expectation.
            before: the table before the write.
            written: the type of each column of the files.
            files: the statistics of the files.
        """
        rules = expectation.rules
        bounds, early = before.bounds(rules.rows_added)
        schema = before.schema_checks(rules.schema, written)
        return cls(expectation, [*schema, *early, *file_checks(rules, bounds, files, written)])

    @property
    def is_refused(self) -> bool:
        """Whether a rule is not met that needs no rows."""
        return any(check.is_met is False for check in self._early)

    @property
    def is_unmet(self) -> bool:
        """Whether the rows so far do not meet a rule."""
        return any(check.is_met is False for check in self.checks())

    def checks(self) -> tuple[ExpectationCheck, ...]:
        """Return the result of each rule for the rows so far."""
        return (*self._early, *(check.result() for check in self.rows))

    def checks_without_rows(self) -> tuple[ExpectationCheck, ...]:
        """Return the same for a write whose rows are not read."""
        results = (check.result() for check in self.rows)
        unread = (unchecked(each.rule, each.columns, "the rows were not read") for each in results)
        return (*self._early, *unread)


def combine(
    audited: Sequence[tuple[ExpectationAction, Sequence[ExpectationCheck]]],
) -> ExpectationReport:
    """Return the report of a write: the strictest action of an expectation that is not met decides.

    Args:
        audited: action and checks of each expectation.
    """
    unmet = {action for action, checks in audited if any(check.is_met is False for check in checks)}
    result = next(
        (result for action, result in _RESULTS.items() if action in unmet), ExpectationResult.PASSED
    )
    return ExpectationReport(result, tuple(check for _, checks in audited for check in checks))


def error_of(report: ExpectationReport) -> ExpectationError:
    """Return the error of a write with a report that says `failed`."""
    reasons = "; ".join(map(str, report.unmet))
    return ExpectationError(f"expectations not met, nothing was committed: {reasons}", report)


class Audit:
    """Checks the rows of one write against all expectations that apply to it.

    Args:
        expectations: the expectations.

    Attributes:
        rows: number of rows so far.
        is_complete: whether all rows were checked.
        problem: the error of a check, which ends the write.
        buffer: the rows, if they were read before the engine gets them.
        on_rows: called with the number of rows of each batch that the engine reads.
    """

    def __init__(self, expectations: Sequence[AuditedExpectation]) -> None:
        self.expectations = expectations
        self._checks = [check for each in expectations for check in each.rows]
        self.rows: int = 0
        self.is_complete: bool = False
        self.problem: Exception | None = None
        self.buffer: RowBuffer | None = None
        self.on_rows: Callable[[int], object] = bool

    @property
    def must_buffer(self) -> bool:
        """Whether the rows must be checked before the engine gets them.

        The commit of a write that warns says so, and rows for the quarantine are read a second time.
        """
        return any(each.action is not ExpectationAction.FAIL for each in self.expectations)

    @property
    def is_refused(self) -> bool:
        """Whether the write fails by a rule that needs no rows."""
        return any(
            each.is_refused and each.action is ExpectationAction.FAIL for each in self.expectations
        )

    def report(self) -> ExpectationReport:
        """Return the report for the rows so far."""
        return combine([(each.action, each.checks()) for each in self.expectations])

    def refusal(self) -> ExpectationReport:
        """Return the report of a write that fails by a rule that needs no rows."""
        return combine([(each.action, each.checks_without_rows()) for each in self.expectations])

    def planned(self) -> ExpectationReport:
        """Return the report that the commit of a write has if all rows meet the rules."""
        report = self.report()
        return ExpectationReport(ExpectationResult.PASSED, report.checks)

    def publish(self, report: ExpectationReport) -> None:
        """Add the report of the write to each expectation."""
        for each in self.expectations:
            each.expectation.add(report)

    def passing(self, source: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """Return a reader of the same rows that raises at their end if they do not meet the rules.

        The engine commits after it has read the last row, so an error of the reader prevents the commit.

        Args:
            source: the rows.
        """
        import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

        self._begin(source.schema)
        return pa.RecordBatchReader.from_batches(source.schema, self._passing(source))

    def _begin(self, schema: pa.Schema) -> None:
        for check in self._checks:
            check.begin(schema)

    def _passing(self, source: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in source:
            self._update(batch)
            self.on_rows(batch.num_rows)
            yield batch
        self.is_complete = True
        try:
            report = self.report()
        except Exception as error:
            self.problem = error
            raise
        if report.result is not ExpectationResult.PASSED:
            raise error_of(report)

    def read(self, source: pa.RecordBatchReader) -> RowBuffer:
        """Read and check all rows, and return them.

        Args:
            source: the rows.

        Raises:
            SourceRowsError: the source has raised, which is the cause.
            OSError: the rows do not fit into memory, and the temporary file cannot be written.
        """
        self._begin(source.schema)
        self.buffer = RowBuffer(source.schema)
        while (batch := _next(source)) is not None:
            self._update(batch)
            self.buffer.append(batch)
        self.is_complete = True
        return self.buffer

    def _update(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        try:
            for check in self._checks:
                check.update(batch)
        except Exception as error:
            self.problem = error
            raise


def _next(source: pa.RecordBatchReader) -> pa.RecordBatch | None:
    try:
        return source.read_next_batch()
    except StopIteration:
        return None
    except Exception as error:
        raise SourceRowsError from error
