"""Metrics: bounded attributes only, whatever the program writes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NewType

from opentelemetry import metrics

from deltawitness.events import CommitMetrics, Committed, Failed, WriteEvent
from deltawitness.semconv import (
    CACHE_DURATION_BUCKETS,
    CACHE_OPERATION,
    CACHE_POLICY,
    CACHE_RESULT,
    CACHE_SCOPE,
    COMPONENT,
    DB_DURATION_BUCKETS,
    DB_OPERATION_NAME,
    DB_SYSTEM_DELTALAKE,
    DB_SYSTEM_NAME,
    DELTA_CHANGE,
    ERROR_TYPE,
    METRIC_CACHE_OPERATION_COUNT,
    METRIC_CACHE_OPERATION_DURATION,
    METRIC_COMMIT_FILES,
    METRIC_COMMIT_RETRIES,
    METRIC_COMMIT_ROWS,
    METRIC_COMMIT_SIZE,
    METRIC_DB_CLIENT_OPERATION_DURATION,
    METRIC_EVENTS_DROPPED,
    METRIC_INTERNAL_ERRORS,
    POLICY_CAP,
    POLICY_OVERFLOW,
    SCHEMA_URL,
    SCOPE_NAME,
    WITNESS_VERSION,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Meter, MeterProvider
    from opentelemetry.sdk.metrics.view import View

__all__ = ["CacheInstruments", "InternalCounters", "MetricSink", "PolicyNames", "metric_views"]

BoundedAttributes = NewType("BoundedAttributes", dict[str, str])
"""Attributes of data points: members of closed sets, and at most 64 policy names."""

_NANOSECONDS = 1e9


class PolicyNames:
    """Lets the first 64 policy names through; the rest share one.

    >>> names = PolicyNames(cap=1)
    >>> names.bounded("a"), names.bounded("b"), names.bounded("a")
    ('a', '_other', 'a')
    """

    def __init__(self, cap: int = POLICY_CAP) -> None:
        self._cap = cap
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def bounded(self, policy: str) -> str:
        """Return the policy's name, or the shared one once the cap is reached."""
        with self._lock:
            if policy not in self._known and len(self._known) >= self._cap:
                return POLICY_OVERFLOW
            self._known.add(policy)
            return policy


def _meter(meter_provider: MeterProvider | None) -> Meter:
    return metrics.get_meter(SCOPE_NAME, WITNESS_VERSION, meter_provider, schema_url=SCHEMA_URL)


