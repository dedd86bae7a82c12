"""Stores the plan of an entry with the entry, so that another process can compute the same rows.

A plan contains the query with its literals and locations. It is written only to the entry's folder,
readable for its owner only; it is in no telemetry, commit or span. Credentials are removed.
`DELTAWITNESS_KEEP_PLANS=false` stores no plans. On a local disk there is one file per fingerprint key;
`prune` deletes it with the entry's rows. On an object store there is one file per content, because most
entries are computed with the same plan each time, and writing a file takes three requests: delta-rs writes
each as a multipart upload. The commit of the entry names the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deltawitness.ledger.tables.private_files import read_private_file, write_private_file
from deltawitness.locations import local_path
from deltawitness.semconv import PLAN_DIRECTORY, CacheScope
from deltawitness.session.fingerprint.stored_plan import StoredPlan, plan_of_frame

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

    from deltawitness.cache.entries.definitions import EntryDefinition

__all__ = ["PLAN", "delete_plans", "read_plan", "storable_plan", "store_plan"]

PLAN = "plan"
"""Property of an entry on an object store: name of the file with its plan."""


def storable_plan(ctx: SessionContext, definition: EntryDefinition, frame: DataFrame) -> StoredPlan:
    """Return the plan of a frame in the form that is stored.

    Args:
        ctx: the plain context.
        definition: the definition that the frame computes.
        frame: the frame.
    """
    return plan_of_frame(
        ctx,
        frame,
        sql=definition.origin.get("sql"),
        origin=definition.origin,
        has_substrait=definition.scope is CacheScope.VIEW,
    )


def _plan_path(name: str) -> str:
    return f"{PLAN_DIRECTORY}/{name.removeprefix('key:')}.json"


def store_plan(
    uri: str, name: str, plan: StoredPlan, storage_options: dict[str, str] | None
) -> None:
    """Write a plan into the folder of its entry.

    Args:
        uri: location of the entry's table.
        name: name of the file: the key of the entry's fingerprint, or the name of the plan.
        plan: the plan.
        storage_options: options to open the table.

    Raises:
        OSError: it cannot be written.
    """
    write_private_file(uri, _plan_path(name), plan.to_bytes(), storage_options)


def read_plan(uri: str, name: str, storage_options: dict[str, str] | None) -> StoredPlan | None:
    """Return the stored plan of an entry; None without one.

    Args:
        uri: location of the entry's table.
        name: name of the file, as for :func:`store_plan`.
        storage_options: options to open the table.

    Raises:
        ValueError: it cannot be parsed.
        OSError: the storage cannot be read.
    """
    content = read_private_file(uri, _plan_path(name), storage_options)
    return None if content is None else StoredPlan.from_json(content)


def delete_plans(uri: str, keys: frozenset[str]) -> None:
    """Delete the plans of a local entry, except those of the given keys.

    Args:
        uri: location of the entry's table; plans on an object store are not deleted.
        keys: keys of the fingerprints whose plans stay.
    """
    local = local_path(uri)
    if local is None:
        return
    retained = {Path(local, _plan_path(key)) for key in keys}
    # Also deletes the temporary file of a process that was killed while it wrote.
    for path in Path(local, PLAN_DIRECTORY).glob("*"):
        if path not in retained:
            path.unlink(missing_ok=True)
