"""What is known of a frame beside its plan: its session, what it reads, how it is made anew.

The state lies on the plain DataFrame itself, so that a proxy over it and a patched class find the
same. Frames that are made from a frame inherit it.
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
"""Under which name a frame keeps what is known of it."""


class PendingPlan(Protocol):
    """A statement that runs when its frame is asked for rows, once each time."""

    @property
    def title(self) -> str:
        """What it would do, without a literal."""

    @property
    def status(self) -> str:
        """The title and what has happened so far: shown when somebody looks at the frame."""

    def unrun_copy(self) -> PendingPlan:
        """Return the statement as that of another frame."""

    def run(self) -> DataFrame:
        """Carry the statement out and return the frame of its result."""


class Origin(Protocol):
    """Plans a frame again over the versions of its Delta tables that the session serves then."""

    def __call__(self) -> DataFrame:
        """Return the frame over the versions of now."""

    def bind(self) -> object:
        """Resolve the names in the frame's query, if that is not done yet.

        Raises:
            StatementError: a name may resolve to something else than when the frame was planned.
        """


class FrameState(NamedTuple):
    """What is known of a frame.

    Attributes:
        ctx: the context it was made with.
        session: the state of its session.
        snapshot: what table names meant when it was planned.
        reads: Delta tables that it reads and that no name in the snapshot tells.
        origin: makes it again, over the versions of then; None for a frame over fixed data.
        pending: the statement that it stands for, if it is no query.
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


class PlainQuery:
    """The arguments of a frame's state, stored on the frame of plain SQL text in place of the state.

    Most frames never need their state, and creating it would slow every query.

    Args:
        ctx: the context that planned the query.
        session: the state of its session.
        snapshot: the tables that names resolved to when the query was planned.
        epoch: `session.epoch` before the query was planned.
        config: the settings of the session at that time.
        text: the query.
        origin: creates the origin of the frame's state from this object.
    """

    __slots__ = ("_state", "config", "ctx", "epoch", "origin", "session", "snapshot", "text")

    def __init__(  # noqa: PLR0913, PLR0917 - every query creates one, and keywords cost time
        self,
        ctx: SessionContext,
        session: Session,
        snapshot: Snapshot,
        epoch: int,
        config: SessionConfig,
        text: str,
        origin: Callable[[PlainQuery], Origin],
    ) -> None:
        self.ctx = ctx
        self.session = session
        self.snapshot = snapshot
        self.epoch = epoch
        self.config = config
        self.text = text
        self.origin = origin
        self._state: FrameState | None = None

    def state(self) -> FrameState:
        """Return the state, always the same object."""
        if self._state is None:
            self._state = FrameState(self.ctx, self.session, self.snapshot, (), self.origin(self))
        return self._state


def state_of(frame: object) -> FrameState | None:
    """Return what is known of a frame, also through a proxy; None for a frame of no known session."""
    state = getattr(frame, ATTRIBUTE, None)
    if type(state) is FrameState:
        return state
    # A plain query leaves no more than what its state can be made of, should anybody ask.
    return state.state() if type(state) is PlainQuery else None


def attach_state(frame: Any, state: FrameState) -> Any:
    """Let the frame, or a plan of it, have this state, and return it."""
    setattr(frame, ATTRIBUTE, state)
    return frame


def replan(frame: Any) -> Any:
    """Return the frame planned again over the versions of its Delta tables that the session serves.

    Raises:
        StatementError: it reads Delta tables, and a name in its query may resolve to something else.
    """
    state = state_of(frame)
    if state is None or state.origin is None or not _reads_versions(frame, state):
        return frame
    return state.origin()


def _reads_versions(frame: Any, state: FrameState) -> bool:
    """Tell whether a frame reads Delta tables, or names that a cache owns: others have no versions."""
    text = unpatched(frame, "logical_plan")().display_indent()
    return bool(state.inputs(text)) or any(
        name.table in text for name in tuple(state.session.uncached_names)
    )


def derive(
    name: str, frame: DataFrame, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> DataFrame:
    """Return the frame that a method of the frame makes, with what is known of it.

    Args:
        name: the method, one that only adds to the plan.
        frame: the frame.
        args: the method's arguments.
        kwargs: the method's keyword arguments.
    """
    state = state_of(frame)
    result: DataFrame = unpatched(frame, name)(*args, **kwargs)
    if state is None or result is frame or not hasattr(result, "__dict__"):
        # Nothing to add to the plan; or `select_exprs`, which hands out the engine's inner frame.
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
    """Refuse a frame that stands for a statement where a frame of rows is wanted.

    Raises:
        StatementError: one of them does; it has not been run.
    """
    for frame in frames:
        state = state_of(frame)
        if state is not None and state.pending is not None:
            msg = f"{state.pending.title}: the frame of a statement is no source of rows; run it first"
            raise StatementError(msg)


def _combined_reads(frame: Any, others: list[Any]) -> tuple[Snapshot, tuple[InputVersion, ...]]:
    """Return in which snapshot a frame of several is to be read, and what it reads besides.

    Where a name stands for different versions in them, what each reads is recorded by itself, and the
    names of the whole mean nothing any more.
    """
    refuse_statements(*others)
    states = [(each, known) for each in (frame, *others) if (known := state_of(each)) is not None]
    snapshot = states[0][1].snapshot
    if all(known.snapshot is snapshot for _, known in states):
        return snapshot, tuple(read for _, known in states for read in known.reads)
    merged = _merged_snapshot(states)
    if merged is not None:
        return merged, tuple(read for _, known in states for read in known.reads)
    reads = tuple(
        read
        for each, known in states
        for read in known.inputs(unpatched(each, "logical_plan")().display_indent())
    )
    return Snapshot({}, snapshot.default), reads


def _merged_snapshot(states: list[tuple[Any, FrameState]]) -> Snapshot | None:
    """Return one snapshot of what several frames read; None where they do not agree on a name."""
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
    """Makes a frame again that a method of another frame has made."""

    name: str
    frame: DataFrame
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __call__(self) -> DataFrame:
        """Return the frame over the versions of now."""
        made: DataFrame = derive(
            self.name,
            replan(self.frame),
            tuple(replan(value) for value in self.args),
            {key: replan(value) for key, value in self.kwargs.items()},
        )
        return made

    def bind(self) -> None:
        """Bind the frames that it was made from."""
        for each in (self.frame, *self.args, *self.kwargs.values()):
            bind_origin(each)


@dataclass(frozen=True, slots=True)
class DerivedStatement:
    """A frame made from a statement's frame: the statement runs, then the frame is made."""

    statement: PendingPlan
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What the statement would do."""
        return self.statement.title

    @property
    def status(self) -> str:
        """What has happened to the statement."""
        return self.statement.status

    def unrun_copy(self) -> DerivedStatement:
        """Return the statement, and what is made of its result, as those of another frame."""
        return replace(self, statement=self.statement.unrun_copy())

    def run(self) -> DataFrame:
        """Carry the statement out and make the frame from its result."""
        frame: DataFrame = unpatched(self.statement.run(), self.name)(*self.args, **self.kwargs)
        return frame
