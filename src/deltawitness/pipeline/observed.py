"""A pipeline observed: what it knows of plan, schema and policy goes with each write it makes."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import wrapt

from deltawitness.delta_rs.install import install_for_proxies
from deltawitness.delta_rs.unreached import location_of
from deltawitness.events import CommitMetrics, Landed, NoCommitReason, WriteIntent
from deltawitness.hashing import plan_hash, plan_shape_hash, schema_hash
from deltawitness.internal_errors import report
from deltawitness.observe import Observer
from deltawitness.observe.in_flight import InFlightWrite
from deltawitness.observe.write_context import WriteAttributes, WriteContext, write_context
from deltawitness.pipeline.pipeline import WritePipeline
from deltawitness.pipeline.request import WriteRequest
from deltawitness.run import parse_scope
from deltawitness.semconv import CacheOperation, CacheScope, Operation

__all__ = ["ObservedWritePipeline"]


class ObservedWritePipeline(wrapt.ObjectProxy):  # type: ignore[type-arg]  # generic in its stubs only
    """A transparent proxy over a pipeline, every write of which is observed.

    It goes over :class:`deltawitness.WritePipeline`, or over any object with `write(request)`,
    whatever its request looks like: commits it makes with delta-rs inside are stamped and told
    with the plan and schema hashes of `request.source`, as far as there is one.

    Args:
        pipeline: what writes.
        policy: name of the policy of its writes.
        scope: what kind of thing it keeps, from the closed set.

    Raises:
        ConfigurationError: the scope is not one of the closed set.

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
        """Write, observed; arguments, result and exceptions are the pipeline's own."""
        try:
            observer = install_for_proxies()
            request = self._planned(request)
            facts = self._facts(request)
        except Exception as error:  # noqa: BLE001 - telemetry never changes the write
            report("pipeline", error)
            return self.__wrapped__.write(request, *args, **kwargs)
        with write_context(facts) as enclosure:
            seen = enclosure.observed
            try:
                result = self.__wrapped__.write(request, *args, **kwargs)
            except BaseException as error:
                self._tell(observer, enclosure, seen, request, error)
                raise
            if not inspect.iscoroutine(result):
                self._tell(observer, enclosure, seen, request, None, result)
                return result
        return self._awaited(observer, facts, request, result)

    async def _awaited(
        self, observer: Observer, facts: WriteAttributes, request: Any, write: Any
    ) -> Any:
        """Await the write of a pipeline that is async, observed for as long as it takes."""
        with write_context(facts) as enclosure:
            seen = enclosure.observed
            try:
                result = await write
            except BaseException as error:
                self._tell(observer, enclosure, seen, request, error)
                raise
            self._tell(observer, enclosure, seen, request, None, result)
            return result

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the proxy over the pickled pipeline."""
        return _observe, (self.__wrapped__, self._self_policy, self._self_scope)

    def _planned(self, request: Any) -> Any:
        """Return the request with its SQL text planned, so that it is planned once."""
        if not isinstance(request, WriteRequest) or not isinstance(request.source, str):
            return request
        source_of = getattr(self.__wrapped__, "source_of", None)
        if source_of is None:
            return request
        try:
            return replace(request, source=source_of(request))
        except Exception:  # noqa: BLE001 - the write itself raises it, and is observed as it does
            return request

    def _facts(self, request: Any) -> WriteAttributes:
        source = getattr(request, "source", None)
        is_plan = hasattr(source, "logical_plan")
        return WriteAttributes(
            policy=self._self_policy,
            scope=self._self_scope,
            schema_hash=_guarded(schema_hash, source),
            plan_hash=_guarded(plan_hash, source) if is_plan else None,
            plan_shape_hash=_guarded(plan_shape_hash, source) if is_plan else None,
        )

    def _tell(  # noqa: PLR0913, PLR0917 - a call, what it was given and how it ended
        self,
        observer: Observer,
        enclosure: WriteContext,
        seen: int,
        request: Any,
        error: BaseException | None,
        result: Any = None,
    ) -> None:
        """Tell of a write that never reached the engine: refused, skipped, or of another format."""
        if enclosure.observed > seen or not observer.is_on():
            return
        try:
            in_flight = observer.begin(_intent(observer, enclosure.facts, request))
            if _is_delta(request):
                in_flight.location = location_of(getattr(request, "destination", None))
            if error is None:
                _note_outcome(in_flight, request, result)
                observer.finish(in_flight, None, table=None)
            else:
                if isinstance(self.__wrapped__, WritePipeline):
                    # Its writes are all seen. Another one's may be made where nobody looks.
                    in_flight.landed = Landed.NO
                observer.fail(in_flight, error)
            enclosure.observed += 1
        except Exception as problem:  # noqa: BLE001 - telemetry never changes the write
            report("pipeline", problem)


def _intent(observer: Observer, facts: WriteAttributes, request: Any) -> WriteIntent:
    destination = getattr(request, "destination", None)
    if not isinstance(destination, str | os.PathLike):
        destination = getattr(destination, "table_uri", None)
    location = None if destination is None else os.fspath(destination)
    return observer.intent(
        facts,
        Operation.WRITE if _is_delta(request) else Operation.COPY,
        CacheOperation.WRITE,
        location,
        mode=_text(getattr(request, "mode", None)),
    )


def _is_delta(request: Any) -> bool:
    return _text(getattr(request, "format", "delta")) == "delta"


def _observe(pipeline: Any, policy: str | None, scope: CacheScope | None) -> ObservedWritePipeline:
    return ObservedWritePipeline(pipeline, policy=policy, scope=scope)


def _guarded(hashed: Any, source: Any) -> str | None:
    """Return a hash, or None for a source that has none: not every request is one of ours."""
    if source is None:
        return None
    try:
        digest: str = hashed(source)
    except Exception:  # noqa: BLE001 - a source that cannot be hashed can be written all the same
        return None
    return digest


def _note_outcome(in_flight: InFlightWrite, request: Any, result: Any) -> None:
    """Note how a write ended that no seam has seen: skipped, made as plain files, or not found."""
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
