"""Collects the inputs of a frame, each with an identity that changes with its content."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deltawitness.commit.log import open_log
from deltawitness.commit.private_api import storage_options_of
from deltawitness.events import InputVersion
from deltawitness.hashing import is_anonymous, schema_hash
from deltawitness.locations import table_id
from deltawitness.session.core.frames import FrameState, state_of
from deltawitness.session.core.private_api import BOUND_TO_ZONE
from deltawitness.session.core.snapshot import Registered, TableName, scanned_names
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.fingerprint.content_digest import TooLargeError, content_hash
from deltawitness.session.fingerprint.dependencies import is_of_another_default
from deltawitness.session.fingerprint.file_stat import FileGoneError, file_input
from deltawitness.session.fingerprint.model import (
    DataInput,
    FileInput,
    SourceInput,
    TableInput,
    label,
)
from deltawitness.session.fingerprint.plan_details import check_literals, null_handling, values_in
from deltawitness.session.fingerprint.scans import (
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
from deltawitness.sql_quoting import quote_identifier

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable

__all__ = ["DATA_LIMIT", "Inputs", "collect_inputs", "commit_hash", "has_files", "table_input"]

DATA_LIMIT = 64 << 20
"""Maximum bytes of in-memory data that are hashed; larger data needs a version from the caller."""


_ALIAS = re.compile(r"SubqueryAlias: (.+)$", re.MULTILINE)


@dataclass(slots=True)
class Inputs:
    """The inputs of a frame.

    Attributes:
        tables: Delta tables.
        ways: how the files of each table are read.
        files: files.
        data: in-memory tables.
        plan_details: details that the plan text omits.
    """

    tables: list[TableInput] = field(default_factory=list)
    ways: list[SourceInput] = field(default_factory=list)
    files: list[FileInput] = field(default_factory=list)
    data: list[DataInput] = field(default_factory=list)
    plan_details: list[str] = field(default_factory=list)

    def as_fields(self) -> dict[str, Any]:
        """Return the inputs as fields of a fingerprint."""
        return {
            "tables": tuple(dict.fromkeys(self.tables)),
            # In scan order, with repeats: one name may resolve to several sources.
            "ways": tuple(self.ways),
            "files": tuple(self.files),
            "data": tuple(self.data),
        }


def has_files(frame: DataFrame, ctx: SessionContext) -> bool:
    """Return whether a frame may read files whose directory listing the session caches.

    Args:
        frame: the frame.
        ctx: a context of its session.
    """
    state = state_of(frame)
    text = unpatched(frame, "logical_plan")().display_indent()
    tables = {} if state is None else _tables_by_shown_name(text, state)
    others = {name for name in shown_names(text) if name not in tables}
    scans, unreached = _reachable_scans(frame, text) if others else ([], set())
    return not others.isdisjoint(unreached) or any(
        leaf.is_of((LeafKind.FILES, "EmptyExec"))
        for scan in scans
        if scan.name in others
        for leaf in leaves_of(ctx, scan)[1]
    )


def collect_inputs(
    frame: DataFrame,
    version: str | None,
    *,
    reads_content: bool = True,
    needs_exact_text: bool = True,
) -> Inputs:
    """Return the inputs of a frame.

    Args:
        frame: the frame.
        version: a version that the caller gives to inputs whose changes cannot be detected.
        reads_content: whether the commits of Delta tables and the rows of in-memory tables are hashed.
            Without it, tables have no commit, and in-memory tables are inputs whose changes cannot be
            detected.
        needs_exact_text: whether the plan text must have all literals exactly, so that another query has
            another hash.

    Raises:
        UnknownScanError: changes of an input cannot be detected, and `version` is None.
    """
    found = Inputs()
    for step in _InputCollector(frame, found, reads_content, needs_exact_text).steps():
        try:
            step()
        except UnknownScanError:
            if version is None:
                raise
    return found


class _InputCollector:
    """Collects the inputs of one frame."""

    def __init__(
        self, frame: DataFrame, found: Inputs, reads_content: bool, needs_exact_text: bool
    ) -> None:
        self._frame = frame
        self._found = found
        self._reads_content = reads_content
        self._needs_exact_text = needs_exact_text
        self._state = state_of(frame)
        self._text = unpatched(frame, "logical_plan")().display_indent()
        self._tables = {} if self._state is None else _tables_by_shown_name(self._text, self._state)
        self._unnamed_tables = 0

    def steps(self) -> Iterator[Any]:
        """Yield the steps of the collection; each may raise `UnknownScanError`."""
        yield self._add_plan_details
        yield self._check_views
        ctx = _context_of(self._frame)
        for scan in self._scans():
            yield lambda scan=scan: self._add_scan(ctx, scan)
        yield self._check_reads

    def _add_plan_details(self) -> None:
        self._found.plan_details += values_in(self._frame)
        self._found.plan_details += null_handling(_context_of(self._frame), self._frame)
        if self._needs_exact_text:
            check_literals("\n".join((self._text, *self._found.plan_details)))

    def _check_views(self) -> None:
        """Check that the views in a plan read Delta tables at the versions that the session serves.

        A view that was created outside of the observed session, or from a `Table` of a frame, keeps the
        versions it was created over. The names of a view that was created under another default
        schema cannot be resolved.
        """
        if self._state is None:
            return
        for shown in dict.fromkeys(_ALIAS.findall(self._text)):
            for name in self._state.session.names.possible_names(self._state.ctx, _parts(shown)):
                self._check_view(shown, name)

    def _check_view(self, shown: str, name: TableName) -> None:
        assert self._state is not None
        session, ctx = self._state.session, self._state.ctx
        if session.names.has_other_default(ctx, name) and self._view_plan(name):
            msg = f"the view {label(shown)} was created under another default schema"
            raise UnknownScanError(msg)
        is_of_zone = BOUND_TO_ZONE.search(self._text) is not None
        if is_of_zone and session.views.has_other_time_zone(name) and self._view_plan(name):
            msg = f"the view {label(shown)} was created before the session's time zone was set"
            raise UnknownScanError(msg)
        if not self._tables:
            return
        if name in session.names.view_records.detached:
            msg = f"the view {label(shown)} reads a table that was replaced or deregistered"
            raise UnknownScanError(msg)
        if session.names.view_records.get(name) is None and scanned_names(
            self._view_plan(name), self._state.snapshot
        ):
            msg = f"the view {label(shown)} may read its tables at older versions"
            raise UnknownScanError(msg)

    def _view_plan(self, name: TableName) -> str:
        """Return the text of a view's plan; empty if the name is not a view."""
        assert self._state is not None
        ctx = self._state.ctx
        if not _exists(ctx, name.sql()):
            return ""
        text = unpatched(unpatched(ctx, "table")(name.sql()), "logical_plan")().display_indent()
        return text if text.startswith("SubqueryAlias:") else ""

    def _scans(self) -> Iterator[Scan]:
        """Yield the scans of the plan: each name once, and ambiguous names each time."""
        scans, unreached = _reachable_scans(self._frame, self._text)
        has_views = "SubqueryAlias:" in self._text
        seen: set[str] = set()
        for scan in scans:
            if scan.name not in seen or has_views or self._is_ambiguous(scan.name):
                seen.add(scan.name)
                yield scan
        for name in unreached:
            if name not in seen or self._is_ambiguous(name):
                yield self._scan_by_name(name)

    def _scan_by_name(self, name: str) -> Scan:
        """Return the scan of a name inside a subquery, planned by its name: the plan has no node for it."""
        if self._state is None or self._is_ambiguous(name):
            return Scan(name, None)
        parts = name.split(".")
        try:
            source = unpatched(self._state.ctx, "table")(quote_identifier(*parts))
        except Exception:  # noqa: BLE001 - a CTE, or a name that cannot be resolved
            return Scan(name, None)
        plan = unpatched(source, "logical_plan")()
        return Scan(name, plan) if len(scans_of(plan)) == 1 else Scan(name, None)

    def _is_ambiguous(self, name: str) -> bool:
        """Return whether a name could resolve differently in different parts of the plan.

        A view may read an earlier meaning of the name; a recursive query and a table may share a name; and
        the plan text prints `a.b` both for a table with a dot in its name and for table `b` of schema `a`.
        """
        if self._state is None or name in {"", "?table?"} or name.endswith("()"):
            return True
        if name in RECURSION.findall(self._text):
            return True
        if any(_exists(self._state.ctx, quote_identifier(*parts)) for parts in _dotted(name)):
            return True
        before = {each.table for each in self._state.session.names.rebound}
        has_been = any(name == table or name.endswith(f".{table}") for table in before)
        return has_been and "SubqueryAlias:" in self._text

    def _add_scan(self, ctx: SessionContext, scan: Scan) -> None:
        if scan.plan is None:
            if self._is_recursive_reference(scan.name):
                return
            msg = f"cannot resolve {label(scan.name)} inside a subquery"
            raise UnknownScanError(msg)
        if self._is_plain_delta_table(scan.name):
            self._add_table(scan.name)
            return
        source, leaves = leaves_of(ctx, scan)
        name = self._stable_name(scan.name)
        for leaf in leaves:
            self._add_leaf(scan, name, source, leaf)

    def _is_plain_delta_table(self, name: str) -> bool:
        """Return whether a name can only be a Delta table, so that its scan need not be planned."""
        if self._state is None or name not in self._tables or "." in name:
            return False
        if "RecursiveQuery:" in self._text:
            return False
        return all(
            entry.name not in self._state.session.names.rebound for entry in self._tables[name]
        )

    def _stable_name(self, name: str) -> str:
        """Return a name that is the same in another session: replaces names generated by the engine."""
        if name in {"", "?table?"} or is_anonymous(name):
            return f"table {len(self._found.data) + len(self._found.ways)}"
        return name

    def _is_recursive_reference(self, name: str) -> bool:
        return name in RECURSION.findall(self._text) and name not in self._tables

    def _add_leaf(self, scan: Scan, name: str, source: DataFrame, leaf: Leaf) -> None:
        is_known = scan.name in self._tables and leaf.is_of((LeafKind.FOREIGN, LeafKind.DATASET))
        is_table = is_known or leaf.is_of(LeafKind.DELTA)
        if is_table:
            self._add_table(scan.name)
        elif leaf.is_of(LeafKind.FILES) and not is_computed(scan, leaf):
            self._add_files(name, source, leaf)
        elif leaf.is_of(LeafKind.MEMORY) and not self._reads_content:
            msg = f"{label(name)} is in memory only"
            raise UnknownScanError(msg)
        elif leaf.is_of(LeafKind.MEMORY):
            self._found.data.append(DataInput(name, _hash_in_memory(source, name)))
        elif leaf.is_of(LeafKind.SERIES):
            self._found.data.append(DataInput(name, series_digest(leaf)))
        elif leaf.is_of(LeafKind.NOTHING):
            self._found.ways.append(SourceInput(name, schema_hash(source.schema())))
        elif not leaf.is_of(LeafKind.WORK_TABLE):
            msg = f"cannot detect changes of {label(scan.name)}"
            raise UnknownScanError(msg)

    def _add_table(self, name: str) -> None:
        entries = self._tables.get(name)
        if entries is None:
            self._unnamed_tables += 1
            return
        assert self._state is not None
        for entry in entries:
            if is_of_another_default(self._state.session, self._state.ctx, entry.name):
                msg = f"the view {label(name)} was created under another default schema"
                raise UnknownScanError(msg)
            self._found.tables.append(self._input_of(entry, self._state))

    def _add_files(self, name: str, source: DataFrame, leaf: Leaf) -> None:
        try:
            paths, how = read_files(leaf)
            file_inputs = [file_input(path, name) for path in paths]
        except (UnreadablePlanError, FileGoneError):
            msg = f"cannot read the files of {label(name)}: pass version="
            raise UnknownScanError(msg) from None
        if any(self._has_reset_mtime(each) for each in file_inputs):
            msg = f"a file of {label(name)} changed but its mtime was reset: register it again"
            raise UnknownScanError(msg)
        self._found.ways.append(SourceInput(name, f"{how}.{schema_hash(source.schema())}"))
        self._found.files += file_inputs

    def _has_reset_mtime(self, file: FileInput) -> bool:
        """Return whether a file changed but has the size and mtime that this session saw before.

        The engine caches file statistics by size and mtime, and would use stale ones.
        """
        if self._state is None:
            return False
        links = self._state.session.cache_links
        size, changed = links.first_seen(file.source, file.place, file.size, file.changed)
        if (size, changed) == (file.size, file.changed):
            return False
        if size == file.size and changed.split(".")[0] == file.changed.split(".")[0]:
            return True
        links.record_file(file.source, file.place, file.size, file.changed)
        return False

    def _check_reads(self) -> None:
        """Check that a Delta table scanned without a name is the one that the frame's state records."""
        if self._unnamed_tables == 0:
            return
        reads = () if self._state is None else self._state.reads
        if self._unnamed_tables != 1 or len(reads) != 1:
            msg = "it reads Delta tables that have no name in the session"
            raise UnknownScanError(msg)
        self._found.tables.append(self._input_of_read(reads[0]))

    def _input_of(self, entry: Registered, state: FrameState) -> TableInput:
        default = state.snapshot.default
        is_plain = default is not None and tuple(entry.name[:2]) == default
        return TableInput(
            table_id=entry.table_id,
            name=entry.name.table if is_plain else ".".join(entry.name),
            version=entry.version,
            identity=entry.identity,
            commit=self._commit_of(entry.uri, entry.storage_options, entry.version),
        )

    def _input_of_read(self, read: InputVersion) -> TableInput:
        commit = "" if read.uri is None else self._commit_of(read.uri, None, read.version)
        return TableInput(read.table_id, "table", read.version, "", commit)

    def _commit_of(self, uri: str, storage_options: Any, version: int) -> str:
        return commit_hash(uri, storage_options, version) if self._reads_content else ""


