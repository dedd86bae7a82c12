"""Read one version of a table from the ledger and from the table's log."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from deltawitness.answers.lists import rows_of_runs
from deltawitness.answers.lookup import NamedTable
from deltawitness.answers.predicates import equal, has_version
from deltawitness.answers.rows import RunRow, TableVersion, WriteRow
from deltawitness.answers.shown_commit import ShownCommit
from deltawitness.answers.storage import error_reason, storage_options_for
from deltawitness.answers.trace_links import trace_url
from deltawitness.answers.undrained import NOT_DRAINED, has_undrained
from deltawitness.call_site import CallSite
from deltawitness.commit.log import CommitLog, open_log
from deltawitness.commit.outcome import RawCommit, metrics_of
from deltawitness.commit.reader import CommitMetadata, parse_commit, trace_ids_of
from deltawitness.commit.restored import restored_version
from deltawitness.events import CommitMetrics
from deltawitness.exceptions import LedgerLookupError
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.literals import is_in
from deltawitness.ledger.tables.operation_names import metrics_operation_of, save_mode_of
from deltawitness.ledger.tables.schema import INVENTORY, Source
from deltawitness.locations import last_segment
from deltawitness.redaction import redact_message
from deltawitness.semconv import USER_METADATA, CacheResult, CommitKey
from deltawitness.settings import Settings
from deltawitness.sql_quoting import quote_literal

__all__ = [
    "log_metrics_of",
    "message_of",
    "predicate_of",
    "read_commit",
    "time_of",
    "with_names",
]

NOT_IN_LEDGER = "the commit is not in the ledger: its values are those of the table's log"
NOT_IN_LOG = "the commit is not in the table's log: its values are those of the ledger"
OTHER_WRITE = (
    "the ledger has another write of this version: the table was recreated or restored from a copy"
)

_PREDICATES = ("predicate", "mergePredicate", "replaceWhere")
"""Operation parameters that select rows, by their names in delta-rs and Spark."""


def read_commit(ledger: LedgerListing, named: NamedTable, settings: Settings) -> ShownCommit:
    """Return one version of a table.

    Args:
        ledger: the ledger to query; it may have no tables.
        named: the table, and its version; the last one if it names none.
        settings: the storage options of a remote table, and the template of links.

    Raises:
        LedgerLookupError: neither the log nor the ledger has the version.
        OSError: the ledger's storage cannot be read.
    """
    log = _LogSide.read(named, settings)
    version = log.version
    if version is None:
        version = _last_version(ledger, named)
    if version is None:
        raise _no_version(named, log)
    rows = _rows_of_version(ledger, named, version)
    row, notes = _matching(rows, log)
    if NOT_IN_LEDGER in notes and has_undrained(ledger):
        notes = (*notes, NOT_DRAINED)
    if row is None and log.commit is None:
        raise _no_version(named, log)
    if log.problem is not None:
        notes = (*notes, log.problem)
    shown = (
        _from_row(row)
        if row is not None
        else ShownCommit(
            table=TableVersion(version), versions=(version,), in_ledger=False, in_log=True
        )
    )
    shown = replace(shown, in_log=log.is_there, notes=notes, table=_table(named, row, version))
    if log.commit is not None and log.content is not None:
        shown = _with_log(shown, log.commit, log.content)
    shown = _with_run(ledger, shown)
    return replace(
        shown,
        inputs=with_names(ledger, shown.inputs),
        trace_url=trace_url(settings.trace_url, shown.trace_id, shown.span_id),
    )


def _table(named: NamedTable, row: WriteRow | None, version: int) -> TableVersion:
    name = named.name if row is None else row.table_name or named.name
    return TableVersion(version, name, named.uri, None if row is None else row.table_id)


def _no_version(named: NamedTable, log: _LogSide) -> LedgerLookupError:
    version = "commits" if named.version is None else f"version {named.version}"
    span = f"; its log has {log.versions[0]} to {log.versions[-1]}" if log.versions else ""
    problem = f"; {log.problem}" if log.problem else ""
    msg = f"{named.name}: neither the table's log nor the ledger has {version}{span}{problem}"
    return LedgerLookupError(msg)


# --- the table's log ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _LogSide:
    """What the log of a table has.

    Attributes:
        version: the requested version, or the last one of the log; None if there is none.
        versions: the versions in the log; empty if they were not listed.
        content: the raw commit; None if it is not there.
        commit: the same, parsed.
        problem: why the log cannot be read; None if it can be.
    """

    version: int | None
    versions: list[int]
    content: bytes | None = None
    commit: CommitMetadata | None = None
    problem: str | None = None

    @property
    def is_there(self) -> bool | None:
        """Whether the log has the commit; None if it cannot be read."""
        return None if self.problem is not None else self.commit is not None

    @classmethod
    def read(cls, named: NamedTable, settings: Settings) -> _LogSide:
        """Read the commit; a log that cannot be read is a problem of the result."""
        log = open_log(named.location, storage_options_for(named.location, settings))
        try:
            return cls._read(log, named.version)
        except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
            problem = f"the table's log cannot be read: {error_reason(error)}"
            return cls(named.version, [], problem=problem)

    @classmethod
    def _read(cls, log: CommitLog, wanted: int | None) -> _LogSide:
        content = None if wanted is None else log.read(wanted)
        versions = [] if content is not None else log.versions()
        version = wanted if wanted is not None or not versions else versions[-1]
        if content is None and version is not None:
            content = log.read(version)
        commit = None if content is None or version is None else parse_commit(version, content)
        return cls(version, versions, content, commit)


def _with_log(shown: ShownCommit, commit: CommitMetadata, content: bytes) -> ShownCommit:
    """Return the value with what the commit has; values of the ledger's row take precedence."""
    keys = commit.witness
    trace_id, span_id = trace_ids_of(keys.get(CommitKey.TRACEPARENT))
    inputs, is_inferred = _inputs_of(keys)
    restored = restored_version(commit)
    if restored is not None:
        inputs, is_inferred = (replace(shown.table, version=restored),), False
    found: dict[str, Any] = {
        "time": time_of(commit),
        "run_id": _text(keys.get(CommitKey.RUN_ID)),
        "job": _text(keys.get(CommitKey.JOB_NAME)),
        "author": _text(keys.get(CommitKey.AUTHOR)),
        "message": message_of(commit),
        "code_version": _text(keys.get(CommitKey.CODE_VERSION)),
        "operation": commit.operation,
        "mode": save_mode_of(commit.operation_parameters.get("mode")),
        "predicate": predicate_of(commit),
        "parameters": dict(commit.operation_parameters),
        "result": "write",
        "inputs": inputs,
        "are_inputs_inferred": is_inferred,
        "schema_hash": _text(keys.get(CommitKey.SCHEMA_HASH)),
        "plan_hash": _text(keys.get(CommitKey.PLAN_HASH)),
        "plan_shape_hash": _text(keys.get(CommitKey.PLAN_SHAPE_HASH)),
        "expectation_result": _text(keys.get(CommitKey.EXPECTATION_RESULT)),
        "expectations": _text(keys.get(CommitKey.EXPECTATIONS)),
        "expectations_unmet": _text(keys.get(CommitKey.EXPECTATIONS_UNMET)),
        "write_id": commit.write_id,
        "trace_id": trace_id,
        "span_id": span_id,
        "engine": commit.engine_info,
        "origin": dict(commit.origin),
    }
    if not shown.in_ledger:
        found["metrics"] = log_metrics_of(commit, content)
    missing = {name: value for name, value in found.items() if not getattr(shown, name)}
    if not shown.in_ledger:
        missing["metrics"] = found["metrics"]
    return replace(shown, **missing)


