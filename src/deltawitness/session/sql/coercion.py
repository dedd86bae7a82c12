"""Return a frame whose schema has the types that its batches have.

DataFusion coerces the types of UNION, CASE and similar expressions after planning. A frame exports
the schema from before the coercion, while its batches have the types from after it. Arrow consumers
read batches by the exported schema, and so read wrong values. A frame over the optimized plan exports
the correct schema.
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
    """Return the same rows as a frame whose schema has the types of its batches.

    Args:
        ctx: the context that created the frame.
        frame: the frame.
        wanted: a schema whose types the columns are cast to where they differ. The engine raises its
            own error when a value cannot be cast.
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
    """Return whether delta-rs treats two types alike; string and string view, for example, are alike."""
    if given == wanted:
        return True
    return str(given) in _KINDS and _KINDS[str(given)] == _KINDS.get(str(wanted))
