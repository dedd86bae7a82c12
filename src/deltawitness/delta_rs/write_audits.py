"""Check the expectations of a program in the calls of delta-rs that write rows, before they commit."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from deltawitness.app_transactions import outside_block
from deltawitness.app_transactions.commits import WRITE_TRANSACTION
from deltawitness.commit.log import CommitLog, TableLog, local_log_directory, open_log
from deltawitness.commit.seams import MODE, STORAGE_OPTIONS
from deltawitness.delta_rs.seam_states import position_of
from deltawitness.events import ExpectationReport, Landed, NoCommitReason
from deltawitness.exceptions import ExpectationError
from deltawitness.expectations import (
    CHECKED,
    Audit,
    AuditedExpectation,
    Expectation,
    SourceRowsError,
    TableBefore,
    delta_types,
    error_of,
    expectations_for,
    has_expectations,
    statistics_of,
)
from deltawitness.expectations.history import MAX_READ
from deltawitness.internal_errors import guard
from deltawitness.locations import strip_credentials
from deltawitness.patching import argument
from deltawitness.semconv import (
    QUARANTINE_REASON,
    QUARANTINED_WRITE,
    ExpectationAction,
    ExpectationResult,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.observe.observer import Observer

__all__ = [
    "AddedFiles",
    "Auditor",
    "WriteAudit",
    "audit_files",
    "audit_merge",
    "audit_write",
    "merge_result",
    "refuse_unchecked",
    "use_storage_options",
]

Call = Callable[..., Any]
Prepare = Callable[..., "tuple[dict[str, Any], WriteAudit | None]"]
"""Takes the observer, the write, the open table, `args` and `kwargs`; returns `kwargs` and the audit."""

_FILES = {WRITE_TRANSACTION: "actions", "_create_table_with_add_actions": "add_actions"}
"""Callables that add files, and their parameter with the files."""

_log = logging.getLogger("deltawitness")

_options: ContextVar[dict[str, str] | None] = ContextVar(
    "deltawitness_storage_options_of_a_write", default=None
)

_STREAMED_MERGE = "streamed_exec"
"""The parameter of a merge that makes delta-rs read the source while the merge runs."""

_COUNTS = (
    *("num_target_rows_inserted", "num_target_rows_updated", "num_target_rows_deleted"),
    *("num_target_rows_copied", "num_output_rows", "num_target_files_scanned"),
    *("num_target_files_skipped_during_scan", "num_target_files_added", "num_target_files_removed"),
    *("execution_time_ms", "scan_time_ms", "rewrite_time_ms"),
)
"""Metrics of a merge besides the number of its source rows."""


@contextmanager
def use_storage_options(options: dict[str, str] | None) -> Iterator[None]:
    """Use these storage options for the log and the quarantine of the writes of the block."""
    token = _options.set(options)
    try:
        yield
    finally:
        _options.reset(token)


def refuse_unchecked(cause: Exception) -> None:
    """Refuse a write that would commit unchecked because its observation has failed.

    Args:
        cause: why the write is not observed.

    Raises:
        ExpectationError: an expectation may apply to the write.
    """
    if has_expectations():
        raise _not_checkable(cause) from cause


def _not_checkable(cause: Exception) -> ExpectationError:
    msg = f"expect: the write cannot be checked, nothing was committed ({type(cause).__name__})"
    return ExpectationError(msg)


class Auditor:
    """Prepares the check of the calls of one callable of delta-rs; does nothing for one without rows.

    Args:
        name: name of the callable.
        original: the callable.
    """

    def __init__(self, name: str, original: Call) -> None:
        self._prepare: Prepare | None = None
        if name in CHECKED:
            self._prepare = audit_write
        elif name in _FILES:
            self._prepare = _audit_of_files(name, original)

    def prepare(
        self,
        observer: Observer,
        write: InFlightWrite,
        table: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[dict[str, Any], WriteAudit | None]:
        """Return the keyword arguments of a call with its rows exchanged, and the audit if there is one.

        Args:
            observer: observes the write.
            write: the write.
            table: the open table; None if the write creates it.
            args: positional arguments of the call.
            kwargs: its keyword arguments.

        Raises:
            ExpectationError: the write is refused, or it cannot be checked.
        """
        if self._prepare is None or not has_expectations():
            return kwargs, None
        return self._prepare(observer, write, table, args, kwargs)

    def refuse_unchecked(self, cause: Exception) -> None:
        """Refuse a write that would commit unchecked because its observation has failed.

        Args:
            cause: why the write is not observed.

        Raises:
            ExpectationError: an expectation may apply to the write.
        """
        if self._prepare is not None:
            refuse_unchecked(cause)


def _audit_of_files(name: str, original: Call) -> Prepare:
    # A method gets its arguments without the open table.
    is_method = name == WRITE_TRANSACTION
    at = {each: position_of(original, each) - is_method for each in (_FILES[name], "schema", MODE)}

    def audit(
        observer: Observer,
        write: InFlightWrite,
        table: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[dict[str, Any], WriteAudit | None]:
        files = (argument(args, kwargs, position, each) for each, position in at.items())
        return kwargs, audit_files(observer, write, table, AddedFiles(*files))

    return audit


def audit_write(
    observer: Observer,
    write: InFlightWrite,
    table: Any,
    args: tuple[Any, ...],  # noqa: ARG001 - one signature for all
    kwargs: dict[str, Any],
) -> tuple[dict[str, Any], WriteAudit | None]:
    """Prepare the check of a write of rows; return its arguments, and the audit if there is one.

    Args:
        observer: observes the write.
        write: the write.
        table: the open table; None if the write creates it.
        args: positional arguments of the engine's call.
        kwargs: its keyword arguments.

    Raises:
        ExpectationError: the write is refused, or it cannot be checked.
    """

    def audit_of(expectations: list[Expectation]) -> Audit:
        needs_schema = any(each.rules.schema is not None for each in expectations)
        written = delta_types(kwargs["batch_schema"]) if needs_schema else {}
        before = _table_before(write, table, kwargs.get(MODE), needs_schema=needs_schema)
        return Audit([AuditedExpectation.of_rows(each, before, written) for each in expectations])

    return _audit_stream(observer, write, kwargs, "data", audit_of)


def audit_merge(
    observer: Observer, write: InFlightWrite, kwargs: dict[str, Any]
) -> tuple[dict[str, Any], WriteAudit | None]:
    """Prepare the check of the source rows of a merge, like :func:`audit_write`."""
    return _audit_stream(
        observer,
        write,
        kwargs,
        "source",
        lambda expectations: Audit([AuditedExpectation.of_source(each) for each in expectations]),
    )


def _audit_stream(
    observer: Observer,
    write: InFlightWrite,
    kwargs: dict[str, Any],
    name: str,
    audit_of: Callable[[list[Expectation]], Audit],
) -> tuple[dict[str, Any], WriteAudit | None]:
    """Exchange the stream of rows in the arguments of a call, if an expectation applies to the write."""
    expectations = _expectations_of(write)
    if not expectations:
        return kwargs, None
    with _refusing(observer, write):
        audit = WriteAudit(write, audit_of(expectations), kwargs.get(STORAGE_OPTIONS))
        # delta-rs panics if the source of a merge raises while the merge is built.
        buffers = kwargs.get(_STREAMED_MERGE, True) is not True
        return {**kwargs, name: audit.start(kwargs[name], buffers=buffers)}, audit


def audit_files(
    observer: Observer, write: InFlightWrite, table: Any, files: AddedFiles
) -> WriteAudit | None:
    """Check a commit of files that exist already, by their statistics; return the audit if there is one.

    Args:
        observer: observes the write.
        write: the write.
        table: the open table; None if the write creates it.
        files: the files.

    Raises:
        ExpectationError: a rule is not met, or it cannot be checked.
    """
    expectations = _expectations_of(write)
    if not expectations:
        return None
    with _refusing(observer, write):
        written, statistics = delta_types(files.schema), statistics_of(files.actions)
        before = _table_before(write, table, files.mode, needs_schema=True)
        audit = WriteAudit(
            write,
            Audit(
                [
                    AuditedExpectation.of_files(each, before, written, statistics)
                    for each in expectations
                ]
            ),
            None,
        )
        audit.check_files()
        return audit


class AddedFiles(NamedTuple):
    """The files that a call of delta-rs adds to a table, with their schema and the save mode."""

    actions: Any
    schema: Any
    mode: str | None


def _expectations_of(write: InFlightWrite) -> list[Expectation]:
    if not has_expectations() or write.location is None:
        return []
    return expectations_for(write.location, write.intent.policy)


@contextmanager
def _refusing(observer: Observer, write: InFlightWrite) -> Iterator[None]:
    """Record a write as failed that is refused in the block, or cannot be checked."""
    try:
        yield
    except ExpectationError as error:
        _record_refusal(observer, write, error)
        raise
    except Exception as problem:
        refusal = _not_checkable(problem)
        _record_refusal(observer, write, refusal)
        raise refusal from problem


def _record_refusal(observer: Observer, write: InFlightWrite, error: ExpectationError) -> None:
    write.landed = Landed.NO
    with guard("expectations"):
        observer.fail(write, error)


def _table_before(
    write: InFlightWrite, table: Any, mode: str | None, *, needs_schema: bool
) -> TableBefore:
    if table is None:
        return TableBefore(None, None, None, mode)
    types = delta_types(_schema_of(table)) if needs_schema else None
    return TableBefore(_log_before(write, table), table.version(), types, mode)


def _schema_of(table: Any) -> Any:
    schema = table.schema
    return schema() if callable(schema) else schema


def _log_before(write: InFlightWrite, table: Any) -> CommitLog | None:
    if write.location is None:
        return None
    if local_log_directory(write.location) is not None or _options.get() is not None:
        return open_log(write.location, _options.get())
    version = table.version()
    return TableLog(table, range(max(0, version - MAX_READ), version + 1))


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
        storage_options: storage options of the table, if the call has them.
    """

    def __init__(
        self, write: InFlightWrite, audit: Audit, storage_options: dict[str, str] | None
    ) -> None:
        self._write = write
        self._audit = audit
        self._storage_options = storage_options or _options.get()
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
                raise _not_checkable(cause) from cause
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
        except Exception as problem:
            write.landed = Landed.NO
            failed = replace(report, result=ExpectationResult.FAILED)
            self._finish(failed)
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
        base, query, arguments = str(self._write.location).partition("?")
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