def log_metrics_of(commit: CommitMetadata, content: bytes) -> CommitMetrics:
    """Return the counts of a commit, from its content in the log."""
    operation = metrics_operation_of(
        commit.operation, commit.witness.get(CommitKey.CACHE_OPERATION)
    )
    try:
        return metrics_of(operation, [RawCommit(commit.version, content)])
    except Exception:  # noqa: BLE001 - a log may contain anything
        return CommitMetrics()


def time_of(commit: CommitMetadata) -> dt.datetime | None:
    """Return the time of a commit; None if the log has none that is valid."""
    if commit.timestamp is None:
        return None
    try:
        return dt.datetime.fromtimestamp(commit.timestamp / 1000, tz=dt.UTC)
    except (OverflowError, OSError, ValueError):  # a log may have any number
        return None


def message_of(commit: CommitMetadata) -> str | None:
    """Return our message, or the text that another program wrote with its commit."""
    if commit.witness:
        return _text(commit.witness.get(CommitKey.MESSAGE))
    text = _text(commit.metadata.get(USER_METADATA))
    return None if text is None else redact_message(text)


def predicate_of(commit: CommitMetadata) -> str | None:
    """Return the predicate of the operation of a commit; None if it has none."""
    found = (_text(commit.operation_parameters.get(name)) for name in _PREDICATES)
    return next((text for text in found if text), None)


def _inputs_of(keys: Mapping[str, Any]) -> tuple[tuple[TableVersion, ...], bool]:
    """Return the inputs in a commit, and whether they are inferred."""
    for key, is_inferred in ((CommitKey.INPUTS, False), (CommitKey.RUN_INPUTS, True)):
        value = keys.get(key)
        inputs = tuple(
            TableVersion(each["version"], table_id=_text(each.get("table_id")))
            for each in (value if isinstance(value, list) else ())
            if isinstance(each, dict) and isinstance(each.get("version"), int)
        )
        if inputs:
            return inputs, is_inferred
    return (), False


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


