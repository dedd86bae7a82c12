"""Stores the plan of an entry with the entry, so that another process can compute the same rows.

A plan contains the query with its literals and locations. It is written only to the entry's folder,
readable for its owner only; it is in no telemetry, commit or span. Credentials are removed.
`DELTAWITNESS_KEEP_PLANS=false` stores no plans. On a local disk there is one file per fingerprint key;
`prune` deletes it with the entry's rows. On an object store there is one file per content, because most
entries are computed with the same plan each time, and writing a file takes three requests: delta-rs writes
each as a multipart upload. The commit of the entry names the file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.commit.private_api import read_file, remote_store
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.local_files import BINARY
from deltawitness.locations import local_path
from deltawitness.semconv import PLAN_DIRECTORY, CacheScope
from deltawitness.session.core.frames import state_of
from deltawitness.session.core.snapshot import TableName, scanned_names
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

    from deltawitness.cache.entries.definitions import EntryDefinition

__all__ = [
    "PLAN",
    "PlannedTable",
    "StoredPlan",
    "delete_plans",
    "read_plan",
    "storable_plan",
    "store_plan",
]

PLAN = "plan"
"""Property of an entry on an object store: name of the file with its plan."""

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A Delta table that a plan reads.

    Attributes:
        name: catalog, schema and table.
        table_id: id of the Delta table's location.
        uri: its location, without credentials.
    """

    name: TableName
    table_id: str
    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlan:
    """How to compute the rows of an entry again.

    Attributes:
        sql: text of a view's query; None for a view defined by a frame.
        substrait: the plan as Substrait; None where Substrait cannot express it.
        table: location of the Delta table that a dataset was read from.
        path: file or directory that a dataset was read from.
        tables: the Delta tables that the plan reads.
        default: default catalog and schema for unqualified names.
    """

    sql: str | None = None
    substrait: bytes | None = None
    table: str | None = None
    path: str | None = None
    tables: tuple[PlannedTable, ...] = ()
    default: tuple[str, str] | None = None

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        if self.substrait is not None:
            values["substrait"] = base64.b64encode(self.substrait).decode()
        return json.dumps({"format": _FORMAT, **values}, separators=(",", ":"))

    @property
    def name(self) -> str:
        """Name of the file with this content."""
        return hashlib.sha256(_encode(self)).hexdigest()[:32]

    @classmethod
    def from_json(cls, text: str | bytes) -> StoredPlan:
        """Parse the text that `to_json` returned.

        Raises:
            ValueError: it is not a plan, or has the format of a later release.
        """
        values: dict[str, Any] = json.loads(text)
        if values.pop("format", None) != _FORMAT:
            msg = "the plan was stored by a later release"
            raise ValueError(msg)
        try:
            tables = tuple(
                PlannedTable(**{**table, "name": TableName(*table["name"])})
                for table in values.pop("tables", ())
            )
            default = values.pop("default", None)
            plan = values.pop("substrait", None)
            return cls(
                tables=tables,
                default=None if default is None else tuple(default),
                substrait=None if plan is None else base64.b64decode(plan),
                **values,
            )
        except (KeyError, TypeError) as error:
            msg = "the plan cannot be parsed"
            raise ValueError(msg) from error


def storable_plan(ctx: SessionContext, definition: EntryDefinition, frame: DataFrame) -> StoredPlan:
    """Return the plan of a frame in the form that is stored.

    Args:
        ctx: the plain context.
        definition: the definition that the frame computes.
        frame: the frame.
    """
    state = state_of(frame)
    plan = unpatched(frame, "logical_plan")()
    scanned = [] if state is None else scanned_names(plan.display_indent(), state.snapshot)
    return StoredPlan(
        sql=definition.origin.get("sql"),
        table=ledger_uri(definition.origin["table"]) if "table" in definition.origin else None,
        path=definition.origin.get("path"),
        substrait=_substrait(ctx, plan) if definition.scope is CacheScope.VIEW else None,
        tables=tuple(
            PlannedTable(table.name, table.table_id, ledger_uri(table.uri)) for table in scanned
        ),
        default=None if state is None else state.snapshot.default,
    )


def _substrait(ctx: SessionContext, plan: Any) -> bytes | None:
    from datafusion.substrait import Producer  # noqa: PLC0415 - heavy

    try:
        return bytes(Producer.to_substrait_plan(plan, ctx).encode())
    except Exception:  # noqa: BLE001 - Substrait has no UNNEST, WITH RECURSIVE or user-defined functions
        return None


# --- storage -----------------------------------------------------------------------------------------------


def _plan_path(name: str) -> str:
    return f"{PLAN_DIRECTORY}/{name.removeprefix('key:')}.json"


def _encode(plan: StoredPlan) -> bytes:
    return plan.to_json().encode("utf-8", "surrogatepass")


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
    content = _encode(plan)
    local = local_path(uri)
    if local is None:
        stream = remote_store(uri, storage_options, ()).open_output_stream(_plan_path(name), None)
        stream.write(content)
        stream.close()
        return
    path = Path(local, _plan_path(name))
    path.parent.mkdir(mode=0o700, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    partial.replace(path)


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
    local = local_path(uri)
    if local is None:
        path = _plan_path(name)
        content = read_file(remote_store(uri, storage_options, [path]), path)
    else:
        try:
            content = Path(local, _plan_path(name)).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            content = None
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
