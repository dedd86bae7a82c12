"""Observe merges: delta-rs builds a merge in one call and executes it in another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from deltawitness.commit.merge_builders import MergeBuilders
from deltawitness.commit.seams import COMMIT_PROPERTIES, MERGE_EXECUTE, Seam, WriteSeam
from deltawitness.delta_rs.auditors import audit_merge, refuse_unchecked
from deltawitness.delta_rs.engine_calls import REFUSALS, Call, call_engine, with_metadata
from deltawitness.delta_rs.seam_states import position_of
from deltawitness.delta_rs.sources import KnownSource, SourceMetrics, known_source, measuring
from deltawitness.delta_rs.write_audit import WriteAudit, merge_result
from deltawitness.internal_errors import guard, report
from deltawitness.observe.write_context import write_context
from deltawitness.observe.write_watch import record_write
from deltawitness.patching import argument

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.observe.observer import Observer

__all__ = ["MergeSeams"]


class _BuiltMerge(NamedTuple):
    """A merge that delta-rs has built and not executed yet.

    Attributes:
        in_flight: the write.
        metrics: measures the operators of its source; None where they are not captured.
        audit: checks its source; None without an expectation.
    """

    in_flight: InFlightWrite
    metrics: SourceMetrics | None
    audit: WriteAudit | None


class MergeSeams:
    """Makes the callables that replace the seams of merges.

    Args:
        observer: observes the merges.
        only_when: called before each merge; returns whether to observe it.
    """

    def __init__(self, observer: Observer, only_when: Callable[[], bool]) -> None:
        self._observer = observer
        self._only_when = only_when
        self._built: MergeBuilders[_BuiltMerge] = MergeBuilders()
        self._source = threading.local()

    def clear(self) -> None:
        """Forget the merges that were built and not executed."""
        self._built.clear()

    def source(self, seam: Seam, original: Any) -> Any:  # noqa: ARG002 - one signature for all
        """Return the class that makes a stream of a merge's source.

        If the source is a frame of a session, the write gets its plan and its inputs.
        """

        def from_arrow(*args: Any, **kwargs: Any) -> Any:
            if not self._only_when():
                return original.from_arrow(*args, **kwargs)
            known = known_source(args[0]) if args else None
            with measuring(None if known is None else known.metrics):
                stream = original.from_arrow(*args, **kwargs)
            self._source.known = None if known is None else (stream, known)
            return stream

        return _Exchanged(original, from_arrow=from_arrow)

    def build(self, seam: Seam, original: Call) -> Call:  # noqa: ARG002 - one signature for all
        """Return the method of `RawDeltaTable` that builds a merge, opening the write of the merge."""
        position = position_of(original, COMMIT_PROPERTIES) - 1

        def observed(table: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._only_when():
                return self._unobserved(original(table, *args, **kwargs))
            try:
                source = self._known_source(kwargs.get("source"))
                with nullcontext() if source is None else write_context(source.of_merge()):
                    in_flight = self._observer.open(MERGE_EXECUTE, table.table_uri(), table=table)
                in_flight.schema = kwargs.get("batch_schema")
                self._observer.capture_call(in_flight, table, args, kwargs)
                kwargs, audit = audit_merge(self._observer, in_flight, kwargs)
                args, kwargs = with_metadata(self._observer, in_flight, args, kwargs, position)
            except REFUSALS:
                raise
            except Exception as error:  # noqa: BLE001 - telemetry never changes the write
                report("seam", error)
                record_write(None)
                refuse_unchecked(error)
                return self._unobserved(original(table, *args, **kwargs))
            try:
                builder = original(table, *args, **kwargs)
            except BaseException as error:
                with guard("seam"):
                    self._observer.fail(in_flight, error, table=table)
                raise
            with guard("seam"):
                metrics = None if source is None else source.metrics
                self._built.put(builder, _BuiltMerge(in_flight, metrics, audit))
            return builder

        return observed

    def _known_source(self, stream: object) -> KnownSource | None:
        """Return the source from which the stream of a merge was made, if a session recognized it."""
        known_stream, source = getattr(self._source, "known", None) or (None, None)
        self._source.known = None
        return source if source is not None and known_stream is stream else None

    def _unobserved(self, builder: object) -> object:
        """Return an unobserved builder, without the entry of an earlier builder at the same address."""
        self._built.pop(builder)
        return builder

    def execute(self, seam: WriteSeam, original: Call) -> Call:
        """Return the method of `RawDeltaTable` that executes a merge, finishing the write of the merge."""
        (builder,) = seam.parameters
        position = position_of(original, builder) - 1

        def observed(table: Any, *args: Any, **kwargs: Any) -> Any:
            merge = self._built.pop(argument(args, kwargs, position, builder))
            if merge is None or not self._only_when():
                return original(table, *args, **kwargs)
            in_flight = merge.in_flight
            with guard("seam"):
                self._observer.resume(in_flight, table)
            call = original if merge.audit is None else partial(merge_result, merge.audit, original)
            result = call_engine(
                self._observer, in_flight, call, (table, *args), kwargs, table=table
            )
            if merge.metrics is not None:
                merge.metrics.record(self._observer)
            return result

        return observed


class _Exchanged:
    """Replaces a class of delta-rs in one module: delegates to it, with some methods replaced."""

    def __init__(self, original: Any, **methods: Call) -> None:
        self._original = original
        vars(self).update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._original(*args, **kwargs)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._original)
