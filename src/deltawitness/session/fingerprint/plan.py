"""Computes the fingerprint of a frame from its plans: Delta tables, files, in-memory data, functions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deltawitness.hashing import (
    hash_of_plan_text,
    plan_text,
    schema_hash,
    shape_hash_of_plan_text,
)
from deltawitness.session.core.frames import FrameState, state_of
from deltawitness.session.core.private_api import BOUND_TO_ZONE
from deltawitness.session.fingerprint.environment import TIME_ZONE, engine_release, setting_inputs
from deltawitness.session.fingerprint.inputs import Inputs, collect_inputs
from deltawitness.session.fingerprint.model import Column, Fingerprint, NotCacheable, SettingInput
from deltawitness.session.fingerprint.scans import UnknownScanError
from deltawitness.session.fingerprint.udfs import UnversionedUdfError, udf_inputs

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame

__all__ = ["columns_of", "fingerprint_of", "source_fingerprint"]


def fingerprint_of(  # noqa: PLR0913 - each is an option, by keyword
    frame: DataFrame,
    *,
    functions: Mapping[str, str],
    version: str | None = None,
    has_max_age: bool = False,
    query: str | None = None,
    reads_content: bool = True,
    needs_exact_text: bool = True,
) -> Fingerprint | NotCacheable:
    """Return the fingerprint of a frame, or why it cannot be cached.

    Args:
        frame: the frame.
        functions: versions of user-defined functions, by name.
        version: a version that the caller gives to inputs whose changes cannot be detected.
        has_max_age: the result expires, so that it may depend on volatile functions.
        query: SQL text of the frame; None without one.
        reads_content: as for :func:`deltawitness.session.fingerprint.inputs.collect_inputs`.
        needs_exact_text: as `reads_content`.
    """
    state = state_of(frame)
    try:
        _check_schema(frame.schema())
        inputs = collect_inputs(
            frame, version, reads_content=reads_content, needs_exact_text=needs_exact_text
        )
        text = _full_text(frame, inputs)
        settings = _settings(state, is_cached=not reads_content)
        if query is None and version is None:
            _check_time_zone(text, state, settings)
        calls = udf_inputs(
            None if state is None else state.ctx,
            text,
            functions,
            replaced=frozenset() if state is None else frozenset(state.session.functions),
            has_max_age=has_max_age,
        )
        return Fingerprint(
            plan_hash=hash_of_plan_text(text + _query_hash(query)),
            plan_shape_hash=shape_hash_of_plan_text(text),
            schema_hash=schema_hash(frame.schema()),
            columns=columns_of(frame.schema()),
            functions=tuple(calls),
            settings=settings,
            version=version,
            engine=engine_release(),
            **inputs.as_fields(),
        )
    except (UnknownScanError, UnversionedUdfError) as reason:
        return NotCacheable(str(reason))


def source_fingerprint(
    frame: DataFrame, version: str | None, **inputs: Any
) -> Fingerprint | NotCacheable:
    """Return the fingerprint of a frame over an external source, or why it cannot be cached.

    Args:
        frame: the frame.
        version: a version that the caller gives to inputs whose changes cannot be detected.
        **inputs: fields of the fingerprint: what the frame reads.
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
        **inputs,
    )


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    """Return the columns of a schema."""
    return tuple(Column(field.name, str(field.type), field.nullable) for field in schema)


def _check_schema(schema: pa.Schema) -> None:
    """Check that a Delta table can have the columns of a result.

    Raises:
        UnknownScanError: it cannot.
    """
    names = [name.lower() for name in schema.names]
    if len(set(names)) != len(names):
        msg = "two columns have the same name (case is ignored): rename one"
        raise UnknownScanError(msg)
    if not names:
        msg = "the result has no columns"
        raise UnknownScanError(msg)
    for field in schema:
        if _lacks_delta_type(field.type, at_top=True):
            msg = f"Delta has no column type for {field.type}"
            raise UnknownScanError(msg)


def _lacks_delta_type(kind: pa.DataType, *, at_top: bool = False) -> bool:
    """Return whether Delta has no type for these values; unsigned columns are widened, nested ones not."""
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    if pt.is_dictionary(kind):
        return _lacks_delta_type(kind.value_type, at_top=at_top)
    if kind.num_fields:
        return any(_lacks_delta_type(kind.field(i).type) for i in range(kind.num_fields))
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


def _settings(state: FrameState | None, *, is_cached: bool) -> tuple[SettingInput, ...]:
    if state is None:
        return ()
    session = state.session
    return setting_inputs(
        state.ctx,
        has_spark_functions=session.has_spark_functions,
        config=session.settings.config_of(state.ctx) if is_cached else None,
    )


def _check_time_zone(
    text: str, state: FrameState | None, settings: tuple[SettingInput, ...]
) -> None:
    """Check that no function call of a frame is bound to a time zone.

    A call keeps the time zone that the session had when the call was created, and the plan text
    does not show it.

    Raises:
        UnknownScanError: a call may be bound to one.
    """
    has_changed_zone = state is not None and state.session.settings.time_zones > 0
    has_zone = has_changed_zone or any(each.name == TIME_ZONE for each in settings)
    if has_zone and BOUND_TO_ZONE.search(text):
        msg = "a function call in the frame may use another time zone: pass the query as SQL text"
        raise UnknownScanError(msg)


def _full_text(frame: DataFrame, inputs: Inputs) -> str:
    return "\n".join((plan_text(frame), *inputs.plan_details))


def _query_hash(query: str | None) -> str:
    """Return a hash of a query with double quotes, else an empty text.

    The plan text does not escape quotes in literals, so different queries can have the same plan text.
    """
    if query is None or '"' not in query:
        return ""
    return "\n" + hashlib.sha256(query.encode("utf-8", "surrogatepass")).hexdigest()
