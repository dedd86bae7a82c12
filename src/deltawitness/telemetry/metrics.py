"""Metrics, whose attributes have a bounded number of values."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, NewType, Protocol

from opentelemetry import metrics
from opentelemetry.metrics import Observation

from deltawitness.error_types import classify
from deltawitness.events import (
    CommitMetrics,
    Committed,
    ExpectationReport,
    Exported,
    Failed,
    WriteEvent,
)
from deltawitness.extras import require
from deltawitness.semconv import (
    CACHE_DURATION_BUCKETS,
    CACHE_OPERATION,
    CACHE_POLICY,
    CACHE_RESULT,
    CACHE_SCOPE,
    COMPONENT,
    DB_DURATION_BUCKETS,
    DB_OPERATION_NAME,
    DB_SYSTEM_NAME,
    DELTA_CHANGE,
    ERROR_TYPE,
    EXPECTATION_RESULT,
    EXPECTATION_RULE,
    METRIC_CACHE_OPERATION_COUNT,
    METRIC_CACHE_OPERATION_DURATION,
    METRIC_COMMIT_FILES,
    METRIC_COMMIT_RETRIES,
    METRIC_COMMIT_ROWS,
    METRIC_COMMIT_SIZE,
    METRIC_DB_CLIENT_OPERATION_DURATION,
    METRIC_DRAIN_DURATION,
    METRIC_EVENTS_DROPPED,
    METRIC_EXPECTATIONS,
    METRIC_EXPORT_FILES,
    METRIC_EXPORT_ROWS,
    METRIC_EXPORT_SIZE,
    METRIC_INTERNAL_ERRORS,
    METRIC_SPOOL_PENDING,
    METRIC_STATEMENT_REPEATS,
    POLICY_CAP,
    POLICY_OVERFLOW,
    SCHEMA_URL,
    SCOPE_NAME,
    WITNESS_VERSION,
    ExpectationResult,
    system_of,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Histogram, Meter, MeterProvider
    from opentelemetry.sdk.metrics.view import View

    from deltawitness.semconv import Operation

__all__ = [
    "CacheInstruments",
    "DrainInstruments",
    "InternalCounters",
    "MetricSink",
    "PolicyNames",
    "StatementInstruments",
    "cache_instruments",
    "metric_views",
]

BoundedAttributes = NewType("BoundedAttributes", dict[str, str])
"""Attributes of data points: members of closed sets, and at most 64 policy names."""

_NANOSECONDS = 1e9

_VIEWS: tuple[tuple[str, tuple[float, ...], frozenset[str]], ...] = (
    (
        METRIC_DB_CLIENT_OPERATION_DURATION,
        DB_DURATION_BUCKETS,
        frozenset({DB_SYSTEM_NAME, DB_OPERATION_NAME, ERROR_TYPE}),
    ),
    (
        METRIC_CACHE_OPERATION_DURATION,
        CACHE_DURATION_BUCKETS,
        frozenset({CACHE_POLICY, CACHE_SCOPE, CACHE_OPERATION, CACHE_RESULT, ERROR_TYPE}),
    ),
)


class PolicyNames:
    """Bounds the number of policy names in metrics: those beyond the cap share the name `_other`.

    Args:
        cap: number of distinct names.

    >>> names = PolicyNames(cap=1)
    >>> names.bounded("a"), names.bounded("b"), names.bounded("a")
    ('a', '_other', 'a')
    """

    def __init__(self, cap: int = POLICY_CAP) -> None:
        self._cap = cap
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def bounded(self, policy: str) -> str:
        """Return the policy's name; the shared name for a new policy once the cap is reached."""
        with self._lock:
            if policy not in self._names and len(self._names) >= self._cap:
                return POLICY_OVERFLOW
            self._names.add(policy)
            return policy


def _meter(meter_provider: MeterProvider | None) -> Meter:
    return metrics.get_meter(SCOPE_NAME, WITNESS_VERSION, meter_provider, schema_url=SCHEMA_URL)


def _add(
    counter: Counter, count: int, attributes: BoundedAttributes, context: Context | None = None
) -> None:
    counter.add(count, attributes, context)


def _record(
    histogram: Histogram, seconds: float, attributes: BoundedAttributes, context: Context | None
) -> None:
    histogram.record(seconds, attributes, context)


