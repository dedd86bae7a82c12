"""A plan in a form that is stored, so that another process can compute the same rows.

A plan contains the query with its literals and locations. Credentials are removed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.session.core.frames import state_of
from deltawitness.session.core.snapshot import TableName, scanned_names
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

__all__ = ["PlannedTable", "StoredPlan", "plan_of_frame"]

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
    """How to compute rows again.

    Attributes:
        sql: text of the query; None for a frame that was not made from text.
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

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON-serializable values."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        if self.substrait is not None:
            values["substrait"] = base64.b64encode(self.substrait).decode()
        return {"format": _FORMAT, **values}

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        return json.dumps(self.as_json(), separators=(",", ":"))

    def to_bytes(self) -> bytes:
        """Return the plan as encoded JSON text."""
        return self.to_json().encode("utf-8", "surrogatepass")

    @property
    def name(self) -> str:
        """Name of the file with this content."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:32]

    @classmethod
    def from_json(cls, text: str | bytes) -> StoredPlan:
        """Parse the text that `to_json` returned.

        Raises:
            ValueError: it is not a plan, or has the format of a later release.
        """
        return cls.from_values(json.loads(text))

    @classmethod
    def from_values(cls, stored: Mapping[str, Any]) -> StoredPlan:
        """Parse the values that `as_json` returned.

        Raises:
            ValueError: they are not a plan, or have the format of a later release.
        """
        values = dict(stored)
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


def plan_of_frame(
    ctx: SessionContext,
    frame: DataFrame,
    *,
    sql: str | None = None,
    origin: Mapping[str, str] | None = None,
    has_substrait: bool = True,
) -> StoredPlan:
    """Return the plan of a frame in the form that is stored.

    Args:
        ctx: the plain context.
        frame: the frame.
        sql: text of the frame's query; None without one.
        origin: `table` or `path` that a dataset was read from.
        has_substrait: whether the plan is also stored as Substrait.
    """
    state = state_of(frame)
    plan = unpatched(frame, "logical_plan")()
    scanned = [] if state is None else scanned_names(plan.display_indent(), state.snapshot)
    source = origin or {}
    return StoredPlan(
        sql=sql,
        table=ledger_uri(source["table"]) if "table" in source else None,
        path=source.get("path"),
        substrait=_substrait(ctx, plan) if has_substrait else None,
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
