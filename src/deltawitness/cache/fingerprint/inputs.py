"""The sources of a frame, each with a mark that another content would change."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deltawitness.cache.fingerprint.content_digest import TooLargeError, content_hash
from deltawitness.cache.fingerprint.dependencies import is_of_another_default
from deltawitness.cache.fingerprint.file_stat import FileGoneError, file_input
from deltawitness.cache.fingerprint.model import (
    DataInput,
    FileInput,
    SourceInput,
    TableInput,
    label,
)
from deltawitness.cache.fingerprint.plan_details import check_literals, null_handling, values_in
from deltawitness.cache.fingerprint.scans import (
    RECURSION,
    Leaf,
    LeafKind,
    Scan,
    UnknownScanError,
    UnreadablePlanError,
    is_computed,
    leaves_of,
    read_files,
    scans_of,
    series_digest,
    shown_names,
)
from deltawitness.commit.log import open_log
from deltawitness.commit.private_api import storage_options_of
from deltawitness.events import InputVersion
from deltawitness.hashing import schema_hash, table_id
from deltawitness.session.core.frames import FrameState, state_of
from deltawitness.session.core.private_api import BOUND_TO_ZONE
from deltawitness.session.core.snapshot import Registered, TableName, scanned_names
from deltawitness.session.core.tokens import quote_identifier
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable

__all__ = ["DATA_LIMIT", "Inputs", "collect_inputs", "has_files", "table_input"]

DATA_LIMIT = 64 << 20
"""Bytes of data in memory that are hashed; more must be given a version."""


_ALIAS = re.compile(r"SubqueryAlias: (.+)$", re.MULTILINE)


@dataclass(slots=True)
class Inputs:
    """What a frame reads.

    Attributes:
        tables: the Delta tables.
        ways: how the files of each name are read.
        files: the files.
        data: the tables in memory.
        unprinted: what the plan does not print.
    """

    tables: list[TableInput] = field(default_factory=list)
    ways: list[SourceInput] = field(default_factory=list)
    files: list[FileInput] = field(default_factory=list)
    data: list[DataInput] = field(default_factory=list)
    unprinted: list[str] = field(default_factory=list)

    def marks(self) -> dict[str, Any]:
        """Return the marks as the fields of a fingerprint."""
        return {
            "tables": tuple(dict.fromkeys(self.tables)),
            # In the order of the scans, each as often: one name may stand for several things.
            "ways": tuple(self.ways),
            "files": tuple(self.files),
            "data": tuple(self.data),
        }


def has_files(frame: DataFrame, ctx: SessionContext) -> bool:
    """Tell whether a frame may read files that the session keeps a list of.

    Args:
        frame: the frame.
        ctx: a context of its session.
    """
    state = state_of(frame)
    text = unpatched(frame, "logical_plan")().display_indent()
    known = {} if state is None else _names_of_tables(text, state)
    others = {name for name in shown_names(text) if name not in known}
    scans, unreached = _reached(frame, text) if others else ([], set())
    return not others.isdisjoint(unreached) or any(
        leaf.is_of((LeafKind.FILES, "EmptyExec"))
        for scan in scans
        if scan.name in others
        for leaf in leaves_of(ctx, scan)[1]
    )


def collect_inputs(frame: DataFrame, version: str | None) -> Inputs:
    """Return what a frame reads.

    Args:
        frame: the frame.
        version: what the program says of what cannot be seen; None where it says nothing.

    Raises:
        Unknown: something of it cannot be seen to have changed, and the program gave no version.
    """
    found = Inputs()
    for mark in _InputCollector(frame, found).steps():
        try:
            mark()
        except UnknownScanError:
            if version is None:
                raise
    return found


class _InputCollector:
    """One look at a frame's sources."""

    def __init__(self, frame: DataFrame, found: Inputs) -> None:
        self._frame = frame
        self._found = found
        self._state = state_of(frame)
        self._text = unpatched(frame, "logical_plan")().display_indent()
        self._tables = {} if self._state is None else _names_of_tables(self._text, self._state)
        self._unnamed_tables = 0

    def steps(self) -> Iterator[Any]:
        """Yield what is to be done: each may say that it cannot tell."""
        yield self._mark_unprinted
        yield self._check_views
        ctx = _context_of(self._frame)
        for scan in self._scans():
            yield lambda scan=scan: self._mark(ctx, scan)
        yield self._check_reads

    def _mark_unprinted(self) -> None:
        self._found.unprinted += values_in(self._frame)
        self._found.unprinted += null_handling(_context_of(self._frame), self._frame)
        check_literals("\n".join((self._text, *self._found.unprinted)))

    def _check_views(self) -> None:
        """See that the views of a plan read Delta tables at the versions that the session serves.

        A view that was made past us, or as a `Table` of a frame, stays at those that it was made over.
        Of one that was made under another default schema nobody can tell what its names stand for.
        """
        if self._state is None:
            return
        for shown in dict.fromkeys(_ALIAS.findall(self._text)):
            for name in self._state.session.possible_names(self._state.ctx, _parts(shown)):
                self._check_view(shown, name)

    def _check_view(self, shown: str, name: TableName) -> None:
        assert self._state is not None
        session, ctx = self._state.session, self._state.ctx
        if session.has_other_default(ctx, name) and self._view(name):
            msg = f"the view {label(shown)} was made under another default schema"
            raise UnknownScanError(msg)
        is_of_zone = BOUND_TO_ZONE.search(self._text) is not None
        if is_of_zone and session.has_other_time_zone(name) and self._view(name):
            msg = f"the view {label(shown)} was made before the session had its time zone"
            raise UnknownScanError(msg)
        if not self._tables:
            return
        if name in session.detached:
            msg = f"the view {label(shown)} reads a table that the session has let go of"
            raise UnknownScanError(msg)
        if session.view(name) is None and scanned_names(self._view(name), self._state.snapshot):
            msg = f"the view {label(shown)} may read its tables at older versions"
            raise UnknownScanError(msg)

    def _view(self, name: TableName) -> str:
        """Return the text of a view's plan; none where the name stands for no view."""
        assert self._state is not None
        ctx = self._state.ctx
        if not _exists(ctx, name.sql()):
            return ""
        text = unpatched(unpatched(ctx, "table")(name.sql()), "logical_plan")().display_indent()
        return text if text.startswith("SubqueryAlias:") else ""

    def _scans(self) -> Iterator[Scan]:
        """Yield the scans of the plan, each name once unless it may stand for two things."""
        scans, unreached = _reached(self._frame, self._text)
        has_views = "SubqueryAlias:" in self._text
        seen: set[str] = set()
        for scan in scans:
            if scan.name not in seen or has_views or self._may_be_two(scan.name):
                seen.add(scan.name)
                yield scan
        for name in unreached:
            if name not in seen or self._may_be_two(name):
                yield self._by_name(name)

    def _by_name(self, name: str) -> Scan:
        """Return the scan of a name inside of a subquery, which is not to be had from the plan."""
        if self._state is None or self._may_be_two(name):
            return Scan(name, None)
        parts = name.split(".")
        try:
            source = unpatched(self._state.ctx, "table")(quote_identifier(*parts))
        except Exception:  # noqa: BLE001 - a name of the query itself, or one that cannot be told
            return Scan(name, None)
        plan = unpatched(source, "logical_plan")()
        return Scan(name, plan) if len(scans_of(plan)) == 1 else Scan(name, None)

    def _may_be_two(self, name: str) -> bool:
        """Tell whether a name may stand for one thing here and for another there.

        A view may read what the name stood for before, a recursive query calls itself by a name that
        others have as well, and a plan prints `a.b` for a table of that name as for `b` of schema `a`.
        """
        if self._state is None or name in {"", "?table?"} or name.endswith("()"):
            return True
        if name in RECURSION.findall(self._text):
            return True
        if any(_exists(self._state.ctx, quote_identifier(*parts)) for parts in _dotted(name)):
            return True
        before = {each.table for each in self._state.session.rebound}
        has_been = any(name == table or name.endswith(f".{table}") for table in before)
        return has_been and "SubqueryAlias:" in self._text

    def _mark(self, ctx: SessionContext, scan: Scan) -> None:
        if scan.plan is None:
            if self._is_of_recursion(scan.name):
                return
            msg = f"nobody can tell what {label(scan.name)} is inside of a subquery"
            raise UnknownScanError(msg)
        if self._is_surely_a_table(scan.name):
            self._mark_table(scan.name)
            return
        source, leaves = leaves_of(ctx, scan)
        name = self._name(scan.name)
        for leaf in leaves:
            self._mark_leaf(scan, name, source, leaf)

    def _is_surely_a_table(self, name: str) -> bool:
        """Tell whether a name can stand for nothing but a Delta table, so that it need not be planned."""
        if self._state is None or name not in self._tables or "." in name:
            return False
        if "RecursiveQuery:" in self._text:
            return False
        return all(entry.name not in self._state.session.rebound for entry in self._tables[name])

    def _name(self, name: str) -> str:
        """Return a name that means the same in another session: those of the engine's own do not."""
        if name in {"", "?table?"} or _is_anonymous(name):
            return f"table {len(self._found.data) + len(self._found.ways)}"
        return name

    def _is_of_recursion(self, name: str) -> bool:
        return name in RECURSION.findall(self._text) and name not in self._tables

    def _mark_leaf(self, scan: Scan, name: str, source: DataFrame, leaf: Leaf) -> None:
        is_known = scan.name in self._tables and leaf.is_of((LeafKind.FOREIGN, LeafKind.DATASET))
        is_table = is_known or leaf.is_of(LeafKind.DELTA)
        if is_table:
            self._mark_table(scan.name)
        elif leaf.is_of(LeafKind.FILES) and not is_computed(scan, leaf):
            self._mark_files(name, source, leaf)
        elif leaf.is_of(LeafKind.MEMORY):
            self._found.data.append(DataInput(name, _content(source, name)))
        elif leaf.is_of(LeafKind.SERIES):
            self._found.data.append(DataInput(name, series_digest(leaf)))
        elif leaf.is_of(LeafKind.NOTHING):
            self._found.ways.append(SourceInput(name, schema_hash(source.schema())))
        elif not leaf.is_of(LeafKind.WORK_TABLE):
            msg = f"nobody can tell whether {label(scan.name)} has changed"
            raise UnknownScanError(msg)

    def _mark_table(self, name: str) -> None:
        entries = self._tables.get(name)
        if entries is None:
            self._unnamed_tables += 1
            return
        assert self._state is not None
        for entry in entries:
            if is_of_another_default(self._state.session, self._state.ctx, entry.name):
                msg = f"the view {label(name)} was made under another default schema"
                raise UnknownScanError(msg)
            self._found.tables.append(_input_of(entry, self._state))

    def _mark_files(self, name: str, source: DataFrame, leaf: Leaf) -> None:
        try:
            paths, how = read_files(leaf)
            marks = [file_input(path, name) for path in paths]
        except (UnreadablePlanError, FileGoneError):
            msg = f"the files of {label(name)} cannot be looked at: give it a version"
            raise UnknownScanError(msg) from None
        if any(self._is_put_back(mark) for mark in marks):
            msg = f"a file of {label(name)} has changed and its time was put back: register it anew"
            raise UnknownScanError(msg)
        self._found.ways.append(SourceInput(name, f"{how}.{schema_hash(source.schema())}"))
        self._found.files += marks

    def _is_put_back(self, mark: FileInput) -> bool:
        """Tell whether a file has changed in a way that the engine, which keeps statistics, does not see."""
        if self._state is None:
            return False
        seen, place = self._state.session.seen_files, (mark.source, mark.place)
        size, changed = seen.setdefault(place, (mark.size, mark.changed))
        if (size, changed) == (mark.size, mark.changed):
            return False
        if size == mark.size and changed.split(".")[0] == mark.changed.split(".")[0]:
            return True
        seen[place] = mark.size, mark.changed
        return False

    def _check_reads(self) -> None:
        """See that each table that no name tells is told otherwise."""
        if self._unnamed_tables == 0:
            return
        reads = () if self._state is None else self._state.reads
        if self._unnamed_tables != 1 or len(reads) != 1:
            msg = "it reads Delta tables by no name of the session"
            raise UnknownScanError(msg)
        self._found.tables.append(_input_of_read(reads[0]))


