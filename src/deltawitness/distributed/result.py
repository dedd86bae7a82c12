"""The result of a distributed write."""

from __future__ import annotations

from dataclasses import dataclass

from deltawitness.events import Landed

__all__ = ["DistributedWriteResult"]


@dataclass(frozen=True, slots=True)
class DistributedWriteResult:
    """What a distributed write has committed.

    Attributes:
        version: version of the commit; None if the mode is `ignore` and the table exists.
        rows: number of added rows; None if the commit does not report it.
        files: number of added data files.
        bytes: size of the added data files in bytes.
        parts: number of parts that the rows came in; None for an earlier commit that does not report it.
        landed: whether the commit is in the table's log: `yes`, or `no` if the write was skipped.
        write_id: the id in the commit, the event and the ledger; None for an unobserved write.
        is_new: whether this call made the commit. False if an earlier call with the same key had made it.
        table_id: id of the table (:func:`deltawitness.table_id`).
    """

    version: int | None
    rows: int | None
    files: int | None
    bytes: int | None
    parts: int | None
    landed: Landed
    write_id: str | None
    is_new: bool
    table_id: str
