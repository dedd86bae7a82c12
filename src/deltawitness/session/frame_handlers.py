"""Handlers of the methods of `DataFrame`: those that extend the plan, run it, write, or show it."""

from __future__ import annotations

import html
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from deltawitness.events import InputVersion
from deltawitness.observe import current_observer
from deltawitness.patching import argument
from deltawitness.session.core.filter_fallback import call_frame, call_with_fallback
from deltawitness.session.core.frames import ATTRIBUTE, FrameState, attach_state, derive, state_of
from deltawitness.session.core.private_api import table_of_class
from deltawitness.session.core.unpatched import REPLACED, unpatched
from deltawitness.session.handlers import Handler
from deltawitness.session.queries import inside_a_query, observe_query
from deltawitness.session.sql.exports import run_export
from deltawitness.session.sql.frame_sources import record_export
from deltawitness.session.sql.frame_writer import write_delta, write_table
from deltawitness.session.sql.source_metrics import stream_call

if TYPE_CHECKING:
    from datafusion import DataFrame

__all__ = ["FRAME_EXTRAS", "FRAME_HANDLERS", "RETURNING_DATA"]


def _derive_handler(name: str) -> Handler:
    return lambda frame, args, kwargs: derive(name, frame, args, kwargs)


def _execute_handler(name: str) -> Handler:
    """Return the handler of a method that runs the frame and returns a new frame of its rows."""

    def handler(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        state = state_of(frame)
        if state is None:
            return unpatched(frame, name)(*args, **kwargs)
        rows = frame if state.pending is None else state.pending.run()
        with inside_a_query():
            result = call_frame(rows, name, *args, **kwargs)
        return attach_state(
            result, FrameState(state.ctx, state.session, state.snapshot, _inputs_of(frame, state))
        )

    return handler


def _inputs_of(frame: DataFrame, state: FrameState) -> tuple[InputVersion, ...]:
    # The rows are in memory: the plan of the new frame does not have the inputs that they came from.
    return state.inputs(unpatched(frame, "logical_plan")().display_indent())


def _terminal_handler(name: str) -> Handler:
    """Return the handler of a method that returns or prints rows; it runs a pending statement."""
    is_stream, is_exportable = name == "__arrow_c_stream__", name in EXPORTABLE

    def handler(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        state = frame.__dict__.get(ATTRIBUTE)
        if type(state) is FrameState and state.pending is not None:
            return unpatched(state.pending.run(), name)(*args, **kwargs)
        call = unpatched(frame, name) if REPLACED else getattr(frame, name)
        if is_stream:
            call = stream_call(frame, call, argument(args, kwargs, 0, "requested_schema"))
        observer = current_observer()
        if observer is None or not observer.settings.capture_queries:
            result = call_with_fallback(frame, name, call, args, kwargs)
        else:
            run = partial(call_with_fallback, frame, name, call, args, kwargs)
            result = observe_query(observer, name, frame, run)
        if is_exportable and observer is not None:
            record_export(frame, result)
        return result

    return handler


def _plan_handler(name: str) -> Handler:
    """Return the handler of a method that returns the plan; it attaches the frame's state to the plan."""

    def handler(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plan = unpatched(frame, name)(*args, **kwargs)
        state = state_of(frame)
        return plan if state is None else attach_state(plan, state)

    return handler


def _repr_handler(name: str) -> Handler:
    """Return the handler of a `repr` method, which notebooks and debuggers call.

    It runs a pending statement only if the setting `repr_runs_dml` is on; otherwise it shows its status.
    """

    def handler(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        state = state_of(frame)
        if state is None or state.pending is None:
            return unpatched(frame, name)(*args, **kwargs)
        observer = current_observer()
        if observer is not None and observer.settings.repr_runs_dml:
            return unpatched(state.pending.run(), name)(*args, **kwargs)
        text = state.pending.status
        return (
            f"<pre>{html.escape(text, quote=False)}</pre>"
            if name == "_repr_html_"
            else f"DataFrame()\n{text}"
        )

    return handler


def _export_handler(name: str) -> Handler:
    def handler(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        state = state_of(frame)
        rows = frame if state is None or state.pending is None else state.pending.run()
        path = argument(args, kwargs, 0, "path")
        has_header = name == "write_csv" and bool(argument(args, kwargs, 1, "with_header"))
        write = partial(call_frame, rows, name, *args, **kwargs)
        if state is None or not isinstance(path, str | os.PathLike):
            return write()
        return run_export(frame, path, write, headers=int(has_header))

    return handler


def _write_table(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = argument(args, kwargs, 0, "table_name")
    if isinstance(name, str) and write_table(
        frame, name, argument(args, kwargs, 1, "write_options")
    ):
        return None
    return unpatched(frame, "write_table")(*args, **kwargs)


def _into_view(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    table = unpatched(frame, "into_view")(*args, **kwargs)
    state = state_of(frame)
    if state is None:
        return table
    from deltawitness.session.core.frame_view import FrameView  # noqa: PLC0415 - needs the engine

    view = table_of_class(FrameView, table)
    view.frame = frame
    return attach_state(view, state)


DERIVING = (
    "__getitem__", "aggregate", "alias", "cast", "distinct", "distinct_on", "drop", "except_all",
    "fill_nan", "fill_null", "filter", "head", "intersect", "join", "join_on", "limit",
    "repartition", "repartition_by_hash", "select", "select_exprs", "sort", "sort_by", "union",
    "union_by_name", "union_distinct", "unnest_columns", "window", "with_column",
    "with_column_renamed", "with_columns",
)  # fmt: skip
"""Methods of `DataFrame` that only extend the plan."""

EXECUTING = ("cache", "describe", "tail")
"""Methods of `DataFrame` that run the frame and return a new frame."""

TERMINAL = (
    "__aiter__", "__arrow_c_stream__", "__iter__", "collect", "collect_column",
    "collect_partitioned", "count", "execute_stream", "execute_stream_partitioned", "show",
    "to_arrow_table", "to_pandas", "to_polars", "to_pydict", "to_pylist",
)  # fmt: skip
"""Methods of `DataFrame` that run the frame and return or print its rows."""

EXPORTABLE = frozenset({"__arrow_c_stream__", "to_arrow_table", "to_pandas", "to_polars"})
"""Methods whose results a program may write: `record_export` records the inputs of their rows."""

RETURNING_DATA = frozenset(TERMINAL)
"""Methods whose results are data, not engine objects to observe."""

EXPORTING = ("write_csv", "write_json", "write_parquet", "write_parquet_with_options")
"""Methods of `DataFrame` that write files outside Delta."""

FRAME_HANDLERS: dict[str, Handler] = {
    **{name: _derive_handler(name) for name in DERIVING},
    **{name: _execute_handler(name) for name in EXECUTING},
    **{name: _terminal_handler(name) for name in TERMINAL},
    **{name: _export_handler(name) for name in EXPORTING},
    **{name: _plan_handler(name) for name in ("logical_plan", "optimized_logical_plan")},
    **{name: _repr_handler(name) for name in ("__repr__", "_repr_html_")},
    "into_view": _into_view,
    "write_table": _write_table,
}
"""Methods of `DataFrame` that are observed."""

FRAME_EXTRAS: dict[str, Callable[..., Any]] = {"write_delta": write_delta}
"""Methods that only an observed frame has."""
