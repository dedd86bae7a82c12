"""The ledger as a program asks it: its tables as frames, its upkeep, its truth checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from deltawitness.forks import mark_delta_rs_used
from deltawitness.ledger.drain.drain import Drain, DrainResult
from deltawitness.ledger.drain.maintenance import MaintenanceResult, optimize
from deltawitness.ledger.drain.recorder import recorder_of
from deltawitness.ledger.integrity import IntegrityResult, check_integrity
from deltawitness.ledger.reconcile.log_reader import Progress
from deltawitness.ledger.reconcile.plan import ReconcilePlan
from deltawitness.ledger.reconcile.scan import plan_of
from deltawitness.ledger.tables.frames import frame_of
from deltawitness.ledger.tables.locations import root_of, spool_folder
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, SNAPSHOTS, TABLES, LedgerTable
from deltawitness.semconv import LEDGER_SCHEMA
from deltawitness.settings import Settings

if TYPE_CHECKING:
    import os

    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable

__all__ = ["Ledger"]


class Ledger:
    """What every run wrote, when, from what and with which result.

    What this process has told and not drained yet is drained before anything is read.

    Args:
        root: the cache root; that of the settings when None.
        storage_options: as for `DeltaTable`; those of the settings when None.
        settings: how to behave; from the environment when None.

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
        known = Settings.or_from_env(settings)
        self._settings = replace(
            known,
            cache_root=known.cache_root if root is None else str(root),
            storage_options=storage_options or known.storage_options,
        )
        self.root = root_of(self._settings)
        self.spools = spool_folder(self._settings, self.root)

    # --- reading -------------------------------------------------------------------------------------

    def inventory(self) -> DataFrame:
        """Return a row per observed operation."""
        return self._frame(INVENTORY)

    def runs(self) -> DataFrame:
        """Return a row per finished run, the processes that took part in it summed."""
        return self._frame(RUNS)

    def snapshots(self) -> DataFrame:
        """Return a row per metadata snapshot."""
        return self._frame(SNAPSHOTS)

    def _frame(self, table: LedgerTable) -> DataFrame:
        from datafusion import SessionContext  # noqa: PLC0415 - heavy

        self._drain_own()
        return frame_of(SessionContext(), self.root, table)

    def register(self, ctx: SessionContext) -> None:
        """Put the tables into the schema `cache_ledger` of a session, as they are now.

        Registering again shows what has come since.

        Args:
            ctx: the session; `SELECT * FROM cache_ledger.inventory` (`.runs`, `.snapshots`) works
                there from now on.
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

    # --- upkeep --------------------------------------------------------------------------------------

    def drain(self) -> DrainResult:
        """Carry what waits into the ledger: of this process, and of those that are gone.

        Returns:
            What was carried by this call; what this process's own drain carries meanwhile is told
            there.

        Raises:
            OSError: the ledger's storage cannot be written.
            DeltaError: a table of the ledger is damaged.
        """
        self._drain_own()
        own = recorder_of(self.root)
        drain = Drain(self.root, tail=self._settings.landed_tail)
        return drain.all_dead(self.spools, None if own is None else own.home)

    def _drain_own(self) -> None:
        mark_delta_rs_used()  # at the program's own request
        own = recorder_of(self.root)
        if own is not None:
            own.settle_all()
            own.drain()

    def reconcile(
        self,
        tables: Iterable[str | os.PathLike[str] | DeltaTable] | None = None,
        *,
        since: datetime | None = None,
        full: bool = False,
        progress: Progress | None = None,
    ) -> ReconcilePlan:
        """Compare the ledger with the logs of tables; nothing is written until the plan is applied.

        Args:
            tables: URIs, globs of local paths, or open tables; all that the inventory knows when
                None.
            since: commits before it are left out.
            full: look at all that the logs hold; else only at what has come since the last time.
            progress: is told now and then of `(table, commits read, of how many)`.

        Raises:
            OSError: the ledger's storage cannot be read; what keeps a table's log from being read
                is a finding of the plan.
            DeltaError: a table of the ledger is damaged.
        """
        self.drain()
        return plan_of(
            self.root,
            self.spools,
            tables,
            since=since,
            full=full,
            progress=progress,
            settings=self._settings,
        )

    def optimize(self) -> list[MaintenanceResult]:
        """Compact the tables and delete what no version of the retention needs.

        Raises:
            OSError: the storage cannot be read or written.
            DeltaError: a table is damaged.
        """
        return [optimize(self.root, table) for table in TABLES]

    def verify(self) -> IntegrityResult:
        """Check what must hold of the ledger.

        Its tables can be read, no operation and no run is there twice, and every version that a row
        of the inventory names was committed by that row's write, as the logs of the tables say.
        """
        self._drain_own()
        return check_integrity(self.root, self.spools, self._settings)
