"""What a session says of a write that it makes: its plan, its schema and what it reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deltawitness.events import InputVersion
from deltawitness.hashing import (
    hash_of_plan_text,
    plan_text,
    schema_hash,
    shape_hash_of_plan_text,
)
from deltawitness.internal import report
from deltawitness.observe.enclosure import NO_FACTS, Facts, enclosed
from deltawitness.proxies.frames import FrameState
from deltawitness.proxies.installation import install_enclosed

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["facts_of", "witnessed"]


def facts_of(
    plan: Any,
    state: FrameState | None,
    *,
    schema: pa.Schema | None = None,
    clauses: str = "",
    reads: tuple[InputVersion, ...] = (),
) -> Facts:
    """Return what is known of a write before it reaches the engine; never raises.

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
        return Facts(
            schema_hash=None if schema is None else schema_hash(schema),
            plan_hash=hash_of_plan_text(said),
            plan_shape_hash=shape_hash_of_plan_text(said),
            inputs=tuple(found),
        )
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("session", error)
        return NO_FACTS


@contextmanager
def witnessed(facts: Facts) -> Iterator[None]:
    """Let the delta-rs calls inside the block be observed with these facts."""
    try:
        install_enclosed()
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("session", error)
    with enclosed(facts):
        yield
