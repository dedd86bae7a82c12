"""Explains why a cached result is not served: the differences of two fingerprints, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from deltawitness.session.fingerprint.model import Fingerprint, label

__all__ = ["Miss", "MissReason", "differences"]


class Miss(StrEnum):
    """The kinds of miss reasons."""

    ABSENT = "absent"
    PLAN_CHANGED = "plan_changed"
    SCHEMA_CHANGED = "schema_changed"
    INPUT_CHANGED = "input_changed"
    FUNCTION_CHANGED = "function_changed"
    VERSION_CHANGED = "version_changed"
    SETTING_CHANGED = "setting_changed"
    RELEASE_CHANGED = "release_changed"
    EXPIRED = "expired"
    INVALIDATED = "invalidated"
    DAMAGED = "damaged"
    UNCACHEABLE = "uncacheable"


@dataclass(frozen=True, slots=True)
class MissReason:
    """A reason why an entry is not served.

    Attributes:
        kind: the kind.
        text: what has changed, without paths and literals.
    """

    kind: Miss
    text: str

    def __str__(self) -> str:
        return self.text


def differences(stored: Fingerprint, now: Fingerprint) -> tuple[MissReason, ...]:
    """Return the differences of the stored and the current fingerprint; empty if the entry is valid."""
    if stored.key == now.key:
        return ()
    found = tuple(_differences(stored, now))
    # Equal field by field, but with fields of another release (`Fingerprint.unknown`).
    return found or (
        MissReason(Miss.RELEASE_CHANGED, "it was written by another release of deltawitness"),
    )


def _differences(stored: Fingerprint, now: Fingerprint) -> Iterator[MissReason]:
    if stored.plan_hash != now.plan_hash:
        is_shape = stored.plan_shape_hash != now.plan_shape_hash
        what = "the query changed" if is_shape else "the same query with other literals"
        yield MissReason(Miss.PLAN_CHANGED, f"plan changed: {what}")
    if stored.schema_hash != now.schema_hash:
        yield MissReason(Miss.SCHEMA_CHANGED, f"schema changed: {_columns_changed(stored, now)}")
    yield from _tables_changed(stored, now)
    yield from _inputs_changed("file", _files_by_path(stored), _files_by_path(now))
    yield from _inputs_changed("source", _by_name(stored.ways), _by_name(now.ways))
    yield from _inputs_changed("in-memory table", _by_name(stored.data), _by_name(now.data))
    yield from _functions_changed(stored, now)
    if changed := sorted({each.name for each in {*stored.settings} ^ {*now.settings}}):
        yield MissReason(Miss.SETTING_CHANGED, f"setting changed: {', '.join(changed)}")
    if stored.engine != now.engine:
        text = f"release changed: {stored.engine or 'none'} -> {now.engine or 'none'}"
        yield MissReason(Miss.RELEASE_CHANGED, text)
    if stored.version != now.version:
        text = f"version changed: {stored.version or 'none'} -> {now.version or 'none'}"
        yield MissReason(Miss.VERSION_CHANGED, text)


def _columns_changed(stored: Fingerprint, now: Fingerprint) -> str:
    before = {column.name: column for column in stored.columns}
    after = {column.name: column for column in now.columns}
    retyped = [
        f"{name} {before[name].type} -> {column.type}"
        for name, column in after.items()
        if name in before and before[name] != column and before[name].type != column.type
    ]
    parts = [
        ("added", [name for name in after if name not in before]),
        ("dropped", [name for name in before if name not in after]),
        ("retyped", retyped),
    ]
    changes = [f"{what} {', '.join(names)}" for what, names in parts if names]
    return "; ".join(changes) or "the order or the nullability of its columns"


def _tables_changed(stored: Fingerprint, now: Fingerprint) -> Iterator[MissReason]:
    before = _distinct_keys((each.table_id, each.name) for each in stored.tables)
    before_by_key = dict(zip(before, stored.tables, strict=True))
    for key, each in zip(
        _distinct_keys((each.table_id, each.name) for each in now.tables), now.tables, strict=True
    ):
        previous = before_by_key.pop(key, None)
        if previous is None:
            yield MissReason(
                Miss.INPUT_CHANGED, f"input changed: {label(each.name)} was not read before"
            )
        elif previous.identity != each.identity:
            yield MissReason(Miss.INPUT_CHANGED, f"input changed: {label(each.name)} was recreated")
        elif previous.version != each.version:
            text = f"input changed: {label(each.name)} {previous.version} -> {each.version}"
            yield MissReason(Miss.INPUT_CHANGED, text)
        elif previous.commit != each.commit:
            text = (
                f"input changed: {label(each.name)} was restored or recreated;"
                f" version {each.version} now has other content"
            )
            yield MissReason(Miss.INPUT_CHANGED, text)
    for each in before_by_key.values():
        yield MissReason(Miss.INPUT_CHANGED, f"input changed: {label(each.name)} is no longer read")


def _functions_changed(stored: Fingerprint, now: Fingerprint) -> Iterator[MissReason]:
    before = {each.name: each.version for each in stored.functions}
    after = {each.name: each.version for each in now.functions}
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            text = (
                f"function changed: {name} {before.get(name, 'none')} -> {after.get(name, 'none')}"
            )
            yield MissReason(Miss.FUNCTION_CHANGED, text)


def _distinct_keys(keys: Iterable[Any]) -> list[Any]:
    """Number repeated keys: return each key with the count of its earlier occurrences."""
    seen: Counter[Any] = Counter()
    found = []
    for key in keys:
        found.append((key, seen[key]))
        seen[key] += 1
    return found


def _by_name(parts: tuple[Any, ...]) -> dict[Any, Any]:
    return dict(zip(_distinct_keys(each.name for each in parts), parts, strict=True))


def _files_by_path(fingerprint: Fingerprint) -> dict[Any, Any]:
    return {(each.place, each.source): each for each in fingerprint.files}


def _inputs_changed(
    kind: str, before: dict[Any, Any], after: dict[Any, Any]
) -> Iterator[MissReason]:
    shown_as = str if kind == "file" else label
    added = [each.name for key, each in after.items() if key not in before]
    gone = [each.name for key, each in before.items() if key not in after]
    changed = [each.name for key, each in after.items() if key in before and before[key] != each]
    for what, names in (("new", added), ("gone", gone), ("changed", changed)):
        if names:
            shown = ", ".join(map(shown_as, names[:_SHOWN])) + (
                ", ..." if len(names) > _SHOWN else ""
            )
            yield MissReason(Miss.INPUT_CHANGED, f"input changed: {kind} {what}: {shown}")


_SHOWN = 5
"""Maximum number of names in a reason."""
