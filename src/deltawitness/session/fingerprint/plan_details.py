"""Plan details that DataFusion's plan text omits: rows of VALUES, null handling, nested literals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from deltawitness.session.core.private_api import wrapped_plan
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.fingerprint.scans import UnknownScanError, nodes_of

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

__all__ = ["check_literals", "null_handling", "values_in"]

_NESTED_LITERAL = re.compile(r"(?<!\w)(?:\w*List(?:View)?\(\[|Struct\(\{|Map\(\[)")
"""The begin of a literal whose members are printed without quotes, types and nulls."""

_UNNEST = re.compile(
    r"^\s*Unnest: lists\[(?!__unnest_placeholder)(.*)\] structs\[(.*)\]$", re.MULTILINE
)
"""An UNNEST from a frame method; the UNNEST of SQL reads a generated `__unnest_placeholder` column."""

_DEPTH = re.compile(r"\|depth=1(?:, |$)|, |$")


def check_literals(text: str) -> None:
    """Check that the plan text is exact for all literals.

    Raises:
        UnknownScanError: it has a list, struct or map literal.
    """
    if _NESTED_LITERAL.search(text):
        msg = "the plan text is not exact for a list, struct or map literal"
        raise UnknownScanError(msg)


def values_in(frame: DataFrame) -> list[str]:
    """Return the rows of VALUES if the plan text shows only the first five of one.

    Raises:
        UnknownScanError: a VALUES is inside a subquery, where its other rows cannot be read.
    """
    plan = unpatched(frame, "logical_plan")()
    # A text in a row may have line breaks, so that the mark of omitted rows is not on the first line.
    lines = plan.display_indent().splitlines()
    shown = sum(line.lstrip().startswith("Values:") for line in lines)
    if not shown or not any(line.endswith("...") for line in lines):
        return []
    rows = _values(plan)
    if len(rows) < shown:
        rows = _values(unpatched(frame, "optimized_logical_plan")())
    if len(rows) < shown:
        msg = "the plan text does not show all rows of a VALUES inside a subquery"
        raise UnknownScanError(msg)
    return rows


def _values(plan: Any) -> list[str]:
    return [
        "; ".join(", ".join(str(cell) for cell in row) for row in node.to_variant().values())
        for node in nodes_of(plan, "Values")
    ]


def null_handling(ctx: SessionContext, frame: DataFrame) -> Iterator[str]:
    """Yield the null handling of joins and unnests.

    INTERSECT prints like a join, but treats nulls as equal.

    Args:
        ctx: a context of the frame's session.
        frame: the frame.

    Raises:
        UnknownScanError: the null handling of an `unnest_columns` cannot be read.
    """
    plan = unpatched(frame, "logical_plan")()
    for at, join in enumerate(nodes_of(plan, "Join")):
        if join.to_variant().null_equals_null():
            yield f"null is null in join {at}"
    printed = len(_UNNEST.findall(plan.display_indent()))
    for at, unnest in enumerate(nodes_of(plan, "Unnest")):
        if _UNNEST.match(unnest.display_indent()):
            printed -= 1
            yield f"{'nulls' if _preserves_nulls(ctx, unnest) else 'no nulls'} of unnest {at}"
    if printed:
        msg = "the null handling of an unnest_columns inside a subquery cannot be read"
        raise UnknownScanError(msg)


def _preserves_nulls(ctx: SessionContext, unnest: Any) -> bool:
    """Return whether an `unnest_columns` keeps rows without members.

    The plan does not show it: the unnest is planned both ways and compared.

    Raises:
        UnknownScanError: neither plan is equal.
    """
    match = _UNNEST.match(unnest.display_indent())
    assert match is not None
    (below,) = unnest.inputs()
    source = unpatched(ctx, "create_dataframe_from_logical_plan")(wrapped_plan(below))
    names = [name for part in match.groups() for name in _DEPTH.split(part) if name]
    bare = [name.rpartition(".")[2] for name in names]
    for preserve in (True, False):
        try:
            again = unpatched(source, "unnest_columns")(*bare, preserve_nulls=preserve)
        except Exception:  # noqa: BLE001 - a column name that needs quotes
            break
        if unpatched(again, "logical_plan")() == wrapped_plan(unnest):
            return preserve
    msg = "the null handling of an unnest_columns cannot be read"
    raise UnknownScanError(msg)
