"""Run one write whose rows are checked: exchange its rows, and commit, refuse or quarantine them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from deltawitness.app_transactions import outside_block
from deltawitness.events import ExpectationReport, Landed, NoCommitReason
from deltawitness.exceptions import ExpectationError
from deltawitness.expectations import Audit, SourceRowsError, error_of
from deltawitness.locations import is_uri, strip_credentials
from deltawitness.observe.row_counter import current_row_counter
from deltawitness.semconv import (
    QUARANTINE_REASON,
    QUARANTINED_WRITE,
    ExpectationAction,
    ExpectationResult,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from deltawitness.observe.in_flight import InFlightWrite

__all__ = ["WriteAudit", "merge_result", "not_checkable"]

Call = Callable[..., Any]

_log = logging.getLogger("deltawitness")

_COUNTS = (
    *("num_target_rows_inserted", "num_target_rows_updated", "num_target_rows_deleted"),
    *("num_target_rows_copied", "num_output_rows", "num_target_files_scanned"),
    *("num_target_files_skipped_during_scan", "num_target_files_added", "num_target_files_removed"),
    *("execution_time_ms", "scan_time_ms", "rewrite_time_ms"),
)
"""Metrics of a merge besides the number of its source rows."""


def not_checkable(cause: Exception) -> ExpectationError:
    """Return the error of a write that is refused because its rows cannot be checked.

    Args:
        cause: why they cannot be checked.
    """
    msg = f"expect: the write cannot be checked, nothing was committed ({type(cause).__name__})"
    return ExpectationError(msg)


def _failing(schema: pa.Schema, error: BaseException | None) -> pa.RecordBatchReader:
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    def fail() -> Iterator[pa.RecordBatch]:
        yield from ()
        raise error or AssertionError

    return pa.RecordBatchReader.from_batches(schema, fail())


class WriteAudit:
    """The check of one write: exchanges its rows, and runs the engine's call.

    Args:
        write: the write.
        audit: checks the rows.
        storage_options: storage options of the table, if they are known.
    """

    def __init__(
        self, write: InFlightWrite, audit: Audit, storage_options: dict[str, str] | None
    ) -> None:
        self._write = write
        self._audit = audit
        self._storage_options = storage_options
        self._report: ExpectationReport | None = None

    @property
    def rows(self) -> int:
        """Number of rows that were checked."""
        return self._audit.rows

    def start(self, source: Any, *, buffers: bool = False) -> Any:
        """Return the rows for the engine; read and check them now if the commit depends on the result.

        Args:
            source: the stream of rows for the engine.
            buffers: read and check the rows now in any case.

        Raises:
            ExpectationError: a rule is not met.
        """
        import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

        if self._audit.is_refused:
            raise self._refuse(self._audit.refusal())
        rows = pa.RecordBatchReader.from_stream(source)
        if not (self._audit.must_buffer or buffers):
            self._write.expectations = self._audit.planned()
            if current_row_counter() is None:  # else the source counts its rows itself
                self._audit.on_rows = self._add_rows
            return type(source).from_arrow(self._audit.passing(rows))
        try:
            buffer = self._audit.read(rows)
        except (
            SourceRowsError
        ) as failed:  # the engine raises the error of the source, as it does else
            return type(source).from_arrow(_failing(rows.schema, failed.__cause__))
        report = self._audit.report()
        if report.result is ExpectationResult.FAILED:
            raise self._refuse(report)
        self._write.expectations = self._report = report
        return type(source).from_arrow(buffer.reader())

    def _add_rows(self, count: int) -> None:
        slot = self._write.slot
        if slot is not None:
            slot.add_rows(count)

    def check_files(self) -> None:
        """Check rules that need no rows.

        The rows of files cannot be written to a quarantine, so the write fails instead.

        Raises:
            ExpectationError: a rule is not met.
        """
        report = self._audit.report()
        if report.result is ExpectationResult.QUARANTINED:
            report = replace(report, result=ExpectationResult.FAILED)
        if report.result is ExpectationResult.FAILED:
            raise self._refuse(report)
        self._audit.is_complete = True
        self._write.expectations = self._report = report

    def _refuse(self, report: ExpectationReport) -> ExpectationError:
        """Record that the write fails, and return its error."""
        self._finish(report)
        self._write.landed = Landed.NO
        return error_of(report)

    def _finish(self, report: ExpectationReport) -> None:
        self._write.expectations = report
        self._audit.publish(report)
        if self._audit.buffer is not None:
            self._audit.buffer.close()

    def run(self, call: Call) -> Any:
        """Call the engine, or write the rows to the quarantine instead.

        Args:
            call: the engine's call.

        Returns:
            What the engine returned; None for rows in the quarantine.

        Raises:
            ExpectationError: a rule is not met, or the quarantine cannot be written.
        """
        report = self._report
        if report is not None and report.result is ExpectationResult.QUARANTINED:
            return self._quarantine(report)
        try:
            result = call()
        except Exception:
            self._end_after_error()
            if self._is_failed():
                self._write.landed = Landed.NO
                raise error_of(self._audit.report()) from None
            if (cause := self._audit.problem) is not None:
                self._write.landed = Landed.NO
                raise not_checkable(cause) from cause
            raise
        except BaseException:
            self._end_after_error()
            raise
        self._end()
        return result

    def _is_failed(self) -> bool:
        audit = self._audit
        is_known = audit.is_complete and audit.problem is None
        return is_known and audit.report().result is ExpectationResult.FAILED

    def _end_after_error(self) -> None:
        if self._audit.is_complete and self._audit.problem is None:
            self._finish(self._audit.report())
        else:
            self._write.expectations = None  # the engine failed before it had read the rows

    def _end(self) -> None:
        if not self._audit.is_complete:  # a `once` block has skipped the write
            self._write.expectations = None
            return
        report = self._audit.report()
        self._finish(report)
        if report.result is ExpectationResult.WARNED:
            reasons = "; ".join(map(str, report.unmet))
            _log.warning("expectations not met by a write that has committed: %s", reasons)

    def _quarantine(self, report: ExpectationReport) -> None:
        from deltalake import CommitProperties, write_deltalake  # noqa: PLC0415 - heavy, loaded

        buffer, write = self._audit.buffer, self._write
        assert buffer is not None
        location, storage_options = self._quarantine_target()
        metadata = {
            QUARANTINED_WRITE: write.write_id,
            QUARANTINE_REASON: ",".join(check.label for check in report.unmet),
        }
        try:
            with outside_block():
                write_deltalake(
                    location,
                    buffer.reader(),
                    mode="append",
                    schema_mode="merge",
                    storage_options=storage_options,
                    commit_properties=CommitProperties(custom_metadata=metadata),
                )
        except BaseException as problem:
            write.landed = Landed.NO
            failed = replace(report, result=ExpectationResult.FAILED)
            self._finish(failed)
            if not isinstance(problem, Exception):  # an interrupt, or a panic of the engine
                raise
            reasons = "; ".join(map(str, report.unmet))
            msg = (
                f"expectations not met, nothing was committed: {reasons}; and the quarantine cannot be"
                f" written ({type(problem).__name__})"
            )
            raise ExpectationError(msg, failed) from problem
        write.no_commit_reason = NoCommitReason.QUARANTINED
        shown = strip_credentials(location)
        self._finish(replace(report, quarantine=shown))
        reasons = "; ".join(map(str, report.unmet))
        _log.warning("expectations not met, the rows are in the quarantine: %s", reasons)

    def _quarantine_target(self) -> tuple[str, dict[str, str] | None]:
        """Return the location of the quarantine, and its storage options."""
        rules = next(
            each.expectation.rules
            for each in self._audit.expectations
            if each.action is ExpectationAction.QUARANTINE and each.is_unmet
        )
        given = rules.storage_options
        options = self._storage_options if given is None else dict(given)
        if rules.quarantine is not None:
            return rules.quarantine, options
        location = str(self._write.location)
        # A path may have a question mark; only a URI has arguments after it.
        base, query, arguments = location.partition("?") if is_uri(location) else (location, "", "")
        return f"{base.rstrip('/')}_quarantine{query}{arguments}", options


def merge_result(audit: WriteAudit, call: Call, *args: Any, **kwargs: Any) -> Any:
    """Run the engine's call of a merge; return metrics without changes for rows in the quarantine.

    Args:
        audit: the check of the merge.
        call: the engine's call.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """
    result = audit.run(partial(call, *args, **kwargs))
    if result is not None:
        return result
    return json.dumps({"num_source_rows": audit.rows, **dict.fromkeys(_COUNTS, 0)})
