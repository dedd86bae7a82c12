"""The result of `cost`: what each job has written, and what it has left on the storage."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JobCost", "TableCost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCost:
    """What one job has written to one table.

    Attributes:
        job: the job; None for commits that were not observed.
        name: name of the table.
        uri: its location, without credentials.
        writes: number of commits of the job in the ledger.
        bytes_written: bytes of the data files that it wrote.
        bytes_new: the part of them for rows that it added or changed, estimated by the numbers of rows.
        bytes_removed: bytes of the data files that its commits removed from the table.
        held_files: files that its commits removed, and that are still on the storage; None if not known.
        held_bytes: their size.
    """

    job: str | None
    name: str
    uri: str
    writes: int = 0
    bytes_written: int = 0
    bytes_new: int = 0
    bytes_removed: int = 0
    held_files: int | None = None
    held_bytes: int | None = None

    @property
    def amplification(self) -> float | None:
        """The bytes written for each byte of added or changed rows; None if it has only rewritten rows."""
        return self.bytes_written / self.bytes_new if self.bytes_new else None


@dataclass(frozen=True, slots=True)
class TableCost:
    """The cost of some tables, by job.

    Attributes:
        jobs: the costs by job and table, those with the most written bytes first.
        notes: what is not known, and why.
    """

    jobs: tuple[JobCost, ...] = ()
    notes: tuple[str, ...] = ()