class CacheInstruments:
    """The two instruments that cache operations and writes share.

    Args:
        meter_provider: whose meter to use; the global one when None.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        meter = _meter(meter_provider)
        self._policies = PolicyNames()
        self._count = meter.create_counter(
            METRIC_CACHE_OPERATION_COUNT, "{operation}", "Operations on cached tables"
        )
        self._duration = meter.create_histogram(
            METRIC_CACHE_OPERATION_DURATION,
            "s",
            "Duration of operations on cached tables",
            explicit_bucket_boundaries_advisory=CACHE_DURATION_BUCKETS,
        )

    def record(  # noqa: PLR0913 - the attributes, by keyword
        self,
        seconds: float,
        *,
        policy: str,
        scope: str,
        operation: str,
        result: str,
        error_type: str | None = None,
        context: Context | None = None,
    ) -> None:
        """Count one operation and its duration."""
        attributes = BoundedAttributes(
            {
                CACHE_POLICY: self._policies.bounded(policy),
                CACHE_SCOPE: scope,
                CACHE_OPERATION: operation,
                CACHE_RESULT: result,
            }
        )
        self._count.add(1, attributes, context)
        if error_type is not None:
            attributes = BoundedAttributes({**attributes, ERROR_TYPE: error_type})
        self._duration.record(seconds, attributes, context)


class MetricSink:
    """Records each write.

    Args:
        meter_provider: whose meter to use; the global one when None.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        meter = _meter(meter_provider)
        self._cache = CacheInstruments(meter_provider)
        self._duration = meter.create_histogram(
            METRIC_DB_CLIENT_OPERATION_DURATION,
            "s",
            "Duration of database client operations.",
            explicit_bucket_boundaries_advisory=DB_DURATION_BUCKETS,
        )
        self._rows = meter.create_counter(METRIC_COMMIT_ROWS, "{row}", "Rows that commits changed")
        self._files = meter.create_counter(
            METRIC_COMMIT_FILES, "{file}", "Files that commits added and removed"
        )
        self._size = meter.create_counter(
            METRIC_COMMIT_SIZE, "By", "Size of the files that commits added and removed"
        )
        self._retries = meter.create_counter(
            METRIC_COMMIT_RETRIES, "{retry}", "Attempts to commit beyond the first"
        )

    def __call__(self, event: WriteEvent, context: Context | None = None) -> None:
        """Record one write.

        Args:
            event: the redacted record.
            context: the context of the write's span, for exemplars.
        """
        intent, outcome = event.intent, event.outcome
        seconds = event.duration_ns / _NANOSECONDS
        error_type = outcome.error_type.value if isinstance(outcome, Failed) else None
        attributes = {
            DB_SYSTEM_NAME: DB_SYSTEM_DELTALAKE,
            DB_OPERATION_NAME: intent.operation.value,
        }
        if error_type is not None:
            attributes[ERROR_TYPE] = error_type
        self._duration.record(seconds, BoundedAttributes(attributes), context)
        self._cache.record(
            seconds,
            policy=intent.policy,
            scope=intent.scope.value,
            operation=intent.cache_operation.value,
            result=event.result.value,
            error_type=error_type,
            context=context,
        )
        if isinstance(outcome, Committed):
            self._record_commit(intent.operation.value, outcome.metrics, context)

    def _record_commit(self, operation: str, said: CommitMetrics, context: Context | None) -> None:
        changes: list[tuple[Counter, int | None, str]] = [
            (self._rows, said.rows_added, "added"),
            (self._rows, said.rows_updated, "updated"),
            (self._rows, said.rows_deleted, "deleted"),
            (self._rows, said.rows_copied, "copied"),
            (self._files, said.files_added, "added"),
            (self._files, said.files_removed, "removed"),
            (self._size, said.bytes_added, "added"),
            (self._size, said.bytes_removed, "removed"),
        ]
        for counter, count, change in changes:
            if count:
                attributes = BoundedAttributes({DB_OPERATION_NAME: operation, DELTA_CHANGE: change})
                counter.add(count, attributes, context)
        if said.retries:
            attributes = BoundedAttributes({DB_OPERATION_NAME: operation})
            self._retries.add(said.retries, attributes, context)


class InternalCounters:
    """Counts what went wrong on our side.

    Args:
        meter_provider: whose meter to use; the global one when None.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        meter = _meter(meter_provider)
        self._errors = meter.create_counter(
            METRIC_INTERNAL_ERRORS, "{error}", "Errors inside deltawitness, beside the writes"
        )
        self._dropped = meter.create_counter(
            METRIC_EVENTS_DROPPED, "{event}", "Finished writes that could not be told"
        )

    def error(self, component: str) -> None:
        """Count an internal error of one of our components."""
        self._errors.add(1, BoundedAttributes({COMPONENT: component}))

    def dropped(self, component: str) -> None:
        """Count an event that a component did not get to see."""
        self._dropped.add(1, BoundedAttributes({COMPONENT: component}))


def metric_views() -> list[View]:
    """Return SDK views of our histograms, for programs that make their own `MeterProvider`.

    The instruments advise the same boundaries, so they are needed only where advice is not taken,
    or beside views of the program's own.

    Raises:
        ImportError: the OpenTelemetry SDK is not installed (extra `otel`).

    >>> sorted(view._instrument_name for view in metric_views())
    ['cache.operation.duration', 'db.client.operation.duration']
    """
    from opentelemetry.sdk.metrics.view import (  # noqa: PLC0415 - optional dependency
        ExplicitBucketHistogramAggregation,
        View,
    )

    boundaries = {
        METRIC_DB_CLIENT_OPERATION_DURATION: DB_DURATION_BUCKETS,
        METRIC_CACHE_OPERATION_DURATION: CACHE_DURATION_BUCKETS,
    }
    return [
        View(
            instrument_name=name,
            meter_name=SCOPE_NAME,
            aggregation=ExplicitBucketHistogramAggregation(buckets),
        )
        for name, buckets in boundaries.items()
    ]
