"""The `stacklevel` with which a warning points at the program's line instead of a line of a library."""

from __future__ import annotations

import sys

__all__ = ["stack_level_of_program"]

_LIBRARIES = frozenset({"contextlib", "datafusion", "deltalake", "deltawitness", "wrapt"})
"""Top-level packages whose frames may be between the program's line and the warning."""


def stack_level_of_program() -> int:
    """Return the `stacklevel` of the program's line for a `warnings.warn` in the caller of this function.

    The program's line is the innermost one whose module belongs to none of the libraries.
    """
    level = 1
    frame = sys._getframe(1)  # noqa: SLF001 - `warnings` counts the same frames
    while frame.f_back is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _LIBRARIES:
            break
        frame = frame.f_back
        level += 1
    return level
