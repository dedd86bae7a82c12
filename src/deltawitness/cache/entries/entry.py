"""An entry of the cache: its values, and the commit metadata that has them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deltawitness.cache.entries.copies import EntryCopy
from deltawitness.commit.reader import CommitMetadata
from deltawitness.locations import local_path
from deltawitness.redaction import key_hash
from deltawitness.semconv import (
    CACHE_ENTRY,
    CACHE_KEY,
    CACHE_POLICY,
    DELTA_TABLE_VERSION,
    CacheScope,
)
from deltawitness.session.fingerprint.model import Fingerprint

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from opentelemetry.util.types import AttributeValue

__all__ = [
    "PRUNED",
    "RETENTION",
    "DamagedEntryError",
    "Entry",
    "check_files",
    "count_rows",
    "details_of_entry",
    "entry_metadata",
    "parse_metadata",
    "written_rows",
]

PRUNED = "pruned"
"""Property of an entry whose rows were deleted by `prune`."""

RETENTION = "retention_s"
"""Property with the retention of the entry's policy when it was written, in seconds."""


class DamagedEntryError(Exception):
    """An entry that cannot be served, and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored entry.

    Attributes:
        scope: view, dataset, artifact or metadata.
        name: name of the entry.
        uri: location of its table.
        open_table: returns its table, at the version to serve; opens it on the first call.
        newest: the newest version of its table when it was read.
        version: the table version that holds it.
        made_at: when its computation began, in milliseconds since the Unix epoch.
        policy: name of the policy that it was stored under.
        fingerprint: fingerprint of its inputs; None when it is invalidated.
        properties: further properties from its commit metadata.
        storage_options: options to open its table.
        rows: number of rows, if the file statistics have it.
        is_opened: whether its table is open already.
        partition_by: partition columns, if known without the table.
        copy: the local copy from which it is served; None where it is served from its table.
    """

    scope: CacheScope
    name: str
    uri: str
    open_table: Callable[[], DeltaTable] = field(repr=False, compare=False)
    newest: int
    version: int
    made_at: int
    policy: str
    fingerprint: Fingerprint | None
    properties: dict[str, Any]
    storage_options: dict[str, str] | None = field(default=None, repr=False)
    rows: int | None = None
    is_opened: bool = True
    partition_by: tuple[str, ...] | None = None
    copy: EntryCopy | None = field(default=None, repr=False, compare=False)

    @property
    def table(self) -> DeltaTable:
        """Its table, at the version to serve."""
        return self.open_table()


def details_of_entry(entry: Entry) -> dict[str, AttributeValue | None]:
    """Return the attributes of an entry that was read, for spans and log records."""
    fingerprint = entry.fingerprint
    return {
        CACHE_POLICY: entry.policy,
        CACHE_KEY: None if fingerprint is None else key_hash(fingerprint.key),
        DELTA_TABLE_VERSION: entry.version,
    }


def entry_metadata(
    fingerprint: Fingerprint | None,
    policy: str,
    properties: dict[str, Any] | None = None,
    *,
    made_at: int | None = None,
) -> dict[str, str]:
    """Return the commit metadata of an entry, in addition to the standard metadata.

    Args:
        fingerprint: fingerprint of its inputs; None: the commit invalidates the entry.
        policy: name of its policy.
        properties: further properties, for example those of an artifact.
        made_at: when its computation began, in milliseconds since the Unix epoch.
    """
    metadata = {
        "policy": policy,
        "fingerprint": None if fingerprint is None else fingerprint.as_json(),
        "facts": properties or {},
        "made_at": made_at,
    }
    return {CACHE_ENTRY: json.dumps(metadata, separators=(",", ":"))}


def parse_metadata(text: Any) -> dict[str, Any]:
    """Return the metadata of an entry from the value in its commit.

    Raises:
        DamagedEntryError: it is not the JSON of an entry.
    """
    try:
        metadata: dict[str, Any] = json.loads(text)
        metadata["policy"]  # written by every release
    except (KeyError, TypeError, ValueError) as error:
        msg = "the entry's commit metadata is unreadable"
        raise DamagedEntryError(msg) from error
    return metadata


def count_rows(table: DeltaTable, commit: CommitMetadata) -> int | None:
    """Return the number of rows in a table's files; None if the file statistics lack it.

    Raises:
        DamagedEntryError: the number differs from what the entry's commit wrote. Two concurrent
            OPTIMIZE commits double the rows.
    """
    written = written_rows(commit)
    counts = table.get_add_actions(flatten=True)["num_records"].to_pylist()
    rows = None if None in counts else sum(counts)
    if written is not None and rows is not None and rows != written:
        msg = "its row count differs from its commit"
        raise DamagedEntryError(msg)
    return rows


def written_rows(commit: CommitMetadata) -> int | None:
    """Return the number of rows that a commit reports to have added; None if it reports none."""
    written = commit.operation_metrics.get("num_added_rows")
    return written if isinstance(written, int) else None


def check_files(table: DeltaTable) -> None:
    """Check that the data files of a local table exist and have the size in the log.

    Raises:
        DamagedEntryError: one does not.
    """
    folder = local_path(table.table_uri)
    if folder is None:
        return
    actions = table.get_add_actions(flatten=True)
    # Paths in the log are URL-encoded: partition values with special characters are escaped.
    for path, size in zip(
        actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True
    ):
        file = os.path.join(folder, unquote(path))  # noqa: PTH118 - faster than pathlib for many files
        try:
            found = os.stat(file).st_size  # noqa: PTH116 - as above
        except OSError:
            found = -1
        if found != size:
            msg = "a data file is missing or has another size"
            raise DamagedEntryError(msg)
