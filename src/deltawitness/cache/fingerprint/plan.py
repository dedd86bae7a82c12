"""What a frame is made from, read off its plans: Delta tables, files, data in memory, functions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deltawitness.cache.fingerprint.environment import TIME_ZONE, engine_release, setting_inputs
from deltawitness.cache.fingerprint.inputs import Inputs, collect_inputs
from deltawitness.cache.fingerprint.model import Column, Fingerprint, NotCacheable, SettingInput
from deltawitness.cache.fingerprint.scans import UnknownScanError
from deltawitness.cache.fingerprint.udfs import UnversionedUdfError, udf_inputs
from deltawitness.hashing import (
    hash_of_plan_text,
    plan_text,
    schema_hash,
    shape_hash_of_plan_text,
)
from deltawitness.session.core.frames import FrameState, state_of
from deltawitness.session.core.private_api import BOUND_TO_ZONE

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame

__all__ = ["columns_of", "fingerprint_of", "source_fingerprint"]


def fingerprint_of(
    frame: DataFrame,
    *,
    functions: Mapping[str, str],
    version: str | None = None,
    is_aging: bool = False,
    query: str | None = None,
) -> Fingerprint | NotCacheable:
    """Return what a frame is made from, or why that cannot be told.

    Args:
        frame: the frame.
        functions: versions of the program's own functions, by name.
        version: what the program says of what cannot be seen.
        is_aging: the result is served for a time only, so that it may depend on the time.
        query: the text that the frame is of, if it is of one.
    """
    state = state_of(frame)
    try:
        _check_schema(frame.schema())
        sources = collect_inputs(frame, version)
        text = _full_text(frame, sources)
        settings = _settings(state)
        if query is None and version is None:
            _check_zone(text, state, settings)
        calls = udf_inputs(
            None if state is None else state.ctx,
            text,
            functions,
            replaced=frozenset() if state is None else frozenset(state.session.functions),
            is_aging=is_aging,
        )
        return Fingerprint(
            plan_hash=hash_of_plan_text(text + _exact(query)),
            plan_shape_hash=shape_hash_of_plan_text(text),
            schema_hash=schema_hash(frame.schema()),
            columns=columns_of(frame.schema()),
            functions=tuple(calls),
            settings=settings,
            version=version,
            engine=engine_release(),
            **sources.marks(),
        )
    except (UnknownScanError, UnversionedUdfError) as reason:
        return NotCacheable(str(reason))


def source_fingerprint(
    frame: DataFrame, version: str | None, **marks: Any
) -> Fingerprint | NotCacheable:
    """Return what a frame over a source outside of the session is made from.

    Args:
        frame: the frame.
        version: what the program says of what cannot be seen.
        **marks: what it reads.
    """
    try:
        _check_schema(frame.schema())
    except UnknownScanError as reason:
        return NotCacheable(str(reason))
    schema = frame.schema()
    return Fingerprint(
        schema_hash=schema_hash(schema),
        columns=columns_of(schema),
        version=version,
        engine=engine_release(),
        **marks,
    )


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    """Return the columns of a schema."""
    return tuple(Column(field.name, str(field.type), field.nullable) for field in schema)


def _check_schema(schema: pa.Schema) -> None:
    """Look whether a Delta table can have the columns of a result.

    Raises:
        Unknown: it cannot.
    """
    names = [name.lower() for name in schema.names]
    if len(set(names)) != len(names):
        msg = "two of its columns have one name: give them others"
        raise UnknownScanError(msg)
    if not names:
        msg = "it has no columns"
        raise UnknownScanError(msg)
    for field in schema:
        if _is_foreign(field.type, at_top=True):
            msg = f"Delta has no type for a column of it: {field.type}"
            raise UnknownScanError(msg)


def _is_foreign(kind: pa.DataType, *, at_top: bool = False) -> bool:
    """Tell whether Delta has no type for values of a type; unsigned ones are widened, but not inside."""
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    if pt.is_dictionary(kind):
        return _is_foreign(kind.value_type, at_top=at_top)
    if kind.num_fields:
        return any(_is_foreign(kind.field(i).type) for i in range(kind.num_fields))
    is_unsigned = pt.is_unsigned_integer(kind) and not at_top
    is_other = (
        pt.is_time(kind)
        or pt.is_duration(kind)
        or pt.is_interval(kind)
        or pt.is_float16(kind)
        or pt.is_decimal256(kind)
        or pt.is_union(kind)
    )
    return is_unsigned or is_other


def _settings(state: FrameState | None) -> tuple[SettingInput, ...]:
    if state is None:
        return ()
    return setting_inputs(state.ctx, has_spark_functions=state.session.has_spark_functions)


def _check_zone(text: str, state: FrameState | None, settings: tuple[SettingInput, ...]) -> None:
    """See that the calls of a frame are bound to no time zone.

    Raises:
        Unknown: they may be: to that of when each was made, which no text of a plan tells.
    """
    is_moved = state is not None and state.session.time_zones > 0
    has_zone = is_moved or any(mark.name == TIME_ZONE for mark in settings)
    if has_zone and BOUND_TO_ZONE.search(text):
        msg = "a call in its frame may be bound to another time zone: ask with SQL text"
        raise UnknownScanError(msg)


def _full_text(frame: DataFrame, sources: Inputs) -> str:
    return "\n".join((plan_text(frame), *sources.unprinted))


def _exact(query: str | None) -> str:
    """Return what tells apart two queries whose plans print the same: quotes inside of literals."""
    if query is None or '"' not in query:
        return ""
    return "\n" + hashlib.sha256(query.encode("utf-8", "surrogatepass")).hexdigest()