class CacheInstruments:
    """Count and duration of operations on cached tables, recorded for cache spans and for writes.

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
        """Record one operation.

        Args:
            seconds: its duration.
            policy: name of the policy.
            scope: scope of the cache.
            operation: the operation in terms of the cache.
            result: how it ended.
            error_type: class of the error that ended it, if one did.
            context: the context of its span, for exemplars.
        """
        attributes = BoundedAttributes(
            {
                CACHE_POLICY: self._policies.bounded(policy),
                CACHE_SCOPE: scope,
                CACHE_OPERATION: operation,
                CACHE_RESULT: result,
            }
        )
        _add(self._count, 1, attributes, context)
        if error_type is not None:
            attributes = BoundedAttributes({**attributes, ERROR_TYPE: error_type})
        _record(self._duration, seconds, attributes, context)


@lru_cache(maxsize=8)
def cache_instruments(meter_provider: MeterProvider | None) -> CacheInstruments:
    """Return the instruments of a provider; writes and cache spans share one cap of policy names.

    Args:
        meter_provider: whose meter to use; the global one when None.
    """
    return CacheInstruments(meter_provider)


class MetricSink:
    """Records the metrics of each write.

    Args:
        meter_provider: whose meter to use; the global one when None.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        meter = _meter(meter_provider)
        self._cache = cache_instruments(meter_provider)
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
        self._expectations = meter.create_counter(
            METRIC_EXPECTATIONS, "{check}", "Rules of expectations that were checked"
        )
        self._exports = (
            meter.create_counter(
                METRIC_EXPORT_ROWS, "{row}", "Rows written to files outside Delta"
            ),
            meter.create_counter(METRIC_EXPORT_FILES, "{file}", "Files written outside Delta"),
            meter.create_counter(METRIC_EXPORT_SIZE, "By", "Size of files written outside Delta"),
        )

    def __call__(self, event: WriteEvent, context: Context | None = None) -> None:
        """Record one write.

        Args:
            event: the redacted event.
            context: the context of the write's span, for exemplars.
        """
        intent, outcome = event.intent, event.outcome
        seconds = event.duration_ns / _NANOSECONDS
        error_type = outcome.error_type.value if isinstance(outcome, Failed) else None
        attributes = _operation_attributes(intent.operation, error_type)
        _record(self._duration, seconds, attributes, context)
        self._cache.record(
            seconds,
            policy=intent.policy,
            scope=intent.scope.value,
            operation=intent.cache_operation.value,
            result=event.result.value,
            error_type=error_type,
            context=context,
        )
        if isinstance(outcome, Committed | Failed):
            # Zeros where it did not commit; a commit counts, even if the call raised after it.
            self._record_commit(intent.operation.value, outcome.metrics, context)
        elif isinstance(outcome, Exported):
            self._record_export(intent.operation.value, outcome.metrics, context)
        if event.expectations is not None:
            self._record_expectations(event.expectations, context)

    def _record_expectations(self, report: ExpectationReport, context: Context | None) -> None:
        """Count each checked rule: as passed, or with the result of the write if it is not met."""
        for check in report.checked:
            result = ExpectationResult.PASSED if check.is_met else report.result
            attributes = {EXPECTATION_RULE: check.rule.value, EXPECTATION_RESULT: result.value}
            _add(self._expectations, 1, BoundedAttributes(attributes), context)

    def _record_export(
        self, operation: str, values: CommitMetrics, context: Context | None
    ) -> None:
        attributes = BoundedAttributes({DB_OPERATION_NAME: operation})
        counts = values.rows_added, values.files_added, values.bytes_added
        for counter, count in zip(self._exports, counts, strict=True):
            if count:
                _add(counter, count, attributes, context)

    def _record_commit(
        self, operation: str, values: CommitMetrics, context: Context | None
    ) -> None:
        changes: list[tuple[Counter, int | None, str]] = [
            (self._rows, values.rows_added, "added"),
            (self._rows, values.rows_updated, "updated"),
            (self._rows, values.rows_deleted, "deleted"),
            (self._rows, values.rows_copied, "copied"),
            (self._files, values.files_added, "added"),
            (self._files, values.files_removed, "removed"),
            (self._size, values.bytes_added, "added"),
            (self._size, values.bytes_removed, "removed"),
            (self._files, values.files_deleted, "deleted"),
            (self._size, values.bytes_deleted, "deleted"),
        ]
        for counter, count, change in changes:
            if count:
                _add(counter, count, _change_attributes(operation, change), context)
        if values.retries:
            attributes = BoundedAttributes({DB_OPERATION_NAME: operation})
            _add(self._retries, values.retries, attributes, context)


