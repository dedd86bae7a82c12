"""A span and two metrics around any operation of a cache, for those who write one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from deltawitness.exceptions import ConfigurationError
from deltawitness.redaction import redact_label, redact_named, redact_text
from deltawitness.run import current_run, parse_scope
from deltawitness.semconv import (
    CACHE_OPERATION,
    CACHE_POLICY,
    CACHE_RESULT,
    CACHE_SCOPE,
    ERROR_TYPE,
    RUN_ID,
    SCHEMA_URL,
    SCOPE_NAME,
    WITNESS_VERSION,
    CacheOperation,
    CacheResult,
    CacheScope,
)
from deltawitness.taxonomy import classify
from deltawitness.telemetry.metrics import CacheInstruments

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["cache_span"]

T = TypeVar("T", CacheOperation, CacheResult)

SetResult: TypeAlias = Callable[[CacheResult | str], None]
"""Says how the operation ended: one of `write`, `hit`, `miss`, `noop`, `error`."""

_tracer_provider: TracerProvider | None = None
_meter_provider: MeterProvider | None = None


def use_providers(
    tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
) -> None:
    """Make cache spans with the given providers; the global ones when None."""
    global _tracer_provider, _meter_provider
    _tracer_provider, _meter_provider = tracer_provider, meter_provider


@contextmanager
def cache_span(
    name: str,
    *,
    cache_policy: str,
    cache_scope: CacheScope | str,
    operation: CacheOperation | str,
    attributes: Mapping[str, str | float | bool] | None = None,
) -> Iterator[tuple[Span, SetResult]]:
    """Put a span around an operation of a cache, and count it with its result and duration.

    Args:
        name: name of the span: `cache.read`, `cache.write` or `cache.snapshot`.
        cache_policy: name of the policy.
        cache_scope: one of the closed set of scopes.
        operation: one of the closed set of operations.
        attributes: more for the span, never for metrics; text is redacted.

    Yields:
        The span, and a function that sets the result. Where it is not called, the result is
        `write` for an operation that writes and `hit` for a read.

    Raises:
        ConfigurationError: scope, operation or result is outside its closed set; the first two
            before the span is opened.

    >>> with cache_span(
    ...     "cache.read", cache_policy="nightly", cache_scope="view", operation="read"
    ... ) as (span, set_result):
    ...     set_result("miss")
    """
    scope, what = parse_scope(cache_scope), _member(CacheOperation, operation)
    result = CacheResult.HIT if what is CacheOperation.READ else CacheResult.WRITE
    error_type: str | None = None

    def set_result(told: CacheResult | str) -> None:
        nonlocal result
        result = _member(CacheResult, told)

    policy = redact_label(cache_policy)
    span_attributes = {
        CACHE_POLICY: policy,
        CACHE_SCOPE: scope.value,
        CACHE_OPERATION: what.value,
        RUN_ID: current_run().run_id,
        **_redacted(attributes or {}),
    }
    started = time.perf_counter()
    with _tracer().start_as_current_span(
        name,
        kind=SpanKind.INTERNAL,
        attributes=span_attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span, set_result
        except BaseException as error:
            result, error_type = CacheResult.ERROR, classify(error).value
            span.set_attribute(ERROR_TYPE, error_type)
            span.set_status(Status(StatusCode.ERROR, redact_text(str(error))))
            raise
        finally:
            span.set_attribute(CACHE_RESULT, result.value)
            _instruments(_meter_provider).record(
                time.perf_counter() - started,
                policy=policy,
                scope=scope.value,
                operation=what.value,
                result=result.value,
                error_type=error_type,
            )


def _tracer() -> trace.Tracer:
    return trace.get_tracer(SCOPE_NAME, WITNESS_VERSION, _tracer_provider, schema_url=SCHEMA_URL)


@lru_cache(maxsize=8)
def _instruments(meter_provider: MeterProvider | None) -> CacheInstruments:
    return CacheInstruments(meter_provider)


def _redacted(attributes: Mapping[str, str | float | bool]) -> dict[str, str | float | bool]:
    return {
        name: redact_named(name, value) if isinstance(value, str) else value
        for name, value in attributes.items()
    }


def _member(choices: type[T], value: str) -> T:
    try:
        return choices(value)
    except ValueError:
        msg = f"{choices.__name__}: expected one of {', '.join(choices)}"
        raise ConfigurationError(msg) from None
