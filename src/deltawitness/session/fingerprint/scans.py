"""What the scans of a plan read: files, in-memory rows or tables.

A name in a plan is not enough: a view keeps what its names resolved to when it was created. So each
scan is planned alone, and the physical plan shows what it reads.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deltawitness.session.core.private_api import SCAN, wrapped_plan
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

__all__ = [
    "RECURSION",
    "Leaf",
    "LeafKind",
    "Scan",
    "UnknownScanError",
    "UnreadablePlanError",
    "is_computed",
    "leaves_of",
    "nodes_of",
    "read_files",
    "scans_of",
    "series_digest",
    "shown_names",
]


class UnknownScanError(Exception):
    """Part of a plan whose changes cannot be detected."""


RECURSION = re.compile(r"SubqueryAlias: (.+)\n\s+RecursiveQuery:")
"""The name of a recursive query, by which it scans itself."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan in a plan.

    Attributes:
        name: name of the table in the plan.
        plan: logical plan of the scan alone; None if it cannot be extracted from a subquery.
    """

    name: str
    plan: Any


def scans_of(plan: Any) -> list[Scan]:
    """Return the scans of a logical plan, except those in subqueries of expressions."""
    return [Scan(_name_of(node), node) for node in nodes_of(plan, "TableScan")]


def nodes_of(plan: Any, kind: str) -> Iterator[Any]:
    """Yield the nodes of one kind in a logical plan, except those in subqueries of expressions."""
    try:
        node = plan.to_variant()
    except Exception:  # noqa: BLE001 - a plan node without a Python class
        node = None
    if type(node).__name__ == kind:
        yield plan
    for below in plan.inputs():
        yield from nodes_of(below, kind)


def _name_of(plan: Any) -> str:
    found = SCAN.search(plan.display_indent())
    return "" if found is None else _shown(found[1])


def shown_names(text: str) -> list[str]:
    """Return the table names of all scans in a plan text, with repeats."""
    return [_shown(match[1]) for match in SCAN.finditer(text)]


def _shown(line: str) -> str:
    return line.split(" projection=", maxsplit=1)[0]


# --- leaves of a scan -------------------------------------------------------------------------------------


class LeafKind:
    """Kinds of leaves of a physical plan, by the prefix of their line."""

    FILES = "DataSourceExec: file_groups="
    MEMORY = "DataSourceExec: partitions="
    FOREIGN = "FFI_ExecutionPlan:"
    DELTA = "FFI_ExecutionPlan: DeltaScanExec"
    DATASET = "DatasetExec:"
    SERIES = "LazyMemoryExec:"
    WORK_TABLE = "WorkTableExec:"
    NOTHING = ("EmptyExec", "PlaceholderRowExec")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf of a physical plan: a source of rows."""

    line: str
    plan: Any

    def is_of(self, kind: str | tuple[str, ...]) -> bool:
        """Return whether the leaf is of a kind."""
        return self.line.startswith(kind)


_PASS_THROUGH = (
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "RepartitionExec",
)
"""Physical plan nodes that do not change rows."""


def leaves_of(ctx: SessionContext, scan: Scan) -> tuple[DataFrame, list[Leaf]]:
    """Plan a scan as a frame, and return it with the leaves of its physical plan.

    A temporary view is scanned like a table, and no logical plan shows what it computes. A node that
    computes something is therefore returned as a leaf of an unknown kind.

    Args:
        ctx: the context to plan it in.
        scan: the scan.
    """
    frame = unpatched(ctx, "create_dataframe_from_logical_plan")(wrapped_plan(scan.plan))
    return frame, list(_leaves(unpatched(frame, "execution_plan")()))


def _leaves(plan: Any) -> Iterator[Leaf]:
    line = plan.display().strip()
    below = [] if line.startswith("FFI_ExecutionPlan") else plan.children()
    if not below or not line.startswith(_PASS_THROUGH):
        yield Leaf(line, plan)
    for child in below:
        yield from _leaves(child)


