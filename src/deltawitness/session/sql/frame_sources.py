"""Recognize frames, and rows collected from frames, that a program passes to delta-rs itself.

Such a write is observed with the same attributes as a write of the session.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from deltawitness.delta_rs.sources import KnownSource, recognize_sources
from deltawitness.hashing import plan_text
from deltawitness.internal_errors import report
from deltawitness.observe import current_observer
from deltawitness.observe.run_reads import record_reads
from deltawitness.session.core.frame_attributes import attributes_of_frame
from deltawitness.session.core.frames import state_of
from deltawitness.session.sql.plan_metrics import operator_metrics
from deltawitness.session.sql.source_metrics import FrameMetrics
from deltawitness.session.sql.write_plans import with_stored_plan

__all__ = ["known_frame", "record_export"]


def known_frame(source: object) -> KnownSource | None:
    """Return attributes and operator metrics of a source that a program passes to delta-rs; never raises.

    Args:
        source: a frame of a session, an Arrow table that its `to_arrow_table` returned, or any other
            object that delta-rs accepts.

    Returns:
        None if the source does not come from an observed session.
    """
    try:
        frame, operators = _frame_of_export(source)
        state = state_of(frame)
        if state is None or state.pending is not None:
            return None
        attributes = attributes_of_frame(frame, state, schema=frame.schema())
        attributes = with_stored_plan(attributes, frame, state)
        is_measured = operators is not None or (frame is source and _captures_operators())
        metrics = FrameMetrics(attributes.plan_hash, operators) if is_measured else None
        return KnownSource(attributes, metrics)
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("session", error)
        return None


def _captures_operators() -> bool:
    observer = current_observer()
    return observer is not None and observer.settings.capture_plan_metrics and observer.is_on()


class _HandedOut(NamedTuple):
    """An Arrow table that a program collected from a frame, and the metrics of that run if captured."""

    table: weakref.ref[Any]
    frame: Any
    operators: list[dict[str, Any]] | None


_handed_out: dict[int, _HandedOut] = {}
"""The collected tables by their `id()`; an entry is removed when its table is garbage collected."""


def record_export(frame: Any, result: object) -> None:
    """Record the frame that a program collected rows from; never raises.

    Args:
        frame: the frame.
        result: the rows. An Arrow table is recognized when it is passed to delta-rs; for any other
            object the inputs of the frame are recorded as reads of the run.
    """
    try:
        state = state_of(frame)
        if state is None or state.pending is not None or not state.session.names.snapshot.entries:
            return
        reads = state.inputs(plan_text(frame))
        if reads:
            record_reads(*reads)
        if type(result).__module__ == "pyarrow.lib":
            key = id(result)
            table = weakref.ref(result, lambda _: _handed_out.pop(key, None) and None)
            # Read the metrics now: the frame has only those of its latest run, and may run again.
            operators = operator_metrics(frame) if _captures_operators() else None
            _handed_out[key] = _HandedOut(table, frame, operators)
    except Exception as error:  # noqa: BLE001 - telemetry never changes the query
        report("session", error)


def _frame_of_export(source: object) -> tuple[Any, list[dict[str, Any]] | None]:
    """Return the frame that an Arrow table was collected from and its metrics, or the object itself."""
    handed_out = _handed_out.get(id(source))
    if handed_out is None or handed_out.table() is not source:
        return source, None
    return handed_out.frame, handed_out.operators


recognize_sources(known_frame)
