"""Plan hash, schema hash and inputs of a frame whose rows are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltawitness.events import InputVersion
from deltawitness.hashing import (
    hash_of_plan_text,
    plan_text,
    schema_hash,
    shape_hash_of_plan_text,
)
from deltawitness.internal_errors import report
from deltawitness.observe.write_context import NO_ATTRIBUTES, WriteAttributes
from deltawitness.session.core.frames import FrameState

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["attributes_of_frame"]


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
