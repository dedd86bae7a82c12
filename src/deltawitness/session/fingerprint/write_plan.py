"""The plan of a write, with the fingerprint of its rows: what `verify RUN` needs to compute them again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from deltawitness.session.core.frames import FrameState
from deltawitness.session.core.snapshot import TableName, scanned_names
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.fingerprint.inputs import commit_hash
from deltawitness.session.fingerprint.model import Fingerprint, NotCacheable
from deltawitness.session.fingerprint.plan import fingerprint_of
from deltawitness.session.fingerprint.stored_plan import StoredPlan, plan_of_frame
from deltawitness.session.fingerprint.udfs import changeable_call_in

if TYPE_CHECKING:
    from datafusion import DataFrame

__all__ = ["PlannedStatement", "WritePlan", "plan_of_write"]

_FORMAT = 1

MAX_BYTES = 16 << 20
"""Maximum size of a stored plan: an INSERT may have millions of rows of VALUES."""


@dataclass(frozen=True, slots=True)
class PlannedStatement:
    """A SQL statement that writes a table.

    Attributes:
        text: the statement.
        table: name of the written table: catalog, schema and table.
        version: version of the table that the statement read.
        defaults: SQL of the default values of the table's columns, by column.
    """

    text: str
    table: TableName
    version: int
    defaults: Mapping[str, str]

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> PlannedStatement:
        """Parse the values of its attributes.

        Raises:
            TypeError: they are not those of a statement.
        """
        return cls(**{**values, "table": TableName(*values["table"])})


@dataclass(frozen=True, slots=True)
class WritePlan:
    """How to compute the rows of a write again.

    Attributes:
        plan: the plan of the rows; None if they cannot be computed again.
        fingerprint: the fingerprint of the rows; None if they cannot be computed again.
        reason: why they cannot be computed again; None if they can.
        statement: the SQL statement that wrote them; None for a frame, or if the statement has parameters.
    """

    plan: StoredPlan | None = None
    fingerprint: Fingerprint | None = None
    reason: str | None = None
    statement: PlannedStatement | None = None

    def to_bytes(self) -> bytes:
        """Return the plan as encoded JSON text."""
        values = {
            "format": _FORMAT,
            "plan": None if self.plan is None else self.plan.as_json(),
            "fingerprint": None if self.fingerprint is None else self.fingerprint.as_json(),
            "reason": self.reason,
            "statement": None if self.statement is None else asdict(self.statement),
        }
        content = json.dumps(values, separators=(",", ":")).encode("utf-8", "surrogatepass")
        if len(content) <= MAX_BYTES:
            return content
        return WritePlan(reason=f"its plan is larger than {MAX_BYTES >> 20} MiB").to_bytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> WritePlan:
        """Parse what `to_bytes` returned.

        Raises:
            ValueError: it is not the plan of a write, or has the format of a later release.
        """
        values: Mapping[str, Any] = json.loads(content)
        if values.get("format") != _FORMAT:
            msg = "the plan was stored by a later release"
            raise ValueError(msg)
        plan, fingerprint = values.get("plan"), values.get("fingerprint")
        statement = values.get("statement")
        try:
            return cls(
                None if plan is None else StoredPlan.from_values(plan),
                None if fingerprint is None else Fingerprint.from_json(fingerprint),
                values.get("reason"),
                None if statement is None else PlannedStatement.from_values(statement),
            )
        except (AttributeError, KeyError, TypeError) as error:
            msg = "the plan cannot be parsed"
            raise ValueError(msg) from error


def plan_of_write(
    frame: DataFrame, state: FrameState, sql: str | None, statement: PlannedStatement | None
) -> Callable[[], WritePlan]:
    """Return a function that returns the plan of a write of a frame's rows.

    The inputs are recorded now; the function reads the commits of the Delta tables among them.

    Args:
        frame: the rows, with the state.
        state: the state of the frame.
        sql: text of the frame's query; None without one.
        statement: the SQL statement that writes them; None for a frame.
    """
    if statement is not None:
        replaced = frozenset(state.session.functions)
        call = changeable_call_in(state.ctx, statement.text, replaced=replaced)
        if call is not None:
            return lambda: WritePlan(reason=call)
    fingerprint = fingerprint_of(
        frame, functions={}, query=sql, reads_content=False, needs_exact_text=False
    )
    if isinstance(fingerprint, NotCacheable):
        # The rest of the message says how to cache the result.
        return lambda: WritePlan(reason=fingerprint.reason.partition(":")[0])
    plan = plan_of_frame(state.ctx, frame, sql=sql)
    text = unpatched(frame, "logical_plan")().display_indent()
    locations: dict[str, tuple[str, Mapping[str, str] | None]] = {
        read.table_id: (read.uri, None) for read in state.reads if read.uri is not None
    }
    locations |= {
        entry.table_id: (entry.uri, entry.storage_options)
        for entry in scanned_names(text, state.snapshot)
    }
    return lambda: WritePlan(plan, _with_commits(fingerprint, locations), statement=statement)


def _with_commits(
    fingerprint: Fingerprint, locations: Mapping[str, tuple[str, Mapping[str, str] | None]]
) -> Fingerprint:
    return replace(
        fingerprint,
        tables=tuple(
            replace(table, commit=commit_hash(*locations[table.table_id], table.version))
            if table.table_id in locations
            else table
            for table in fingerprint.tables
        ),
    )
