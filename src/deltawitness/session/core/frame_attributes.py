"""Plan hash, schema hash and inputs of a frame whose rows are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from deltawitness.column_sources import WriteColumns
from deltawitness.events import InputVersion
from deltawitness.hashing import (
    hash_of_plan_text,
    is_anonymous,
    plan_text,
    schema_hash,
    shape_hash_of_plan_text,
)
from deltawitness.internal_errors import report
from deltawitness.observe.write_context import NO_ATTRIBUTES, WriteAttributes
from deltawitness.redaction import redact_label
from deltawitness.session.core.column_lineage import TableOf, columns_of_plan
from deltawitness.session.core.frames import FrameState

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["attributes_of_frame"]


def attributes_of_frame(  # noqa: PLR0913 - keyword-only parts of a statement
    plan: Any,
    state: FrameState | None,
    *,
    schema: pa.Schema | None = None,
    clauses: str = "",
    reads: tuple[InputVersion, ...] = (),
    columns: Callable[[TableOf], WriteColumns] | None = None,
) -> WriteAttributes:
    """Return the attributes of a write that can be computed before the engine call.

    It never raises: an error is reported as an internal error, and the result has no attributes.

    Args:
        plan: the logical plan of the rows, or a frame.
        state: state of the observed frame that has this plan; None if the frame is not observed.
        schema: schema of the written rows; None if it is unknown.
        clauses: text of the statement that its plan does not contain: the clauses of a MERGE.
        reads: versions of Delta tables that are read in addition to those in the plan.
        columns: returns the columns that are written, if they are not those of the plan; its argument
            returns the table that a scanned name means.
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
            column_lineage=_column_lineage(
                columns or partial(_columns_of, plan, schema), _table_of(state, tuple(inputs))
            ),
        )
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("session", error)
        return NO_ATTRIBUTES


def _table_of(state: FrameState | None, inputs: Sequence[InputVersion]) -> TableOf:
    """Return a function that returns the table that a scan in a plan reads.

    Args:
        state: state of the observed frame that has the plan; None if the frame is not observed.
        inputs: the inputs of the write.

    Returns:
        A function of the scanned name. It returns the position of a Delta table in `inputs`, and for any
        other table its name without what is private.
    """
    places = {read: place for place, read in enumerate(inputs)}
    anonymous: dict[str, str] = {}

    def found(shown: str) -> int | str:
        entries = [] if state is None else state.snapshot.named(shown)
        place = places.get(entries[0].as_input()) if len(entries) == 1 else None
        if place is not None:
            return place
        name = shown.rpartition(".")[2]
        if is_anonymous(name):
            return anonymous.setdefault(name, f"anonymous{len(anonymous)}")
        return redact_label(name)

    return found


def _columns_of(plan: Any, schema: pa.Schema | None, found: TableOf) -> WriteColumns:
    logical = plan.logical_plan() if hasattr(plan, "logical_plan") else plan
    return columns_of_plan(logical, found, None if schema is None else list(schema.names))


def _column_lineage(columns: Callable[[TableOf], WriteColumns], found: TableOf) -> str | None:
    """Return the text of the columns of a write; None if there is an error, which is reported."""
    try:
        return columns(found).to_text()
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("session", error)
        return None
