"""Why a cached result is not served: what of its fingerprint has changed, told in a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from deltawitness.cache.fingerprint.model import Fingerprint, label

__all__ = ["Miss", "Reason", "differences"]


class Miss(StrEnum):
    """The kinds of reasons."""

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
class Reason:
    """One reason.

    Attributes:
        kind: of which kind.
        text: what was seen, without a path or a literal.
    """

    kind: Miss
    text: str

    def __str__(self) -> str:
        return self.text


def differences(kept: Fingerprint, now: Fingerprint) -> tuple[Reason, ...]:
    """Return what has changed since a result was kept; nothing when it is still true."""
    if kept.key == now.key:
        return ()
    found = tuple(_differences(kept, now))
    # What another release has written is not the same, whatever it is.
    return found or (
        Reason(Miss.RELEASE_CHANGED, "it was kept by another release of deltawitness"),
    )


def _differences(kept: Fingerprint, now: Fingerprint) -> Iterator[Reason]:
    if kept.plan_hash != now.plan_hash:
        is_shape = kept.plan_shape_hash != now.plan_shape_hash
        what = "the query changed" if is_shape else "the same query with other literals"
        yield Reason(Miss.PLAN_CHANGED, f"plan changed: {what}")
    if kept.schema_hash != now.schema_hash:
        yield Reason(Miss.SCHEMA_CHANGED, f"schema changed: {_columns_changed(kept, now)}")
    yield from _tables_changed(kept, now)
    yield from _inputs_changed("file", _files(kept), _files(now))
    yield from _inputs_changed("source", _listed(kept.ways), _listed(now.ways))
    yield from _inputs_changed("in-memory table", _listed(kept.data), _listed(now.data))
    yield from _functions_changed(kept, now)
    if changed := sorted({mark.name for mark in {*kept.settings} ^ {*now.settings}}):
        yield Reason(Miss.SETTING_CHANGED, f"setting changed: {', '.join(changed)}")
    if kept.engine != now.engine:
        text = f"release changed: {kept.engine or 'none'} -> {now.engine or 'none'}"
        yield Reason(Miss.RELEASE_CHANGED, text)
    if kept.version != now.version:
        text = f"version changed: {kept.version or 'none'} -> {now.version or 'none'}"
        yield Reason(Miss.VERSION_CHANGED, text)


def _columns_changed(kept: Fingerprint, now: Fingerprint) -> str:
    before = {column.name: column for column in kept.columns}
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
    told = [f"{what} {', '.join(names)}" for what, names in parts if names]
    return "; ".join(told) or "the order or the nullability of its columns"


def _tables_changed(kept: Fingerprint, now: Fingerprint) -> Iterator[Reason]:
    before = _numbered((mark.table_id, mark.name) for mark in kept.tables)
    marks = dict(zip(before, kept.tables, strict=True))
    for key, mark in zip(
        _numbered((mark.table_id, mark.name) for mark in now.tables), now.tables, strict=True
    ):
        known = marks.pop(key, None)
        if known is None:
            yield Reason(
                Miss.INPUT_CHANGED, f"input changed: {label(mark.name)} was not read before"
            )
        elif known.identity != mark.identity:
            yield Reason(Miss.INPUT_CHANGED, f"input changed: {label(mark.name)} was made anew")
        elif known.version != mark.version:
            text = f"input changed: {label(mark.name)} {known.version} -> {mark.version}"
            yield Reason(Miss.INPUT_CHANGED, text)
        elif known.commit != mark.commit:
            text = (
                f"input changed: {label(mark.name)} was restored or recreated;"
                f" version {mark.version} now has other content"
            )
            yield Reason(Miss.INPUT_CHANGED, text)
    for mark in marks.values():
        yield Reason(Miss.INPUT_CHANGED, f"input changed: {label(mark.name)} is not read any more")


def _functions_changed(kept: Fingerprint, now: Fingerprint) -> Iterator[Reason]:
    before = {mark.name: mark.version for mark in kept.functions}
    after = {mark.name: mark.version for mark in now.functions}
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            text = (
                f"function changed: {name} {before.get(name, 'none')} -> {after.get(name, 'none')}"
            )
            yield Reason(Miss.FUNCTION_CHANGED, text)


def _numbered(keys: Iterable[Any]) -> list[Any]:
    """Return keys that differ, also where one is there twice: the first, the second."""
    seen: Counter[Any] = Counter()
    found = []
    for key in keys:
        found.append((key, seen[key]))
        seen[key] += 1
    return found


def _listed(marks: tuple[Any, ...]) -> dict[Any, Any]:
    return dict(zip(_numbered(mark.name for mark in marks), marks, strict=True))


def _files(fingerprint: Fingerprint) -> dict[Any, Any]:
    return {(mark.place, mark.source): mark for mark in fingerprint.files}


def _inputs_changed(kind: str, before: dict[Any, Any], after: dict[Any, Any]) -> Iterator[Reason]:
    told = str if kind == "file" else label
    added = [mark.name for key, mark in after.items() if key not in before]
    gone = [mark.name for key, mark in before.items() if key not in after]
    changed = [mark.name for key, mark in after.items() if key in before and before[key] != mark]
    for what, names in (("new", added), ("gone", gone), ("changed", changed)):
        if names:
            shown = ", ".join(map(told, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
            yield Reason(Miss.INPUT_CHANGED, f"input changed: {kind} {what}: {shown}")


_SHOWN = 5
"""Names of files that a reason tells."""
