"""One run with its child runs, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from deltawitness.answers.rows import RunRow, TableVersion, WriteRow
from deltawitness.answers.run_report import RunReport
from deltawitness.answers.trace_links import trace_url
from deltawitness.html_display import HtmlDisplay

__all__ = ["RunOutput", "RunProcess", "ShownRun", "TraceLink", "shown_run_of"]


@dataclass(frozen=True, slots=True)
class RunOutput:
    """A table that a run has written.

    Attributes:
        table: the table, at the last version that the run committed.
        versions: every version that the run committed.
    """

    table: TableVersion
    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunProcess:
    """A process that took part in a run.

    Attributes:
        run_id: id of the run.
        host: name of the machine.
        pid: process id.
        is_part: whether the process only took part in a run that another process had opened.
        status: `ok`, `error`, `abandoned` or `reconstructed`.
        error_type: class of what ended it.
        exit_code: exit code of the process, if it is known.
        start_time: when the process began to take part.
        end_time: when it ended.
        writes: operations of the process that committed or exported.
        noops: its operations without a commit.
        errors: its operations that failed.
        rows_added: rows that it added.
    """

    run_id: str
    host: str | None
    pid: int | None
    is_part: bool | None
    status: str | None
    error_type: str | None
    exit_code: int | None
    start_time: datetime | None
    end_time: datetime | None
    writes: int | None
    noops: int | None
    errors: int | None
    rows_added: int | None


@dataclass(frozen=True, slots=True)
class TraceLink:
    """A trace of a run.

    Attributes:
        trace_id: id of the trace.
        url: the link to it, if `DELTAWITNESS_TRACE_URL` is set.
    """

    trace_id: str
    url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRun(HtmlDisplay):
    """A run with its child runs, its processes, its operations, and the tables that it wrote.

    Attributes:
        run: the run. For a run that has not ended, only the id, the job and the start are known.
        children: its child runs at any depth; their `parent_run_id` says which run opened them.
        total: counts, summed over the run and its child runs.
        writes: the operations of the run and its child runs, oldest first.
        outputs: the tables that they have written.
        processes: the processes that took part in the run itself.
        traces: the traces of the operations.
        undone_by: the finished runs of :func:`deltawitness.undo` that have restored tables of the run,
            oldest first; one with the status `error` has not restored all of them.
    """

    run: RunRow
    children: tuple[RunRow, ...]
    total: Mapping[str, int]
    writes: tuple[WriteRow, ...]
    outputs: tuple[RunOutput, ...]
    processes: tuple[RunProcess, ...]
    traces: tuple[TraceLink, ...]
    undone_by: tuple[RunRow, ...] = ()

    @property
    def failed(self) -> tuple[WriteRow, ...]:
        """The operations that failed, oldest first."""
        return tuple(write for write in self.writes if write.result == "error")


def shown_run_of(report: RunReport, template: str | None) -> ShownRun:
    """Return the value of a report.

    Args:
        report: the rows of the ledger.
        template: template of the links to traces; None for no links.
    """
    children = (row for rows in report.children.values() for row in rows)
    return ShownRun(
        run=RunRow.of(report.run),
        children=tuple(map(RunRow.of, children)),
        total=report.total(),
        writes=tuple(map(WriteRow.of, report.writes)),
        outputs=tuple(
            RunOutput(
                TableVersion(each["version"], each["name"], each["uri"], each["table_id"]),
                tuple(each["versions"]),
            )
            for each in report.outputs()
        ),
        processes=tuple(RunProcess(**row) for row in report.parts),
        traces=tuple(
            TraceLink(trace_id, trace_url(template, trace_id)) for trace_id in report.trace_ids()
        ),
        undone_by=tuple(map(RunRow.of, report.undone_by)),
    )
