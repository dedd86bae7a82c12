"""One version of a table: the ledger's row of the write and the commit in the table's log, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from deltawitness.answers.rows import RunRow, TableVersion
from deltawitness.call_site import CallSite
from deltawitness.events import CommitMetrics
from deltawitness.html_display import HtmlDisplay

__all__ = ["ShownCommit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCommit(HtmlDisplay):
    """Who made a version of a table, why, how and from what.

    Values come from the ledger's row of the write, and from the commit in the table's log where the row lacks
    them or does not exist. None means that neither has the value.

    Attributes:
        table: the table and the version.
        versions: every version that the write committed.
        in_ledger: whether the ledger has a row of the write.
        in_log: whether the table's log has the commit; None if the log cannot be read.
        notes: what a reader should know, such as that the commit is in no ledger; one sentence each.
        time: when the write began; the time of the commit for a commit that is not in the ledger.
        run_id: id of the run.
        job: name of the job.
        author: who the write was made for.
        message: why it was made.
        code_version: commit or version of the program.
        call_site: the line of the program.
        operation: the engine's operation.
        mode: save mode.
        predicate: the predicate of the operation, as the log has it.
        parameters: all parameters of the operation, as the log has them.
        result: `write` or `error`.
        inputs: the tables that it was made from, at the versions that were read.
        are_inputs_inferred: whether `inputs` are only the tables that the run had read before.
        schema_hash: hash of the written schema.
        plan_hash: hash of the plan that made the rows.
        plan_shape_hash: hash of the plan without its literals.
        metrics: counts of rows, files, bytes and retries.
        duration_ms: milliseconds that the engine's call took.
        error_type: type of the error of a write that failed after its commit.
        error_message: text of the error, redacted.
        landed: `yes` for such a write.
        write_id: id of the write.
        trace_id: id of the trace.
        span_id: id of the span.
        trace_url: link to the trace, if `DELTAWITNESS_TRACE_URL` is set.
        engine: name and version of the engine.
        origin: job, notebook, cluster and transaction that another engine recorded in the commit.
        host: name of the machine.
        pid: process id.
        source: how the row came into the ledger: `observed`, `reconciled` or `reconstructed`.
        run: the run's row in the ledger.
        expectation_result: of a write with expectations: `passed`, `warned`, `failed` or `quarantined`.
        expectations: the rules that were checked, separated by commas.
        expectations_unmet: the rules that the rows do not meet.
    """

    table: TableVersion
    versions: tuple[int, ...]
    in_ledger: bool
    in_log: bool | None
    notes: tuple[str, ...] = ()
    time: datetime | None = None
    run_id: str | None = None
    job: str | None = None
    author: str | None = None
    message: str | None = None
    code_version: str | None = None
    call_site: CallSite | None = None
    operation: str | None = None
    mode: str | None = None
    predicate: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    result: str | None = None
    inputs: tuple[TableVersion, ...] = ()
    are_inputs_inferred: bool = False
    schema_hash: str | None = None
    plan_hash: str | None = None
    plan_shape_hash: str | None = None
    metrics: CommitMetrics = field(default_factory=CommitMetrics)
    duration_ms: float | None = None
    error_type: str | None = None
    error_message: str | None = None
    landed: str | None = None
    write_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    trace_url: str | None = None
    engine: str | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    host: str | None = None
    pid: int | None = None
    source: str | None = None
    run: RunRow | None = None
    expectation_result: str | None = None
    expectations: str | None = None
    expectations_unmet: str | None = None
