"""A span and two metrics for a query that returns its rows to the program."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from deltawitness.error_types import classify
from deltawitness.run import current_run
from deltawitness.semconv import (
    CACHE_PLAN_HASH,
    DB_COLLECTION_NAME,
    DB_DURATION_BUCKETS,
    DB_OPERATION_NAME,
    DB_QUERY_SUMMARY,
    DB_RESPONSE_RETURNED_ROWS,
    DB_SYSTEM_NAME,
    DELTA_INPUTS,
    ERROR_TYPE,
    METRIC_DB_CLIENT_OPERATION_DURATION,
    METRIC_DB_CLIENT_RETURNED_ROWS,
    RETURNED_ROWS_BUCKETS,
    RUN_ID,
    SCHEMA_URL,
    SCOPE_NAME,
    WITNESS_VERSION,
    Operation,
    system_of,
)
from deltawitness.telemetry.attributes import error_text

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["Query", "QueryTelemetry"]


class QueryTelemetry:
    """Records the telemetry of queries.

    Args:
        tracer_provider: whose tracer to use; the global one when None.
        meter_provider: whose meter to use; the global one when None.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(
            SCOPE_NAME, WITNESS_VERSION, tracer_provider, schema_url=SCHEMA_URL
        )
        meter = metrics.get_meter(
            SCOPE_NAME, WITNESS_VERSION, meter_provider, schema_url=SCHEMA_URL
        )
        self._duration = meter.create_histogram(
            METRIC_DB_CLIENT_OPERATION_DURATION,
            "s",
            "Duration of database client operations.",
            explicit_bucket_boundaries_advisory=DB_DURATION_BUCKETS,
        )
        self._rows = meter.create_histogram(
            METRIC_DB_CLIENT_RETURNED_ROWS,
            "{row}",
            "The actual number of records returned by the database operation.",
            explicit_bucket_boundaries_advisory=RETURNED_ROWS_BUCKETS,
        )

    def open(self, tables: list[str], inputs: list[str], plan_hash: str | None) -> Query:
        """Start the telemetry of a query.

        Args:
            tables: redacted names of the Delta tables that it reads.
            inputs: the same tables as `table_id@version`.
            plan_hash: hash of its plan.
        """
        operation = Operation.SELECT.value
        name = f"{operation} {tables[0]}" if len(tables) == 1 else operation
        attributes: dict[str, str | list[str]] = {
            DB_SYSTEM_NAME: system_of(Operation.SELECT),
            DB_OPERATION_NAME: operation,
            DB_QUERY_SUMMARY: " ".join([operation, *tables])[:255],
            DELTA_INPUTS: inputs,
            RUN_ID: current_run().run_id,
        }
        if len(tables) == 1:
            attributes[DB_COLLECTION_NAME] = tables[0]
        if plan_hash is not None:
            attributes[CACHE_PLAN_HASH] = plan_hash
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        return Query(self, span)

    def record(self, seconds: float, rows: int | None, error_type: str | None) -> None:
        """Record the metrics of a query that has ended.

        Args:
            seconds: its duration.
            rows: number of returned rows; None when it is not known.
            error_type: class of the error that ended it, if one did.
        """
        attributes: Mapping[str, str] = {
            DB_SYSTEM_NAME: system_of(Operation.SELECT),
            DB_OPERATION_NAME: Operation.SELECT.value,
        }
        if error_type is not None:
            attributes = {**attributes, ERROR_TYPE: error_type}
        self._duration.record(seconds, attributes)
        if rows is not None:
            self._rows.record(rows, attributes)


class Query:
    """A query in progress.

    Attributes:
        rows: number of rows returned so far; None when it is not known.
    """

    def __init__(self, telemetry: QueryTelemetry, span: Span) -> None:
        self._telemetry = telemetry
        self._span = span
        self._started = time.perf_counter()
        self._is_open = True
        self.rows: int | None = None

    def end(self, error: BaseException | None = None) -> None:
        """End the query, with the error that ended it, if one did; further calls do nothing."""
        if not self._is_open:
            return
        self._is_open = False
        error_type = None if error is None else classify(error).value
        if self.rows is not None:
            self._span.set_attribute(DB_RESPONSE_RETURNED_ROWS, self.rows)
        if error is not None and error_type is not None:
            self._span.set_attribute(ERROR_TYPE, error_type)
            self._span.set_status(Status(StatusCode.ERROR, error_text(error)))
        with trace.use_span(self._span, record_exception=False, set_status_on_exception=False):
            self._telemetry.record(time.perf_counter() - self._started, self.rows, error_type)
        self._span.end()
