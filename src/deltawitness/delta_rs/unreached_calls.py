"""Record the calls of public functions of delta-rs that end before they reach a seam."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from deltawitness.app_transactions import guard_whole_write, innermost_block
from deltawitness.commit.private_api import storage_options_of
from deltawitness.commit.seams import CONVERT_SEAM, MODE, STORAGE_OPTIONS, Seam
from deltawitness.delta_rs.auditors import use_storage_options
from deltawitness.delta_rs.engine_calls import Call
from deltawitness.delta_rs.seam_states import position_of
from deltawitness.delta_rs.sources import current_source_metrics, known_source, measuring
from deltawitness.delta_rs.unreached import UnreachedWrite
from deltawitness.events import NoCommitReason
from deltawitness.expectations import has_expectations
from deltawitness.internal_errors import guard
from deltawitness.observe.write_context import write_context
from deltawitness.observe.write_watch import recorded
from deltawitness.patching import argument
from deltawitness.semconv import Operation

if TYPE_CHECKING:
    from deltawitness.observe.observer import Observer

__all__ = ["UnreachedCalls"]


class UnreachedCalls:
    """Makes the callables that replace `write_deltalake` and the look-up of `convert_to_deltalake`.

    Args:
        observer: observes the writes.
        only_when: called before each write; returns whether to observe it.
    """

    def __init__(self, observer: Observer, only_when: Callable[[], bool]) -> None:
        self._observer = observer
        self._only_when = only_when

    def whole_write(self, original: Call) -> Call:
        """Return `write_deltalake` with calls recorded that end before they reach a seam.

        In an exactly-once block, it retries after a conflict.
        """
        retried = guard_whole_write(original)

        def observed(*args: Any, **kwargs: Any) -> Any:
            call = original if innermost_block() is None else retried
            if not self._only_when():
                return call(*args, **kwargs)
            known = known_source(args[1] if len(args) > 1 else kwargs.get("data"))
            if known is None and not has_expectations() and current_source_metrics() is None:
                return self._watched(call, args, kwargs)[0]
            knowing = nullcontext() if known is None else write_context(known.attributes)
            metrics = None if known is None else known.metrics
            remembering: Any = nullcontext()
            if has_expectations():
                remembering = use_storage_options(_storage_options(args, kwargs))
            with knowing, measuring(metrics), remembering:
                result, has_written = self._watched(call, args, kwargs)
            if metrics is not None and has_written:
                metrics.record(self._observer)
            return result

        return observed

    def _watched(
        self, original: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, bool]:
        """Call `write_deltalake`, record that no write reached a seam, and return whether one did."""
        clock, before = time.perf_counter_ns(), recorded.count
        try:
            result = original(*args, **kwargs)
            if kwargs.get(MODE) == "ignore" and recorded.count == before:
                with guard("seam"):
                    write = _unreached_write(args, kwargs, clock)
                    write.record_skip(self._observer, NoCommitReason.TABLE_EXISTS)
        except BaseException as error:
            if recorded.count == before:
                with guard("seam"):
                    write = _unreached_write(args, kwargs, clock)
                    write.record_failure(self._observer, error)
            raise
        return result, recorded.count != before

    def find_before_convert(self, seam: Seam, original: Call) -> Call:
        """Return the function with which `convert_to_deltalake` looks up a table in mode `ignore`."""
        location = seam.parameters[0]
        position = position_of(original, location)

        def observed(*args: Any, **kwargs: Any) -> Any:
            clock = time.perf_counter_ns()
            table = original(*args, **kwargs)
            if table is not None and self._only_when():
                with guard("seam"):
                    uri = argument(args, kwargs, position, location)
                    operation = CONVERT_SEAM.operation
                    write = UnreachedWrite.of(operation, uri, table, "ignore", clock)
                    write.record_skip(self._observer, NoCommitReason.TABLE_EXISTS)
            return table

        return observed


def _storage_options(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, str] | None:
    """Return the storage options of a `write_deltalake` call: its own, or those of its open table."""
    given: dict[str, str] | None = kwargs.get(STORAGE_OPTIONS)
    target = argument(args, kwargs, 0, "table_or_uri")
    return given or (storage_options_of(target) if hasattr(target, "table_uri") else None)


def _unreached_write(args: tuple[Any, ...], kwargs: dict[str, Any], clock: int) -> UnreachedWrite:
    """Return the write of a `write_deltalake` call that reached no seam."""
    target = argument(args, kwargs, 0, "table_or_uri")
    return UnreachedWrite.of(Operation.WRITE, target, target, kwargs.get("mode", "error"), clock)
