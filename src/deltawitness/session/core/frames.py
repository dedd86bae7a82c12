"""The state of a frame beside its plan: its session, the tables it reads, how to plan it again.

The state is an attribute of the engine's own DataFrame, so the proxies and the patched classes find
the same state. Derived frames inherit it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from deltawitness.events import InputVersion
from deltawitness.exceptions import StatementError
from deltawitness.internal_errors import report
from deltawitness.session.core.snapshot import (
    Registered,
    Snapshot,
    TableName,
    inputs_of,
    scanned_names,
)
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionConfig, SessionContext

    from deltawitness.session.core.state import Session

__all__ = [
    "ATTRIBUTE",
    "FrameState",
    "Origin",
    "PendingPlan",
    "PlainQuery",
    "attach_state",
    "bind_origin",
    "derive",
    "refuse_statements",
    "replan",
    "state_of",
]

ATTRIBUTE = "_deltawitness_frame"
"""The attribute of a frame that holds its state."""


class PendingPlan(Protocol):
    """A statement that runs once each time its frame's rows are requested."""

    @property
    def title(self) -> str:
        """What the statement does, without its literals."""

    @property
    def status(self) -> str:
        """The title and the runs so far, for displaying the frame."""

    def unrun_copy(self) -> PendingPlan:
        """Return the statement for another frame, without the runs of this one."""

    def run(self) -> DataFrame:
        """Run the statement and return the frame of its result."""


class Origin(Protocol):
    """Plans a frame again over the current versions of its Delta tables."""

    def __call__(self) -> DataFrame:
        """Return the frame over the versions that the session serves now."""

    def bind(self) -> object:
        """Resolve the names in the frame's query, unless they are resolved already.

        Raises:
            StatementError: a name may resolve to something else than when the frame was planned.
        """


class FrameState(NamedTuple):
    """The state of a frame.

    Attributes:
        ctx: the context that created the frame.
        session: the state of its session.
        snapshot: the tables that names resolved to when the frame was planned.
        reads: Delta tables that the frame reads and that cannot be found in its plan by name.
        origin: plans the frame again over current versions; None for a frame over fixed data.
        pending: the statement that the frame runs; None for a query.
    """

    ctx: SessionContext
    session: Session
    snapshot: Snapshot
    reads: tuple[InputVersion, ...] = ()
    origin: Origin | None = None
    pending: PendingPlan | None = None

    def inputs(self, plan_text: str) -> tuple[InputVersion, ...]:
        """Return the Delta tables that a plan of this frame reads, each version once.

        Args:
            plan_text: `LogicalPlan.display_indent()`.
        """
        found = dict.fromkeys(self.reads)
        try:
            found.update(dict.fromkeys(inputs_of(plan_text, self.snapshot)))
        except Exception as error:  # noqa: BLE001 - telemetry never changes the program
            report("session", error)
        return tuple(found)


PlainQuery = tuple[
    "SessionContext",
    "Session",
    Snapshot,
    int,
    "SessionConfig",
    str,
    Callable[["PlainQuery"], FrameState],
]
"""What a frame of plain SQL text has in place of its state until the state is needed.

Most frames never need it, and creating it would slow every query: a tuple is the cheapest object. Its
items are the context and its session's state; the tables that names resolved to, the epoch of the names
and the settings of the session before the query was planned; the text; and the function that returns the
state."""


def state_of(frame: Any) -> FrameState | None:
    """Return the state of a frame, a plan or a proxy; None if it comes from no observed session."""
    state = getattr(frame, ATTRIBUTE, None)
    if type(state) is FrameState:
        return state
    if type(state) is not tuple:
        return None
    query: PlainQuery = state
    created = query[-1](query)
    setattr(frame, ATTRIBUTE, created)
    return created


def attach_state(frame: Any, state: FrameState) -> Any:
    """Store a state on a frame, a plan or a view, and return that object."""
    setattr(frame, ATTRIBUTE, state)
    return frame


def replan(frame: Any) -> Any:
    """Return the frame planned again over the current versions of its Delta tables.

    A value that is not a frame, or that reads no Delta tables, is returned unchanged.

    Raises:
        StatementError: the frame reads Delta tables, and a name in its query may resolve to something
            else than when it was planned.
    """
    state = state_of(frame)
    if state is None or state.origin is None or not _reads_versions(frame, state):
        return frame
    return state.origin()


def _reads_versions(frame: Any, state: FrameState) -> bool:
    """Return whether a frame reads Delta tables or names of a cache: only these have versions."""
    text = unpatched(frame, "logical_plan")().display_indent()
    return bool(state.inputs(text)) or any(
        name.table in text for name in state.session.cache_links.uncached
    )


