"""The stored plans of writes: a file per write under the cache root, named by the id of the write."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path

from deltawitness.commit.private_api import writable_store
from deltawitness.ledger.tables.private_files import read_private_file, write_private_file
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.locations import local_path
from deltawitness.semconv import WRITE_PLAN_DIRECTORY

__all__ = ["delete_plans_of_writes", "plans_of_writes", "read_plan_of_write", "store_plan_of_write"]

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")
_UUID7 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
"""An id of a write: its first 48 bits are milliseconds since the Unix epoch."""


def store_plan_of_write(root: LedgerRoot, write_id: str, content: bytes) -> None:
    """Store the plan of a write.

    Args:
        root: the cache root.
        write_id: id of the write.
        content: the plan.

    Raises:
        OSError: it cannot be written.
        ValueError: the id cannot be the name of a file.
    """
    if (name := _file_name(write_id)) is None:
        msg = "the id of the write cannot be the name of a file"
        raise ValueError(msg)
    write_private_file(root.uri, name, content, root.storage_options)


def read_plan_of_write(root: LedgerRoot, write_id: str) -> bytes | None:
    """Return the stored plan of a write; None if there is none.

    Args:
        root: the cache root.
        write_id: id of the write.

    Raises:
        OSError: the storage cannot be read.
    """
    name = _file_name(write_id)
    return None if name is None else read_private_file(root.uri, name, root.storage_options)


def plans_of_writes(root: LedgerRoot) -> dict[str, dt.date | None]:
    """Return the files of the stored plans, each with the day of its write in UTC; None if unknown.

    Args:
        root: the cache root.

    Raises:
        OSError: the storage cannot be listed.
    """
    return {name: _day_of(name) for name in _file_names(root)}


def delete_plans_of_writes(root: LedgerRoot, names: list[str]) -> None:
    """Delete stored plans.

    Args:
        root: the cache root.
        names: names that :func:`plans_of_writes` returned.

    Raises:
        OSError: one cannot be deleted.
    """
    if not names:
        return
    local = local_path(root.uri)
    if local is not None:
        for name in names:
            Path(local, WRITE_PLAN_DIRECTORY, name).unlink(missing_ok=True)
        return
    store = writable_store(root.uri, root.storage_options)
    for name in names:
        store.delete_file(f"{WRITE_PLAN_DIRECTORY}/{name}")


def _file_name(write_id: str) -> str | None:
    is_name = _ID.fullmatch(write_id) is not None
    return f"{WRITE_PLAN_DIRECTORY}/{write_id}.json" if is_name else None


def _file_names(root: LedgerRoot) -> Iterator[str]:
    local = local_path(root.uri)
    if local is not None:
        yield from sorted(path.name for path in Path(local, WRITE_PLAN_DIRECTORY).glob("*"))
        return
    store = writable_store(root.uri, root.storage_options)
    found = store.get_file_info_selector(WRITE_PLAN_DIRECTORY, True, False)  # noqa: FBT003 - PyArrow's signature
    yield from sorted(info.base_name for info in found)


def _day_of(name: str) -> dt.date | None:
    """Return the day of the id in the name of a file, also of one that a killed process has left.

    >>> _day_of("01936f0e-5400-7000-8000-000000000000.json")
    datetime.date(2024, 11, 27)
    """
    match = _UUID7.fullmatch(name.partition(".")[0])
    if match is None:
        return None
    return dt.datetime.fromtimestamp(int(match[1] + match[2], 16) / 1000, dt.UTC).date()
