"""What we rely on in DataFusion that its documentation does not promise; each has a contract test.

A new release that moves one of them fails `tests/test_datafusion_seams.py` with the name of what
moved. (Those of delta-rs are in :mod:`deltawitness.commit.private_api`.)
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

T = TypeVar("T")

__all__ = [
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
    "table_of_class",
    "wrapped_plan",
]

SCAN = re.compile(r"^\s*TableScan: (.+)$", re.MULTILINE)
"""A line of `LogicalPlan.display_indent()` that names a scanned table, also inside subqueries and
views; the name is dotted and has no quotes, and may be followed by what is read of it."""

BOUND_TO_ZONE = re.compile(r"\b(?:to_timestamp\w*|now)\(")
"""Calls that are bound to the session's time zone when they are planned; their text does not tell it.
Functions of `datafusion.functions` are bound to none."""

FILE_CACHE_LIMIT = "datafusion.runtime.list_files_cache_limit"
"""How much a session remembers of what lies in directories: one that remembers sees no new file."""

FAILED_SOURCE = "C Data interface error"
"""How delta-rs says that the stream which it was to write has failed by itself."""

FILTER_RULE = "push_down_filter"
"""The rule of the optimizer that hands filters to scans."""

FILTER_UNJOINED = "unsupported operand type(s) for &: 'pyarrow.lib."
"""How planning the scan of a dataset fails whose first filter is a constant."""

CONSTANT_FILTER = re.compile(r"full_filters=\[Boolean\(")
"""How the text of an optimized plan shows a scan whose first filter is a constant."""

ENGINE_ERROR = "DataFusion error: "
"""How an error of DataFusion's own begins that is of no class but `Exception`."""

OUTER_REFERENCE = "outer_ref("
"""How the same text marks a column of the outer query inside a subquery."""

OVERWRITE_REFUSED = "Overwrite not implemented"
"""What an in-memory table says to `InsertOp.OVERWRITE`: write options cannot be read otherwise."""

REPLACE_REFUSED = "Replace Into not implemented"
"""What an in-memory table says to `InsertOp.REPLACE`."""

NAME_UNKNOWN = ("not found", "No table named")
"""How planning says that a table's name stands for nothing."""


UNOPTIMIZED = ("datafusion.optimizer.max_passes", "0")
"""A setting under which PREPARE keeps a plan as it was written: it optimizes it otherwise, so that
EXECUTE returns a plan that does not show the statement any more."""

VIEW_OF_FRAME = re.compile(r"\bview_[0-9a-f]{8}(?:_[0-9a-f]{4}){3}_[0-9a-f]{12}\b")
"""The name that the engine gives a frame which stands for `$name` in a statement."""


def is_of_kind(plan: Any, kind: str) -> bool:
    """Tell whether a plan's outermost node is of a kind; plans without a Python class are of none."""
    try:
        return type(plan.to_variant()).__name__ == kind
    except Exception:  # noqa: BLE001 - the engine knows plans that Python has no word for
        return False


def dml_kind(plan: Any) -> str:
    """Return what a DML plan does: Append, Overwrite, Replace, Update, Delete, Truncate or Merge.

    `DmlStatement.op()` has no word for MERGE yet, and raises.
    """
    try:
        return str(plan.to_variant().op()).rpartition(".")[2]
    except NotImplementedError:
        return "Merge"


def cast_type(expression: Any) -> str:
    """Return the type of a cast, which the engine tells in the expression's text alone."""
    return str(expression.canonical_name()).rpartition(" AS ")[2].removesuffix(")")


def calls_volatile(function: Any) -> bool:
    """Tell whether a scalar function is volatile: the engine says so where it hands out no class."""
    try:
        function.to_variant()
    except ValueError as error:
        return "volatility: Volatile" in str(error)
    return False


def table_of_class(kind: type[T], table: Any) -> T:
    """Return a table of a class of our own that stands for what an engine's `Table` stands for."""
    view = kind.__new__(kind)
    view._inner = table._inner  # type: ignore[attr-defined]  # noqa: SLF001 - the one thing that a Table holds
    return view


def wrapped_plan(plan: Any) -> Any:
    """Return a plan as the class that `SessionContext` takes: nodes hand out the engine's inner one."""
    from datafusion.plan import LogicalPlan  # noqa: PLC0415 - heavy, already loaded

    return plan if isinstance(plan, LogicalPlan) else LogicalPlan(plan)
