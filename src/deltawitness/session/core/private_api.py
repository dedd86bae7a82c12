"""Behaviour of DataFusion that we rely on and that its documentation does not promise.

Each has a contract test in `tests/session/test_private_api.py`, which names the behaviour that a new
release has changed. (For delta-rs see :mod:`deltawitness.commit.private_api`.)
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

T = TypeVar("T")

__all__ = [
    "ADDED_IN_55",
    "BOUND_TO_ZONE",
    "CONSTANT_FILTER",
    "ENGINE_ERROR",
    "FAILED_SOURCE",
    "FILE_CACHE_LIMIT",
    "FILTER_RULE",
    "FILTER_UNJOINED",
    "NAME_UNKNOWN",
    "OUTER_REFERENCE",
    "OVERWRITE_REFUSED",
    "REPLACE_REFUSED",
    "SCAN",
    "UNOPTIMIZED",
    "VIEW_OF_FRAME",
    "calls_volatile",
    "cast_type",
    "dml_kind",
    "is_of_kind",
    "locations_of",
    "table_of_class",
    "wrapped_plan",
]

ADDED_IN_55 = frozenset({"fill_nan", "with_extensions"})
"""Observed methods that DataFusion 54 does not have."""

SCAN = re.compile(r"^\s*TableScan: (.+)$", re.MULTILINE)
"""A line of `LogicalPlan.display_indent()` that names a scanned table, also inside subqueries and
views. The name is dotted and unquoted; the projection and filters may follow it."""

BOUND_TO_ZONE = re.compile(r"\b(?:to_timestamp\w*|now)\(")
"""Calls that take the session's time zone when they are planned; the plan's text does not show it.
Functions of `datafusion.functions` take no time zone."""

FILE_CACHE_LIMIT = "datafusion.runtime.list_files_cache_limit"
"""The setting for the size of a session's cache of directory listings. A cached listing hides new
files."""

FAILED_SOURCE = "C Data interface error"
"""Part of delta-rs's error message when the source stream of a write raised."""

FILTER_RULE = "push_down_filter"
"""The optimizer rule that pushes filters down to scans."""

FILTER_UNJOINED = "unsupported operand type(s) for &: 'pyarrow.lib."
"""The error message of planning a dataset scan whose first filter is a constant."""

CONSTANT_FILTER = re.compile(r"full_filters=\[Boolean\(")
"""A scan whose first filter is a constant, in the text of an optimized plan."""

ENGINE_ERROR = "DataFusion error: "
"""The start of the message of a DataFusion error that has no class but `Exception`."""

OUTER_REFERENCE = "outer_ref("
"""The prefix of a column of the outer query inside a subquery, in a plan's text."""

OVERWRITE_REFUSED = "Overwrite not implemented"
"""The error of an in-memory table for `InsertOp.OVERWRITE`: the only way to read write options."""

REPLACE_REFUSED = "Replace Into not implemented"
"""The error of an in-memory table for `InsertOp.REPLACE`."""

NAME_UNKNOWN = ("not found", "No table named")
"""Parts of the error messages of planning for a table name that does not exist."""

UNOPTIMIZED = ("datafusion.optimizer.max_passes", "0")
"""The setting that makes PREPARE store an unoptimized plan. By default PREPARE optimizes it, and
EXECUTE then returns a plan from which the statement cannot be recognized."""

VIEW_OF_FRAME = re.compile(r"\bview_[0-9a-f]{8}(?:_[0-9a-f]{4}){3}_[0-9a-f]{12}\b")
"""The name that the engine generates for a frame that replaces `$name` in a statement."""


def is_of_kind(plan: Any, kind: str) -> bool:
    """Return whether a plan's outermost node is of a kind; False for nodes without a Python class."""
    try:
        return type(plan.to_variant()).__name__ == kind
    except Exception:  # noqa: BLE001 - the engine has plan nodes without a Python class
        return False


def dml_kind(plan: Any) -> str:
    """Return what a DML plan does: Append, Overwrite, Replace, Update, Delete, Truncate or Merge.

    `DmlStatement.op()` has no value for MERGE yet and raises `NotImplementedError`.
    """
    try:
        return str(plan.to_variant().op()).rpartition(".")[2]
    except NotImplementedError:
        return "Merge"


def cast_type(expression: Any) -> str:
    """Return the target type of a cast, which the engine shows only in the expression's text."""
    return str(expression.canonical_name()).rpartition(" AS ")[2].removesuffix(")")


def locations_of(command: Any) -> list[str]:
    """Return the locations in a CREATE EXTERNAL TABLE command; DataFusion 54 has one of them only."""
    if hasattr(command, "locations"):
        return list(command.locations())
    return [command.location()]


def calls_volatile(function: Any) -> bool:
    """Return whether a scalar function is volatile.

    The engine shows the volatility only in the error for a function without a Python class.
    """
    try:
        function.to_variant()
    except ValueError as error:
        return "volatility: Volatile" in str(error)
    return False


def table_of_class(kind: type[T], table: Any) -> T:
    """Return an engine's `Table` as an instance of a subclass of `Table`.

    Args:
        kind: the subclass.
        table: the engine's table; the result wraps the same provider.
    """
    view = kind.__new__(kind)
    view._inner = table._inner  # type: ignore[attr-defined]  # noqa: SLF001 - the only attribute of a Table
    return view


def wrapped_plan(plan: Any) -> Any:
    """Return a plan as the class that `SessionContext` accepts; plan nodes return an inner class."""
    from datafusion.plan import LogicalPlan  # noqa: PLC0415 - heavy, already loaded

    return plan if isinstance(plan, LogicalPlan) else LogicalPlan(plan)
