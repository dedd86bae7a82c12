"""Split a query by the files that it reads into parts that other processes execute.

A query can be split if each of its rows comes from one row of one file: a scan of one table, with filters,
projections and expressions above it. A scan of files is split by the engine: each partition of the physical
plan reads other files, and the serialized plan is executed one partition at a time. A scan of a Delta table
cannot be serialized, so each part opens a table with a part of the files, and applies the same expressions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltawitness.hashing import plan_text
from deltawitness.session.core.private_api import wrapped_plan
from deltawitness.session.core.snapshot import scanned_names
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.plan_steps import (
    SettingValues,
    default_settings,
    refuse,
    session_with,
    settings_of,
    steps_of,
    stream_of,
)
from deltawitness.session.sql.split_delta import split_delta

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame

    from deltawitness.session.core.frames import FrameState

__all__ = ["FilesPart", "split_by_files"]

_STATELESS_EXEC = ("ProjectionExec", "FilterExec", "CoalesceBatchesExec", "CooperativeExec")
_FILES = "DataSourceExec: file_groups="
_SERIAL_SCAN = (
    ("datafusion.optimizer.enable_round_robin_repartition", "false"),
    ("datafusion.optimizer.repartition_file_scans", "true"),
    ("datafusion.execution.enable_file_stream_work_stealing", "false"),
)
"""Settings with which each partition of a physical plan reads its own files, and no others: by default a
partition that is executed alone reads the files of all partitions."""


def split_by_files(frame: DataFrame, state: FrameState | None, count: int) -> list[Any]:
    """Return parts whose rows together are the rows of a frame, each executable in another process.

    Args:
        frame: the frame.
        state: the state of the frame; None if it comes from no observed session.
        count: maximum number of parts.

    Returns:
        Functions that pickle and that return an Arrow stream.

    Raises:
        StatementError: the query cannot be split; the message says why.
    """
    plan = unpatched(frame, "optimized_logical_plan")()
    steps = list(steps_of(plan))
    settings = () if state is None else settings_of(state.ctx)
    entries = [] if state is None else scanned_names(plan_text(frame), state.snapshot)
    if entries:
        return split_delta(plan, steps, entries, settings, count)
    return _split_files(plan, settings, count)


# --- files --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FilesPart:
    """One partition of a physical plan over files.

    Attributes:
        plan: the serialized plan.
        partition: number of the partition.
        schema: schema of the rows.
        settings: settings of the session.
    """

    plan: bytes
    partition: int
    schema: pa.Schema
    settings: SettingValues

    def __call__(self) -> pa.RecordBatchReader:
        """Execute the partition and return its rows as a stream."""
        from datafusion.plan import ExecutionPlan  # noqa: PLC0415 - heavy

        ctx = session_with(self.settings)
        plan = ExecutionPlan.from_bytes(ctx, self.plan)
        return stream_of(ctx, self.schema, unpatched(ctx, "execute")(plan, self.partition))


def _split_files(plan: Any, settings: SettingValues, count: int) -> list[FilesPart]:
    settings = (
        *(each for each in settings if each[0] not in dict(_SERIAL_SCAN)),
        *(each for each in _SERIAL_SCAN if each[0] in default_settings()),
        ("datafusion.execution.target_partitions", str(count)),
    )
    replanned = unpatched(session_with(settings), "create_dataframe_from_logical_plan")(
        wrapped_plan(plan)
    )
    physical = unpatched(replanned, "execution_plan")()
    _check_physical(physical)
    try:
        content = physical.to_bytes()
    except Exception:  # noqa: BLE001 - the engine's error for a plan without a serialized form
        refuse("its plan cannot be serialized")
    schema = replanned.schema()
    return [
        FilesPart(content, number, schema, settings) for number in range(physical.partition_count)
    ]


def _check_physical(plan: Any) -> None:
    """Check that each partition of a physical plan reads other local files.

    Raises:
        StatementError: it does not.
    """
    line = plan.display().strip()
    name = line.split(":")[0]
    if line.startswith(_FILES):
        if ", limit=" in line:
            refuse("the plan has a limit")
        if b"file:///" not in plan.to_bytes():
            refuse("the files are not on a local or shared disk")
        return
    if name not in _STATELESS_EXEC or ", fetch=" in line:
        refuse(f"the plan has the node {name}")
    for below in plan.children():
        _check_physical(below)
