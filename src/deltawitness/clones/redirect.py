"""Redirect the tables of this process to clones, so that no table is changed.

The public callables of delta-rs that take a location are replaced right after its import, before a program
can import them by name. Sessions, polars and other libraries open and write tables through these.
Every write checks that its table is a clone: a write that reaches the engine in another way is refused.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any, Protocol

from deltawitness.commit.seams import FUNCTION_SEAMS, MERGE_EXECUTE, METHOD_SEAMS, WriteSeam
from deltawitness.exceptions import PlanError
from deltawitness.import_hooks import when_imported
from deltawitness.locations import local_path
from deltawitness.semconv import Env

__all__ = ["install_redirection", "redirected"]

Call = Callable[..., Any]


class _Tables(Protocol):
    """What the locations of this process are replaced by."""

    def place_of(self, location: str, *, with_files: bool = False) -> str:
        """Return the location to open instead of another one."""

    def contains(self, path: str) -> bool:
        """Return whether a table at a path with resolved links may be written."""


_folder: _Tables | None = None
_originals: dict[str, Call] = {}


def install_redirection(environ: Mapping[str, str]) -> None:
    """Redirect all tables of this process to clones, or check their versions, if the environment says so.

    This cannot be reverted.

    Args:
        environ: the environment; it has the folder of the clones while a program is planned, and that of
            the planned versions while a plan is applied.
    """
    global _folder  # noqa: PLW0603 - one redirection per process
    if _folder is not None:
        return
    if plan := environ.get(Env.PLAN_FOLDER):
        from deltawitness.clones.folder import CloneFolder  # noqa: PLC0415 - rarely needed

        clones = CloneFolder(plan)
        clones.mark_loaded()
        _folder = clones
    elif versions := environ.get(Env.PLAN_VERSIONS):
        from deltawitness.clones.versions import PlannedVersions  # noqa: PLC0415 - as above

        _folder = PlannedVersions(versions)
    if _folder is not None:
        when_imported("deltalake", _replace)


def redirected(location: Any, *, with_files: bool = False) -> Any:
    """Return the location of the clone of a table; the location itself if nothing is redirected.

    Args:
        location: path or URI of a table; any other value, such as an open table, is returned unchanged.
        with_files: also clone the files of a folder that is no table.

    Raises:
        PlanError: the location is on an object store, the table cannot be cloned, or it is not at the
            version of the plan.
    """
    if _folder is None or not isinstance(location, str | os.PathLike):
        return location
    text = os.fspath(location)
    if not isinstance(text, str) or not text or text.startswith("memory:"):
        return location
    return _folder.place_of(text, with_files=with_files)


def _replace(package: ModuleType) -> None:
    """Replace what takes a location, and guard what writes.

    Args:
        package: the package `deltalake`, which is imported completely.
    """
    modules = (
        "table",
        "transaction",
        "fs",
        "fs._base_handler",
        "writer.writer",
        "writer.convert_to",
    )
    for name in modules:
        with suppress(ModuleNotFoundError):  # another release
            importlib.import_module(f"{package.__name__}.{name}")
    for seam in (*METHOD_SEAMS, MERGE_EXECUTE):
        _guard_method(seam)
    for seam in FUNCTION_SEAMS:
        _guard_function(seam)
    _replace_methods(package.DeltaTable)
    _rebind("deltalake.writer.writer", "write_deltalake", _write_deltalake)
    _rebind("deltalake.writer.convert_to", "convert_to_deltalake", _convert_to_deltalake)
    name = "create_table_with_add_actions"
    _rebind("deltalake.transaction", name, _create_table_with_add_actions)
    for handler in _storage_handlers():
        _replace_init(handler)


def _storage_handlers() -> list[Any]:
    """Return the classes of file systems that take the location of a table; they differ by release."""
    modules = ("deltalake.fs", "deltalake.fs._base_handler")
    names = ("BaseDeltaStorageHandler", "DeltaStorageHandler")
    found = [getattr(sys.modules.get(module), name, None) for module in modules for name in names]
    return [each for each in dict.fromkeys(found) if each is not None and "__init__" in vars(each)]


# --- locations ---------------------------------------------------------------------------------------


def _replace_methods(table: Any) -> None:
    _replace_init(table)
    is_table, create = table.is_deltatable, vars(table)["create"].__func__

    @functools.wraps(is_table)
    def is_deltatable(table_uri: Any, *args: Any, **kwargs: Any) -> Any:
        return is_table(redirected(table_uri), *args, **kwargs)

    @functools.wraps(create)
    def create_redirected(cls: Any, table_uri: Any, *args: Any, **kwargs: Any) -> Any:
        return create(cls, redirected(table_uri), *args, **kwargs)

    table.is_deltatable = staticmethod(is_deltatable)
    table.create = classmethod(create_redirected)


def _replace_init(owner: Any) -> None:
    original = owner.__init__

    @functools.wraps(original)
    def __init__(self: Any, table_uri: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - replaces it
        original(self, redirected(table_uri), *args, **kwargs)

    owner.__init__ = __init__


# Plain functions without a closure: `deltawitness.delta_rs` replaces the code of the first one.


def _write_deltalake(table_or_uri: Any, *args: Any, **kwargs: Any) -> Any:
    return _originals["write_deltalake"](redirected(table_or_uri), *args, **kwargs)


def _convert_to_deltalake(uri: Any, *args: Any, **kwargs: Any) -> Any:
    place = redirected(uri, with_files=True)
    return _originals["convert_to_deltalake"](place, *args, **kwargs)


def _create_table_with_add_actions(table_uri: Any, *args: Any, **kwargs: Any) -> Any:
    return _originals["create_table_with_add_actions"](redirected(table_uri), *args, **kwargs)


def _rebind(module: str, name: str, replacement: Any) -> None:
    """Replace a function in each module of delta-rs that has it."""
    owner = sys.modules.get(module)
    original = getattr(owner, name, None)
    if original is None:
        return
    _originals[name] = original
    functools.update_wrapper(replacement, original)
    for each in [sys.modules[key] for key in list(sys.modules) if key.startswith("deltalake")]:
        if vars(each).get(name) is original:
            setattr(each, name, replacement)


# --- guards ------------------------------------------------------------------------------------------


def _guard_method(seam: WriteSeam) -> None:
    owner = getattr(sys.modules[seam.module], seam.owner)
    original = getattr(owner, seam.name, None)
    if original is None:
        return

    @functools.wraps(original)
    def guarded(table: Any, *args: Any, **kwargs: Any) -> Any:
        _check(table.table_uri())
        return original(table, *args, **kwargs)

    setattr(owner, seam.name, guarded)


def _guard_function(seam: WriteSeam) -> None:
    owner = sys.modules.get(seam.module)
    original = getattr(owner, seam.name, None)
    if original is None:
        return

    @functools.wraps(original)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        # delta-rs passes the location by keyword; without, nothing says that it is a clone.
        _check(kwargs.get(seam.uri, args[0] if args else ""))
        return original(*args, **kwargs)

    setattr(owner, seam.name, guarded)


def _check(location: Any) -> None:
    """Check that a table to write is a clone.

    Raises:
        PlanError: it is not.
    """
    assert _folder is not None
    text = str(location)
    path = local_path(text)
    is_clone = path is not None and _folder.contains(os.path.realpath(path))
    if not is_clone and not text.startswith("memory:"):
        msg = f"deltawitness plan: a write to {text} was refused: the table is not a clone"
        raise PlanError(msg)