# --- scans -------------------------------------------------------------------------------------------------


def _reachable_scans(frame: DataFrame, text: str) -> tuple[list[Scan], set[str]]:
    """Return the scans that can be extracted from a plan, and the names with further scans.

    The optimized plan has most subqueries as joins, so that their scans can be extracted from it.
    """
    scans = scans_of(unpatched(frame, "logical_plan")())
    names = Counter(shown_names(text))
    missing = names - Counter(scan.name for scan in scans)
    if not missing:
        return scans, set()
    try:
        optimized = scans_of(unpatched(frame, "optimized_logical_plan")())
    except Exception:  # noqa: BLE001 - the query itself will raise this when it runs
        optimized = []
    found = Counter(scan.name for scan in optimized)
    inside = [scan for scan in optimized if scan.name in missing]
    unreached = {name for name in missing if found[name] < names[name]}
    outside = [scan for scan in scans if scan.name not in missing or scan.name in unreached]
    return [*outside, *inside], unreached


def _exists(ctx: SessionContext, name: str) -> bool:
    try:
        return bool(unpatched(ctx, "table_exist")(name))
    except Exception:  # noqa: BLE001 - the catalog or schema does not exist
        return False


def _dotted(name: str) -> Iterator[tuple[str, ...]]:
    """Yield the other names that the plan text prints like this one: those with a dot in a part.

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


def _hash_in_memory(source: DataFrame, name: str) -> str:
    parts = unpatched(source, "execute_stream_partitioned")()
    try:
        return content_hash(
            (batch.to_pyarrow() for part in parts for batch in part), limit=DATA_LIMIT
        )
    except TooLargeError:
        msg = f"{label(name)} holds more than {DATA_LIMIT >> 20} MiB in memory: pass version="
        raise UnknownScanError(msg) from None


# --- Delta tables ------------------------------------------------------------------------------------------


def _tables_by_shown_name(text: str, state: FrameState) -> dict[str, list[Registered]]:
    found: dict[str, list[Registered]] = {}
    for name in dict.fromkeys(shown_names(text)):
        if entries := scanned_names(f"TableScan: {name}", state.snapshot):
            found[name] = entries
    return found


def table_input(table: DeltaTable) -> TableInput:
    """Return the fingerprint input of an open Delta table, at its version."""
    metadata, version = table.metadata(), int(table.version())
    commit = commit_hash(table.table_uri, storage_options_of(table), version)
    return TableInput(
        table_id(table.table_uri), metadata.name or "table", version, str(metadata.id), commit
    )


def commit_hash(uri: str, storage_options: Any, version: int) -> str:
    """Return a hash of a version's commit; empty if it cannot be read.

    A table restored from a copy can have the same version number with other content.

    Args:
        uri: location of the table.
        storage_options: options to open it.
        version: the version.
    """
    try:
        options = None if storage_options is None else dict(storage_options)
        content = open_log(uri, options).read(version)
    except OSError:
        content = None
    return "" if content is None else hashlib.sha256(content).hexdigest()[:16]