# --- scans -------------------------------------------------------------------------------------------------


def _reached(frame: DataFrame, text: str) -> tuple[list[Scan], set[str]]:
    """Return the scans that a plan hands out, and the names of which there are more than those.

    The optimized plan holds most subqueries as joins.
    """
    scans = scans_of(unpatched(frame, "logical_plan")())
    names = Counter(shown_names(text))
    missing = names - Counter(scan.name for scan in scans)
    if not missing:
        return scans, set()
    try:
        optimized = scans_of(unpatched(frame, "optimized_logical_plan")())
    except Exception:  # noqa: BLE001 - what cannot be planned fails where it is run
        optimized = []
    found = Counter(scan.name for scan in optimized)
    inside = [scan for scan in optimized if scan.name in missing]
    unreached = {name for name in missing if found[name] < names[name]}
    outside = [scan for scan in scans if scan.name not in missing or scan.name in unreached]
    return [*outside, *inside], unreached


def _exists(ctx: SessionContext, name: str) -> bool:
    try:
        return bool(unpatched(ctx, "table_exist")(name))
    except Exception:  # noqa: BLE001 - there is no such catalog or schema
        return False


def _dotted(name: str) -> Iterator[tuple[str, ...]]:
    """Yield the other names that a plan prints as it prints this one: those with a dot in a part.

    >>> list(_dotted("a.b")), list(_dotted("a.b.c"))
    ([('a.b',)], [('a.b.c',), ('a', 'b.c'), ('a.b', 'c')])
    """
    parts = name.split(".")
    if len(parts) > 1:
        yield (name,)
    for at in range(1, len(parts) - 1):
        yield ".".join(parts[:at]), ".".join(parts[at:])
        yield ".".join(parts[: at + 1]), ".".join(parts[at + 1 :])


