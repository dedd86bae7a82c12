"""What a session says of a write that it makes: its plan, its schema and what it reads."""

from __future__ import annotations

import time
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
from deltawitness.observe.noted_writes import noting_writes
from deltawitness.proxies.frames import FrameState
from deltawitness.proxies.installation import install_enclosed
from deltawitness.proxies.unreached import UnreachedWrite
from deltawitness.semconv import Operation

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

__all__ = ["facts_of", "telling_if_unreached", "witnessed"]


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


@contextmanager
def telling_if_unreached(
    location: object,
    mode: str | None,
    table: DeltaTable | None = None,
    operation: Operation = Operation.WRITE,
) -> Iterator[None]:
    """Record a write that fails inside the block before the engine is given it.

    The table cannot be opened, a statement is refused, a frame cannot be planned: what fails there
    passes no seam.

    Args:
        location: of the table.
        mode: save mode.
        table: the table, if it is open.
        operation: what the write is to do.
    """
    clock = time.perf_counter_ns()
    with noting_writes() as writes:
        try:
            yield
        except BaseException as error:
            if not writes:
                _record(UnreachedWrite.of(operation, location, table, mode, clock), error)
            raise


def _record(write: UnreachedWrite, error: BaseException) -> None:
    try:
        observer = install_enclosed()
        if observer.is_on():
            write.record_failure(observer, error)
    except Exception as problem:  # noqa: BLE001 - telemetry never changes the write
        report("session", problem)
