"""The public function `undo`: restore the tables that a run wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from deltawitness.answers.lookup import find_run_id
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.rows import WriteRow
from deltawitness.answers.run_report import RunReport, read_run, undo_message
from deltawitness.answers.undo_plan import UndoPlan, UndoState, UndoTable
from deltawitness.answers.undo_table import WrittenTable
from deltawitness.answers.undrained import NOT_DRAINED, has_undrained
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.ledger.tables.locations import absolute_root
from deltawitness.locations import last_segment
from deltawitness.run import run as open_run
from deltawitness.semconv import UNCOMMITTED_OPERATIONS, UNDO_JOB, CacheResult
from deltawitness.settings import Settings

__all__ = ["drain_ledger", "observed", "undo"]

_UNCOMMITTED = frozenset(operation.value for operation in UNCOMMITTED_OPERATIONS)


def undo(  # noqa: PLR0913 - keyword-only options
    run: str,
    *,
    apply: bool = False,
    discard_later: bool = False,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> UndoPlan:
    """Plan to restore the tables that a run and its child runs wrote, and restore them with `apply`.

    Each table is restored to the version before the run's first commit, by one RESTORE commit. Several
    tables are not restored at the same time; if the process dies in between, the same call restores the
    rest. A table is refused if others have committed changes to it since, unless `discard_later` is set,
    or if files of that version were deleted. A table that the run created does not change.

    The restores are a run of the job `undo`. If the process is not instrumented, it is for this time, with
    the ledger of `root`. Spools of dead processes are imported first if `apply` is set.

    Args:
        run: id of the run, or an unambiguous prefix of it.
        apply: restore the tables; else the plan is returned and nothing is written.
        discard_later: also restore tables with later commits of others, which the restore discards. A
            commit that is made after the plan of this call is never discarded.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no such run, or several.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import DeltaTable, write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor, Settings, run, undo
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = Settings(cache_root=f"{folder}/ledger")
    ...     DeltaLakeInstrumentor().instrument(settings=settings)
    ...     with run("first"):
    ...         write_deltalake(f"{folder}/flights", pa.table({"x": [1, 2]}))
    ...     with run("second") as second:
    ...         DeltaTable(f"{folder}/flights").delete()["num_deleted_rows"]
    ...     done = undo(second.run_id, apply=True, settings=settings)
    ...     [(each.name, each.state.value, each.restored_version) for each in done.tables]
    ...     DeltaTable(f"{folder}/flights").count()
    ...     DeltaLakeInstrumentor().uninstrument()
    2
    [('flights', 'restored', 2)]
    2
    """
    chosen = settings_with(root, storage_options, settings)
    if apply:
        drain_ledger(chosen)
    ledger = ledger_of(chosen)
    report = read_run(ledger, find_run_id(ledger, run))
    written = _written_tables(report, chosen)
    tables = [each.plan(discard_later=discard_later) for each in written]
    plan = _plan(report, tables, is_drained=not has_undrained(ledger))
    if not apply or not plan.in_state(UndoState.RESTORE):
        return replace(plan, is_applied=apply)
    return _applied(plan, written, chosen, discard_later=discard_later)


def drain_ledger(settings: Settings) -> None:
    """Import the rows of dead processes, which may be of the run, and those of this process."""
    from deltawitness.ledger.ledger import Ledger  # noqa: PLC0415 - heavy

    Ledger(settings.cache_root, settings=settings).drain()


def _plan(report: RunReport, tables: list[UndoTable], *, is_drained: bool) -> UndoPlan:
    run, notes = report.run, []
    if not is_drained:
        notes.append(f"{NOT_DRAINED}; the run may have more tables")
    if run["status"] is None:
        notes.append("the run has not ended: it is open, or its spool is not imported yet")
    parent = run.get("parent_run_id")
    if parent is not None:
        notes.append(f"it is a child of run {parent}, which may have written other tables, too")
    if any(table.has_transactions for table in tables):
        notes.append(
            "the run has application transactions, which stay in the logs:"
            " exactly-once writes with the same keys are skipped after the undo, too"
        )
    return UndoPlan(
        run_id=run["run_id"],
        job=run["job"],
        status=run["status"],
        tables=tuple(tables),
        notes=tuple(notes),
    )


def _written_tables(report: RunReport, settings: Settings) -> list[WrittenTable]:
    """Return the tables that a run and its child runs committed to, in order of their first commits."""
    rows: dict[tuple[str | None, str | None], list[WriteRow]] = {}
    for found in map(WriteRow.of, report.writes):
        versions = found.versions or (() if found.version is None else (found.version,))
        is_commit = (
            found.result in {CacheResult.WRITE.value, CacheResult.ERROR.value}
            and found.cache_operation not in _UNCOMMITTED
        )
        if versions and is_commit:
            key = found.table_uri, None if found.table_uri else found.table_id
            rows.setdefault(key, []).append(replace(found, versions=versions))
    family = frozenset(run["run_id"] for run in report.family())
    return [
        WrittenTable(
            name=own[-1].table_name or last_segment(uri or "") or own[-1].table_id or "?",
            uri=uri,
            table_id=own[-1].table_id,
            rows=own,
            run_id=report.run["run_id"],
            family=family,
            start=report.run["start_time"],
            storage_options=settings.storage_options,
        )
        for (uri, _), own in rows.items()
    ]


class _IncompleteUndoError(Exception):
    """Ends the run of an undo that has not restored all tables."""


def _applied(
    plan: UndoPlan, written: list[WrittenTable], settings: Settings, *, discard_later: bool
) -> UndoPlan:
    done: list[UndoTable] = []
    opened = open_run(UNDO_JOB, message=undo_message(plan.run_id))
    with observed(settings), suppress(_IncompleteUndoError), opened as undo_run:
        for table, planned in zip(written, plan.tables, strict=True):
            done.append(table.restore(planned, discard_later=discard_later))
        _check_complete(done)
    with suppress(Exception):  # the tables are restored; the rows stay in the spool
        drain_ledger(settings)
    return replace(plan, tables=tuple(done), is_applied=True, undo_run_id=undo_run.run_id)


def _check_complete(tables: list[UndoTable]) -> None:
    """Raise an error if a table is not restored, so that the run of the undo has the status `error`.

    Raises:
        _IncompleteUndoError: a table is not restored.
    """
    states = {table.state for table in tables}
    if states & {UndoState.REFUSED, UndoState.FAILED}:
        raise _IncompleteUndoError


@contextmanager
def observed(settings: Settings) -> Iterator[None]:
    """Observe the writes of the block, with the settings if the process is not instrumented."""
    instrumentor = DeltaLakeInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        yield
        return
    # Without a root in the settings, no ledger would receive the rows.
    instrumentor.instrument(settings=replace(settings, cache_root=absolute_root(settings)))
    try:
        yield
    finally:
        instrumentor.uninstrument()
