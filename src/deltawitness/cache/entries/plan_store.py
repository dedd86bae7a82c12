"""The plan of what an entry holds, kept with it: how another process can make the same rows again.

A plan holds what its query does, literals and locations included, and so it goes nowhere but into
the entry's own folder, readable for its owner alone: no telemetry, no commit and no span has it.
`DELTAWITNESS_KEEP_PLANS=false` keeps none; credentials are in none. There is a file for each content,
by the key of what it was made from; `prune` deletes them with the entry's rows.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.commit.log import local_path
from deltawitness.commit.private_api import read_file, remote_store
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.semconv import PLAN_DIRECTORY, CacheScope
from deltawitness.session.core.frames import state_of
from deltawitness.session.core.snapshot import TableName, scanned_names
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

    from deltawitness.cache.entries.definitions import EntryDefinition

__all__ = ["PlannedTable", "StoredPlan", "delete_plans", "read_plan", "storable_plan", "store_plan"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """What a name in a plan stands for.

    Attributes:
        name: catalog, schema and table.
        table_id: of the Delta table.
        uri: where it lies, without credentials.
    """

    name: TableName
    table_id: str
    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlan:
    """How the rows of an entry are made again.

    Attributes:
        sql: the text of a view's query; None for one that was asked for as a frame.
        substrait: its plan; None where Substrait has no word for something in it.
        table: where the Delta table lies that a dataset was read from.
        path: the file or directory that a dataset was read from.
        tables: the Delta tables that it reads.
        default: the catalog and the schema that names without them are looked up in.
    """

    sql: str | None = None
    substrait: bytes | None = None
    table: str | None = None
    path: str | None = None
    tables: tuple[PlannedTable, ...] = ()
    default: tuple[str, str] | None = None

    def as_text(self) -> str:
        """Return it as JSON."""
        told = {name: value for name, value in asdict(self).items() if value is not None}
        if self.substrait is not None:
            told["substrait"] = base64.b64encode(self.substrait).decode()
        return json.dumps({"format": _FORMAT, **told}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str | bytes) -> StoredPlan:
        """Return it again.

        Raises:
            ValueError: it is none, or of a later release.
        """
        told: dict[str, Any] = json.loads(text)
        if told.pop("format", None) != _FORMAT:
            msg = "it was kept by a later release"
            raise ValueError(msg)
        try:
            tables = tuple(
                PlannedTable(**{**table, "name": TableName(*table["name"])})
                for table in told.pop("tables", ())
            )
            default = told.pop("default", None)
            plan = told.pop("substrait", None)
            return cls(
                tables=tables,
                default=None if default is None else tuple(default),
                substrait=None if plan is None else base64.b64decode(plan),
                **told,
            )
        except (KeyError, TypeError) as error:
            msg = "it cannot be read"
            raise ValueError(msg) from error


def storable_plan(ctx: SessionContext, recipe: EntryDefinition, frame: DataFrame) -> StoredPlan:
    """Return how a frame is made again.

    Args:
        ctx: the plain context.
        recipe: what it is the result of.
        frame: the frame.
    """
    state = state_of(frame)
    plan = unpatched(frame, "logical_plan")()
    scanned = [] if state is None else scanned_names(plan.display_indent(), state.snapshot)
    return StoredPlan(
        sql=recipe.origin.get("sql"),
        table=ledger_uri(recipe.origin["table"]) if "table" in recipe.origin else None,
        path=recipe.origin.get("path"),
        substrait=_substrait(ctx, plan) if recipe.scope is CacheScope.VIEW else None,
        tables=tuple(
            PlannedTable(each.name, each.table_id, ledger_uri(each.uri)) for each in scanned
        ),
        default=None if state is None else state.snapshot.default,
    )


def _substrait(ctx: SessionContext, plan: Any) -> bytes | None:
    from datafusion.substrait import Producer  # noqa: PLC0415 - heavy

    try:
        return bytes(Producer.to_substrait_plan(plan, ctx).encode())
    except Exception:  # noqa: BLE001 - what it has no word for: UNNEST, WITH RECURSIVE, our functions
        return None


# --- where it lies -----------------------------------------------------------------------------------------


def _place(key: str) -> str:
    return f"{PLAN_DIRECTORY}/{key.removeprefix('key:')}.json"


def store_plan(
    uri: str, key: str, plan: StoredPlan, storage_options: dict[str, str] | None
) -> None:
    """Keep a plan with an entry.

    Args:
        uri: where the entry lies.
        key: of what it was made from.
        plan: the plan.
        storage_options: how the entry is opened.

    Raises:
        OSError: it cannot be written.
    """
    content = plan.as_text().encode("utf-8", "surrogatepass")
    local = local_path(uri)
    if local is None:
        stream = remote_store(uri, storage_options, ()).open_output_stream(_place(key), None)
        stream.write(content)
        stream.close()
        return
    path = Path(local, _place(key))
    path.parent.mkdir(mode=0o700, exist_ok=True)
    half = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    half.replace(path)


def read_plan(uri: str, key: str, storage_options: dict[str, str] | None) -> StoredPlan | None:
    """Return the plan that was kept with an entry; None when none was.

    Raises:
        ValueError: it cannot be read.
        OSError: the storage cannot be read.
    """
    local = local_path(uri)
    if local is None:
        content = read_file(remote_store(uri, storage_options, [_place(key)]), _place(key))
    else:
        try:
            content = Path(local, _place(key)).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            content = None
    return None if content is None else StoredPlan.from_text(content)


def delete_plans(uri: str, keys: frozenset[str]) -> None:
    """Delete the plans of a local entry but for those of these keys.

    Args:
        uri: where the entry lies; of one on an object store nothing is deleted.
        keys: of what is still there.
    """
    local = local_path(uri)
    if local is None:
        return
    kept = {Path(local, _place(key)) for key in keys}
    # All of them: also the half of one whose process was killed while it wrote.
    for path in Path(local, PLAN_DIRECTORY).glob("*"):
        if path not in kept:
            path.unlink(missing_ok=True)
