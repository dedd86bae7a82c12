"""A sink that reports the metrics of commits to Unity Catalog."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from opentelemetry.instrumentation.utils import suppress_instrumentation

from deltawitness.events import Committed, Failed, WriteEvent
from deltawitness.http_post import HttpTarget, PostError, Retries
from deltawitness.locations import canonical_uri
from deltawitness.observe.queued_sink import QueuedSink, RefusedEventError

__all__ = ["CatalogMetricsSink", "CatalogTable"]

ATTEMPTS = 3
FIRST_WAIT = 0.5
TIMEOUT = 10.0

_NAME_PARTS = 3


@dataclass(frozen=True, slots=True)
class CatalogTable:
    """A table in Unity Catalog.

    Attributes:
        name: its full name: `catalog.schema.table`.
        table_id: its id in the catalog, a UUID; a table property `io.unitycatalog.tableId` has it.

    Raises:
        ValueError: the name does not have three parts.
    """

    name: str
    table_id: str

    def __post_init__(self) -> None:
        """Check the name."""
        if len(self._parts) != _NAME_PARTS or not all(self._parts):
            msg = f"{self.name!r}: expected catalog.schema.table"
            raise ValueError(msg)

    @property
    def _parts(self) -> list[str]:
        return self.name.split(".")

    @property
    def path(self) -> str:
        """The path of the endpoint for its metrics."""
        catalog, schema, table = (quote(part, safe="") for part in self._parts)
        return f"/delta/v1/catalogs/{catalog}/schemas/{schema}/tables/{table}/metrics"


TableLookup = Mapping[str, CatalogTable] | Callable[[str], CatalogTable | None]


class CatalogMetricsSink(QueuedSink):
    """Reports files, bytes and rows of each commit to the endpoint `reportMetrics` of Unity Catalog.

    Give it to `DeltaLakeInstrumentor().instrument(sinks=[...])`. A write is queued; a thread sends it, and
    repeats a request after a failure that may pass. What could not be sent is counted as dropped. Writes
    without a commit, and those of tables that are not in the catalog, send nothing.

    Args:
        url: the API of the catalog, such as `https://HOST/api/2.1/unity-catalog`.
        tables: the tables of the catalog by location, or a function of a location, which returns None for
            a table that is not in the catalog. It is called on the thread of the sink.
        token: token of the header `Authorization`, or a function that returns it; None: no such header.
        allow_http: accept `http` for a host that is not this machine.
        capacity: maximum number of queued writes; further ones are dropped and counted.
        wait: waits for a number of seconds between two attempts; a test sets it.

    Raises:
        ConfigurationError: the URL is not valid, or is `http` and not on this machine.

    >>> orders = CatalogTable("main.sales.orders", "123e4567-e89b-12d3-a456-426614174000")
    >>> sink = CatalogMetricsSink("http://localhost:8080/api", {"s3://lake/orders": orders})
    >>> sink.counts.received
    0
    """

    component = "catalog_metrics"
    receives_locations = True

    def __init__(  # noqa: PLR0913 - keyword-only options
        self,
        url: str,
        tables: TableLookup,
        *,
        token: str | Callable[[], str] | None = None,
        allow_http: bool = False,
        capacity: int = 10_000,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__(capacity=capacity)
        self._target = HttpTarget(url.rstrip("/"), "the catalog", allow_http=allow_http)
        self._token = token
        self._retries = Retries(ATTEMPTS, FIRST_WAIT, TIMEOUT, wait)
        self._lookup = tables if callable(tables) else _by_location(tables)

    def send(self, event: WriteEvent) -> None:
        """Report the commit of a write.

        Raises:
            PostError: the catalog did not answer.
            RefusedEventError: the catalog has refused the report, or the table could not be looked up.
        """
        location, outcome = event.intent.table_uri, event.outcome
        has_commit = isinstance(outcome, Committed | Failed) and bool(outcome.versions)
        if location is None or not has_commit:
            return
        table = self._table(location)
        if table is None:
            return
        content = json.dumps(_report(event, table)).encode()
        try:
            with suppress_instrumentation():
                self._target.post(content, self._headers, self._retries, path=table.path)
        except PostError as error:
            if error.is_refused:
                raise RefusedEventError(str(error)) from None
            raise

    def _table(self, location: str) -> CatalogTable | None:
        try:
            return self._lookup(location)
        except Exception as error:
            msg = f"the function of tables failed: {type(error).__name__}"
            raise RefusedEventError(msg) from error

    def _headers(self) -> dict[str, str]:
        token = self._token() if callable(self._token) else self._token
        return {} if token is None else {"Authorization": f"Bearer {token}"}


def _by_location(tables: Mapping[str, CatalogTable]) -> Callable[[str], CatalogTable | None]:
    known = {canonical_uri(location): table for location, table in tables.items()}
    return lambda location: known.get(canonical_uri(location))


_COUNTS = {
    "num-files-added": "files_added",
    "num-bytes-added": "bytes_added",
    "num-files-removed": "files_removed",
    "num-bytes-removed": "bytes_removed",
    "num-rows-inserted": "rows_added",
    "num-rows-removed": "rows_deleted",
    "num-rows-updated": "rows_updated",
}
"""Members of the report, and the counts of a write."""


def _report(event: WriteEvent, table: CatalogTable) -> dict[str, Any]:
    """Return a `DeltaReportMetricsRequest`, without the counts that are not known."""
    known = event.outcome.metrics.known()
    report = {member: known[count] for member, count in _COUNTS.items() if count in known}
    return {"table-id": table.table_id, "report": {"commit-report": report}}
