"""`FrameView`, a `datafusion.catalog.Table` that holds the frame it was created from.

Import this module only when the first view is created: it imports DataFusion, while the modules that
patch DataFusion are themselves imported during DataFusion's import.
"""

from __future__ import annotations

from typing import Any

from datafusion.catalog import Table

from deltawitness.session.core.frames import ATTRIBUTE

__all__ = ["FrameView"]


class FrameView(Table):
    """The result of an observed frame's `into_view()`; `frame` is the frame that the view shows."""

    __slots__ = (ATTRIBUTE, "frame")

    frame: Any
