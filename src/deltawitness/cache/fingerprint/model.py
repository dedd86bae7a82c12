"""What a cached result was made from: as long as that is the same, the result is true."""

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
        table_id: hash of where it lies.
        name: what the plan calls it.
        version: the version that was read.
        identity: the id in its metadata; another one means a table made anew.
        commit: hash of the version's commit, where it could be read.
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
        name: its name.
        size: bytes.
        changed: when it was last changed, in nanoseconds.
        source: the name of what it is read as.
    """

    place: str
    name: str
    size: int
    changed: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class SourceInput:
    """How the files of a source are read: a hash of its schema and options."""

    name: str
    way: str


@dataclass(frozen=True, slots=True)
class SettingInput:
    """A setting of the session that is not the usual one and changes results."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class DataInput:
    """A table in memory that was read, by the hash of what is in it."""

    name: str
    content: str


@dataclass(frozen=True, slots=True)
class UdfInput:
    """A function of the program's own that the plan calls, with the version that the program gave it."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a result was made from.

    Attributes:
        plan_hash: hash of the plan, literals included; None for a source that has none.
        plan_shape_hash: the same without literals.
        schema_hash: hash of the result's schema.
        columns: the result's columns.
        tables: the Delta tables that were read.
        files: the files that were read.
        ways: how they were read.
        data: the tables in memory that were read.
        functions: the program's own functions in the plan.
        settings: the session's settings that count.
        version: what the program says of what cannot be seen.
        engine: the release of the engine that computes it.
        unknown: what another release has written of it and this one does not know.

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
        """The key of the result: a hash of all of it."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return "key:" + hashlib.sha256(f"entry/1\0{text}".encode()).hexdigest()[:32]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_json(cls, known: dict[str, Any]) -> Fingerprint:
        """Return it again; what another release has written otherwise makes it equal to no other.

        Raises:
            TypeError: it is none.
            AttributeError: it is none.
        """
        told = {name: known[name] for name in _PLAIN if name in known}
        unknown = sorted({*known} - {*_PLAIN, *_PARTS, "unknown"})
        for name, kind in _PARTS.items():
            try:
                told[name] = tuple(kind(**part) for part in known.get(name, ()))
            except TypeError:
                unknown.append(name)
        return cls(**told, unknown=(*unknown, *known.get("unknown", ())))


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
    """Return a name as a reason may tell it: what is no plain name may be a path, or hold anything.

    >>> told_name("sales.orders"), label("/data/orders.csv")
    ('sales.orders', 'a source')
    """
    parts = name.removesuffix("()").split(".")
    is_plain = all(part.replace("-", "_").replace(" ", "_").isidentifier() for part in parts)
    return name if is_plain else "a source"


@dataclass(frozen=True, slots=True)
class NotCacheable:
    """Why nobody could tell whether a kept result were still true."""

    reason: str
