"""What a session says of a write that it makes: its plan, its schema and what it reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deltawitness.events import InputVersion, Landed
from deltawitness.hashing import (
    hash_of_plan_text,
    plan_text,
    schema_hash,
    shape_hash_of_plan_text,
)
from deltawitness.internal import report
from deltawitness.observe.enclosure import NO_FACTS, Enclosure, Facts, current_enclosure, enclosed
from deltawitness.proxies.frames import FrameState
from deltawitness.proxies.installation import install_enclosed
from deltawitness.semconv import CacheOperation, Operation

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
    location: str, mode: str, table: DeltaTable | None = None
) -> Iterator[None]:
    """Tell of a write that fails inside the block before the engine is given it.

    delta-rs opens a source before it begins to write. What fails there passes no seam, and the user
    who asks why a write is missing would find nothing.

    Args:
        location: of the table.
        mode: save mode.
        table: the table, if it is open.
    """
    enclosure = current_enclosure()
    seen = 0 if enclosure is None else enclosure.observed
    try:
        yield
    except BaseException as error:
        if enclosure is not None and enclosure.observed == seen:
            try:
                named = None if table is None else table.metadata().name
                _tell(enclosure, location, mode, named, error)
            except Exception as problem:  # noqa: BLE001 - telemetry never changes the write
                report("session", problem)
        raise


def _tell(
    enclosure: Enclosure, location: str, mode: str, named: str | None, error: BaseException
) -> None:
    observer = install_enclosed()
    if not observer.is_on():
        return
    observation = observer.begin(
        observer.intent(
            enclosure.facts,
            Operation.WRITE,
            CacheOperation.WRITE,
            location,
            named=named,
            mode=mode,
        )
    )
    observation.location, observation.landed = location, Landed.NO
    observer.raised(observation, error)
    enclosure.observed += 1
