"""Gauges of tables: how old their last change is, and whether the next one is late."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.metrics import Observation

from deltawitness.semconv import (
    DB_COLLECTION_NAME,
    METRIC_TABLE_AGE,
    METRIC_TABLE_LATE,
    POLICY_OVERFLOW,
    SCHEMA_URL,
    SCOPE_NAME,
    WITNESS_VERSION,
)

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider

__all__ = ["FreshnessInstruments", "TableAge"]

TableAge = tuple[str | None, float, bool]
"""Name of a table, seconds since its last change, and whether the next change is late."""


class FreshnessInstruments:
    """Observable gauges of tables, whose names are a bounded set.

    The first names get a series each; further tables, and those without a name, share `_other`: its age is
    the highest one, and its number of late tables the sum.

    Args:
        meter_provider: whose meter to use; the global one when None.
        read: returns the tables when a reader collects; it must not raise.
        limit: maximum number of names.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None,
        read: Callable[[], Iterable[TableAge]],
        limit: int,
    ) -> None:
        self._read, self._limit = read, limit
        self._names: dict[str, None] = {}
        meter = metrics.get_meter(
            SCOPE_NAME, WITNESS_VERSION, meter_provider, schema_url=SCHEMA_URL
        )
        meter.create_observable_gauge(
            METRIC_TABLE_AGE, [self._ages], "s", "Time since rows of a table changed"
        )
        meter.create_observable_gauge(
            METRIC_TABLE_LATE, [self._late], "{table}", "Tables whose next change is late"
        )

    def _ages(self, _: CallbackOptions) -> list[Observation]:
        found: dict[str, float] = {}
        for name, age, _late in self._bounded():
            found[name] = max(age, found.get(name, age))
        return [Observation(age, {DB_COLLECTION_NAME: name}) for name, age in found.items()]

    def _late(self, _: CallbackOptions) -> list[Observation]:
        found: dict[str, int] = {}
        for name, _age, is_late in self._bounded():
            found[name] = found.get(name, 0) + is_late
        return [Observation(late, {DB_COLLECTION_NAME: name}) for name, late in found.items()]

    def _bounded(self) -> Iterable[tuple[str, float, bool]]:
        for name, age, is_late in self._read():
            if name is not None and len(self._names) < self._limit:
                self._names[name] = None
            shown = POLICY_OVERFLOW if name is None or name not in self._names else name
            yield shown, age, is_late
