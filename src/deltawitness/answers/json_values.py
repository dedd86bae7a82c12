"""Answers as values of JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from typing import Any

__all__ = ["json_value"]


def json_value(value: Any) -> Any:
    """Return a value with dictionaries, lists, texts and numbers only.

    Dataclasses are dictionaries of their attributes, times are in ISO 8601, and NaN and the infinities, which
    JSON does not have, are texts.

    >>> from deltawitness import RunOutput, TableVersion
    >>> json_value(RunOutput(TableVersion(2, name="orders"), (1, 2)))["versions"]
    [1, 2]
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, date):
        return value.isoformat()
    pairs = _pairs(value)
    if pairs is not None:
        return {str(name): json_value(each) for name, each in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_value(each) for each in value]
    return value if value is None or isinstance(value, str | bool | int) else str(value)


def _pairs(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """Return the names and values of a mapping, a dataclass or a named tuple; None for any other value."""
    if isinstance(value, Mapping):
        return value.items()
    if is_dataclass(value) and not isinstance(value, type):
        return [(each.name, getattr(value, each.name)) for each in fields(value)]
    return value._asdict().items() if hasattr(value, "_asdict") else None