def derive(
    name: str, frame: DataFrame, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> DataFrame:
    """Call a method that derives a frame, and attach to the result a state derived from the frame's.

    Args:
        name: the name of the method, which only adds to the plan.
        frame: the frame.
        args: the method's arguments.
        kwargs: the method's keyword arguments.
    """
    state = state_of(frame)
    result: DataFrame = unpatched(frame, name)(*args, **kwargs)
    if state is None or result is frame or not hasattr(result, "__dict__"):
        # Nothing was added to the plan; or `select_exprs` returned the engine's inner frame.
        return result
    snapshot, reads = state.snapshot, state.reads
    others = [value for value in (*args, *kwargs.values()) if hasattr(value, ATTRIBUTE)]
    if others:
        snapshot, reads = _combined_reads(frame, others)
    derived = FrameState(
        state.ctx,
        state.session,
        snapshot,
        reads,
        DerivedOrigin(name, frame, args, kwargs),
        None if state.pending is None else DerivedStatement(state.pending, name, args, kwargs),
    )
    attach_state(result, derived)
    return result


def refuse_statements(*frames: object) -> None:
    """Refuse the frame of a statement where a frame of rows is required.

    Raises:
        StatementError: one of the frames has a pending statement; the statement was not run.
    """
    for frame in frames:
        state = state_of(frame)
        if state is not None and state.pending is not None:
            msg = f"{state.pending.title}: the frame of a statement is not a source of rows; run it first"
            raise StatementError(msg)


def _combined_reads(frame: Any, others: list[Any]) -> tuple[Snapshot, tuple[InputVersion, ...]]:
    """Return the snapshot of a frame that combines several frames, and its reads beside the snapshot.

    If a name resolves to different versions in the frames, the inputs of each frame become reads and
    the snapshot is empty: a name in the combined plan no longer identifies a version.
    """
    refuse_statements(*others)
    states = [(each, state) for each in (frame, *others) if (state := state_of(each)) is not None]
    snapshot = states[0][1].snapshot
    if all(state.snapshot is snapshot for _, state in states):
        return snapshot, tuple(read for _, state in states for read in state.reads)
    merged = _merged_snapshot(states)
    if merged is not None:
        return merged, tuple(read for _, state in states for read in state.reads)
    reads = tuple(
        read
        for each, state in states
        for read in state.inputs(unpatched(each, "logical_plan")().display_indent())
    )
    return Snapshot({}, snapshot.default), reads


def _merged_snapshot(states: list[tuple[Any, FrameState]]) -> Snapshot | None:
    """Return one snapshot of the tables that several frames read; None if a name differs in them."""
    found: dict[TableName, Registered] = {}
    for frame, state in states:
        text = unpatched(frame, "logical_plan")().display_indent()
        for entry in scanned_names(text, state.snapshot):
            if found.setdefault(entry.name, entry) is not entry:
                return None
    return Snapshot(found, states[0][1].snapshot.default)


def bind_origin(frame: object) -> None:
    """Resolve the names in a frame's query, so that it can be planned again with them later.

    Raises:
        StatementError: a name may resolve to something else than when the frame was planned.
    """
    state = state_of(frame)
    if state is not None and state.origin is not None:
        state.origin.bind()


@dataclass(frozen=True, slots=True)
class DerivedOrigin:
    """Plans a derived frame again: replans its source frames, then calls the method on them."""

    name: str
    frame: DataFrame
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __call__(self) -> DataFrame:
        """Return the frame over the versions that the session serves now."""
        derived: DataFrame = derive(
            self.name,
            replan(self.frame),
            tuple(replan(value) for value in self.args),
            {key: replan(value) for key, value in self.kwargs.items()},
        )
        return derived

    def bind(self) -> None:
        """Resolve the names in the queries of its source frames."""
        for each in (self.frame, *self.args, *self.kwargs.values()):
            bind_origin(each)


@dataclass(frozen=True, slots=True)
class DerivedStatement:
    """The statement of a frame derived from a statement's frame: run it, then derive from the result."""

    statement: PendingPlan
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What the statement does, without its literals."""
        return self.statement.title

    @property
    def status(self) -> str:
        """The title and the runs of the statement so far."""
        return self.statement.status

    def unrun_copy(self) -> DerivedStatement:
        """Return the statement and the derivation for another frame, without the runs of this one."""
        return replace(self, statement=self.statement.unrun_copy())

    def run(self) -> DataFrame:
        """Run the statement and derive the frame from its result."""
        frame: DataFrame = unpatched(self.statement.run(), self.name)(*self.args, **self.kwargs)
        return frame
