"""The fingerprint of a result: a stored result is valid while its fingerprint is unchanged.

The field names of these classes are part of the stored JSON and of the key: renaming one makes every
stored entry a miss.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "Column",
    "DataInput",
    "FileInput",
    "Fingerprint",
    "NotCacheable",
    "SettingInput",
    "SourceInput",
    "TableInput",
    "UdfInput",
    "label",
]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the result."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class TableInput:
    """A Delta table that was read.

    Attributes:
        table_id: hash of its location.
        name: its name in the plan.
        version: the version that was read.
        identity: the id in its metadata; another id means that the table was recreated.
        commit: hash of the version's commit; empty if it could not be read.
    """

    table_id: str
    name: str
    version: int
    identity: str
    commit: str = ""


@dataclass(frozen=True, slots=True)
class FileInput:
    """A file that was read.

    Attributes:
        place: hash of its path.
        name: file name.
        size: size in bytes.
        changed: mtime and ctime in nanoseconds, separated by a dot.
        source: name of the table that it is read as.
    """

    place: str
    name: str
    size: int
    changed: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class SourceInput:
    """How the files of a table are read: a hash of its schema and options."""

    name: str
    way: str


@dataclass(frozen=True, slots=True)
class SettingInput:
    """A session setting that changes results and differs from its default."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class DataInput:
    """An in-memory table that was read, with a hash of its content."""

    name: str
    content: str


@dataclass(frozen=True, slots=True)
class UdfInput:
    """A user-defined function that the plan calls, with the version given by the caller."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Everything that a result depends on.

    Attributes:
        plan_hash: hash of the plan, with literals; None for a source without a plan.
        plan_shape_hash: hash of the plan without literals.
        schema_hash: hash of the result's schema.
        columns: columns of the result.
        tables: Delta tables that were read.
        files: files that were read.
        ways: how the files were read.
        data: in-memory tables that were read.
        functions: user-defined functions in the plan.
        settings: session settings that change results.
        version: the version that the caller gives to inputs whose changes cannot be detected.
        engine: releases of the engines that compute the result.
        unknown: names of JSON fields, written by another release, that this one cannot parse.

    >>> Fingerprint(plan_hash="a").key == Fingerprint(plan_hash="b").key
    False
    """

    plan_hash: str | None = None
    plan_shape_hash: str | None = None
    schema_hash: str | None = None
    columns: tuple[Column, ...] = ()
    tables: tuple[TableInput, ...] = ()
    files: tuple[FileInput, ...] = ()
    ways: tuple[SourceInput, ...] = ()
    data: tuple[DataInput, ...] = ()
    functions: tuple[UdfInput, ...] = ()
    settings: tuple[SettingInput, ...] = ()
    version: str | None = None
    engine: str | None = None
    unknown: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The key of the result: a hash of all fields."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return "key:" + hashlib.sha256(f"entry/1\0{text}".encode()).hexdigest()[:32]

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON-serializable values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Fingerprint:
        """Parse what `as_json` returned. With unknown fields, the result equals no fingerprint of this release.

        Raises:
            TypeError: the values are not a fingerprint.
            AttributeError: the values are not a mapping.
        """
        fields = {name: values[name] for name in _PLAIN if name in values}
        unknown = sorted({*values} - {*_PLAIN, *_PARTS, "unknown"})
        for name, kind in _PARTS.items():
            try:
                fields[name] = tuple(kind(**part) for part in values.get(name, ()))
            except TypeError:
                unknown.append(name)
        return cls(**fields, unknown=(*unknown, *values.get("unknown", ())))


_PARTS: dict[str, Any] = {
    "columns": Column,
    "tables": TableInput,
    "files": FileInput,
    "data": DataInput,
    "functions": UdfInput,
    "ways": SourceInput,
    "settings": SettingInput,
}

_PLAIN = ("plan_hash", "plan_shape_hash", "schema_hash", "version", "engine")


def label(name: str) -> str:
    """Return a name for a message: a name that is not a plain identifier may be a path or a secret.

    >>> label("sales.orders"), label("/data/orders.csv")
    ('sales.orders', 'a source')
    """
    parts = name.removesuffix("()").split(".")
    is_plain = all(part.replace("-", "_").replace(" ", "_").isidentifier() for part in parts)
    return name if is_plain else "a source"


@dataclass(frozen=True, slots=True)
class NotCacheable:
    """Why a result cannot be cached: changes of an input could not be detected."""

    reason: str
