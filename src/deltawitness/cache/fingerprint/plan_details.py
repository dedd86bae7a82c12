"""What plans differ in that print the same: rows of VALUES, what becomes of nulls, nested literals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from deltawitness.cache.fingerprint.scans import UnknownScanError, nodes_of
from deltawitness.session.core.private_api import wrapped_plan
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

__all__ = ["check_literals", "null_handling", "values_in"]

_NESTED_LITERAL = re.compile(r"(?<!\w)(?:\w*List(?:View)?\(\[|Struct\(\{|Map\(\[)")
"""How a literal begins that is printed without the quotes, the types and the nulls of its members."""

_UNNEST = re.compile(
    r"^\s*Unnest: lists\[(?!__unnest_placeholder)(.*)\] structs\[(.*)\]$", re.MULTILINE
)
"""An UNNEST of a frame's method: that of SQL reads what it has a name of its own for."""

_DEPTH = re.compile(r"\|depth=1(?:, |$)|, |$")


def check_literals(text: str) -> None:
    """See that a plan tells its literals exactly.

    Raises:
        Unknown: a list, a struct or a map is among them.
    """
    if _NESTED_LITERAL.search(text):
        msg = "its plan holds a list, a struct or a map that it does not tell exactly"
        raise UnknownScanError(msg)


def values_in(frame: DataFrame) -> list[str]:
    """Return the rows of VALUES where the plan prints the first five only.

    Raises:
        Unknown: they are inside of a subquery, where nobody can ask the rest.
    """
    plan = unpatched(frame, "logical_plan")()
    lines = [
        line for line in plan.display_indent().splitlines() if line.lstrip().startswith("Values:")
    ]
    if not any(line.endswith("...") for line in lines):
        return []
    told = _values(plan)
    if len(told) < len(lines):
        told = _values(unpatched(frame, "optimized_logical_plan")())
    if len(told) < len(lines):
        msg = "it holds a VALUES inside of a subquery that its plan does not tell whole"
        raise UnknownScanError(msg)
    return told


def _values(plan: Any) -> list[str]:
    return [
        "; ".join(", ".join(str(cell) for cell in row) for row in node.to_variant().values())
        for node in nodes_of(plan, "Values")
    ]


def null_handling(ctx: SessionContext, frame: DataFrame) -> Iterator[str]:
    """Yield what a plan does with nulls: an INTERSECT prints as a join does, to which they are not equal.

    Args:
        ctx: a context of the frame's session.
        frame: the frame.

    Raises:
        Unknown: of an `unnest_columns` it cannot be seen.
    """
    plan = unpatched(frame, "logical_plan")()
    for at, join in enumerate(nodes_of(plan, "Join")):
        if join.to_variant().null_equals_null():
            yield f"null is null in join {at}"
    printed = len(_UNNEST.findall(plan.display_indent()))
    for at, unnest in enumerate(nodes_of(plan, "Unnest")):
        if _UNNEST.match(unnest.display_indent()):
            printed -= 1
            yield f"{'nulls' if _keeps_nulls(ctx, unnest) else 'no nulls'} of unnest {at}"
    if printed:
        msg = "it calls unnest_columns inside of a subquery"
        raise UnknownScanError(msg)


def _keeps_nulls(ctx: SessionContext, unnest: Any) -> bool:
    """Tell whether an `unnest_columns` keeps the rows without members: it is held against one that does."""
    match = _UNNEST.match(unnest.display_indent())
    assert match is not None
    (below,) = unnest.inputs()
    source = unpatched(ctx, "create_dataframe_from_logical_plan")(wrapped_plan(below))
    names = [name for part in match.groups() for name in _DEPTH.split(part) if name]
    bare = [name.rpartition(".")[2] for name in names]
    for keeps in (True, False):
        try:
            again = unpatched(source, "unnest_columns")(*bare, preserve_nulls=keeps)
        except Exception:  # noqa: BLE001 - a name that has to be told in another way
            break
        if unpatched(again, "logical_plan")() == wrapped_plan(unnest):
            return keeps
    msg = "of an unnest_columns it cannot be seen what becomes of nulls"
    raise UnknownScanError(msg)
