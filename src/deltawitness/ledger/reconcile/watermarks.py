"""Watermarks: up to which version a table's log has been reconciled, per table incarnation.

A watermark is an application transaction in the inventory, committed with the rows. Its id contains
the table's location and the id in its metadata, so that a recreated table starts at version 0.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltawitness.commit.log import CommitLog, local_log_directory
from deltawitness.commit.private_api import read_file, remote_store
from deltawitness.commit.reader import parse_commit
from deltawitness.ledger.reconcile.log_reader import first_action, time_of
from deltawitness.ledger.reconcile.targets import Target
from deltawitness.ledger.tables.shards import TableParts
from deltawitness.locations import table_id
from deltawitness.semconv import RECONCILE_APP_ID_PREFIX

__all__ = ["TableIncarnation", "app_id", "incarnation_of", "watermark_of"]


def app_id(uri: str, guid: str) -> str:
    """Return the application id of a table's watermark.

    Args:
        uri: location of the table.
        guid: the id in its metadata.
    """
    return f"{RECONCILE_APP_ID_PREFIX}{table_id(uri)}/{guid}"


def watermark_of(inventory: TableParts, uri: str, guid: str | None) -> int:
    """Return the first version of a table that has not been reconciled."""
    if guid is None:
        return 0
    return inventory.transaction_version(app_id(uri, guid)) or 0


@dataclass(frozen=True, slots=True)
class TableIncarnation:
    """Identity of a table at a location; it differs after the table is dropped and recreated.

    Attributes:
        guid: the id in its metadata; None if unknown.
        created_ms: time of commit 0 in milliseconds since the Unix epoch, or of the creation in its
            metadata when commit 0 is gone; None if unknown.
    """

    guid: str | None
    created_ms: int | None


def incarnation_of(target: Target, log: CommitLog, versions: list[int]) -> TableIncarnation:
    """Return the incarnation of a table, if possible without opening it.

    Args:
        target: the table.
        log: its log.
        versions: the versions in the log.
    """
    first = log.read(0) if versions[:1] == [0] else None
    metadata = None if first is None else first_action(first, "metaData")
    found = metadata.get("id") if metadata else None
    known = None if isinstance(found, str) else _in_checkpoint(target) or _opened(target)
    if first is None:
        return known or TableIncarnation(None, None)
    guid = found if isinstance(found, str) else None if known is None else known.guid
    return TableIncarnation(guid, time_of(parse_commit(0, first), first))


def _in_checkpoint(target: Target) -> TableIncarnation | None:
    try:
        last = json.loads(_log_file(target, "_last_checkpoint"))
        parts = last.get("parts")
        names = (
            [f"{last['version']:020d}.checkpoint.parquet"]
            if parts is None
            else [
                f"{last['version']:020d}.checkpoint.{n:010d}.{parts:010d}.parquet"
                for n in range(1, parts + 1)
            ]
        )
        return next((found for name in names if (found := _incarnation_in(target, name))), None)
    except Exception:  # noqa: BLE001 - the engine may still open it
        return None


def _incarnation_in(target: Target, name: str) -> TableIncarnation | None:
    import pyarrow.parquet as pq  # noqa: PLC0415 - only for logs without commit 0

    file = pq.ParquetFile(io.BytesIO(_log_file(target, name)))
    read = file.read(columns=["metaData.id", "metaData.createdTime"])
    column: list[dict[str, Any] | None] = read["metaData"].to_pylist()
    return next(
        (
            TableIncarnation(row["id"], row.get("createdTime"))
            for row in column
            if row and row["id"]
        ),
        None,
    )


def _log_file(target: Target, name: str) -> bytes:
    directory = local_log_directory(target.location)
    if directory is not None:
        return (Path(directory) / name).read_bytes()
    path = f"_delta_log/{name}"
    content = read_file(remote_store(target.location, target.storage_options, [path]), path)
    if content is None:
        raise FileNotFoundError(path)
    return content


def _opened(target: Target) -> TableIncarnation | None:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    try:
        table = DeltaTable(target.location, storage_options=target.storage_options)
        metadata = table.metadata()
        return TableIncarnation(str(metadata.id), metadata.created_time)
    except Exception:  # noqa: BLE001 - without it the log is read from its start each time
        return None
