"""The line of the program that makes a write: file, line and function.

A file is relative to its project, or to `site-packages` for an installed package. It is never an
absolute path, so it has no home directory in it.
"""

from __future__ import annotations

import ntpath
import os
import sys
from types import CodeType, FrameType
from typing import NamedTuple

from deltawitness.repository import main_directory, project_root

__all__ = ["CallSite", "call_site_of_program"]

_LIBRARIES = frozenset(
    {
        *("arro3", "contextlib", "daft", "dask", "dask_deltatable", "datafusion", "deltalake"),
        *("deltawitness", "distributed", "hamilton", "ibis", "narwhals", "opentelemetry"),
        *("pandas", "polars", "pyarrow", "wrapt"),
    }
)
"""Top-level packages that call delta-rs for a program. Their frames of the stack are skipped."""

_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep  # noqa: PTH100, PTH120 - text, not a file
_COMMANDS = _OWN + "cli" + os.sep
"""Where a command of `deltawitness` begins. Its own writes, such as those of `undo`, have no line."""

_END = ""
"""In place of a name: the frames above are of no program."""

_PACKAGES = ("/site-packages/", "/dist-packages/")
_STANDARD = os.path.dirname(os.path.abspath(os.__file__)) + os.sep  # noqa: PTH100, PTH120 - as above
_PROMPTS = frozenset({"<string>", "<stdin>"})
_CELL = "<notebook>"
_CAPACITY = 4096
"""Maximum number of cached file names; beyond it, the cache is cleared."""

_names: dict[str, str | None] = {}
"""The exported name of each source file; None for a file of a library, `_END` for a command."""

_sites: dict[tuple[int, int, str], tuple[CodeType, CallSite]] = {}
"""The lines by the id of their code, the index of the instruction in it, and the module."""

_library_files: set[str] = set()
"""The source files in `_names` whose name is None."""


class CallSite(NamedTuple):
    """A line of the program. A named tuple, because each write makes one on the program's thread.

    Attributes:
        file: path relative to the project or to `site-packages`; `<string>` for `python -c`.
        line: number of the line, from 1.
        function: the function's name, qualified by its module.
    """

    file: str
    line: int
    function: str


def call_site_of_program(depth: int = 1) -> CallSite | None:
    """Return the innermost line of the stack that is in no library; None if there is none.

    A thread that runs only a function of a library has no line of the program.

    Args:
        depth: number of frames above the caller's that are skipped.
    """
    frame = sys._getframe(depth)  # noqa: SLF001 - `inspect.stack` reads source files
    libraries = _library_files
    while frame is not None:
        code = frame.f_code
        if code.co_filename in libraries:  # most frames of the path of a write
            frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
            continue
        try:
            name = _names[code.co_filename]
        except KeyError:
            name = _remember(code.co_filename)
        if name == _END:
            return None
        if name is not None:
            return _site_of(frame, code, name)
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return None


def _site_of(frame: FrameType, code: CodeType, name: str) -> CallSite:
    """Return the line of a frame, which is made once: Python searches the lines of the code from its start."""
    module = frame.f_globals.get("__name__", "")
    key = id(code), frame.f_lasti, module
    known = _sites.get(key)
    if known is not None and known[0] is code:
        return known[1]
    site = CallSite(name, frame.f_lineno, f"{module}.{code.co_qualname}")
    if len(_sites) >= _CAPACITY:
        _sites.clear()
    _sites[key] = code, site  # the reference to the code keeps its id from being used again
    return site


def _remember(file: str) -> str | None:
    if len(_names) >= _CAPACITY:
        _names.clear()
        _library_files.clear()
    name = _names[file] = _name_of(file)
    if name is None:
        _library_files.add(file)
    return name


def _name_of(file: str) -> str | None:
    """Return the name under which a source file is exported; None for a library, `_END` for a command.

    >>> _name_of("/x/lib/python3.11/site-packages/jobs/load.py")
    'jobs/load.py'
    >>> _name_of("/x/lib/python3.11/site-packages/polars/io.py"), _name_of("<frozen runpy>")
    (None, None)
    """
    if not file or file.startswith("<"):
        return _name_of_text(file)
    if file.startswith(_OWN):
        return _END if file.startswith(_COMMANDS) else None
    # A function that was pickled on Windows, for example by a client of Dask or Ray.
    is_from_windows = os.sep == "/" and ntpath.splitdrive(file)[0] != ""
    if is_from_windows:
        file = file.replace("\\", "/")
    for packages in _PACKAGES:
        _, found, rest = file.replace(os.sep, "/").rpartition(packages)
        if found:
            top = rest.partition("/")[0].removesuffix(".py")
            return None if top in _LIBRARIES else rest
    if is_from_windows:
        return file.rpartition("/")[2]
    path = _absolute(file)
    if path.startswith(_STANDARD):
        return None
    return _CELL if "ipykernel_" in path else _relative(path)


def _absolute(file: str) -> str:
    """Return an absolute path; the same path where the working directory was deleted."""
    try:
        return os.path.abspath(file)  # noqa: PTH100 - text, not a file
    except OSError:
        return file


def _name_of_text(file: str) -> str | None:
    """Return the name of code that has no file; None for code that a library has generated."""
    if file.startswith(("<ipython-input", "<ipython-")):
        return _CELL
    return file if file in _PROMPTS else None


def _relative(path: str) -> str:
    """Return a file relative to its project, else to the main script, else its name alone."""
    try:
        main = main_directory()
    except OSError:
        main = None  # the working directory was deleted
    for root in (project_root(os.path.dirname(path)), main):  # noqa: PTH120 - text, not a file
        if root is not None and path.startswith(root + os.sep):
            return path[len(root) + 1 :].replace(os.sep, "/")
    return os.path.basename(path)  # noqa: PTH119 - as above