_COMPUTED = re.compile(r", projection=\[.* as .*\]")
_FILTERED = re.compile(r", predicate=")


def is_computed(scan: Scan, leaf: Leaf) -> bool:
    """Return whether a leaf computes more than its scan shows, as that of a temporary view may.

    Args:
        scan: the scan.
        leaf: the leaf of its physical plan.
    """
    has_filters = "filters=[" in scan.plan.display_indent()
    is_filtered = _FILTERED.search(leaf.line) is not None and not has_filters
    return is_filtered or _COMPUTED.search(leaf.line) is not None


# --- files -------------------------------------------------------------------------------------------------

_CONFIGURATION, _GROUPS, _STATISTICS, _STORE = 1, 1, 6, 8
_PARTITIONED_FILE, _PATH, _SIZE, _CHANGED = 1, 1, 2, 3
_LOCAL_STORE = b"file:///"


class UnreadablePlanError(Exception):
    """A physical plan whose serialized form is not the expected one."""


def read_files(leaf: Leaf) -> tuple[list[str], str]:
    """Return the local files that a leaf reads, and a hash of how it reads them.

    The plan text shows only some of the files, and not the delimiter of a CSV; the serialized plan
    has all of it (`datafusion.proto`: FileScanExecConf, FileGroup, PartitionedFile).

    Raises:
        UnreadablePlanError: the plan cannot be parsed, or the files are not local.
    """
    try:
        ((node, content),) = _fields(leaf.plan.to_bytes())
        scan = _fields(content)
        configuration = _fields(next(part for number, part in scan if number == _CONFIGURATION))
        is_local = dict(configuration).get(_STORE) == _LOCAL_STORE
        paths = [
            _path_of(dict(_fields(file)))
            for number, group in configuration
            if number == _GROUPS
            for part, file in _fields(group)
            if part == _PARTITIONED_FILE
        ]
    except Exception as error:
        raise UnreadablePlanError from error
    if not is_local:
        raise UnreadablePlanError
    how = [
        part
        for part in (*scan, *configuration)
        if part[1] and part[0] not in {_GROUPS, _STATISTICS}
    ]
    return list(dict.fromkeys(paths)), _digest(f"{node}{how!r}".encode())


def _path_of(file: dict[int, bytes]) -> str:
    """Return the path of a file whose size and mtime match the plan.

    Depending on how a file was registered, its path in the plan is URL-encoded or not.

    Raises:
        UnreadablePlanError: no file matches.
    """
    name = file[_PATH].decode()
    name = name if os.path.splitdrive(name)[0] else f"/{name}"
    expected = _number(file[_SIZE], 0)[0], _number(file[_CHANGED], 0)[0]
    for path in dict.fromkeys((name, unquote(name, errors="surrogateescape"))):
        try:
            found = os.stat(path)  # noqa: PTH116 - faster than pathlib for many files
        except OSError:
            continue
        if (found.st_size, found.st_mtime_ns) == expected:
            return path
    raise UnreadablePlanError


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """Parse a Protobuf message into field numbers and raw contents; of a varint its bytes.

    Raises:
        UnreadablePlanError: the message is truncated.
    """
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(message):
        key, at = _number(message, at)
        kind = key & 7
        start = at
        if kind == 2:  # noqa: PLR2004 - wire type 2: length-delimited
            length, start = _number(message, at)
            at = start + length
        elif kind == 0:
            _, at = _number(message, at)
        else:
            at += {1: 8, 5: 4}[kind]
        if at > len(message):
            raise UnreadablePlanError
        found.append((key >> 3, message[start:at]))
    return found


def _number(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            return value, at
        shift += 7


_SERIES_SIZE = re.compile(r", batch_size=\d+")


def series_digest(leaf: Leaf) -> str:
    """Return a hash of the bounds of a series, which the logical plan does not show."""
    return _digest(_SERIES_SIZE.sub("", leaf.line).encode())
