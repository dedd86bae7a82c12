"""What the scans of a plan are bound to: the files, the rows in memory or the table behind each.

A name in a plan is not enough: a view keeps what its names meant when it was made. So each scan is
planned by itself, and the engine's physical plan tells what it reads.
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
    """Something in a plan that cannot be seen to have changed."""


RECURSION = re.compile(r"SubqueryAlias: (.+)\n\s+RecursiveQuery:")
"""The name of a recursive query, by which it scans itself."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan in a plan.

    Attributes:
        name: what the plan calls what it reads.
        plan: the scan alone.
    """

    name: str
    plan: Any


def scans_of(plan: Any) -> list[Scan]:
    """Return the scans of a logical plan, but for those inside an expression's subquery."""
    return [Scan(_name_of(node), node) for node in nodes_of(plan, "TableScan")]


def nodes_of(plan: Any, kind: str) -> Iterator[Any]:
    """Yield the nodes of a kind of a logical plan, but for those inside an expression's subquery."""
    try:
        node = plan.to_variant()
    except Exception:  # noqa: BLE001 - the engine knows plans that Python has no word for
        node = None
    if type(node).__name__ == kind:
        yield plan
    for below in plan.inputs():
        yield from nodes_of(below, kind)


def _name_of(plan: Any) -> str:
    found = SCAN.search(plan.display_indent())
    return "" if found is None else _shown(found[1])


def shown_names(text: str) -> list[str]:
    """Return the names of all scans in a plan's text, as often as they are scanned."""
    return [_shown(match[1]) for match in SCAN.finditer(text)]


def _shown(line: str) -> str:
    return line.split(" projection=", maxsplit=1)[0]


# --- what is behind a scan ---------------------------------------------------------------------------------


class LeafKind:
    """What a leaf of a physical plan reads, by how its line begins."""

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
    """A leaf of a physical plan: where rows come from."""

    line: str
    plan: Any

    def is_of(self, kind: str | tuple[str, ...]) -> bool:
        """Tell whether it is of a kind."""
        return self.line.startswith(kind)


_PASSING_ON = (
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "RepartitionExec",
)
"""Nodes of a physical plan that leave rows as they are."""


def leaves_of(ctx: SessionContext, scan: Scan) -> tuple[DataFrame, list[Leaf]]:
    """Return a scan as a frame, and the leaves of its physical plan.

    A temporary view is scanned as a table is: what it computes of its leaves no logical plan tells,
    and so it is a leaf of its own, of no kind that is known.

    Args:
        ctx: the context to plan it in.
        scan: the scan.
    """
    frame = unpatched(ctx, "create_dataframe_from_logical_plan")(wrapped_plan(scan.plan))
    return frame, list(_leaves(unpatched(frame, "execution_plan")()))


def _leaves(plan: Any) -> Iterator[Leaf]:
    line = plan.display().strip()
    below = [] if line.startswith("FFI_ExecutionPlan") else plan.children()
    if not below or not line.startswith(_PASSING_ON):
        yield Leaf(line, plan)
    for child in below:
        yield from _leaves(child)


_COMPUTED = re.compile(r", projection=\[.* as .*\]")
_FILTERED = re.compile(r", predicate=")


def is_computed(scan: Scan, leaf: Leaf) -> bool:
    """Tell whether a leaf computes more of its files than the scan says: that of a temporary view may.

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
    """A physical plan that does not say what it reads in the way that is known."""


def read_files(leaf: Leaf) -> tuple[list[str], str]:
    """Return the local files that a leaf reads, and a hash of how it reads them.

    The text of a plan tells only some of the files, and not the delimiter of a CSV; its serialized
    form tells all (`datafusion.proto`: FileScanExecConf, FileGroup, PartitionedFile).

    Raises:
        Unreadable: it does not say, or they do not lie on this machine.
    """
    try:
        ((node, content),) = _fields(leaf.plan.to_bytes())
        scan = _fields(content)
        configuration = _fields(next(part for number, part in scan if number == _CONFIGURATION))
        is_local = dict(configuration).get(_STORE) == _LOCAL_STORE
        paths = [
            _place_of(dict(_fields(file)))
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


def _place_of(file: dict[int, bytes]) -> str:
    """Return where a file lies that is as large and as old as the plan says.

    Some ways to register a file leave its name as it is, others encode it.
    """
    name = "/" + file[_PATH].decode()
    told = _number(file[_SIZE], 0)[0], _number(file[_CHANGED], 0)[0]
    for path in dict.fromkeys((name, unquote(name, errors="surrogateescape"))):
        try:
            found = os.stat(path)  # noqa: PTH116 - of many files
        except OSError:
            continue
        if (found.st_size, found.st_mtime_ns) == told:
            return path
    raise UnreadablePlanError


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """Return the fields of a Protobuf message: their numbers and contents; a number's is its bytes."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(message):
        key, at = _number(message, at)
        kind = key & 7
        start = at
        if kind == 2:  # noqa: PLR2004 - the wire types of Protobuf
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
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a number
            return value, at
        shift += 7


_SERIES_SIZE = re.compile(r", batch_size=\d+")


def series_digest(leaf: Leaf) -> str:
    """Return a hash of what a series in a plan runs over: its logical plan does not tell."""
    return _digest(_SERIES_SIZE.sub("", leaf.line).encode())
