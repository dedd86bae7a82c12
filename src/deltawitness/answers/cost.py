"""The public function `cost`: what jobs have written, rewritten, and left on the storage."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from dataclasses import replace

from deltawitness.answers.cost_values import JobCost, TableCost
from deltawitness.answers.doctor import COMMITS, named_tables
from deltawitness.answers.health.file_checks import leftovers_of
from deltawitness.answers.health.table_state import TableState, read_state
from deltawitness.answers.lookup import NamedTable
from deltawitness.answers.predicates import equal, is_since, recorded_job
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.commit.parallel import LogReaders
from deltawitness.ids_and_clock import in_utc
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in
from deltawitness.locations import last_segment, local_path, strip_credentials
from deltawitness.semconv import CacheResult, CacheScope, CommitKey, Operation
from deltawitness.settings import Settings

__all__ = ["cost"]


def cost(  # noqa: PLR0913 - keyword-only filters
    *tables: str | os.PathLike[str],
    job: str | None = None,
    since: dt.datetime | None = None,
    files: bool = True,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> TableCost:
    """Return what jobs have written to tables: bytes, write amplification, and bytes that old versions hold.

    The bytes that a job has written are those of the ledger. The bytes of old versions are those of files that
    its commits removed, and that no vacuum has deleted yet; a file counts for the job that removed it.

    Args:
        *tables: the tables, as for :func:`doctor`; without any, all tables of the ledger.
        job: skips other jobs.
        since: skips earlier commits; a time without a time zone is in UTC.
        files: list the files of each table on its storage; else `held_bytes` is not known.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or a name means no table, or several.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import DeltaTable, write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor, Settings, cost, run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = Settings(cache_root=f"{folder}/ledger")
    ...     DeltaLakeInstrumentor().instrument(settings=settings)
    ...     with run("load"):
    ...         write_deltalake(f"{folder}/flights", pa.table({"x": [1, 2, 3]}))
    ...     with run("erase"):
    ...         DeltaTable(f"{folder}/flights").delete("x = 1")["num_deleted_rows"]
    ...     found = {each.job: each for each in cost("flights", settings=settings).jobs}
    ...     print(found["load"].amplification, found["load"].held_files)
    ...     print(found["erase"].amplification, found["erase"].held_files)
    ...     DeltaLakeInstrumentor().uninstrument()
    1
    1.0 0
    None 1
    """
    chosen = settings_with(root, storage_options, settings)
    ledger = ledger_of(chosen)
    named = named_tables(ledger, [os.fspath(table) for table in tables], chosen)
    start, job = in_utc(since), recorded_job(job)
    found = {(each.job, each.uri): each for each in _written(ledger, named, job, start)}
    notes: list[str] = []
    if files:
        is_remote = any(local_path(table.location) is None for table in named)
        with LogReaders() as readers:
            states = readers.map(
                lambda table: read_state(table, chosen, readers, commits=COMMITS, has_files=True),
                named,
                is_remote=is_remote,
            )
            for state in states:
                _add_held(found, notes, state, job, start)
    ordered = sorted(
        found.values(), key=lambda each: (-each.bytes_written, each.job or "", each.uri)
    )
    return TableCost(tuple(ordered), tuple(notes))


_NOT_WRITTEN = (Operation.RESTORE.value, Operation.CONVERT.value)
"""Operations that add files to a table without writing them."""

_REWRITES = (Operation.OPTIMIZE.value,)
"""Operations that write rows again without a change."""


def _written(
    ledger: LedgerListing,
    named: Sequence[NamedTable],
    job: str | None,
    since: dt.datetime | None,
) -> list[JobCost]:
    """Return the costs of the commits in the ledger."""
    names = {table.uri: table for table in named}
    if not names:
        return []
    changed = "(coalesce(rows_added, 0) + coalesce(rows_updated, 0))"
    is_new = f"NOT {is_in('operation', _REWRITES)}"
    new = (
        f"CASE WHEN NOT ({is_new}) THEN 0 WHEN coalesce(rows_copied, 0) = 0 THEN bytes_added"
        f" ELSE CAST(bytes_added AS DOUBLE) * {changed} / ({changed} + rows_copied) END"
    )
    written = f"NOT coalesce({is_in('operation', _NOT_WRITTEN)}, false)"
    conditions = [
        is_in("table_uri", sorted(names)),
        f"(result = '{CacheResult.WRITE.value}' OR landed = 'yes')",
        f"(scope IS NULL OR scope <> '{CacheScope.LEDGER.value}')",
        "version IS NOT NULL",
        *equal("job", job),
        *is_since("event_time", since),
    ]
    rows = ledger.query(
        "SELECT job, table_uri, count(*) AS writes,"  # noqa: S608 - quoted
        f" CAST(coalesce(sum(CASE WHEN {written} THEN bytes_added END), 0) AS BIGINT) AS written,"
        f" CAST(coalesce(sum(CASE WHEN {written} THEN {new} END), 0) AS BIGINT) AS new,"
        " CAST(coalesce(sum(bytes_removed), 0) AS BIGINT) AS removed"
        f" FROM inventory WHERE {' AND '.join(conditions)} GROUP BY job, table_uri"
    )
    return [_job_cost(row, names[row["table_uri"]]) for row in rows]


def _job_cost(row: Row, table: NamedTable) -> JobCost:
    return JobCost(
        job=row["job"],
        name=table.name,
        uri=_shown(table.uri),
        writes=row["writes"],
        bytes_written=row["written"],
        bytes_new=row["new"],
        bytes_removed=row["removed"],
    )


def _shown(uri: str) -> str:
    return local_path(uri) or strip_credentials(uri)


def _add_held(
    found: dict[tuple[str | None, str], JobCost],
    notes: list[str],
    state: TableState,
    job: str | None,
    since: dt.datetime | None,
) -> None:
    """Add the files of old versions of one table to the jobs that removed them."""
    left = leftovers_of(state, dt.datetime.now(dt.UTC))
    if left is None:
        reason = state.problems[0][1] if state.problems else "there is no Delta log"
        notes.append(f"the files of {state.name} cannot be listed: {reason}")
        return
    uri, sizes = state.shown_uri, {file.path: file.size for file in left.held}
    for key, each in found.items():
        if key[1] == uri:
            found[key] = replace(each, held_files=0, held_bytes=0)
    first_ms = None if since is None else since.timestamp() * 1000
    removers: dict[str, tuple[str | None, int]] = {}
    for commit in state.commits:
        name = commit.metadata.witness.get(CommitKey.JOB_NAME)
        for path in commit.removed:
            removers[path] = (
                name if isinstance(name, str) else None,
                commit.metadata.timestamp or 0,
            )
    for path, size in sizes.items():
        if path not in removers:
            continue
        owner, time_ms = removers[path]
        if (job is not None and owner != job) or (first_ms is not None and time_ms < first_ms):
            continue
        empty = JobCost(
            job=owner,
            name=last_segment(state.uri) or state.name,
            uri=uri,
            held_files=0,
            held_bytes=0,
        )
        before = found.get((owner, uri), empty)
        found[owner, uri] = replace(
            before,
            held_files=(before.held_files or 0) + 1,
            held_bytes=(before.held_bytes or 0) + size,
        )
