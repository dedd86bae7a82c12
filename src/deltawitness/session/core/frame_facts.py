"""Plan hash, schema hash and inputs of a frame whose rows are written.

A program may pass a frame to delta-rs itself, or rows that it collected from one. The write is
observed with the same attributes as a write that the session makes.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from deltawitness.events import InputVersion
from deltawitness.hashing import (
    hash_of_plan_text,
    plan_text,
    schema_hash,
    shape_hash_of_plan_text,
)
from deltawitness.internal_errors import report
from deltawitness.observe.run_reads import record_reads
from deltawitness.observe.write_context import NO_ATTRIBUTES, WriteAttributes
from deltawitness.session.core.frames import FrameState, state_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["attributes_of_frame", "attributes_of_source", "record_export"]


def attributes_of_frame(
    plan: Any,
    state: FrameState | None,
    *,
    schema: pa.Schema | None = None,
    clauses: str = "",
    reads: tuple[InputVersion, ...] = (),
) -> WriteAttributes:
    """Return the attributes of a write that are known before the engine is called; never raises.

    Args:
        plan: the logical plan that makes the rows, or a frame.
        state: what is known of the frame that was planned.
        schema: what is written.
        clauses: what the statement says beside its plan: the clauses of a MERGE.
        reads: Delta tables that are read beside those in the plan.
    """
    try:
        text = plan_text(plan)
        found = dict.fromkeys(reads)
        if state is not None:
            found.update(dict.fromkeys(state.inputs(text)))
        said = f"{text}\n{clauses}" if clauses else text
        return WriteAttributes(
            schema_hash=None if schema is None else schema_hash(schema),
            plan_hash=hash_of_plan_text(said),
            plan_shape_hash=shape_hash_of_plan_text(said),
            inputs=tuple(found),
        )
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("session", error)
        return NO_ATTRIBUTES


def attributes_of_source(source: object) -> WriteAttributes | None:
    """Return the attributes of a source that a program passes to delta-rs; never raises.

    Args:
        source: a frame of a session, an Arrow table that its `to_arrow_table` returned, or anything
            else that delta-rs accepts.

    Returns:
        None when the source comes from no session.
    """
    try:
        frame = _frame_of_export(source)
        state = state_of(frame)
        if state is None or state.pending is not None:
            return None
        return attributes_of_frame(frame, state, schema=frame.schema())
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("session", error)
        return None


_handed_out: dict[int, tuple[weakref.ref[Any], Any]] = {}
"""Frames by the address of the table that holds their rows, for as long as the table is there."""


def record_export(frame: Any, result: object) -> None:
    """Remember the frame that a program collected rows from; never raises.

    Args:
        frame: the frame.
        result: the rows. An Arrow table is recognized when it is passed to delta-rs; for any other
            object the inputs of the frame are recorded as reads of the run.
    """
    try:
        state = state_of(frame)
        if state is None or state.pending is not None or not state.session.snapshot.entries:
            return
        reads = state.inputs(plan_text(frame))
        if reads:
            record_reads(*reads)
        if type(result).__module__ == "pyarrow.lib":
            key = id(result)
            known = weakref.ref(result, lambda _: _handed_out.pop(key, None) and None)
            _handed_out[key] = known, frame
    except Exception as error:  # noqa: BLE001 - telemetry never changes the query
        report("session", error)


def _frame_of_export(source: object) -> Any:
    """Return the frame that an Arrow table came from, or the object itself."""
    known = _handed_out.get(id(source))
    return known[1] if known is not None and known[0]() is source else source
