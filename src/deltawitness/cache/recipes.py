"""What an entry is made by: a query of the session, or a source outside of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deltawitness.cache.fingerprint import Fingerprint, Uncacheable
from deltawitness.cache.plans import fingerprint_of
from deltawitness.cache.policy import CachePolicy
from deltawitness.exceptions import ConfigurationError
from deltawitness.proxies.frames import refuse_statements, remade, state_of
from deltawitness.proxies.originals import original
from deltawitness.proxies.registry import scanned_names
from deltawitness.semconv import CacheScope

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

__all__ = ["Made", "Recipe", "checked_name", "planned", "view_recipe"]

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
class Made:
    """A result that could be computed now, and what it would be made from."""

    frame: DataFrame
    fingerprint: Fingerprint | Uncacheable


@dataclass(frozen=True, slots=True)
class Recipe:
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
    make: Callable[[], Made]
    facts: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)


def view_recipe(  # noqa: PLR0913 - what a view is, by keyword
    ctx: SessionContext,
    name: str,
    query: str | DataFrame,
    *,
    policy: CachePolicy,
    functions: Mapping[str, str],
    version: str | None,
) -> Recipe:
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

    def make() -> Made:
        frame = planned(ctx, query)
        fingerprint = fingerprint_of(
            frame, functions=functions, version=version, is_aging=policy.max_age is not None
        )
        return Made(frame, fingerprint)

    origin = {"sql": query} if isinstance(query, str) else {}
    return Recipe(CacheScope.VIEW, checked_name(name), policy, make, origin=origin)


def planned(ctx: SessionContext, query: str | DataFrame) -> DataFrame:
    """Return the frame of a query over the newest versions of the Delta tables that it reads.

    Args:
        ctx: the session.
        query: SQL text, or a frame; one over tables at fixed versions stays there.
    """
    frame = ctx.sql(query) if isinstance(query, str) else query
    refuse_statements(frame)
    state = state_of(frame)
    if state is None:
        return frame
    text = original(frame, "logical_plan")().display_indent()
    before = scanned_names(text, state.snapshot)
    for entry in before:
        state.session.refresh(state.ctx, tuple(entry.name))
    now = state.session.snapshot
    if all(now.get(entry.name) is entry for entry in before):
        return frame
    state.session.freshen(state.ctx)
    again: DataFrame = remade(frame)
    return again
