"""A span, two metrics and a log record for an operation of any cache; part of the public API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from opentelemetry import _logs, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import get_current
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from deltawitness.error_types import classify
from deltawitness.events import UNCHANGED
from deltawitness.exceptions import ConfigurationError
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import call_guarded, report
from deltawitness.redaction import redact_label, redact_named, redact_value
from deltawitness.run import current_run
from deltawitness.run_context import RunContext, parse_scope
from deltawitness.semconv import (
    CACHE_OPERATION,
    CACHE_POLICY,
    CACHE_RESULT,
    CACHE_SCOPE,
    ERROR_TYPE,
    EVENT_CACHE,
    RUN_ID,
    SCHEMA_URL,
    SCOPE_NAME,
    UNCOMMITTED_OPERATIONS,
    WITNESS_VERSION,
    CacheOperation,
    CacheResult,
    CacheScope,
)
from deltawitness.telemetry.attributes import error_text
from deltawitness.telemetry.events_api import emit_event
from deltawitness.telemetry.metrics import cache_instruments

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
    from opentelemetry.util.types import AttributeValue

__all__ = ["cache_span", "on_cache_operation", "record_write_in_span"]

T = TypeVar("T", CacheOperation, CacheResult)

SetResult: TypeAlias = Callable[[CacheResult | str], None]
"""Sets the result of the operation: one of `write`, `hit`, `miss`, `noop`, `error`."""

_tracer_provider: TracerProvider | None = None
_meter_provider: MeterProvider | None = None
_logger_provider: LoggerProvider | None = None


def use_providers(
    tracer_provider: TracerProvider | None,
    meter_provider: MeterProvider | None,
    logger_provider: LoggerProvider | None = None,
) -> None:
    """Set the providers of cache spans, their metrics and log records; the global ones when None."""
    global _tracer_provider, _meter_provider, _logger_provider  # noqa: PLW0603 - one each
    _tracer_provider, _meter_provider = tracer_provider, meter_provider
    _logger_provider = logger_provider


class _SpanState:
    """Whether a write inside an open cache span has been observed, and so is counted separately."""

    __slots__ = ("has_write",)

    def __init__(self) -> None:
        self.has_write = False


_current: ContextVar[_SpanState | None] = ContextVar("deltawitness_cache_span", default=None)


def record_write_in_span() -> None:
    """Record in the current cache span that a write starts, which is observed and counted separately."""
    state = _current.get()
    if state is not None:
        state.has_write = True


Listener: TypeAlias = "Callable[[RunContext, Mapping[str, object]], None]"
"""Receives the run and the ledger columns of an operation that is not a write."""

_listener: Listener | None = None


def on_cache_operation(listener: Listener | None) -> None:
    """Call `listener` for each cache operation that makes no commit, so that the ledger gets its row."""
    global _listener  # noqa: PLW0603 - one ledger per process
    _listener = listener


@contextmanager
def cache_span(  # noqa: PLR0913 - what an operation is, by keyword
    name: str,
    *,
    cache_policy: str,
    cache_scope: CacheScope | str,
    operation: CacheOperation | str,
    attributes: Mapping[str, AttributeValue] | None = None,
    columns: Mapping[str, object] | None = None,
    details: Mapping[str, AttributeValue | None] | None = None,
) -> Iterator[tuple[Span, SetResult]]:
    """Open a span for an operation of a cache, and record its result and duration in the metrics.

    An operation that commits is counted once: an observed write inside the span is counted by the write,
    so the span counts only an operation without one.

    A log record `deltawitness.cache` with the same attributes is emitted in the context of the span.

    Args:
        name: name of the span, such as `cache.read`, `cache.write` or `cache.snapshot`.
        cache_policy: name of the policy.
        cache_scope: one of the closed set of scopes.
        operation: one of the closed set of operations.
        attributes: further attributes of the span, never of metrics; text is redacted.
        columns: further ledger columns of a read, a snapshot or a verification, read when it ends.
        details: further attributes of the span and the log record, read when the operation ends. Text
            is not redacted, and None is left out. A `cache.policy` in it replaces the policy everywhere.

    Yields:
        The span, and a function that sets the result. If it is not called, the result is `hit` for a
        read and `write` for any other operation.

    Raises:
        ConfigurationError: scope, operation or result is outside its closed set. Scope and operation
            are checked before the span is opened.

    >>> with cache_span(
    ...     "cache.read", cache_policy="nightly", cache_scope="view", operation="read"
    ... ) as (span, set_result):
    ...     set_result("miss")
    """
    scope, kind = parse_scope(cache_scope), _member(CacheOperation, operation)
    result = CacheResult.HIT if kind is CacheOperation.READ else CacheResult.WRITE
    error_type: str | None = None

    def set_result(new: CacheResult | str) -> None:
        nonlocal result
        result = _member(CacheResult, new)

    policy = redact_label(cache_policy)
    given: dict[str, AttributeValue] = {
        **_redacted(attributes or {}),
        CACHE_POLICY: policy,
        CACHE_SCOPE: scope.value,
        CACHE_OPERATION: kind.value,
        RUN_ID: current_run().run_id,
    }
    operation_span = _OperationSpan(_start_span(name, given), given, kind, columns or {})
    state = _SpanState()
    token = _current.set(state)
    with trace.use_span(operation_span.span, record_exception=False, set_status_on_exception=False):
        try:
            yield operation_span.span, set_result
        except BaseException as error:
            result, error_type = CacheResult.ERROR, classify(error).value
            call_guarded("spans", _set_error, operation_span.span, error, error_type)
            raise
        finally:
            operation_span.stop()
            _reset(token)
            more: dict[str, AttributeValue] = {
                key: value for key, value in (details or {}).items() if value is not None
            }
            operation_span.record(result, error_type, more, is_counted=not state.has_write)


class _OperationSpan:
    """The open span of an operation, and what its metrics, log record and ledger row have in common.

    Args:
        span: the span.
        attributes: the attributes with which it was opened.
        kind: the kind of operation.
        columns: further ledger columns, read when the operation ends.
    """

    def __init__(
        self,
        span: Span,
        attributes: dict[str, AttributeValue],
        kind: CacheOperation,
        columns: Mapping[str, object],
    ) -> None:
        self.span = span
        self._attributes = attributes
        self._kind = kind
        self._columns = columns
        self._began_ns = now_ns()
        self._started = time.perf_counter()
        self._seconds = 0.0

    def stop(self) -> None:
        """Take the duration of the operation."""
        self._seconds = time.perf_counter() - self._started

    def record(
        self,
        result: CacheResult,
        error_type: str | None,
        details: dict[str, AttributeValue],
        *,
        is_counted: bool,
    ) -> None:
        """End the span, and emit the log record, the metrics and the ledger row of the operation.

        Args:
            result: the result.
            error_type: the class of the error that ended it; None without an error.
            details: further attributes; a policy among them replaces the policy of the span.
            is_counted: no observed write counts the operation.
        """
        context, is_uncommitted = get_current(), self._kind in UNCOMMITTED_OPERATIONS
        policy = redact_label(str(details.pop(CACHE_POLICY, self._attributes[CACHE_POLICY])))
        closing: dict[str, AttributeValue] = {
            **details,
            CACHE_POLICY: policy,
            CACHE_RESULT: result.value,
        }
        labels = {
            "policy": policy,
            "scope": str(self._attributes[CACHE_SCOPE]),
            "result": result.value,
            "error_type": error_type,
        }
        call_guarded("spans", _close, self.span, closing)
        log_attributes = dict[str, Any](self._attributes, **closing)
        call_guarded("logs", _log, log_attributes, error_type, context)
        if is_uncommitted or is_counted:
            call_guarded("metrics", self._record_metrics, labels, context)
        if is_uncommitted and _listener is not None:
            call_guarded("ledger", _listener, current_run(), self._row(labels))

    def _record_metrics(self, labels: dict[str, Any], context: Context) -> None:
        cache_instruments(_meter_provider).record(
            self._seconds, operation=self._kind.value, context=context, **labels
        )

    def _row(self, labels: dict[str, Any]) -> dict[str, object]:
        """Return the ledger columns of an operation that makes no commit."""
        return {
            "event_time": self._began_ns // 1000,
            "duration_ms": self._seconds * 1000,
            "operation": self._kind.value.upper(),
            "cache_operation": self._kind.value,
            **labels,
            **UNCHANGED.known(),
            **_ids(self.span),
            **self._columns,
        }


def _reset(token: Token[_SpanState | None]) -> None:
    # A generator of the program may be closed in another context than the one it was started in.
    with suppress(ValueError):
        _current.reset(token)


def _ids(span: Span) -> dict[str, str]:
    context = span.get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def _start_span(name: str, attributes: dict[str, AttributeValue]) -> Span:
    try:
        tracer = trace.get_tracer(
            SCOPE_NAME, WITNESS_VERSION, _tracer_provider, schema_url=SCHEMA_URL
        )
        return tracer.start_span(redact_label(name), kind=SpanKind.INTERNAL, attributes=attributes)
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("spans", error)
        return trace.INVALID_SPAN


def _set_error(span: Span, error: BaseException, error_type: str) -> None:
    span.set_attribute(ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR, error_text(error)))


def _close(span: Span, attributes: dict[str, AttributeValue]) -> None:
    span.set_attributes(attributes)
    span.end()


def _log(attributes: Mapping[str, Any], error_type: str | None, context: Context) -> None:
    logger = _logs.get_logger(SCOPE_NAME, WITNESS_VERSION, _logger_provider, schema_url=SCHEMA_URL)
    severity = SeverityNumber.INFO if error_type is None else SeverityNumber.ERROR
    emit_event(
        logger,
        EVENT_CACHE,
        severity,
        lambda: {**attributes, **({} if error_type is None else {ERROR_TYPE: error_type})},
        timestamp=now_ns(),
        context=context,
    )


def _redacted(attributes: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    return {
        name: redact_named(name, value) if isinstance(value, str) else redact_value(value)
        for name, value in attributes.items()
    }


def _member(choices: type[T], value: str) -> T:
    try:
        return choices(value)
    except ValueError:
        msg = f"{choices.__name__}: expected one of {', '.join(choices)}"
        raise ConfigurationError(msg) from None
