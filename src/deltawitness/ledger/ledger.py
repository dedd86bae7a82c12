"""The public class `Ledger`: query, drain, reconcile, maintain and verify a ledger."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from os import PathLike
from typing import TYPE_CHECKING

import pyarrow as pa

from deltawitness.extras import require
from deltawitness.forks import mark_delta_rs_used
from deltawitness.ids_and_clock import now_ns
from deltawitness.ledger.drain.drain import Drain, DrainResult
from deltawitness.ledger.drain.expire import MIN_AGE, ExpireResult, expire
from deltawitness.ledger.drain.fold import FoldResult, fold
from deltawitness.ledger.drain.maintenance import MaintenanceResult, optimize
from deltawitness.ledger.drain.recorder import recorder_of
from deltawitness.ledger.drain.serve import ServeResult, serve
from deltawitness.ledger.integrity import IntegrityResult, check_integrity
from deltawitness.ledger.reconcile.adoption import AdoptResult, adopt_plan
from deltawitness.ledger.reconcile.inferred_runs import GAP
from deltawitness.ledger.reconcile.log_reader import Progress
from deltawitness.ledger.reconcile.plan import ReconcilePlan
from deltawitness.ledger.reconcile.scan import plan_of
from deltawitness.ledger.tables.arrow import without_views
from deltawitness.ledger.tables.duckdb_views import register_in_duckdb
from deltawitness.ledger.tables.frames import frame_of
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.locations import chosen_settings, root_of, spool_folder
from deltawitness.ledger.tables.schema import (
    INVENTORY,
    RUNS,
    SNAPSHOTS,
    TABLES,
    LedgerRoot,
    LedgerTable,
)
from deltawitness.ledger.tables.views import view_statements
from deltawitness.run import suppressed
from deltawitness.semconv import LEDGER_SCHEMA
from deltawitness.settings import Settings

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable
    from duckdb import DuckDBPyConnection

__all__ = ["Ledger", "adopt"]


def adopt(  # noqa: PLR0913 - keyword-only options
    tables: str | os.PathLike[str] | Iterable[str | os.PathLike[str] | DeltaTable],
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    *,
    settings: Settings | None = None,
    since: datetime | None = None,
    gap: timedelta = GAP,
    progress: Progress | None = None,
) -> AdoptResult:
    """Fill a ledger from the logs of tables that any program has written: see :meth:`Ledger.adopt`.

    Args:
        tables: locations of tables, prefixes, globs such as `s3://lake/**`, or open tables.
        root: the cache root of the ledger, as for :class:`Ledger`.
        storage_options: as for :class:`Ledger`.
        settings: as for :class:`Ledger`.
        since: as for :meth:`Ledger.adopt`.
        gap: as for :meth:`Ledger.adopt`.
        progress: as for :meth:`Ledger.reconcile`.

    Raises:
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read or written.
        DeltaError: a table of the ledger is damaged, or has too many concurrent writers.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import adopt
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_deltalake(f"{folder}/lake/orders", pa.table({"x": [1, 2]}))
    ...     adopt(f"{folder}/lake", f"{folder}/ledger").operations
    1
    """
    ledger = Ledger(root, storage_options, settings=settings)
    named = [tables] if isinstance(tables, str | PathLike) else tables
    return ledger.adopt(named, since=since, gap=gap, progress=progress)


class Ledger:
    """The ledger of a cache root: every write, run and metadata snapshot, as Delta tables.

    This process's spool is drained before anything is read, so that its own writes are included.

    Args:
        root: the cache root; `settings.cache_root` when None.
        storage_options: as for `DeltaTable`; `settings.storage_options` when None.
        settings: the settings; when None, those with which the process is instrumented, if they have a cache
            root, else those of the environment.

    Raises:
        ConfigurationError: a setting in the environment is invalid.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=folder))
    ...     with run("nightly"):
    ...         write_deltalake(f"{folder}/t", pa.table({"x": [1, 2]}))
    ...     ledger = Ledger(folder)
    ...     ledger.inventory().select("operation", "version", "rows_added").to_pydict()
    ...     ledger.runs().select("job", "status", "writes").to_pydict()
    ...     DeltaLakeInstrumentor().uninstrument()
    {'operation': ['WRITE'], 'version': [0], 'rows_added': [2]}
    {'job': ['nightly'], 'status': ['ok'], 'writes': [1]}
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        storage_options: dict[str, str] | None = None,
        *,
        settings: Settings | None = None,
    ) -> None:
        self._settings: Settings = chosen_settings(root, storage_options, settings)
        self.root: LedgerRoot = root_of(self._settings)
        self.spools: Path = spool_folder(self._settings, self.root)

    # --- reading -------------------------------------------------------------------------------------

    def query(self, sql: str) -> pa.Table:
        """Return the result of a query over the ledger; it needs neither DataFusion nor a session.

        Args:
            sql: a query over the tables `inventory`, `runs` and `snapshots`, with the rows of the
                methods of these names. The SQL is that of DataFusion, which is built into delta-rs.

        Raises:
            OSError: the storage cannot be read.
            DeltaError: a table of the ledger is damaged, or the query is invalid.
        """
        self._drain_own()
        return without_views(pa.table(LedgerListing(self.root, TABLES).arrow(sql)))

    def inventory(self) -> DataFrame:
        """Return a DataFusion frame with a row per observed operation.

        Raises:
            MissingExtraError: DataFusion is not installed (extra `datafusion`); :meth:`query` works.
        """
        return self._frame(INVENTORY)

    def runs(self) -> DataFrame:
        """Return a DataFusion frame with a row per finished run, summed over its processes.

        Raises:
            MissingExtraError: as for :meth:`inventory`.
        """
        return self._frame(RUNS)

    def snapshots(self) -> DataFrame:
        """Return a DataFusion frame with a row per metadata snapshot.

        Raises:
            MissingExtraError: as for :meth:`inventory`.
        """
        return self._frame(SNAPSHOTS)

    def _frame(self, table: LedgerTable) -> DataFrame:
        require(f"Ledger.{table.alias}()", "datafusion")
        from datafusion import SessionContext  # noqa: PLC0415 - heavy

        self._drain_own()
        return frame_of(SessionContext(), self.root, table)

    def register(self, ctx: SessionContext) -> None:
        """Register the tables and views in the schema `cache_ledger` of a session, at their current versions.

        Call it again to see later rows.

        Args:
            ctx: the session; afterwards `SELECT * FROM cache_ledger.inventory` (`.runs`, `.snapshots`, and
                the views `.writes`, `.errors`, `.versions`, `.edges`, `.outputs`, `.tables`, `.jobs`,
                `.cache_results`) works in it.

        Raises:
            OSError: the ledger's storage cannot be read.
            DeltaError: a table of the ledger is damaged.
        """
        from datafusion.catalog import Schema  # noqa: PLC0415 - heavy

        self._drain_own()
        catalog = ctx.catalog()
        if LEDGER_SCHEMA in catalog.schema_names():
            catalog.deregister_schema(LEDGER_SCHEMA)
        catalog.register_schema(LEDGER_SCHEMA, Schema.memory_schema())
        schema = catalog.schema(LEDGER_SCHEMA)
        for table in TABLES:
            schema.register_table(table.alias, frame_of(ctx, self.root, table).into_view())
        with suppressed():  # the statements are not the program's
            for name, query in view_statements(LEDGER_SCHEMA):
                schema.register_table(name, ctx.sql(query).into_view())

    def register_duckdb(self, connection: DuckDBPyConnection) -> None:
        """Create the tables and views of :meth:`register` in a DuckDB connection, in the schema `cache_ledger`.

        They show the tables at their current versions, until the connection is closed; call it again to see
        later rows. `deltawitness ledger views` prints a script for DuckDB that needs no Python.

        Args:
            connection: the connection, of the package `duckdb`.

        Raises:
            OSError: the ledger's storage cannot be read.
            DeltaError: a table of the ledger is damaged.
        """
        self._drain_own()
        register_in_duckdb(connection, self.root)

    # --- maintenance ---------------------------------------------------------------------------------

    def drain(self) -> DrainResult:
        """Append the spools of this process and of dead processes to the ledger.

        Returns:
            What this call appended from spools of dead processes. The drain of this process's own
            spool is not counted.

        Raises:
            OSError: the ledger's storage cannot be written.
            DeltaError: a table of the ledger is damaged.
        """
        self._drain_own()
        own = recorder_of(self.root)
        drain = Drain(self.root, tail=self._settings.landed_tail)
        return drain.drain_abandoned(self.spools, None if own is None else own.home)

    def _drain_own(self) -> None:
        mark_delta_rs_used()  # the program called a method that needs delta-rs
        own = recorder_of(self.root)
        if own is not None:
            own.await_rows()
            own.drain()

    def reconcile(
        self,
        tables: Iterable[str | os.PathLike[str] | DeltaTable] | None = None,
        *,
        since: datetime | None = None,
        full: bool = False,
        search: bool = False,
        progress: Progress | None = None,
    ) -> ReconcilePlan:
        """Compare the ledger with the logs of tables; only `apply()` of the returned plan writes.

        Args:
            tables: locations of tables, prefixes, globs, or open tables; all tables in the inventory
                when None. A prefix is a location without a Delta log: it names all tables below it.
            since: skip commits before this time. UTC without a time zone.
            full: read all commits in the logs; otherwise only those since the last reconcile.
            search: if `tables` is None, also compare the tables that are found below the folders in
                which the tables in the inventory are.
            progress: called now and then with `(table, commits read, total commits)`, by one thread
                at a time; for tables on an object store that may be another thread than the caller's.

        Raises:
            OSError: the ledger's storage cannot be read. A log that cannot be read raises nothing;
                the plan lists its table as unreadable.
            DeltaError: a table of the ledger is damaged.
        """
        self.drain()
        return plan_of(
            self.root,
            self.spools,
            tables,
            since=since,
            full=full,
            search=search,
            progress=progress,
            settings=self._settings,
        )

    def adopt(
        self,
        tables: Iterable[str | os.PathLike[str] | DeltaTable],
        *,
        since: datetime | None = None,
        gap: timedelta = GAP,
        progress: Progress | None = None,
    ) -> AdoptResult:
        """Append a row for each commit of tables that has none, whichever program made it.

        Commits without our metadata get inferred runs: from the job, pipeline, notebook or cluster that
        the commit names, else from the engine and the time. Rows and runs of such commits are marked
        `reconstructed`. A second call with the same tables appends nothing. The tables are only read.

        Args:
            tables: locations of tables, prefixes, globs, or open tables.
            since: skip commits before this time. UTC without a time zone.
            gap: time without a commit after which the next commit of the same origin, such as a
                notebook or an engine, belongs to another run.
            progress: as for :meth:`reconcile`.

        Raises:
            OSError: the ledger's storage cannot be read or written. A log that cannot be read raises
                nothing; the result lists its table as unreadable.
            DeltaError: a table of the ledger is damaged, or has too many concurrent writers.
        """
        self.drain()
        plan = plan_of(
            self.root,
            self.spools,
            tables,
            since=since,
            full=True,  # a run's id follows from its first commit
            gap=gap,
            progress=progress,
            settings=self._settings,
        )
        return adopt_plan(plan)

    def optimize(self) -> list[MaintenanceResult]:
        """Compact the ledger's tables and delete files that are past their retention.

        Raises:
            OSError: the storage cannot be read or written.
            DeltaError: a table is damaged.
        """
        return [optimize(self.root, table) for table in TABLES]

    def fold(self) -> list[FoldResult]:
        """Move the rows of all shards to the main tables, each exactly once.

        Several processes may fold at the same time, and writers may append meanwhile.

        Returns:
            A result for each table of a shard that has rows. One with an `error` was not folded.

        Raises:
            OSError: the shards cannot be listed.
        """
        self._drain_own()
        return fold(self.root)

    def expire(
        self, older_than: timedelta, *, apply: bool = False, vacuum: bool = False
    ) -> list[ExpireResult]:
        """Delete rows that are older than an age, in full days, or count them.

        The row of a run stays while the ledger has later writes of the run. Later reconciles do not
        rebuild expired rows. Shards are folded first. Stored plans of writes are deleted by the same age.

        Args:
            older_than: the age, at least 31 days.
            apply: delete the rows; otherwise only count them.
            vacuum: also delete files that no version of the last 7 days needs.

        Raises:
            ValueError: the age is too short.
            OSError: the storage cannot be read or written.
            DeltaError: a table is damaged, or has too many concurrent writers.
        """
        if older_than < MIN_AGE:
            msg = f"older_than: expected at least {MIN_AGE.days} days"
            raise ValueError(msg)
        self._drain_own()
        now = datetime.fromtimestamp(now_ns() / 1e9, tz=UTC)
        return expire(self.root, (now - older_than).date(), apply=apply, vacuum=vacuum)

    def serve(
        self,
        stop: threading.Event,
        *,
        interval: float | None = None,
        fold_interval: float | None = None,
    ) -> ServeResult:
        """Drain the spools of all processes on this host at intervals, until an event is set.

        For processes with `DELTAWITNESS_LEDGER_MODE=forward`, which commit nothing themselves. Errors
        are reported, and the next drain tries again.

        Args:
            stop: ends the server, after a last drain.
            interval: seconds between two drains; `settings.drain_interval` when None.
            fold_interval: seconds between two folds of the shards; None folds never.
        """
        return serve(
            self.root,
            self.spools,
            stop,
            interval=self._settings.drain_interval if interval is None else interval,
            tail=self._settings.landed_tail,
            fold_interval=fold_interval,
            maintenance=self._settings.ledger_maintenance,
        )

    def verify(self) -> IntegrityResult:
        """Check the ledger.

        Its tables must be readable, no operation and no run may have two rows, and every version in
        the inventory must have been committed by that row's write, according to the table's log.
        """
        self._drain_own()
        return check_integrity(self.root, self.spools, self._settings)
