"""Patch DataFusion's own classes in place, for programs whose code cannot change.

Methods are replaced on the existing classes. New classes would not be used: the engine creates
contexts with `SessionContext.__new__`, and programs hold references to the classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from deltawitness.patching import Replacements, unpatched
from deltawitness.session.catalog_handlers import CATALOG_HANDLERS, SCHEMA_HANDLERS
from deltawitness.session.context_handlers import SESSION_EXTRAS, SESSION_HANDLERS
from deltawitness.session.core.private_api import ADDED_IN_55
from deltawitness.session.core.state import keep_session_alive
from deltawitness.session.core.unpatched import REPLACED
from deltawitness.session.frame_handlers import FRAME_EXTRAS, FRAME_HANDLERS
from deltawitness.session.handlers import Handler

__all__ = ["DataFusionPatches"]


class DataFusionPatches:
    """Replaces and restores methods of `SessionContext`, `DataFrame`, `Catalog` and `Schema`."""

    def __init__(self) -> None:
        self._replacements = Replacements()
        self._originals: list[tuple[type, str, Any]] = []

    def install(self) -> None:
        """Replace every observed method.

        Raises:
            AttributeError: the installed DataFusion lacks a method; all replacements are undone.
        """
        from datafusion import DataFrame, SessionContext  # noqa: PLC0415 - heavy
        from datafusion.catalog import Catalog, Schema  # noqa: PLC0415 - heavy

        try:
            for owner, handlers in (
                (SessionContext, SESSION_HANDLERS),
                (DataFrame, FRAME_HANDLERS),
                (Catalog, CATALOG_HANDLERS),
                (Schema, SCHEMA_HANDLERS),
            ):
                self._replace_all(owner, handlers)
        except AttributeError:
            self.uninstall()
            raise
        self._originals.append((SessionContext, "global_ctx", vars(SessionContext)["global_ctx"]))
        observed: Any = classmethod(_global_ctx(SessionContext.global_ctx))
        SessionContext.global_ctx = observed  # type: ignore[method-assign]  # a patch replaces the method
        self._add_all(SessionContext, SESSION_EXTRAS)
        self._add_all(DataFrame, FRAME_EXTRAS)

    def uninstall(self) -> None:
        """Restore every replaced method and remove every added one."""
        while self._originals:
            owner, name, original = self._originals.pop()
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)
        self._replacements.restore()
        REPLACED.clear()

    def _replace_all(self, owner: type, handlers: Mapping[str, Handler]) -> None:
        for name, handler in handlers.items():
            if name in ADDED_IN_55 and not hasattr(owner, name):
                continue
            REPLACED[owner, name] = unpatched(getattr(owner, name))
            self._replacements.replace(owner, name, functools.partial(_handled_by, handler))

    def _add_all(self, owner: type, extras: Mapping[str, Callable[..., Any]]) -> None:
        for name, function in extras.items():
            setattr(owner, name, function)
            self._originals.append((owner, name, None))


def _global_ctx(original: Callable[[], Any]) -> Callable[[type], Any]:
    def global_ctx(_: type) -> Any:
        return keep_session_alive(original())

    return functools.wraps(original)(global_ctx)


def _handled_by(handler: Handler, original: Callable[..., Any]) -> Callable[..., Any]:  # noqa: ARG001 - the handler looks it up
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return handler(self, args, kwargs)

    return method
