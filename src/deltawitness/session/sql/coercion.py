"""A frame whose declared types are those of its batches.

DataFusion decides on the types of UNION, CASE and the like after planning. The schema that a frame
exports is the one of before, its batches are of the one of after: whoever reads them by the exported
schema, as every Arrow consumer does, reads other numbers. A frame over the optimized plan says the
truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltawitness.session.core.filter_fallback import plan_to_run
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame, SessionContext

__all__ = ["coerce"]


def coerce(ctx: SessionContext, frame: DataFrame, wanted: pa.Schema | None = None) -> DataFrame:
    """Return the same rows as a frame that declares what its batches are.

    Args:
        ctx: the context that the frame was made with.
        frame: the frame.
        wanted: the types that the columns are cast to where they are others; the engine's own
            error when a value is none of them.
    """
    plan = plan_to_run(frame)
    planned: DataFrame = unpatched(ctx, "create_dataframe_from_logical_plan")(plan)
    if wanted is None:
        return planned
    given = planned.schema()
    if all(_is_same(one, other) for one, other in zip(given.types, wanted.types, strict=True)):
        return planned
    columns = [
        planned.col(field.name)
        if _is_same(field.type, target.type)
        else planned.col(field.name).cast(target.type).alias(field.name)
        for field, target in zip(given, wanted, strict=True)
    ]
    cast: DataFrame = unpatched(planned, "select")(*columns)
    return cast


_KINDS = {
    "string": "text",
    "string_view": "text",
    "large_string": "text",
    "binary": "bytes",
    "binary_view": "bytes",
    "large_binary": "bytes",
}


def _is_same(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Tell whether two types are one to delta-rs: text is text, a view of it or not."""
    if given == wanted:
        return True
    return str(given) in _KINDS and _KINDS[str(given)] == _KINDS.get(str(wanted))
