"""Run a frame whose filters a dataset cannot be given.

DataFusion hands the filters of a scan to a dataset as expressions of Arrow's. It fails to put some of
them together (`x = NULL AND y > 1`: the first is a constant, which Arrow joins to nothing), and some
cannot be turned into SQL for :mod:`deltawitness.scan`. Both fail while the frame is planned, before
anything has run; such a frame is planned again with its filters left above the scan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltawitness.session.core.frames import state_of
from deltawitness.session.core.private_api import (
    CONSTANT_FILTER,
    FILTER_RULE,
    FILTER_UNJOINED,
    wrapped_plan,
)
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from collections.abc import Callable

    from datafusion import DataFrame

__all__ = ["call_frame", "call_with_fallback", "plan_to_run"]

_REFUSED = (FILTER_UNJOINED, "FilterError")


def call_frame(frame: DataFrame, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the engine's that runs a frame, with its filters above the scans if need be.

    Args:
        frame: the frame.
        name: the method.
        args: its arguments.
        kwargs: its keyword arguments.
    """
    return call_with_fallback(frame, name, unpatched(frame, name), *args, **kwargs)


def call_with_fallback(
    frame: DataFrame, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Do as :func:`call_frame` does, with the method of the frame at hand."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        if not any(text in str(error) for text in _REFUSED):
            raise
    return unpatched(_without_filters(frame), name)(*args, **kwargs)


def plan_to_run(frame: DataFrame) -> Any:
    """Return the optimized plan of a frame, which can be run as it stands.

    Args:
        frame: the frame.
    """
    plan = unpatched(frame, "optimized_logical_plan")()
    if CONSTANT_FILTER.search(plan.display_indent()) is None:
        return plan
    return unpatched(_without_filters(frame), "optimized_logical_plan")()


def _without_filters(frame: DataFrame) -> Any:
    """Return the frame in a session that hands no filters to scans.

    The plan brings its tables and functions. The settings are those of the frame's own session where
    that is known: of what is decided after a plan was made, they change how fast it runs, no result.
    """
    from datafusion import SessionContext  # noqa: PLC0415 - heavy, and there already

    state = state_of(frame)
    ctx = SessionContext(None if state is None else unpatched(state.ctx, "copied_config")())
    ctx.remove_optimizer_rule(FILTER_RULE)
    plan = wrapped_plan(unpatched(frame, "logical_plan")())
    return unpatched(ctx, "create_dataframe_from_logical_plan")(plan)
