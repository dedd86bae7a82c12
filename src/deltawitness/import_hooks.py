"""Call functions when a module is imported, without importing it now.

`wrapt.register_post_import_hook` does the same, but an import of wrapt takes a third of the time that a
process needs to be instrumented: it imports asyncio and importlib.metadata.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["when_imported"]

Hook = Callable[[ModuleType], object]

_hooks: dict[str, list[Hook]] = {}
"""Functions that wait for an import, by the name of the module."""


def when_imported(name: str, hook: Hook) -> None:
    """Call a function with a module: now if the module is imported, else after its import.

    Args:
        name: full name of the module.
        hook: called once. An exception that it raises is raised by the import.
    """
    if name not in sys.modules:
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        _hooks.setdefault(name, []).append(hook)
    # Checked again: another thread may have imported the module meanwhile.
    module = sys.modules.get(name)
    if module is None:
        return
    waiting = _hooks.get(name, [])
    if hook in waiting:
        waiting.remove(hook)
    hook(module)


class _Finder:
    """Finds a module that hooks wait for with the other finders, and puts its loader in a `_Loader`."""

    def __init__(self) -> None:
        self._searching = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module that hooks wait for; None for every other module."""
        if fullname not in _hooks:
            return None
        names: set[str] = self._searching.__dict__.setdefault("names", set())
        if fullname in names:  # another package's finder asks all finders
            return None
        names.add(fullname)
        try:
            spec = _find_with_others(fullname, path, target)
        finally:
            names.discard(fullname)
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]  # has the methods of its loader
        return spec


def _find_with_others(
    fullname: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    for finder in list(sys.meta_path):
        find = getattr(finder, "find_spec", None)
        if finder is _finder or find is None:
            continue
        spec: ModuleSpec | None = find(fullname, path, target)
        if spec is not None:
            return spec
    return None


class _Loader:
    """Loads a module with its own loader, restores that loader on the module, and calls the hooks."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, then call the hooks."""
        for owner, name in ((module, "__loader__"), (module.__spec__, "loader")):
            if getattr(owner, name, None) is self:
                setattr(owner, name, self._loader)
        self._loader.exec_module(module)
        for hook in _hooks.pop(module.__name__, []):
            hook(module)


_finder = _Finder()
