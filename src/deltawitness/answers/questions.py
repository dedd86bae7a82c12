"""The public functions that answer questions: the commands of the same names, as values."""

from __future__ import annotations

import os
from datetime import datetime

from deltawitness.answers.commits import read_commit
from deltawitness.answers.impact import read_impact
from deltawitness.answers.impact_report import Impact
from deltawitness.answers.lineage import DEPTH, read_lineage
from deltawitness.answers.lineage_graph import Lineage, LineageDirection
from deltawitness.answers.lists import WriteFilter, list_runs, list_writes
from deltawitness.answers.lookup import find_target
from deltawitness.answers.rows import RunRow, WriteRow
from deltawitness.answers.run_report import read_run
from deltawitness.answers.shown_commit import ShownCommit
from deltawitness.answers.shown_run import ShownRun, shown_run_of
from deltawitness.exceptions import LedgerLookupError
from deltawitness.forks import mark_delta_rs_used
from deltawitness.html_display import RowList
from deltawitness.ids_and_clock import in_utc
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.locations import chosen_settings, root_of
from deltawitness.locations import strip_credentials
from deltawitness.semconv import CacheResult, ExpectationResult
from deltawitness.settings import Settings

__all__ = [
    "check_depth",
    "errors",
    "impact",
    "ledger_of",
    "lineage",
    "runs",
    "settings_with",
    "show",
    "writes",
]

_Root = str | os.PathLike[str] | None


