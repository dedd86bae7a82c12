"""Views over cached views: what a query reads of the cache is brought up to date before it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from deltawitness.exceptions import ConfigurationError
from deltawitness.session.core.snapshot import TableName

if TYPE_CHECKING:
    from datafusion import SessionContext

    from deltawitness.session.core.state import Session

__all__ = [
    "computing",
    "dry_run",
    "is_being_computed",
    "is_of_another_default",
    "refresh_view",
    "stale_names",
    "uncached_views_in",
]

_asked: ContextVar[frozenset[TableName]] = ContextVar("asked", default=frozenset())
_untrue: ContextVar[list[str] | None] = ContextVar("stale_names", default=None)


def uncached_views_in(text: str, session: Session) -> list[TableName]:
    """Return the cached views that a plan reads but that could not be kept: they are plain views.

    Args:
        text: the plan's text.
        session: the session that knows them.
    """
    return [
        name
        for name in tuple(session.uncached_names)
        if name not in _asked.get()
        and any(
            f"SubqueryAlias: {spelling}\n" in text
            for spelling in (name.table, f"{name.schema}.{name.table}", ".".join(name))
        )
    ]


def refresh_view(session: Session, ctx: SessionContext, name: TableName) -> None:
    """Have a cached view brought up to date.

    Args:
        session: the session that knows it.
        ctx: a context of that session.
        name: its name.

    Raises:
        ConfigurationError: it is being made: it reads itself.
    """
    ask = session.cached_names.get(name)
    if ask is None or is_of_another_default(session, ctx, name):
        return
    if name in _asked.get():
        msg = f"the view {name.table} reads itself"
        raise ConfigurationError(msg)
    with computing(name):
        ask()


def is_of_another_default(session: Session, ctx: SessionContext, name: TableName) -> bool:
    """Tell whether a cached view was made under another default schema: its query means another now.

    Args:
        session: the session that knows it.
        ctx: a context of that session.
        name: its name.
    """
    return name in session.cached_names and tuple(name[:2]) != session.default_of(ctx)


def is_being_computed(name: TableName) -> bool:
    """Tell whether a view is being made around the call."""
    return name in _asked.get()


@contextmanager
def computing(name: TableName) -> Iterator[None]:
    """Take note that a view is being made inside the block."""
    token = _asked.set(_asked.get() | {name})
    try:
        yield
    finally:
        _asked.reset(token)


@contextmanager
def dry_run() -> Iterator[list[str]]:
    """Have nothing computed inside the block; yield the names of what would have to be."""
    found: list[str] = []
    token = _untrue.set(found)
    try:
        yield found
    finally:
        _untrue.reset(token)


def stale_names() -> list[str] | None:
    """Return where names of what would have to be computed are noted; None where it is computed."""
    return _untrue.get()
