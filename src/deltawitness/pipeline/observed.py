"""Observe the writes of a pipeline with the plan, the schema and the policy of each request."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import wrapt

from deltawitness.delta_rs.install import install_for_proxies
from deltawitness.delta_rs.sources import known_source
from deltawitness.delta_rs.unreached import location_of
from deltawitness.events import CommitMetrics, Landed, NoCommitReason, WriteIntent
from deltawitness.exceptions import RequirementError
from deltawitness.hashing import plan_hash, plan_shape_hash, schema_hash
from deltawitness.internal_errors import report
from deltawitness.observe import Observer
from deltawitness.observe.in_flight import InFlightWrite
from deltawitness.observe.write_context import WriteAttributes, WriteContext, write_context
from deltawitness.observe.write_template import write_intent
from deltawitness.pipeline.pipeline import WritePipeline
from deltawitness.pipeline.request import WriteRequest
from deltawitness.run_context import parse_scope
from deltawitness.semconv import CacheOperation, CacheScope, Operation

__all__ = ["ObservedWritePipeline"]


if TYPE_CHECKING:
    _ObjectProxy = wrapt.ObjectProxy[Any]  # generic in its stubs only
else:
    _ObjectProxy = wrapt.ObjectProxy


class ObservedWritePipeline(_ObjectProxy):
    """A transparent proxy over a pipeline that observes each of its writes.

    The pipeline is a :class:`deltawitness.WritePipeline` or any object with `write(request)`, for any
    kind of request. Its delta-rs commits carry the plan and schema hashes of `request.source`, if the
    request has a source.

    Args:
        pipeline: the pipeline to wrap.
        policy: name of the policy of its writes.
        scope: kind of data that it writes, a `CacheScope`.

    Raises:
        ConfigurationError: the scope is not a `CacheScope`.

    >>> import pyarrow as pa, tempfile
    >>> from deltawitness import WritePipeline, WriteRequest, read_commit_metadata
    >>> pipeline = ObservedWritePipeline(WritePipeline(), policy="nightly")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     request = WriteRequest(source=pa.table({"x": [1]}), destination=f"{folder}/t")
    ...     version = pipeline.write(request).version
    ...     read_commit_metadata(f"{folder}/t", version).metadata["cache_policy"]
    'nightly'
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        policy: str | None = None,
        scope: CacheScope | str | None = None,
    ) -> None:
        super().__init__(pipeline)
        self._self_policy = policy
        self._self_scope = None if scope is None else parse_scope(scope)

    def write(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the pipeline's `write` and observe it; its result and its exception are unchanged.

        Args:
            request: the request.
            args: further arguments of the pipeline's `write`.
            kwargs: further keyword arguments of the pipeline's `write`.

        Raises:
            RequirementError: the settings refuse the write, which has no run, job or message.
        """
        try:
            observer = install_for_proxies()
            request = self._with_planned_source(request)
            attributes = self._attributes(request)
        except Exception as error:  # noqa: BLE001 - telemetry never changes the write
            report("pipeline", error)
            return self.__wrapped__.write(request, *args, **kwargs)
        with write_context(attributes) as context:
            observed_before = context.observed
            try:
                observer.require()
                result = self.__wrapped__.write(request, *args, **kwargs)
            except BaseException as error:
                self._record_if_unreached(observer, context, observed_before, request, error)
                raise
            if not inspect.iscoroutine(result):
                self._record_if_unreached(observer, context, observed_before, request, None, result)
                return result
        return self._await_write(observer, attributes, request, result)

    async def _await_write(
        self, observer: Observer, attributes: WriteAttributes, request: Any, write: Any
    ) -> Any:
        """Await the write of an async pipeline and observe it until it ends."""
        with write_context(attributes) as context:
            observed_before = context.observed
            try:
                result = await write
            except BaseException as error:
                self._record_if_unreached(observer, context, observed_before, request, error)
                raise
            self._record_if_unreached(observer, context, observed_before, request, None, result)
            return result

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the wrapped pipeline; unpickling wraps it again."""
        return _observe, (self.__wrapped__, self._self_policy, self._self_scope)

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        """Pickle as `__reduce__` does: a proxy of wrapt 1 raises for a protocol version."""
        return self.__reduce__()

    def _with_planned_source(self, request: Any) -> Any:
        """Return the request with its SQL text replaced by the planned frame, to plan it only once."""
        if not isinstance(request, WriteRequest) or not isinstance(request.source, str):
            return request
        source_of = getattr(self.__wrapped__, "source_of", None)
        if source_of is None:
            return request
        try:
            return replace(request, source=source_of(request))
        except Exception:  # noqa: BLE001 - the write raises it again and is observed
            return request

    def _attributes(self, request: Any) -> WriteAttributes:
        source = getattr(request, "source", None)
        hashed = _hash_or_none(schema_hash, source)
        if not hasattr(source, "logical_plan"):
            return _attributes_without_plan(self._self_policy, self._self_scope, hashed)
        known = known_source(source)
        return WriteAttributes(
            policy=self._self_policy,
            scope=self._self_scope,
            schema_hash=hashed,
            plan_hash=_hash_or_none(plan_hash, source),
            plan_shape_hash=_hash_or_none(plan_shape_hash, source),
            inputs=() if known is None else known.attributes.inputs,
            column_lineage=None if known is None else known.attributes.column_lineage,
        )

    def _record_if_unreached(  # noqa: PLR0913, PLR0917 - a call, its arguments and its result
        self,
        observer: Observer,
        context: WriteContext,
        observed_before: int,
        request: Any,
        error: BaseException | None,
        result: Any = None,
    ) -> None:
        """Record a write that did not reach delta-rs: refused, skipped, or of another format.

        Args:
            observer: records the write.
            context: the write context of the write.
            observed_before: the number of writes observed in the context before this one.
            request: the request.
            error: the exception of the write, or None.
            result: the result of the write, or None.
        """
        if context.observed > observed_before or not observer.is_on():
            return
        try:
            in_flight = observer.begin(_intent(observer, context.attributes, request))
            if _is_delta(request):
                in_flight.location = location_of(getattr(request, "destination", None))
            if error is None:
                _set_outcome(in_flight, request, result)
                observer.finish(in_flight, None, table=None)
            else:
                if isinstance(self.__wrapped__, WritePipeline) or isinstance(
                    error, RequirementError
                ):
                    # Every commit of our pipeline is observed. Another pipeline may have committed
                    # through code that is not instrumented.
                    in_flight.landed = Landed.NO
                observer.fail(in_flight, error)
            context.observed += 1
        except Exception as problem:  # noqa: BLE001 - telemetry never changes the write
            report("pipeline", problem)


@lru_cache(maxsize=256)
def _attributes_without_plan(
    policy: str | None, scope: CacheScope | None, schema_hash: str | None
) -> WriteAttributes:
    """Return the attributes of a write whose source has no plan; most writes of a pipeline share them."""
    return WriteAttributes(policy=policy, scope=scope, schema_hash=schema_hash)


def _intent(observer: Observer, attributes: WriteAttributes, request: Any) -> WriteIntent:
    destination = getattr(request, "destination", None)
    if not isinstance(destination, str | os.PathLike):
        destination = getattr(destination, "table_uri", None)
    location = None if destination is None else os.fspath(destination)
    return write_intent(
        observer.settings,
        attributes,
        Operation.WRITE if _is_delta(request) else Operation.COPY,
        CacheOperation.WRITE,
        location,
        mode=_text(getattr(request, "mode", None)),
    )


def _is_delta(request: Any) -> bool:
    return _text(getattr(request, "format", "delta")) == "delta"


def _observe(pipeline: Any, policy: str | None, scope: CacheScope | None) -> ObservedWritePipeline:
    return ObservedWritePipeline(pipeline, policy=policy, scope=scope)


def _hash_or_none(hashed: Any, source: Any) -> str | None:
    """Return the hash of a source, or None if it cannot be hashed: a request may have any form.

    Args:
        hashed: computes the hash of a source.
        source: the source of a request, or None.
    """
    if source is None:
        return None
    try:
        digest: str = hashed(source)
    except Exception:  # noqa: BLE001 - a source without a hash can still be written
        return None
    return digest


def _set_outcome(in_flight: InFlightWrite, request: Any, result: Any) -> None:
    """Set the outcome of a write that passed no instrumented call of delta-rs.

    It was skipped, wrote files of another format, or its commit is not found.
    """
    if getattr(result, "skipped", False) is True:
        in_flight.no_commit_reason = NoCommitReason.TABLE_EXISTS
    elif _is_delta(request):
        in_flight.no_commit_reason = NoCommitReason.NOT_FOUND
    else:
        counts = CommitMetrics(
            rows_added=_count(getattr(result, "rows", None)),
            files_added=_count(getattr(result, "files", None)),
        )
        in_flight.exported = lambda: counts


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _text(value: Any) -> str | None:
    value = getattr(value, "value", value)
    return value if isinstance(value, str) and not isinstance(value, Mapping) else None