def show(
    name: str,
    *,
    root: _Root = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> ShownCommit | ShownRun:
    """Return one version of a table, or one run.

    A version of a table that is not in the ledger is read from the table's log, and the other way round;
    `in_ledger`, `in_log` and `notes` of the result say so.

    Args:
        name: a table, optionally with `@VERSION` (the last one by default): its name, id (or a prefix of
            it), path or URI; or the id of a run, or a prefix of it. `table:` or `run:` before it selects
            one of the two.
        root: the cache root of the ledger; `settings.cache_root` when None.
        storage_options: as for `DeltaTable`; `settings.storage_options` when None.
        settings: the settings; when None, those with which the process is instrumented, if they have a cache
            root, else those of the environment.

    Raises:
        LedgerLookupError: the name means nothing, or several runs or tables; the message lists them.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor, Settings, run, show
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = Settings(cache_root=f"{folder}/ledger")
    ...     DeltaLakeInstrumentor().instrument(settings=settings)
    ...     with run("nightly", message="first load") as nightly:
    ...         write_deltalake(f"{folder}/flights", pa.table({"x": [1, 2]}))
    ...     commit = show("flights@0", settings=settings)
    ...     commit.job, commit.message, commit.metrics.rows_added
    ...     [str(output.table) for output in show(nightly.run_id, settings=settings).outputs]
    ...     DeltaLakeInstrumentor().uninstrument()
    ('nightly', 'first load', 2)
    ['flights@0']
    """
    chosen = settings_with(root, storage_options, settings)
    ledger = ledger_of(chosen, is_required=False)
    target = find_target(ledger, name)
    if isinstance(target, str):
        return shown_run_of(read_run(ledger, target), chosen.trace_url)
    return read_commit(ledger, target, chosen)


def errors(  # noqa: PLR0913 - keyword-only filters
    *,
    since: datetime | None = None,
    job: str | None = None,
    table: str | None = None,
    limit: int | None = None,
    root: _Root = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> list[WriteRow]:
    """Return the failed operations of all runs, newest first.

    Args:
        since: skips earlier operations; a time without a time zone is in UTC.
        job: skips other jobs.
        table: skips other tables: a name, an id (or a prefix of it), a path or a URI.
        limit: maximum number of operations.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no such table.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.
    """
    ledger = ledger_of(settings_with(root, storage_options, settings))
    chosen = WriteFilter(since=in_utc(since), job=job, table=table, result=CacheResult.ERROR)
    return RowList(WriteRow.of(row) for row in list_writes(ledger, chosen, limit=limit))


def writes(  # noqa: PLR0913 - keyword-only filters
    *,
    table: str | None = None,
    run: str | None = None,
    job: str | None = None,
    user: str | None = None,
    operation: str | None = None,
    version: int | None = None,
    result: CacheResult | str | None = None,
    since: datetime | None = None,
    expectation: ExpectationResult | str | None = None,
    limit: int | None = None,
    offset: int = 0,
    root: _Root = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> list[WriteRow]:
    """Return operations on tables, newest first.

    Args:
        table: skips other tables: a name, an id (or a prefix of it), a path or a URI.
        run: skips other runs: an id, or an unambiguous prefix of it.
        job: skips other jobs.
        user: skips runs of other authors (`DELTAWITNESS_AUTHOR`); the case is ignored.
        operation: skips other operations, such as `DELETE`, `WRITE append` or `optimize`; the case is ignored.
        version: skips operations that have not committed this version.
        result: skips other results: `write`, `hit`, `miss`, `noop` or `error`.
        since: skips earlier operations; a time without a time zone is in UTC.
        expectation: skips operations whose expectations have another result: `passed`, `warned`, `failed`
            or `quarantined`.
        limit: maximum number of operations.
        offset: number of newer operations to skip, for pages.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no such table or run, or several.
        ValueError: there is no such result, or the offset is negative.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.
    """
    _check_offset(offset)
    ledger = ledger_of(settings_with(root, storage_options, settings))
    chosen = WriteFilter(
        table=table,
        run=run,
        job=job,
        user=user,
        operation=operation,
        version=version,
        result=None if result is None else CacheResult(result),
        since=in_utc(since),
        expectation=None if expectation is None else ExpectationResult(expectation),
    )
    found = list_writes(ledger, chosen, limit=limit, offset=offset or None)
    return RowList(map(WriteRow.of, found))


def runs(  # noqa: PLR0913 - keyword-only filters
    *,
    job: str | None = None,
    status: str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
    offset: int = 0,
    root: _Root = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> list[RunRow]:
    """Return the finished runs, newest first.

    Args:
        job: skips other jobs.
        status: skips runs with another status: `ok`, `error`, `abandoned` or `reconstructed`.
        since: skips runs that started earlier; a time without a time zone is in UTC.
        limit: maximum number of runs.
        offset: number of newer runs to skip, for pages.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger.
        ValueError: the offset is negative.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.
    """
    _check_offset(offset)
    ledger = ledger_of(settings_with(root, storage_options, settings))
    found = list_runs(
        ledger, job=job, status=status, since=in_utc(since), limit=limit, offset=offset
    )
    return RowList(map(RunRow.of, found))


def lineage(  # noqa: PLR0913 - keyword-only options
    table: str,
    *,
    direction: LineageDirection | str = LineageDirection.UP,
    depth: int = DEPTH,
    history: bool = False,
    root: _Root = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> Lineage:
    """Return the versions that a version of a table was made from, or those that were made from it.

    Args:
        table: the table, optionally with `@VERSION` (by default the last one that changed rows): its
            name, id (or a prefix of it), path or URI.
        direction: `up` for what it was made from, `down` for what was made from it.
        depth: maximum number of edges between the version and another one; the nodes whose edges are left
            out are marked.
        history: also follow the earlier (up) or later (down) versions of each table.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no such table or version, or several tables.
        ValueError: there is no such direction, or the depth is negative.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import DeltaTable, write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor, Settings, lineage, run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     settings = Settings(cache_root=f"{folder}/ledger")
    ...     DeltaLakeInstrumentor().instrument(settings=settings)
    ...     with run("nightly"):
    ...         write_deltalake(f"{folder}/raw", pa.table({"x": [1, 2]}))
    ...         rows = DeltaTable(f"{folder}/raw").to_pyarrow_table()
    ...         write_deltalake(f"{folder}/clean", rows)
    ...     graph = lineage("clean", settings=settings)
    ...     for edge in graph.edges:
    ...         print(edge.source, edge.target, edge.kind.value)
    ...     DeltaLakeInstrumentor().uninstrument()
    raw@0 clean@0 inferred
    """
    check_depth(depth)
    ledger = ledger_of(settings_with(root, storage_options, settings))
    return read_lineage(
        ledger,
        table,
        direction=LineageDirection(direction),
        depth=depth,
        has_history=history,
    )


def impact(
    table: str,
    *,
    depth: int | None = None,
    root: _Root = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> Impact:
    """Return the tables that depend on a table, directly or through others, and whether they are stale.

    Args:
        table: the table, as for :func:`lineage`. With `@VERSION`, only tables that have read this version
            or a later one count, and those that depend on them.
        depth: maximum number of tables between; None for all.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no such table or version, or several tables.
        ValueError: the depth is negative.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.
    """
    check_depth(depth)
    ledger = ledger_of(settings_with(root, storage_options, settings))
    return read_impact(ledger, table, depth=depth)


def check_depth(depth: int | None) -> None:
    """Check a maximum number of levels; None is no maximum.

    Raises:
        ValueError: it is negative.
    """
    if depth is not None and depth < 0:
        msg = "depth: expected 0 or more"
        raise ValueError(msg)


def _check_offset(offset: int) -> None:
    if offset < 0:
        msg = "offset: expected 0 or more"
        raise ValueError(msg)


def settings_with(
    root: _Root, storage_options: dict[str, str] | None, settings: Settings | None
) -> Settings:
    """Return the settings of a question, with the arguments of the caller that are set."""
    return chosen_settings(root, storage_options, settings)


def ledger_of(settings: Settings, *, is_required: bool = True) -> LedgerListing:
    """Return the ledger, with the operations of this process in it.

    Raises:
        LedgerLookupError: there is no ledger, and one is required.
    """
    from deltawitness.ledger.drain.recorder import recorder_of  # noqa: PLC0415 - heavy

    mark_delta_rs_used()  # the program called a function that needs delta-rs
    place = root_of(settings)
    own = recorder_of(place)
    if own is not None:
        own.await_rows()
        own.drain()
    ledger = LedgerListing.of(settings)
    if is_required and not ledger.exists():
        msg = f"there is no ledger at {strip_credentials(place.uri)}"
        raise LedgerLookupError(msg)
    return ledger
