"""Views over cached views: a cached view that a query reads is refreshed before the query is planned."""

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

_computing: ContextVar[frozenset[TableName]] = ContextVar("computing", default=frozenset())
_stale: ContextVar[list[str] | None] = ContextVar("stale_names", default=None)


def uncached_views_in(text: str, session: Session) -> list[TableName]:
    """Return the cached views in a plan that could not be stored: the session has them as plain views.

    Args:
        text: text of the plan.
        session: the session that has the views.
    """
    return [
        name
        for name in session.cache_links.uncached
        if name not in _computing.get()
        and any(
            f"SubqueryAlias: {spelling}\n" in text
            for spelling in (name.table, f"{name.schema}.{name.table}", ".".join(name))
        )
    ]


def refresh_view(session: Session, ctx: SessionContext, name: TableName) -> None:
    """Refresh a cached view.

    Args:
        session: the session that has the view.
        ctx: a context of that session.
        name: name of the view.

    Raises:
        ConfigurationError: it is being computed, so that it reads itself.
    """
    refresh = session.cache_links.refresher(name)
    if refresh is None or is_of_another_default(session, ctx, name):
        return
    if name in _computing.get():
        msg = f"the view {name.table} reads itself"
        raise ConfigurationError(msg)
    with computing(name):
        refresh()


def is_of_another_default(session: Session, ctx: SessionContext, name: TableName) -> bool:
    """Return whether a cached view was created under another default schema.

    Its unqualified names would resolve differently now.

    Args:
        session: the session that has the view.
        ctx: a context of that session.
        name: name of the view.
    """
    return session.cache_links.is_entry(name) and tuple(name[:2]) != session.names.default_of(ctx)


def is_being_computed(name: TableName) -> bool:
    """Return whether the calling context computes this view."""
    return name in _computing.get()


@contextmanager
def computing(name: TableName) -> Iterator[None]:
    """Mark a view as being computed inside the block."""
    token = _computing.set(_computing.get() | {name})
    try:
        yield
    finally:
        _computing.reset(token)


@contextmanager
def dry_run() -> Iterator[list[str]]:
    """Compute nothing inside the block; yield a list that collects the names of stale entries."""
    found: list[str] = []
    token = _stale.set(found)
    try:
        yield found
    finally:
        _stale.reset(token)


def stale_names() -> list[str] | None:
    """Return the list that a dry run collects stale entry names in; None outside a dry run."""
    return _stale.get()
