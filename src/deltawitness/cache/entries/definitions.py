"""What an entry is made by: a query of the session, or a source outside of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.policy import CachePolicy
from deltawitness.cache.fingerprint.dependencies import (
    is_being_computed,
    refresh_view,
    uncached_views_in,
)
from deltawitness.cache.fingerprint.inputs import has_files
from deltawitness.cache.fingerprint.model import Fingerprint, NotCacheable
from deltawitness.cache.fingerprint.plan import fingerprint_of
from deltawitness.cache.fingerprint.scans import RECURSION
from deltawitness.exceptions import ConfigurationError
from deltawitness.semconv import CacheScope
from deltawitness.session.core.frames import (
    FrameState,
    attach_state,
    refuse_statements,
    replan,
    state_of,
)
from deltawitness.session.core.private_api import FILE_CACHE_LIMIT
from deltawitness.session.core.snapshot import TableName, scanned_names
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

__all__ = ["Candidate", "EntryDefinition", "checked_name", "define_view", "plan_query"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
_QUERY = re.compile(
    r"(?is)\A(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*(?:(?:select|with|values|table|from)\b|\()"
)


def checked_name(name: str) -> str:
    """Return a name that an entry can have.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    msg = "a cache entry's name is 1 to 128 letters, digits, '_' or '-', and begins with no digit"
    raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A result that could be computed now, and what it would be made from."""

    frame: DataFrame
    fingerprint: Fingerprint | NotCacheable


@dataclass(frozen=True, slots=True)
class EntryDefinition:
    """How an entry is made.

    Attributes:
        scope: what kind of thing it is.
        name: its name.
        policy: how it is kept.
        make: plans it, over what is there now.
        facts: what else its commit is to say of it.
        origin: how another process can make it: `sql`, `table` or `path`. It holds literals and
            locations, and is kept with the entry alone.
    """

    scope: CacheScope
    name: str
    policy: CachePolicy
    make: Callable[[], Candidate]
    facts: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_shown(self) -> bool:
        """Whether the session knows the entry under its name."""
        return self.scope in {CacheScope.VIEW, CacheScope.DATASET}


def define_view(  # noqa: PLR0913 - what a view is, by keyword
    ctx: SessionContext,
    name: str,
    query: str | DataFrame,
    *,
    policy: CachePolicy,
    functions: Mapping[str, str],
    version: str | None,
) -> EntryDefinition:
    """Return the recipe of a view.

    Args:
        ctx: the session.
        name: the entry's name.
        query: SQL text of a query, or a frame.
        policy: how it is kept.
        functions: versions of the program's own functions, by name.
        version: what the program says of what cannot be seen.

    Raises:
        ConfigurationError: the text is no query.
        StatementError: the frame is that of a statement.
    """
    if isinstance(query, str):
        if not _QUERY.match(query):
            msg = "a view is made by a query: SELECT, WITH, VALUES or TABLE"
            raise ConfigurationError(msg)
    else:
        refuse_statements(query)

    def make() -> Candidate:
        frame = plan_query(ctx, query)
        fingerprint = fingerprint_of(
            frame,
            functions=functions,
            version=version,
            is_aging=policy.max_age is not None,
            query=query if isinstance(query, str) else None,
        )
        return Candidate(frame, fingerprint)

    origin = {"sql": query} if isinstance(query, str) else {}
    return EntryDefinition(CacheScope.VIEW, checked_name(name), policy, make, origin=origin)


def plan_query(ctx: SessionContext, query: str | DataFrame) -> DataFrame:
    """Return the frame of a query over what its names mean now, at the newest versions there are.

    Args:
        ctx: the session.
        query: SQL text, or a frame; one over tables at fixed versions stays there.

    Raises:
        ConfigurationError: it is of a cached view that reads itself.
    """
    frame = _frame_of(ctx, query)
    state = state_of(frame)
    if state is None:
        return frame
    done: set[TableName] = set()
    while _brought_up(frame, state, done):
        state.session.freshen(state.ctx)
        frame = _frame_of(ctx, query)
        state = state_of(frame) or state
    if has_files(frame, state.ctx):
        _forget_lists_of_files(state)
        frame = _planned_now(frame, state)
    return frame


def _frame_of(ctx: SessionContext, query: str | DataFrame) -> DataFrame:
    frame: DataFrame = ctx.sql(query) if isinstance(query, str) else replan(query)
    refuse_statements(frame)
    return frame


def _brought_up(frame: DataFrame, state: FrameState, done: set[TableName]) -> bool:
    """Bring what a frame reads up to date; return whether a name may mean something else now."""
    session = state.session
    text = unpatched(frame, "logical_plan")().display_indent()
    tables = {entry.name: entry for entry in scanned_names(text, state.snapshot)}
    lent = [name for name in uncached_views_in(text, session) if name not in done]
    for name in dict.fromkeys((*lent, *tables)):
        if name in done:
            continue
        done.add(name)
        if name in session.cached_names:
            if is_being_computed(name) and name.table in RECURSION.findall(text):
                continue
            refresh_view(session, state.ctx, name)
        elif session.snapshot.get(name) is not None:
            session.refresh(state.ctx, tuple(name))
    return bool(lent) or any(session.current_entry(entry) is not entry for entry in tables.values())


def _forget_lists_of_files(state: FrameState) -> None:
    """Have the session look into directories anew: it keeps the list of the files of each."""
    for statement in (f"SET {FILE_CACHE_LIMIT} = '0K'", state.session.file_cache_statement):
        unpatched(state.ctx, "sql")(statement)


def _planned_now(frame: DataFrame, state: FrameState) -> DataFrame:
    """Return the frame under the session's settings of now: a frame keeps those that it was made with."""
    plan = unpatched(frame, "logical_plan")()
    again: DataFrame = unpatched(state.ctx, "create_dataframe_from_logical_plan")(plan)
    attach_state(again, state)
    return again
