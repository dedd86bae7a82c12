"""The public function `watch_freshness`: gauges of the age of tables, from the ledger."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deltawitness.answers.lookup import table_condition
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.trends.overdue import TOLERANCE, cadence_of
from deltawitness.answers.trends.past import PastWrites, now, past_writes
from deltawitness.answers.trends.values import TableState
from deltawitness.internal_errors import report
from deltawitness.semconv import POLICY_CAP
from deltawitness.settings import Settings, TableNames
from deltawitness.telemetry.freshness_metrics import FreshnessInstruments, TableAge

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

__all__ = ["FreshnessWatch", "watch_freshness"]

INTERVAL = 60.0
"""Seconds between two reads of the ledger."""


def watch_freshness(  # noqa: PLR0913 - keyword-only options
    *tables: str,
    limit: int = POLICY_CAP,
    interval: float = INTERVAL,
    tolerance: float = TOLERANCE,
    meter_provider: MeterProvider | None = None,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> FreshnessWatch:
    """Create gauges of the age of tables, and of whether their next change is late.

    The gauges `delta.table.age` and `delta.table.late` have the attribute `db.collection.name`. The ledger is
    read when a metric reader collects, at most once in an interval; an error of it is reported as an internal
    error, and the last values are used. Call it once, in a process that lives long.

    Args:
        *tables: names, ids, paths or URIs of the tables; all tables of the ledger if there is none.
        limit: maximum number of tables with a name of their own; others share the name `_other`.
        interval: seconds between two reads of the ledger.
        tolerance: as for :func:`overdue`.
        meter_provider: whose meter to use; the global one when None.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`. With `table_names` = `none`, all tables share `_other`.

    Raises:
        ConfigurationError: a setting in the environment is invalid.

    >>> from opentelemetry.sdk.metrics import MeterProvider
    >>> from deltawitness import watch_freshness
    >>> watch = watch_freshness("orders", root="ledger", meter_provider=MeterProvider())
    >>> watch.stop()
    """
    chosen = settings_with(root, storage_options, settings)
    watch = FreshnessWatch(tables, chosen, interval, tolerance)
    FreshnessInstruments(meter_provider, watch.read, limit)
    return watch


@dataclass
class FreshnessWatch:
    """The tables that gauges observe.

    Attributes:
        tables: the tables; all if there is none.
        settings: where the ledger is.
        interval: seconds between two reads of the ledger.
        tolerance: as for :func:`overdue`.
    """

    tables: tuple[str, ...]
    settings: Settings
    interval: float
    tolerance: float
    _writes: dict[str, PastWrites] = field(default_factory=dict, repr=False)
    _next_read: float = field(default=0.0, repr=False)
    _is_stopped: bool = field(default=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def stop(self) -> None:
        """End the observation: the gauges have no more data points."""
        self._is_stopped = True

    def read(self) -> Iterable[TableAge]:
        """Return the tables, the last changed ones first; never raises."""
        if self._is_stopped:
            return []
        with self._lock:
            if time.monotonic() >= self._next_read:
                self._next_read = time.monotonic() + self.interval
                self._load()
            return self._ages()

    def _load(self) -> None:
        try:
            ledger = ledger_of(self.settings)
            conditions = [f"({table_condition(ledger, each)})" for each in self.tables]
            self._writes = past_writes(ledger, now(), " OR ".join(conditions) or None)
        except Exception as error:  # noqa: BLE001 - a reader of metrics must go on
            report("freshness", error)

    def _ages(self) -> list[TableAge]:
        at = now()
        found = [cadence_of(writes, at, self.tolerance) for writes in self._writes.values()]
        cadences = sorted(filter(None, found), key=lambda each: each.last, reverse=True)
        return [
            (
                self._name(self._writes[each.table.table_id or ""]),
                (at - each.last).total_seconds(),
                each.state is TableState.LATE,
            )
            for each in cadences
        ]

    def _name(self, writes: PastWrites) -> str | None:
        """Return the name of a table; None if names must not be in telemetry."""
        is_allowed = self.settings.table_names is not TableNames.NONE
        return writes.table_name[-1] if is_allowed else None
