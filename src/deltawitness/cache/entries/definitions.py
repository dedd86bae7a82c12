"""What computes an entry: a query of the session, or a source outside of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.policy import CachePolicy, check_policy
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
from deltawitness.session.fingerprint.dependencies import (
    is_being_computed,
    refresh_view,
    uncached_views_in,
)
from deltawitness.session.fingerprint.inputs import has_files
from deltawitness.session.fingerprint.model import Fingerprint, NotCacheable
from deltawitness.session.fingerprint.plan import fingerprint_of
from deltawitness.session.fingerprint.scans import RECURSION
from deltawitness.sql_statements import first_word

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

__all__ = ["Candidate", "EntryDefinition", "checked_name", "define_view", "plan_query"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
_VIEW_WORDS = frozenset({"SELECT", "WITH", "VALUES", "TABLE", "FROM", "("})
"""First words of the queries of a view: all of DataFusion but SHOW, which reads the session."""


def checked_name(name: str) -> str:
    """Return the name if it is valid for an entry.

    Raises:
        ConfigurationError: it is not.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    msg = "a cache entry's name is 1 to 128 letters, digits, '_' or '-', and begins with a letter or '_'"
    raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A frame that would compute the result now, with the fingerprint of its inputs."""

    frame: DataFrame
    fingerprint: Fingerprint | NotCacheable


@dataclass(frozen=True, slots=True)
class EntryDefinition:
    """What computes an entry.

    Attributes:
        scope: view, dataset, artifact or metadata.
        name: name of the entry.
        policy: how the entry is stored and how long it is served.
        make: plans the result over the current inputs.
        properties: further properties for the entry's commit metadata.
        origin: how another process can compute it: `sql`, `table` or `path`. It contains literals
            and locations, and is stored with the entry only.
    """

    scope: CacheScope
    name: str
    policy: CachePolicy
    make: Callable[[], Candidate]
    properties: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the type of the policy.

        Raises:
            ConfigurationError: it is no :class:`CachePolicy`.
        """
        check_policy(self.policy)

    @property
    def is_registered(self) -> bool:
        """Whether the entry is registered in the session under its name."""
        return self.scope in {CacheScope.VIEW, CacheScope.DATASET}


def define_view(  # noqa: PLR0913 - each is an option of a view, by keyword
    ctx: SessionContext,
    name: str,
    query: str | DataFrame,
    *,
    policy: CachePolicy,
    functions: Mapping[str, str],
    version: str | None,
) -> EntryDefinition:
    """Return the definition of a view.

    Args:
        ctx: the session.
        name: name of the entry.
        query: SQL text of a query, or a frame.
        policy: how the entry is stored and how long it is served.
        functions: versions of user-defined functions, by name.
        version: a version that the caller gives to inputs whose changes cannot be detected.

    Raises:
        ConfigurationError: the text is not a query.
        StatementError: the frame is the result of a statement.
    """
    if isinstance(query, str):
        if first_word(query) not in _VIEW_WORDS:
            msg = "a view needs a query: SELECT, WITH, VALUES or TABLE"
            raise ConfigurationError(msg)
    else:
        refuse_statements(query)

    def make() -> Candidate:
        frame = plan_query(ctx, query)
        fingerprint = fingerprint_of(
            frame,
            functions=functions,
            version=version,
            has_max_age=policy.max_age is not None,
            query=query if isinstance(query, str) else None,
        )
        return Candidate(frame, fingerprint)

    origin = {"sql": query} if isinstance(query, str) else {}
    return EntryDefinition(CacheScope.VIEW, checked_name(name), policy, make, origin=origin)


def plan_query(ctx: SessionContext, query: str | DataFrame) -> DataFrame:
    """Plan a query over the current meaning of its names, at the newest versions of its tables.

    Args:
        ctx: the session.
        query: SQL text, or a frame. A frame over tables at fixed versions keeps those versions.

    Raises:
        ConfigurationError: a cached view reads itself.
    """
    frame = _frame_of(ctx, query)
    state = state_of(frame)
    if state is None:
        return frame
    done: set[TableName] = set()
    while _refresh_inputs(frame, state, done):
        state.session.views.freshen(state.ctx)
        frame = _frame_of(ctx, query)
        state = state_of(frame) or state
    if has_files(frame, state.ctx):
        _clear_file_lists(state)
        frame = _replan_with_current_settings(frame, state)
    return frame


def _frame_of(ctx: SessionContext, query: str | DataFrame) -> DataFrame:
    frame: DataFrame = ctx.sql(query) if isinstance(query, str) else replan(query)
    refuse_statements(frame)
    return frame


def _refresh_inputs(frame: DataFrame, state: FrameState, done: set[TableName]) -> bool:
    """Refresh the tables and cached views that a frame reads.

    Args:
        frame: the frame.
        state: its session state.
        done: names that were refreshed already; new ones are added.

    Returns:
        Whether a name may resolve to something else now, so that the frame must be planned again.
    """
    session = state.session
    text = unpatched(frame, "logical_plan")().display_indent()
    tables = {entry.name: entry for entry in scanned_names(text, state.snapshot)}
    uncached = [name for name in uncached_views_in(text, session) if name not in done]
    session.tables.start_refresh(
        session.names.snapshot.get(name) or entry
        for name, entry in tables.items()
        if name not in done and not session.cache_links.is_entry(name)
    )
    for name in dict.fromkeys((*uncached, *tables)):
        if name in done:
            continue
        done.add(name)
        if session.cache_links.is_entry(name):
            if is_being_computed(name) and name.table in RECURSION.findall(text):
                continue
            refresh_view(session, state.ctx, name)
        elif session.names.snapshot.get(name) is not None:
            session.tables.refresh(state.ctx, tuple(name))
    return bool(uncached) or any(
        session.tables.current_entry(entry) is not entry for entry in tables.values()
    )


def _clear_file_lists(state: FrameState) -> None:
    """Clear the session's cache of directory listings, so that new files are found."""
    for statement in (
        f"SET {FILE_CACHE_LIMIT} = '0K'",
        state.session.settings.file_cache_statement,
    ):
        unpatched(state.ctx, "sql")(statement)


def _replan_with_current_settings(frame: DataFrame, state: FrameState) -> DataFrame:
    """Return the frame with the session's current settings: a frame keeps the settings it was created with."""
    plan = unpatched(frame, "logical_plan")()
    replanned: DataFrame = unpatched(state.ctx, "create_dataframe_from_logical_plan")(plan)
    attach_state(replanned, state)
    return replanned