def _parts(shown: str) -> tuple[str, ...]:
    return tuple(shown.split("."))[-3:]


def _context_of(frame: DataFrame) -> SessionContext:
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    state = state_of(frame)
    return SessionContext() if state is None else state.ctx


def _is_anonymous(name: str) -> bool:
    return len(name) == 33 and name[0] == "c" and all(c in "0123456789abcdef" for c in name[1:])  # noqa: PLR2004 - as the engine names them


def _content(source: DataFrame, name: str) -> str:
    parts = unpatched(source, "execute_stream_partitioned")()
    try:
        return content_hash(
            (batch.to_pyarrow() for part in parts for batch in part), limit=DATA_LIMIT
        )
    except TooLargeError:
        msg = f"{label(name)} holds more than {DATA_LIMIT >> 20} MiB in memory: give it a version"
        raise UnknownScanError(msg) from None


# --- Delta tables ------------------------------------------------------------------------------------------


def _names_of_tables(text: str, state: FrameState) -> dict[str, list[Registered]]:
    found: dict[str, list[Registered]] = {}
    for name in dict.fromkeys(shown_names(text)):
        if entries := scanned_names(f"TableScan: {name}", state.snapshot):
            found[name] = entries
    return found


def _input_of(entry: Registered, state: FrameState) -> TableInput:
    default = state.snapshot.default
    is_plain = default is not None and tuple(entry.name[:2]) == default
    return TableInput(
        table_id=entry.table_id,
        name=entry.name.table if is_plain else ".".join(entry.name),
        version=entry.version,
        identity=entry.identity,
        commit=_commit(entry.uri, entry.storage_options, entry.version),
    )


def _input_of_read(read: InputVersion) -> TableInput:
    commit = "" if read.uri is None else _commit(read.uri, None, read.version)
    return TableInput(read.table_id, "table", read.version, "", commit)


def table_input(table: DeltaTable) -> TableInput:
    """Return the mark of an open Delta table, at the version that it is open at."""
    known, version = table.metadata(), int(table.version())
    commit = _commit(table.table_uri, storage_options_of(table), version)
    return TableInput(
        table_id(table.table_uri), known.name or "table", version, str(known.id), commit
    )


def _commit(uri: str, storage_options: Any, version: int) -> str:
    """Return a hash of a version's commit: a table put back from a copy may have the version again."""
    try:
        options = None if storage_options is None else dict(storage_options)
        content = open_log(uri, options).read(version)
    except OSError:
        content = None
    return "" if content is None else hashlib.sha256(content).hexdigest()[:16]
