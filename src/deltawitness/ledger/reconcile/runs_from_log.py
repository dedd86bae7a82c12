"""Rows of runs from operations that a reconcile found in the logs of tables.

A commit has the id and the job of its run and little else of it: start, end, status and attributes are
lost with the process that could have recorded them. The row has the sums over the run's rebuilt
operations, and the status `reconstructed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from deltawitness.ledger.drain.drain import append
from deltawitness.ledger.drain.recorder import recorder_of
from deltawitness.ledger.reconcile.inferred_runs import InferredRun
from deltawitness.ledger.spool.reader import segments_of
from deltawitness.ledger.spool.records import RecordKind, decode
from deltawitness.ledger.tables.arrow import query, rows_from
from deltawitness.ledger.tables.run_rows import TALLIED, RunStatus, Tally, run_row
from deltawitness.ledger.tables.schema import RUNS, LedgerRoot, Source
from deltawitness.ledger.tables.shards import TableParts, with_shards
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.semconv import LATE_APP_ID
from deltawitness.sql_quoting import quote_literal

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["append_runs_from_log"]

Row = dict[str, Any]


def append_runs_from_log(
    root: LedgerRoot,
    spools: Path,
    operations: pa.Table,
    inferred: Mapping[str, InferredRun],
) -> int:
    """Append rows for runs of rebuilt operations that no process has recorded or will record.

    A run with a row of a process gets no further row: that row counts the operations of its
    process, whether or not their rows had reached the ledger. Its operations by Spark, which that
    process has not counted, get a row as a part of the run. Later operations of a reconstructed run
    get another row, as a part of the run, too.

    Args:
        root: location of the ledger.
        spools: the local folder of all spools.
        operations: rows of the inventory that a reconcile has just appended.
        inferred: the runs among theirs that were inferred, by run id.

    Returns:
        The number of appended rows.

    Raises:
        OSError: the ledger's storage cannot be read or written.
        DeltaError: a table of the ledger is damaged, or has too many concurrent writers.
    """
    uri = ledger_uri(root.uri)
    rows = _rows_of_runs(operations, uri, RunStatus.RECONSTRUCTED)
    of_spark = operations.filter(pc.equal(operations["source"], Source.SPARK.value))
    parts = _rows_of_runs(of_spark, uri, RunStatus.OK)
    for run_id in rows.keys() & inferred.keys():
        rows[run_id] |= inferred[run_id].columns
    waiting = _waiting_runs(root, spools)
    if rows.keys() <= waiting - parts.keys():
        return 0

    def missing(opened: DeltaTable) -> tuple[pa.Table, Mapping[str, int]]:
        recorded = waiting | _recorded_runs(with_shards(root, RUNS, opened), rows)
        others = [row for run_id, row in rows.items() if run_id not in recorded]
        fresh = others + [row for run_id, row in parts.items() if run_id in recorded]
        # Makes concurrent reconciles conflict: the second one reads the table again.
        late = (opened.transaction_version(LATE_APP_ID) or 0) + 1
        return rows_from(RUNS, fresh), {LATE_APP_ID: late} if fresh else {}

    return append(root, RUNS, missing)[0]


def _rows_of_runs(operations: pa.Table, cache_root: str, status: RunStatus) -> dict[str, Row]:
    """Return a row for each run of some operations, by run id."""
    times = operations["event_time"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    tallies: dict[str, Tally] = {}
    spans: dict[str, tuple[int, int]] = {}
    versions: dict[str, str | None] = {}
    jobs: dict[str, str | None] = {}
    columns = operations.select(["run_id", "job", "witness_version", *TALLIED])
    for row, time in zip(columns.to_pylist(), times.to_pylist(), strict=True):
        run_id = row["run_id"]
        if run_id is None:
            continue
        tallies.setdefault(run_id, Tally()).add(row)
        first, last = spans.get(run_id, (time, time))
        spans[run_id] = min(first, time), max(last, time)
        versions[run_id] = row["witness_version"]
        jobs[run_id] = row["job"] or jobs.get(run_id)
    return {
        run_id: run_row(
            {
                "run_id": run_id,
                "job": jobs[run_id],
                # If the opener records the run later, its row takes precedence.
                "is_part": True,
                "start_time": spans[run_id][0],
                "cache_root": cache_root,
                "witness_version": versions[run_id],
            },
            tally,
            status=status,
            end_time=spans[run_id][1],
        )
        for run_id, tally in tallies.items()
    }


def _waiting_runs(root: LedgerRoot, spools: Path) -> set[str]:
    """Return the ids of runs that a process on this machine has open or has not drained yet."""
    own = recorder_of(root)
    waiting = set() if own is None else set(own.run_ids)
    kinds = {RecordKind.RUN_START.value, RecordKind.RUN_END.value}
    for path in segments_of(spools):
        with suppress(FileNotFoundError):  # drained meanwhile
            lines = decode(path.read_bytes()).valid
            waiting |= {line.key for line in lines if line.kind in kinds}
    return waiting


def _recorded_runs(opened: TableParts, run_ids: Iterable[str]) -> set[str]:
    """Return those of some runs that have a row of a process."""
    names = ", ".join(map(quote_literal, run_ids))
    found = query(
        opened,
        f"SELECT DISTINCT run_id FROM ledger WHERE run_id IN ({names})"
        f" AND status IS DISTINCT FROM {quote_literal(RunStatus.RECONSTRUCTED)}",
    )
    return set(found["run_id"].to_pylist())
