"""What is known of a frame beside its plan: its session, what it reads, how it is made anew.

The state lies on the plain DataFrame itself, so that a proxy over it and a patched class find the
same. Frames that are made from a frame inherit it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from deltawitness.events import InputVersion
from deltawitness.exceptions import StatementError
from deltawitness.internal import report
from deltawitness.proxies.originals import original
from deltawitness.proxies.registry import Snapshot, inputs_of

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

    from deltawitness.proxies.state import Session

__all__ = [
    "ATTRIBUTE",
    "FrameState",
    "Pending",
    "PlainQuery",
    "adopt",
    "derive",
    "refuse_statements",
    "remade",
    "state_of",
]

ATTRIBUTE = "_deltawitness_frame"
"""Under which name a frame keeps what is known of it."""


class Pending(Protocol):
    """A statement that runs when its frame is asked for rows, once each time."""

    @property
    def title(self) -> str:
        """What it would do, without a literal."""

    @property
    def status(self) -> str:
        """The title and what has happened so far: shown when somebody looks at the frame."""

    def run(self) -> DataFrame:
        """Carry the statement out and return the frame of its result."""


class FrameState(NamedTuple):
    """What is known of a frame.

    Attributes:
        ctx: the context it was made with.
        session: the state of its session.
        snapshot: what table names meant when it was planned.
        reads: Delta tables that it reads and that no name in the snapshot tells.
        origin: makes it again, from what table names mean then; None for a frame over fixed data.
        pending: the statement that it stands for, if it is no query.
    """

    ctx: SessionContext
    session: Session
    snapshot: Snapshot
    reads: tuple[InputVersion, ...] = ()
    origin: Callable[[], DataFrame] | None = None
    pending: Pending | None = None

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
    """What a frame of plain SQL text keeps in place of its state: most are never asked for it.

    Args:
        ctx: the context it was made with.
        session: the state of its session.
        snapshot: what table names meant when it was planned.
        origin: makes it again.
        text: the query, which `origin` is given with the context.
    """

    __slots__ = ("ctx", "origin", "session", "snapshot", "text")

    def __init__(
        self,
        ctx: SessionContext,
        session: Session,
        snapshot: Snapshot,
        origin: Callable[[SessionContext, str], DataFrame],
        text: str,
    ) -> None:
        self.ctx = ctx
        self.session = session
        self.snapshot = snapshot
        self.origin = origin
        self.text = text

    def state(self) -> FrameState:
        """Return the state."""
        origin = partial(self.origin, self.ctx, self.text)
        return FrameState(self.ctx, self.session, self.snapshot, (), origin)


def state_of(frame: object) -> FrameState | None:
    """Return what is known of a frame, also through a proxy; None for a frame of no known session."""
    state = getattr(frame, ATTRIBUTE, None)
    if type(state) is FrameState:
        return state
    # A plain query leaves no more than what its state can be made of, should anybody ask.
    return state.state() if type(state) is PlainQuery else None


def adopt(frame: Any, state: FrameState) -> Any:
    """Let the frame, or a plan of it, have this state, and return it."""
    setattr(frame, ATTRIBUTE, state)
    return frame


def remade(frame: Any) -> Any:
    """Return the frame planned anew, over what table names mean now."""
    state = state_of(frame)
    return frame if state is None or state.origin is None else state.origin()


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
    result: DataFrame = original(frame, name)(*args, **kwargs)
    if state is None or result is frame or not hasattr(result, "__dict__"):
        # Nothing to add to the plan; or `select_exprs`, which hands out the engine's inner frame.
        return result
    snapshot, reads = state.snapshot, state.reads
    others = [value for value in (*args, *kwargs.values()) if hasattr(value, ATTRIBUTE)]
    if others:
        snapshot, reads = _joined(frame, others)
    derived = FrameState(
        state.ctx,
        state.session,
        snapshot,
        reads,
        partial(_made_again, name, frame, args, kwargs),
        None if state.pending is None else Derived(state.pending, name, args, kwargs),
    )
    adopt(result, derived)
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


def _joined(frame: Any, others: list[Any]) -> tuple[Snapshot, tuple[InputVersion, ...]]:
    """Return in which snapshot a frame of several is to be read, and what it reads besides.

    Where they are of different moments, what each reads is told by itself, and the names of the
    whole mean nothing any more.
    """
    refuse_statements(*others)
    states = [(each, known) for each in (frame, *others) if (known := state_of(each)) is not None]
    snapshot = states[0][1].snapshot
    if all(known.snapshot is snapshot for _, known in states):
        return snapshot, tuple(read for _, known in states for read in known.reads)
    reads = tuple(
        read
        for each, known in states
        for read in known.inputs(original(each, "logical_plan")().display_indent())
    )
    return Snapshot({}, snapshot.default), reads


def _made_again(
    name: str, frame: DataFrame, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> DataFrame:
    made: DataFrame = derive(
        name,
        remade(frame),
        tuple(remade(value) for value in args),
        {key: remade(value) for key, value in kwargs.items()},
    )
    return made


@dataclass(frozen=True, slots=True)
class Derived:
    """A frame made from a statement's frame: the statement runs, then the frame is made."""

    statement: Pending
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

    def run(self) -> DataFrame:
        """Carry the statement out and make the frame from its result."""
        frame: DataFrame = original(self.statement.run(), self.name)(*self.args, **self.kwargs)
        return frame
