"""The public functions `show`, `errors`, `writes` and `runs`: the commands of the same names, as values."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime

from deltawitness.answers.commits import read_commit
from deltawitness.answers.lists import WriteFilter, list_runs, list_writes
from deltawitness.answers.lookup import find_target
from deltawitness.answers.rows import RunRow, WriteRow
from deltawitness.answers.run_report import read_run
from deltawitness.answers.shown_commit import ShownCommit
from deltawitness.answers.shown_run import ShownRun, shown_run_of
from deltawitness.exceptions import LedgerLookupError
from deltawitness.forks import mark_delta_rs_used
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.locations import root_of
from deltawitness.locations import strip_credentials
from deltawitness.semconv import CacheResult
from deltawitness.settings import Settings

__all__ = ["chosen_settings", "errors", "opened_ledger", "runs", "show", "writes"]

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
        settings: the settings; read from the environment when None.

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
    chosen = chosen_settings(root, storage_options, settings)
    ledger = opened_ledger(chosen, is_required=False)
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
    ledger = opened_ledger(chosen_settings(root, storage_options, settings))
    chosen = WriteFilter(since=_in_utc(since), job=job, table=table, result=CacheResult.ERROR)
    return [WriteRow.of(row) for row in list_writes(ledger, chosen, limit=limit)]


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
    limit: int | None = None,
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
        limit: maximum number of operations.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger, or it has no such table or run, or several.
        ValueError: there is no such result.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.
    """
    ledger = opened_ledger(chosen_settings(root, storage_options, settings))
    chosen = WriteFilter(
        table=table,
        run=run,
        job=job,
        user=user,
        operation=operation,
        version=version,
        result=None if result is None else CacheResult(result),
        since=_in_utc(since),
    )
    return [WriteRow.of(row) for row in list_writes(ledger, chosen, limit=limit)]


def runs(  # noqa: PLR0913 - keyword-only filters
    *,
    job: str | None = None,
    status: str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
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
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no ledger.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.
    """
    ledger = opened_ledger(chosen_settings(root, storage_options, settings))
    found = list_runs(ledger, job=job, status=status, since=_in_utc(since), limit=limit)
    return [RunRow.of(row) for row in found]


def chosen_settings(
    root: _Root, storage_options: dict[str, str] | None, settings: Settings | None
) -> Settings:
    """Return the settings of a call, with its root and storage options if it has them.

    Raises:
        ConfigurationError: a setting in the environment is invalid.
    """
    given = Settings.or_from_env(settings)
    return replace(
        given,
        cache_root=given.cache_root if root is None else os.fspath(root),
        storage_options=storage_options or given.storage_options,
    )


def opened_ledger(settings: Settings, *, is_required: bool = True) -> LedgerListing:
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
    ledger = LedgerListing(place)
    if is_required and not ledger.exists():
        msg = f"there is no ledger at {strip_credentials(place.uri)}"
        raise LedgerLookupError(msg)
    return ledger


def _in_utc(time: datetime | None) -> datetime | None:
    if time is None:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
