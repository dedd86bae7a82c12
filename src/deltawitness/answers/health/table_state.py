"""Read what the checks of a table need: its log, its newest version, and the files on its storage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deltawitness.answers.logged_files import LoggedCommit, logged_commit
from deltawitness.answers.lookup import NamedTable
from deltawitness.answers.storage import storage_options_for
from deltawitness.answers.stored_files import StoredFile, TableStorage
from deltawitness.commit.log import open_log, versions_of
from deltawitness.commit.parallel import LogReaders
from deltawitness.locations import local_path, strip_credentials
from deltawitness.redaction import message_for_ledger
from deltawitness.run import suppressed
from deltawitness.settings import LedgerMessages, Settings

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "ActiveFile",
    "Snapshot",
    "TableState",
    "error_text",
    "read_snapshot",
    "read_state",
    "reason_text",
]

_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10})|\.[0-9a-f-]{36})?\.\w+")


@dataclass(frozen=True, slots=True)
class ActiveFile:
    """A file of a version.

    Attributes:
        path: its path relative to the table, not percent-encoded.
        size: its size in bytes.
        rows: its number of rows; None if it has no statistics.
        partition: its partition values, by column.
    """

    path: str
    size: int
    rows: int | None
    partition: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of a table.

    Attributes:
        version: the version.
        files: its files.
        partition_columns: its partition columns.
        properties: the properties of the table.
    """

    version: int
    files: tuple[ActiveFile, ...]
    partition_columns: tuple[str, ...]
    properties: Mapping[str, str]

    @property
    def paths(self) -> frozenset[str]:
        """The paths of its files."""
        return frozenset(file.path for file in self.files)


@dataclass(slots=True)
class TableState:
    """What was read of a table; what cannot be read is empty, with a problem.

    Attributes:
        name: its name.
        uri: its canonical location.
        location: its location as passed to delta-rs.
        storage_options: as for `DeltaTable`.
        log_files: the files of its log, by name.
        commits: the last commits of the log, in order.
        checkpoints: names of the parts of each checkpoint, by version.
        snapshot: its newest version; None if it cannot be read.
        stored: the data files on the storage, by path; None if they were not or cannot be listed.
        problems: what could not be read: a short name of the part, and the error.
    """

    name: str
    uri: str
    location: str
    storage_options: dict[str, str] | None = None
    log_files: Mapping[str, StoredFile] = field(default_factory=dict)
    commits: Sequence[LoggedCommit] = ()
    checkpoints: Mapping[int, list[str]] = field(default_factory=dict)
    snapshot: Snapshot | None = None
    stored: Mapping[str, StoredFile] | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)
    storage: TableStorage | None = None

    @property
    def versions(self) -> list[int]:
        """The versions whose commits are in the log."""
        return sorted(versions_of(self.log_files))

    @property
    def complete_checkpoints(self) -> list[int]:
        """The versions of the checkpoints that have all their parts, in order."""
        return sorted(version for version, names in self.checkpoints.items() if _is_complete(names))

    @property
    def shown_uri(self) -> str:
        """Its location for a report: a path for a local table, without credentials."""
        return local_path(self.uri) or strip_credentials(self.uri)


def _is_complete(names: Sequence[str]) -> bool:
    parts: dict[int, set[int]] = {}
    for name in names:
        match = _CHECKPOINT.fullmatch(name)
        if match is None or match[2] is None:
            return True
        parts.setdefault(int(match[3]), set()).add(int(match[2]))
    return any(len(found) == count for count, found in parts.items())


def read_state(
    named: NamedTable,
    settings: Settings,
    readers: LogReaders,
    *,
    commits: int,
    has_files: bool,
) -> TableState:
    """Return what can be read of a table.

    Args:
        named: the table.
        settings: the storage options of a remote table.
        readers: reads the commits of a remote log.
        commits: maximum number of commits to read, from the last one on.
        has_files: whether the data files on the storage are listed.
    """
    options = storage_options_for(named.location, settings)
    state = TableState(named.name, named.uri, named.location, options)
    with suppressed():
        _read_log(state, readers, commits)
        if not state.log_files:
            return state
        try:
            state.snapshot = read_snapshot(state)
        except BaseException as error:  # noqa: BLE001 - a panic of the engine is no Exception
            _add_problem(state, "newest version", error)
        if has_files:
            try:
                assert state.storage is not None
                state.stored = state.storage.data_files()
            except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
                _add_problem(state, "list of files", error)
    return state


def _read_log(state: TableState, readers: LogReaders, limit: int) -> None:
    try:
        state.storage = TableStorage(state.location, state.storage_options)
        state.log_files = state.storage.log_files()
        checkpoints: dict[int, list[str]] = {}
        for name in sorted(state.log_files):
            if match := _CHECKPOINT.fullmatch(name):
                checkpoints.setdefault(int(match[1]), []).append(name)
        state.checkpoints = checkpoints
        log = open_log(state.location, state.storage_options)
        state.commits = [
            logged_commit(version, raw)
            for version, raw in readers.commits(log, state.versions[-limit:])
            if raw is not None
        ]
    except Exception as error:  # noqa: BLE001 - as above
        _add_problem(state, "log", error)


def _add_problem(state: TableState, part: str, error: BaseException) -> None:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        raise error
    state.problems.append((part, error_text(error)))


def error_text(error: BaseException) -> str:
    """Return the text of an error of an engine, without secrets; its class if it has none."""
    return reason_text(str(error)) or type(error).__name__


def reason_text(message: str) -> str:
    """Return the message of an engine in one line of at most 300 characters, without secrets."""
    if "no credentials found" in message:  # delta-rs lists every place where it looks
        return "no credentials found"
    plain = _TERMINAL_CODE.sub("", strip_credentials(message))
    text = message_for_ledger(plain, LedgerMessages.SAFE) or ""
    return text[:300].rstrip(". ")


_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*m")


def read_snapshot(state: TableState, version: int | None = None) -> Snapshot:
    """Return one version of a table, the newest one by default.

    Args:
        state: the table.
        version: the version.

    Raises:
        OSError: the storage cannot be read.
        DeltaError: the version cannot be read.
    """
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    with suppressed():
        place = local_path(state.location) or state.location
        opened = DeltaTable(place, version=version, storage_options=state.storage_options)
        metadata = opened.metadata()
        return Snapshot(
            opened.version(),
            tuple(_active_files(opened)),
            tuple(metadata.partition_columns),
            dict(metadata.configuration),
        )


def _active_files(opened: DeltaTable) -> list[ActiveFile]:
    found = opened.get_add_actions(flatten=True)
    names = found.schema.names
    columns = {
        name: found.column(name).to_pylist()
        for name in names
        if name in {"path", "size_bytes", "num_records"} or name.startswith(_PARTITION)
    }
    values = [name for name in columns if name.startswith(_PARTITION)]
    records = columns.get("num_records") or [None] * len(columns["path"])
    return [
        ActiveFile(
            unquote(path),
            columns["size_bytes"][number] or 0,
            records[number],
            tuple((name.removeprefix(_PARTITION), columns[name][number]) for name in values),
        )
        for number, path in enumerate(columns["path"])
    ]


_PARTITION = "partition."
"""Precedes the name of a partition column in the flat list of files."""
