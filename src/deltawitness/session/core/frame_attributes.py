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
    """Return the attributes of a write that can be computed before the engine call.

    It never raises: an error is reported as an internal error, and the result has no attributes.

    Args:
        plan: the logical plan of the rows, or a frame.
        state: state of the observed frame that has this plan; None if the frame is not observed.
        schema: schema of the written rows; None if it is unknown.
        clauses: text of the statement that its plan does not contain: the clauses of a MERGE.
        reads: versions of Delta tables that are read in addition to those in the plan.
    """
    try:
        text = plan_text(plan)
        inputs = dict.fromkeys(reads)
        if state is not None:
            inputs.update(dict.fromkeys(state.inputs(text)))
        hashed = f"{text}\n{clauses}" if clauses else text
        return WriteAttributes(
            schema_hash=None if schema is None else schema_hash(schema),
            plan_hash=hash_of_plan_text(hashed),
            plan_shape_hash=shape_hash_of_plan_text(hashed),
            inputs=tuple(inputs),
        )
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("session", error)
        return NO_ATTRIBUTES
