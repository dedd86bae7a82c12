"""The view of a frame, which remembers the frame: a subclass of a class of the engine.

This module is imported when the first view is made. Modules that patch DataFusion run while it is being
imported, and must not need it themselves.
"""

from __future__ import annotations

from typing import Any

from datafusion.catalog import Table

from deltawitness.session.core.frames import ATTRIBUTE

__all__ = ["FrameView"]


class FrameView(Table):
    """What `DataFrame.into_view()` returns: a table that knows the frame it shows."""

    __slots__ = (ATTRIBUTE, "frame")

    frame: Any
