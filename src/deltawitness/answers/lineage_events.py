"""Make the OpenLineage events of the writes in the ledger."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from enum import StrEnum
from typing import TypeVar

from deltawitness.answers.lists import WriteFilter, rows_of_runs
from deltawitness.answers.predicates import NEWEST_RUNS
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.rows import TableVersion, WriteRow
from deltawitness.call_site import CallSite
from deltawitness.events import (
    CommitMetrics,
    Committed,
    Exported,
    Failed,
    InputVersion,
    Landed,
    NoCommit,
    NoCommitReason,
    WriteEvent,
    WriteIntent,
    WriteOutcome,
)
from deltawitness.ids_and_clock import in_utc
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in
from deltawitness.ledger.tables.schema import INVENTORY, Source
from deltawitness.openlineage.datasets import NamingOptions
from deltawitness.openlineage.run_events import EngineVersions, RunEvent, run_events
from deltawitness.redaction import redact_label, redact_text
from deltawitness.run_context import RunContext
from deltawitness.run_origin import NO_ORIGIN, RunOrigin
from deltawitness.semconv import (
    UNCOMMITTED_OPERATIONS,
    CacheOperation,
    CacheResult,
    ErrorType,
    Operation,
)
from deltawitness.settings import Settings

__all__ = ["event_of_row", "lineage_events", "read_lineage_events"]

E = TypeVar("E", bound=StrEnum)

PAGE = 5_000
"""Rows of a query. A ledger is read in pages, as its rows may not fit into memory."""

_RESULTS = tuple(each.value for each in (CacheResult.WRITE, CacheResult.NOOP, CacheResult.ERROR))


def lineage_events(  # noqa: PLR0913 - keyword-only options
    *,
    run: str | None = None,
    job: str | None = None,
    table: str | None = None,
    since: dt.datetime | None = None,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> Iterator[RunEvent]:
    """Yield the OpenLineage events of the writes in the ledger, oldest first, as JSON objects.

    The settings `openlineage_namespace`, `openlineage_tables` and `openlineage_repository` are applied. No
    client of OpenLineage is needed.

    Args:
        run: the id of the run, or an unambiguous prefix of it.
        job: name of the job.
        table: only this table: its name, id (or a prefix of it), path or URI.
        since: time before which writes are skipped. UTC without a time zone.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no such run or table.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor, Settings, lineage_events
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = Settings(cache_root=f"{folder}/ledger")
    ...     DeltaLakeInstrumentor().instrument(settings=settings)
    ...     write_deltalake(f"{folder}/t", pa.table({"x": [1]}))
    ...     DeltaLakeInstrumentor().uninstrument()
    ...     print(*(event["eventType"] for event in lineage_events(settings=settings)))
    START COMPLETE
    """
    chosen_settings = settings_with(root, storage_options, settings)
    chosen = WriteFilter(run=run, job=job, table=table, since=in_utc(since))
    pairs = read_lineage_events(
        ledger_of(chosen_settings), chosen, NamingOptions.of(chosen_settings)
    )
    return (event for pair in pairs for event in pair)


def read_lineage_events(
    ledger: LedgerListing,
    chosen: WriteFilter | None = None,
    options: NamingOptions | None = None,
    *,
    option: str = "",
) -> Iterator[tuple[RunEvent, RunEvent]]:
    """Yield the OpenLineage events of each write in the ledger, oldest first: its start and its end.

    They are those that the sink sends during the run, with two differences: the ledger has no schemas
    of tables, and no attributes of runs.

    Args:
        ledger: the ledger to query.
        chosen: selects the writes; all when None.
        options: how jobs and tables are named.
        option: precedes the name of an argument in error messages, such as `--`.

    Raises:
        LedgerLookupError: the ledger has no such table or run, or several.
        OSError: the storage cannot be read.
    """
    uncommitted = [each.value for each in UNCOMMITTED_OPERATIONS]
    conditions = [
        *(chosen or WriteFilter()).conditions(ledger, option),
        is_in("result", _RESULTS),
        f"NOT {is_in('cache_operation', uncommitted)}",
        "write_id IS NOT NULL",
    ]
    naming = options or NamingOptions()
    for rows in _pages(ledger, conditions):
        origins = _origins(ledger, rows)
        for row in map(WriteRow.of, rows):
            event = event_of_row(row, origins.get(row.run_id or "", NO_ORIGIN))
            yield run_events(event, naming, _versions(row))


def _pages(ledger: LedgerListing, conditions: list[str]) -> Iterator[list[Row]]:
    offset = 0
    while True:
        order = f"event_time, write_id LIMIT {PAGE} OFFSET {offset}"
        rows = ledger.rows(INVENTORY, conditions, order=order)
        if rows:
            yield rows
        if len(rows) < PAGE:
            return
        offset += PAGE


def _origins(ledger: LedgerListing, rows: Iterable[Row]) -> Mapping[str, RunOrigin]:
    ids = {row["run_id"] for row in rows if row["run_id"]}
    found = rows_of_runs(ledger, [is_in("run_id", ids)], order=NEWEST_RUNS) if ids else []
    return {
        row["run_id"]: RunOrigin(
            system=row["system"],
            job=_label(row["pipeline"]),
            run_id=_label(row["pipeline_run_id"]),
            attempt=row["attempt"],
            task=_label(row["task"]),
            link=row["link"],
            code_version=row["code_version"],
            author=_label(row["author"]),
        )
        for row in found
    }


def _label(text: str | None) -> str | None:
    return None if text is None else redact_label(text)


def event_of_row(row: WriteRow, origin: RunOrigin = NO_ORIGIN) -> WriteEvent:
    """Return the event of an operation in the ledger, redacted, with the locations of its tables.

    Args:
        row: the operation; it has committed, has made no commit, or has failed.
        origin: where its run ran.
    """
    started = row.event_time or dt.datetime.fromtimestamp(0, tz=dt.UTC)
    started_ns = round((started - _EPOCH) / dt.timedelta(microseconds=1)) * 1_000
    has_site = row.code_file is not None
    return WriteEvent(
        write_id=row.write_id or "",
        run=RunContext(row.run_id or "", redact_label(row.job or "unknown"), origin=origin),
        intent=_intent(row),
        outcome=_outcome(row),
        started_at=started_ns,
        duration_ns=round((row.duration_ms or 0) * 1e6),
        trace_id=row.trace_id,
        span_id=row.span_id,
        table_id=row.table_id,
        thread=row.thread,
        pid=row.pid,
        call_site=CallSite(row.code_file or "", row.code_line or 0, row.code_function or "")
        if has_site
        else None,
    )


_EPOCH = dt.datetime.fromtimestamp(0, tz=dt.UTC)


def _intent(row: WriteRow) -> WriteIntent:
    cached = _member(CacheOperation, row.cache_operation, CacheOperation.WRITE)
    # An adopted commit of another engine may have an operation that delta-rs does not have.
    similar = _member(Operation, cached.value.upper(), Operation.WRITE)
    return WriteIntent(
        operation=_member(Operation, row.operation, similar),
        cache_operation=cached,
        table_uri=row.table_uri,
        table_name=row.table_name,
        mode=row.mode,
        schema_hash=row.schema_hash,
        plan_hash=row.plan_hash,
        plan_shape_hash=row.plan_shape_hash,
        inputs=_inputs(row.inputs),
        run_inputs=_inputs(row.run_inputs),
        message=None if row.message is None else redact_text(row.message),
        parts=row.parts,
        column_lineage=row.column_lineage,
    )


def _inputs(reads: tuple[TableVersion, ...]) -> tuple[InputVersion, ...]:
    # The position of an input is its number in the column lineage, so none is left out.
    return tuple(
        InputVersion(read.table_id or "", -1 if read.version is None else read.version, read.uri)
        for read in reads
    )


def _outcome(row: WriteRow) -> WriteOutcome:
    names = [each.name for each in fields(CommitMetrics)]
    metrics = CommitMetrics(**{name: getattr(row, name) for name in names})
    match row.result:
        case CacheResult.ERROR:
            return Failed(
                error_type=_member(ErrorType, row.error_type, ErrorType.OTHER),
                exception_type=row.exception_type or "Exception",
                message=redact_text(row.error_message or "", location=row.table_uri),
                landed=_member(Landed, row.landed, Landed.UNKNOWN),
                version=row.version,
                metrics=metrics,
                versions=row.versions,
            )
        case CacheResult.NOOP:
            reason = _member(NoCommitReason, row.reason, NoCommitReason.NOT_FOUND)
            return NoCommit(reason, metrics)
        case _:
            versions = row.versions or (() if row.version is None else (row.version,))
            return Committed(versions, metrics) if versions else Exported(metrics)


def _member(kind: type[E], value: str | None, otherwise: E) -> E:
    try:
        return otherwise if value is None else kind(value)
    except ValueError:
        return otherwise


def _versions(row: WriteRow) -> EngineVersions:
    is_other = row.source in {Source.RECONSTRUCTED.value, Source.SPARK.value}
    return EngineVersions(
        row.deltalake_version,
        row.datafusion_version,
        row.witness_version,
        name=row.engine if is_other else None,
    )
