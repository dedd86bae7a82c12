"""Run a frame whose filters cannot be pushed down to a dataset.

DataFusion pushes the filters of a scan down to a dataset as Arrow expressions. It fails to combine
some of them (`x = NULL AND y > 1`: the first becomes a constant scalar, which has no `&`), and some
have no equivalent in the SQL of :mod:`deltawitness.scan`. Both fail while the frame is planned,
before anything has run. Such a frame is planned again without filter push-down.
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
    """Call an engine method that runs a frame; without filter push-down if planning it fails.

    Args:
        frame: the frame.
        name: the name of the method.
        args: its arguments.
        kwargs: its keyword arguments.
    """
    return call_with_fallback(frame, name, unpatched(frame, name), args, kwargs)


def call_with_fallback(
    frame: DataFrame,
    name: str,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Call a bound method that runs a frame; without filter push-down if planning it fails.

    Args:
        frame: the frame.
        name: the name of the method.
        call: the bound method.
        args: its arguments.
        kwargs: its keyword arguments.
    """
    try:
        return call(*args, **kwargs)
    except Exception as error:
        if not any(text in str(error) for text in _REFUSED):
            raise
    return unpatched(_without_filters(frame), name)(*args, **kwargs)


def plan_to_run(frame: DataFrame) -> Any:
    """Return the optimized plan of a frame, without filter push-down if the scan would refuse it.

    Args:
        frame: the frame.
    """
    plan = unpatched(frame, "optimized_logical_plan")()
    if CONSTANT_FILTER.search(plan.display_indent()) is None:
        return plan
    return unpatched(_without_filters(frame), "optimized_logical_plan")()


def _without_filters(frame: DataFrame) -> Any:
    """Return the frame in a scratch session whose optimizer pushes no filters down.

    The logical plan holds its tables and functions. The scratch session copies the settings of the
    frame's session if that is observed: after planning, settings change the speed, not the result.
    """
    from datafusion import SessionContext  # noqa: PLC0415 - heavy, already loaded

    state = state_of(frame)
    ctx = SessionContext(None if state is None else unpatched(state.ctx, "copied_config")())
    ctx.remove_optimizer_rule(FILTER_RULE)
    plan = wrapped_plan(unpatched(frame, "logical_plan")())
    return unpatched(ctx, "create_dataframe_from_logical_plan")(plan)