# --- the ledger --------------------------------------------------------------------------------------


def _rows_of_version(ledger: LedgerListing, named: NamedTable, version: int) -> list[WriteRow]:
    if not ledger.has(INVENTORY):
        return []
    conditions = [
        f"table_uri = {quote_literal(named.uri)}",
        is_in(
            "result", (CacheResult.WRITE.value, CacheResult.ERROR.value)
        ),  # reads have versions, too
        has_version(version),
    ]
    rows = ledger.rows(INVENTORY, conditions, order="event_time DESC")
    return [WriteRow.of(row) for row in rows]


def _last_version(ledger: LedgerListing, named: NamedTable) -> int | None:
    table = f"table_uri = {quote_literal(named.uri)}"
    found = ledger.query(f"SELECT max(version) AS last FROM inventory WHERE {table}")  # noqa: S608 - quoted
    last: int | None = found[0]["last"] if found else None
    return last


def _matching(rows: list[WriteRow], log: _LogSide) -> tuple[WriteRow | None, tuple[str, ...]]:
    """Return the row of the commit in the log, and notes; without a commit, the last row."""
    if log.commit is None:
        notes = () if log.problem is not None else (NOT_IN_LOG,)
        return (rows[0] if rows else None), notes
    own = [row for row in rows if _is_of(row, log.commit)]
    if own:
        return own[0], ()
    return None, ((NOT_IN_LEDGER, OTHER_WRITE) if rows else (NOT_IN_LEDGER,))


def _is_of(row: WriteRow, commit: CommitMetadata) -> bool:
    if commit.write_ids:
        return row.write_id in commit.write_ids
    # The id of a row of a commit without our metadata is made by reconcile, from the table and the version.
    return row.source in {Source.RECONCILED, Source.RECONSTRUCTED}


def _from_row(row: WriteRow) -> ShownCommit:
    names = {each.name for each in fields(CommitMetrics)}
    site = None
    if row.code_file is not None and row.code_line is not None:
        site = CallSite(row.code_file, row.code_line, row.code_function or "")
    return ShownCommit(
        table=TableVersion(row.version),
        versions=row.versions or (() if row.version is None else (row.version,)),
        in_ledger=True,
        in_log=None,
        time=row.event_time,
        run_id=row.run_id,
        job=row.job,
        message=row.message,
        call_site=site,
        operation=row.operation,
        mode=row.mode,
        result=row.result,
        inputs=row.inputs or row.run_inputs,
        are_inputs_inferred=not row.inputs and bool(row.run_inputs),
        schema_hash=row.schema_hash,
        plan_hash=row.plan_hash,
        plan_shape_hash=row.plan_shape_hash,
        metrics=CommitMetrics(**{name: getattr(row, name) for name in names}),
        duration_ms=row.duration_ms,
        error_type=row.error_type,
        error_message=row.error_message,
        landed=row.landed,
        write_id=row.write_id,
        trace_id=row.trace_id,
        span_id=row.span_id,
        engine=row.engine,
        host=row.host,
        pid=row.pid,
        source=row.source,
        expectation_result=row.expectation_result,
        expectations=row.expectations,
        expectations_unmet=row.expectations_unmet,
    )


def _with_run(ledger: LedgerListing, shown: ShownCommit) -> ShownCommit:
    """Return the value with the run's row, and with what only the run has recorded."""
    if shown.run_id is None:
        return shown
    rows = rows_of_runs(ledger, equal("run_id", shown.run_id), order="start_time", limit=1)
    if not rows:
        return shown
    run = RunRow.of(rows[0])
    return replace(
        shown,
        run=run,
        job=shown.job or run.job,
        author=shown.author or run.author,
        message=shown.message or run.message,
        code_version=shown.code_version or run.code_version,
    )


def with_names(ledger: LedgerListing, inputs: tuple[TableVersion, ...]) -> tuple[TableVersion, ...]:
    """Return inputs with names and locations: those of the ledger, else the last segments of locations."""
    unknown = {each.table_id for each in inputs if each.uri is None and each.table_id is not None}
    known: dict[str, tuple[str | None, str | None]] = {}
    if unknown:
        rows = ledger.query(
            "SELECT table_id, table_uri, table_name, max(event_time) AS last FROM inventory"  # noqa: S608 - quoted
            f" WHERE {is_in('table_id', sorted(unknown))}"
            " GROUP BY table_id, table_uri, table_name ORDER BY last"
        )
        known = {row["table_id"]: (row["table_name"], row["table_uri"]) for row in rows}
    named = []
    for each in inputs:
        name, uri = known.get(each.table_id or "", (None, each.uri))
        place = each.uri or uri
        shown = name or (None if place is None else last_segment(place))
        named.append(replace(each, name=shown, uri=place))
    return tuple(named)