@lru_cache(maxsize=256)
def _change_attributes(operation: str, change: str) -> BoundedAttributes:
    """Return the attributes of a count of a commit; both values are from closed sets."""
    return BoundedAttributes({DB_OPERATION_NAME: operation, DELTA_CHANGE: change})


@lru_cache(maxsize=256)
def _operation_attributes(operation: Operation, error_type: str | None) -> BoundedAttributes:
    """Return the attributes of the duration of a write; both values are from closed sets."""
    attributes = {
        DB_SYSTEM_NAME: system_of(operation),
        DB_OPERATION_NAME: operation.value,
    }
    if error_type is not None:
        attributes[ERROR_TYPE] = error_type
    return BoundedAttributes(attributes)


class InternalCounters:
    """Counts internal errors and dropped events; an exception while counting is suppressed.

    Args:
        meter_provider: whose meter to use; the global one when None.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        meter = _meter(meter_provider)
        self._errors = meter.create_counter(
            METRIC_INTERNAL_ERRORS, "{error}", "Errors inside deltawitness, beside the writes"
        )
        self._dropped = meter.create_counter(
            METRIC_EVENTS_DROPPED, "{event}", "Finished writes dropped before export"
        )

    def count_error(self, component: str) -> None:
        """Count one internal error of a component."""
        with suppress(Exception):
            _add(self._errors, 1, BoundedAttributes({COMPONENT: component}))

    def count_dropped(self, component: str, count: int = 1) -> None:
        """Count events that a component dropped or did not receive."""
        with suppress(Exception):
            _add(self._dropped, count, BoundedAttributes({COMPONENT: component}))


class StatementInstruments:
    """Counts repeated executions of a statement by the same frame.

    Args:
        meter_provider: whose meter to use; the global one when None.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        self._repeats = _meter(meter_provider).create_counter(
            METRIC_STATEMENT_REPEATS,
            "{execution}",
            "Executions of a statement that its frame has run before",
        )

    def count_repeat(self, operation: Operation) -> None:
        """Count one execution beyond the first; never raises."""
        with suppress(Exception):
            _add(self._repeats, 1, BoundedAttributes({DB_OPERATION_NAME: operation.value}))


class Pending(Protocol):
    """An object that counts the operations that are not in the ledger yet."""

    @property
    def pending(self) -> int:
        """Number of operations that are not in the ledger yet."""


class DrainInstruments:
    """Number of operations that are not in the ledger yet, and duration of the drains.

    Args:
        meter_provider: whose meter to use; the global one when None.
        spool: counts the operations that are not in the ledger yet.
    """

    def __init__(self, meter_provider: MeterProvider | None, spool: Pending) -> None:
        meter = _meter(meter_provider)
        meter.create_observable_gauge(
            METRIC_SPOOL_PENDING,
            [lambda _: [Observation(spool.pending)]],
            "{event}",
            "Operations that are not in the ledger yet",
        )
        self._duration = meter.create_histogram(
            METRIC_DRAIN_DURATION,
            "s",
            "Duration of drains into the ledger",
            explicit_bucket_boundaries_advisory=CACHE_DURATION_BUCKETS,
        )

    def record(self, seconds: float, error: BaseException | None) -> None:
        """Record the duration of one drain in seconds, and the error that ended it, if one did."""
        attributes = {} if error is None else {ERROR_TYPE: classify(error).value}
        with suppress(Exception):
            _record(self._duration, seconds, BoundedAttributes(attributes), None)


def metric_views() -> list[View]:
    """Return SDK views of the histograms of deltawitness, for programs that create a `MeterProvider`.

    Each view sets the bucket boundaries and limits the attributes of its instrument. The instruments
    advise the same boundaries, so the views are needed only where the SDK ignores the advice, or
    together with views of the program.

    Raises:
        MissingExtraError: the OpenTelemetry SDK is not installed (extra `otel`).

    >>> sorted(view._instrument_name for view in metric_views())
    ['cache.operation.duration', 'db.client.operation.duration']
    """
    require("metric_views()", "opentelemetry.sdk")
    from opentelemetry.sdk.metrics.view import (  # noqa: PLC0415 - optional dependency
        ExplicitBucketHistogramAggregation,
        View,
    )

    return [
        View(
            instrument_name=name,
            meter_name=SCOPE_NAME,
            attribute_keys=set(allowed),
            aggregation=ExplicitBucketHistogramAggregation(buckets),
        )
        for name, buckets, allowed in _VIEWS
    ]
