"""What a frame is made from, read off its plans: Delta tables, files, data in memory, functions."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.cache.content import TooLarge, content_hash
from deltawitness.cache.fingerprint import (
    Column,
    DataMark,
    FileMark,
    Fingerprint,
    FunctionMark,
    TableMark,
    Uncacheable,
)
from deltawitness.hashing import (
    canonical_uri,
    hash_of_plan_text,
    plan_text,
    schema_hash,
    shape_hash_of_plan_text,
    without_literals,
)
from deltawitness.proxies.frames import state_of
from deltawitness.proxies.originals import original
from deltawitness.proxies.registry import Registered, scanned_names
from deltawitness.proxies.seams import SCAN
from deltawitness.proxies.sql import quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame

__all__ = ["fingerprint_of"]

DATA_LIMIT = 64 << 20
"""Bytes of data in memory that are hashed; more must be given a version."""


class Unknown(Exception):  # noqa: N818 - an answer, caught where it is asked for
    """Something in a plan that cannot be seen to have changed."""


def fingerprint_of(
    frame: DataFrame,
    *,
    functions: Mapping[str, str],
    version: str | None = None,
    is_aging: bool = False,
) -> Fingerprint | Uncacheable:
    """Return what a frame is made from, or why that cannot be told.

    Args:
        frame: the frame.
        functions: versions of the program's own functions, by name.
        version: what the program says of what cannot be seen.
        is_aging: the result is served for a time only, so that it may depend on the time.
    """
    text = plan_text(frame)
    try:
        return Fingerprint(
            plan_hash=hash_of_plan_text(text),
            plan_shape_hash=shape_hash_of_plan_text(text),
            schema_hash=schema_hash(frame.schema()),
            columns=columns_of(frame.schema()),
            tables=tuple(sorted(_tables(frame), key=lambda mark: (mark.table_id, mark.version))),
            functions=tuple(_functions(text, functions, is_aging=is_aging)),
            **_other_sources(frame, version),
            version=version,
        )
    except Unknown as reason:
        return Uncacheable(str(reason))


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    """Return the columns of a schema."""
    return tuple(Column(field.name, str(field.type), field.nullable) for field in schema)


# --- Delta tables --------------------------------------------------------------------------------------


def _tables(frame: DataFrame) -> Iterator[TableMark]:
    state = state_of(frame)
    if state is None:
        return
    if state.reads:
        msg = "it holds rows that were read from Delta tables before"
        raise Unknown(msg)
    for entry in _scanned(frame):
        yield TableMark(entry.table_id, entry.name.table, entry.version, entry.identity)


def _scanned(frame: DataFrame) -> list[Registered]:
    state = state_of(frame)
    text = original(frame, "logical_plan")().display_indent()
    return [] if state is None else scanned_names(text, state.snapshot)


# --- files and data in memory ----------------------------------------------------------------------------

_FILES = re.compile(r"file_groups=\{\d+ groups?: \[(.*?)\]\}")
_IN_MEMORY = re.compile(r"DataSourceExec: partitions=\d+")
_NOTHING = ("EmptyExec", "PlaceholderRowExec")
_UNNAMED = "?table?"


def _other_sources(frame: DataFrame, version: str | None) -> dict[str, Any]:
    """Return the marks of every source that is no Delta table.

    Raises:
        Unknown: one of them cannot be seen to have changed, and the program gave no version.
    """
    known = {spelling for entry in _scanned(frame) for spelling in _spellings(entry)}
    text = original(frame, "logical_plan")().display_indent()
    names = dict.fromkeys(_scan_name(match[1]) for match in SCAN.finditer(text))
    files: list[FileMark] = []
    data: list[DataMark] = []
    for name in names:
        if name in known:
            continue
        try:
            source = frame if name == _UNNAMED else _table_frame(frame, name)
            plan = original(source, "execution_plan")().display_indent()
            if _FILES.search(plan):
                files += _files(plan)
            elif _IN_MEMORY.search(plan):
                data.append(_data(source, f"table {len(data)}" if _is_anonymous(name) else name))
            elif not plan.strip().startswith(_NOTHING):
                msg = f"nobody can tell whether {name} has changed"
                raise Unknown(msg)  # noqa: TRY301 - one of the answers
        except Unknown:
            if version is None:
                raise
    return {"files": tuple(dict.fromkeys(files)), "data": tuple(data)}


def _spellings(entry: Registered) -> set[str]:
    catalog, schema, table = entry.name
    return {table, f"{schema}.{table}", f"{catalog}.{schema}.{table}"}


def _scan_name(shown: str) -> str:
    return shown.split(" projection=", maxsplit=1)[0].split(", ", maxsplit=1)[0]


def _is_anonymous(name: str) -> bool:
    return re.fullmatch(r"c[0-9a-f]{32}", name) is not None


def _table_frame(frame: DataFrame, name: str) -> DataFrame:
    state = state_of(frame)
    if state is None:
        msg = "it is of no session that is observed"
        raise Unknown(msg)
    try:
        source: DataFrame = original(state.ctx, "table")(quoted(*name.split(".")))
    except Exception:  # noqa: BLE001 - a name that means nothing any more
        msg = f"nobody can tell what {name} was"
        raise Unknown(msg) from None
    return source


def _data(source: DataFrame, name: str) -> DataMark:
    try:
        batches = (batch.to_pyarrow() for batch in original(source, "execute_stream")())
        return DataMark(name, content_hash(batches, limit=DATA_LIMIT))
    except TooLarge:
        msg = f"{name} holds more than {DATA_LIMIT >> 20} MiB in memory: give it a version"
        raise Unknown(msg) from None


def _files(plan: str) -> Iterator[FileMark]:
    for groups in _FILES.findall(plan):
        if "..." in groups:
            msg = "it reads more files than its plan tells: give it a version"
            raise Unknown(msg)
        for path in re.split(r"\], \[|, ", groups.strip("[]")):
            yield file_mark("/" + re.sub(r":\d+\.\.\d+$", "", path))


def file_mark(path: str | os.PathLike[str]) -> FileMark:
    """Return the mark of a local file.

    Raises:
        Unknown: there is no such file.
    """
    try:
        found = Path(path).stat()
    except OSError:
        msg = "it reads a file that cannot be looked at: give it a version"
        raise Unknown(msg) from None
    place = hashlib.sha256(canonical_uri(path).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return FileMark(place, Path(path).name, found.st_size, str(found.st_mtime_ns))


# --- functions -----------------------------------------------------------------------------------------

_CALL = re.compile(r"\b([A-Za-z_][A-Za-z0-9_]*)\(")
_WORDS_OF_PLANS = frozenset({"CAST", "TRY_CAST", "EXISTS", "IN", "List", "Struct", "Map"})


@cache
def _built_in() -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the engine's own functions, and of those that do not repeat themselves."""
    from datafusion import SessionConfig, SessionContext  # noqa: PLC0415 - heavy

    bare = SessionContext(SessionConfig().with_information_schema(enabled=True))
    rows = original(bare, "sql")(
        "SELECT routine_name AS name, bool_and(is_deterministic) AS sure"
        " FROM information_schema.routines GROUP BY routine_name"
    )
    found = dict(zip(*original(rows, "to_pydict")().values(), strict=True))
    series = {"generate_series", "range"}  # table functions; what they give is always the same
    return frozenset(found), frozenset(n for n, sure in found.items() if not sure) - series


def _functions(text: str, versions: Mapping[str, str], *, is_aging: bool) -> Iterator[FunctionMark]:
    built_in, volatile = _built_in()
    called = sorted(set(_CALL.findall(without_literals(text))) - _WORDS_OF_PLANS)
    for name in called:
        if name in versions:
            yield FunctionMark(name, versions[name])
        elif name in volatile:
            if not is_aging:
                msg = f"{name}() gives another result each time: give the policy a max_age"
                raise Unknown(msg)
        elif name not in built_in:
            msg = f"{name}() is the program's own: give it a version"
            raise Unknown(msg)
