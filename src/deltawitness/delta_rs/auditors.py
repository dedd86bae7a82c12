"""Find the expectations that apply to a call of delta-rs, and prepare the check of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from deltawitness.app_transactions.commits import WRITE_TRANSACTION
from deltawitness.commit.log import CommitLog, TableLog, local_log_directory, open_log
from deltawitness.commit.seams import MODE, STORAGE_OPTIONS
from deltawitness.delta_rs.seam_states import parameter_names
from deltawitness.delta_rs.write_audit import WriteAudit, not_checkable
from deltawitness.events import Landed
from deltawitness.exceptions import ExpectationError
from deltawitness.expectations import (
    CHECKED,
    Audit,
    AuditedExpectation,
    Expectation,
    TableBefore,
    delta_types,
    expectations_for,
    has_expectations,
    statistics_of,
)
from deltawitness.expectations.history import MAX_READ
from deltawitness.internal_errors import guard
from deltawitness.patching import argument

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.observe.observer import Observer

__all__ = ["Auditor", "audit_merge", "refuse_unchecked", "use_storage_options"]

Call = Callable[..., Any]
Prepare = Callable[..., "tuple[dict[str, Any], WriteAudit | None]"]
"""Takes the observer, the write, the open table, `args` and `kwargs`; returns `kwargs` and the audit."""

_FILES = frozenset({WRITE_TRANSACTION, "_create_table_with_add_actions"})
"""Callables that add files."""

_ACTIONS = ("actions", "add_actions")
"""Names of their parameter with the files: that of delta-rs since 1.6.4, and of earlier releases."""

_STREAMED_MERGE = "streamed_exec"
"""The parameter of a merge that makes delta-rs read the source while the merge runs."""

_options: ContextVar[dict[str, str] | None] = ContextVar(
    "deltawitness_storage_options_of_a_write", default=None
)


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
        raise not_checkable(cause) from cause


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
    known = parameter_names(original)
    actions = next((each for each in _ACTIONS if each in known), _ACTIONS[0])
    names = (actions, "schema", MODE)
    if not set(names) <= set(known):
        return _refuse_files
    at = {each: known.index(each) - is_method for each in names}

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


def _refuse_files(
    observer: Observer,
    write: InFlightWrite,
    table: Any,  # noqa: ARG001 - one signature for all
    args: tuple[Any, ...],  # noqa: ARG001 - as above
    kwargs: dict[str, Any],
) -> tuple[dict[str, Any], WriteAudit | None]:
    """Refuse files that an expectation applies to: this release of delta-rs has other parameters."""
    if _expectations_of(write):
        with _refusing(observer, write):
            msg = "expect: not possible for files with this release of deltalake; nothing was committed"
            raise ExpectationError(msg)
    return kwargs, None


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
        audit = WriteAudit(
            write, audit_of(expectations), kwargs.get(STORAGE_OPTIONS) or _options.get()
        )
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
        refusal = not_checkable(problem)
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
