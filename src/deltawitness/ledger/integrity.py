"""Integrity checks of a ledger: readable tables, unique rows, and rows that agree with the logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from deltawitness.commit.duplicates import find_duplicate_rewrites
from deltawitness.commit.log import open_log
from deltawitness.ledger.reconcile.findings import Difference
from deltawitness.ledger.reconcile.plan import ReconcilePlan
from deltawitness.ledger.reconcile.scan import plan_of
from deltawitness.ledger.spool.reader import segments_of
from deltawitness.ledger.spool.records import decode
from deltawitness.ledger.tables.arrow import query
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, TABLES, LedgerRoot, LedgerTable
from deltawitness.ledger.tables.shards import TableParts, open_parts
from deltawitness.plurals import count_of, form_for
from deltawitness.redaction import redact_text
from deltawitness.settings import Settings

__all__ = ["Finding", "IntegrityResult", "Problem", "check_integrity"]


class Problem(StrEnum):
    """The kinds of integrity problems."""

    UNREADABLE = "unreadable"
    """A table cannot be opened."""
    DOUBLED_ROWS = "doubled_rows"
    """Two concurrent compactions wrote the same rows twice."""
    DOUBLED_OPERATION = "doubled_operation"
    """An operation has more than one row in the inventory."""
    DOUBLED_RUN = "doubled_run"
    """A run and process has more than one row."""
    DOUBLED_VERSION = "doubled_version"
    """Two rows of the inventory name the same commit of a table."""
    PHANTOM_ROW = "phantom_row"
    """A row of the inventory names a version that its table's log does not contain."""
    DIFFERING_ROW = "differing_row"
    """A row of the inventory names another write's version, or omits a version of its own write."""
    DAMAGED_LINES = "damaged_lines"
    """Records of a spool do not match their checksum."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One integrity problem.

    Attributes:
        problem: its kind.
        where: name of the table or spool.
        text: what was found.
        write_id: of the wrong inventory row; None for other problems.
    """

    problem: Problem
    where: str
    text: str
    write_id: str | None = None


@dataclass(frozen=True, slots=True)
class IntegrityResult:
    """The result of an integrity check.

    Attributes:
        findings: the problems.
        rows: number of rows by table name.
        waiting: number of operations in spools that are not drained yet.
        unread: URIs of tables whose logs could not be read; their rows were not compared.
    """

    findings: tuple[Finding, ...]
    rows: dict[str, int]
    waiting: int
    unread: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether no problem was found."""
        return not self.findings


def check_integrity(root: LedgerRoot, spools: Path, settings: Settings) -> IntegrityResult:
    """Check a ledger's tables and spools, and compare its rows with the logs of their tables.

    Args:
        root: location of the ledger.
        spools: the local folder of the spools.
        settings: as for a reconcile.
    """
    findings: list[Finding] = []
    rows: dict[str, int] = {}
    for table in TABLES:
        try:
            parts = open_parts(root, [table])[table]
            if parts.exists:
                rows[table.name] = _count(parts)
                for place in _roots(root, parts):
                    findings += _doubled_files(place, table)
                findings += _doubled_keys(parts, table)
        except Exception as error:  # noqa: BLE001 - any failure to read is a finding
            findings.append(Finding(Problem.UNREADABLE, table.name, redact_text(str(error))))
    unread: tuple[str, ...] = ()
    if INVENTORY.name in rows:
        plan = plan_of(root, spools, full=True, settings=settings)
        findings += _wrong_rows(plan, findings)
        unread = tuple(table.table_uri for table in plan.unreadable)
    waiting, damaged = _waiting(spools)
    return IntegrityResult((*findings, *damaged), rows, waiting, unread)


def _wrong_rows(plan: ReconcilePlan, findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield a finding per row that contradicts a log; skip duplicates already in `findings`."""
    reported = {finding.write_id for finding in findings if finding.write_id is not None}
    for phantom in plan.phantom:
        text = f"write_id {phantom.write_id}: version {phantom.version} is not in the log"
        yield Finding(Problem.PHANTOM_ROW, INVENTORY.name, text, phantom.write_id)
    for row in plan.differing:
        is_doubled = row.difference is Difference.DOUBLED
        if is_doubled and row.write_id in reported:
            continue
        problem = Problem.DOUBLED_VERSION if is_doubled else Problem.DIFFERING_ROW
        versions = ", ".join(map(str, row.versions)) or "none"
        text = f"write_id {row.write_id}, versions {versions}: {_WRONG[row.difference]}"
        yield Finding(problem, INVENTORY.name, text, row.write_id)


_WRONG = {
    Difference.OTHER_WRITE: "another write committed them",
    Difference.MISSING_COMMIT: "the log holds a commit of it that the row does not name",
    Difference.DOUBLED: "another row names the same commit",
}


def _roots(root: LedgerRoot, parts: TableParts) -> list[LedgerRoot]:
    return [*([root] if parts.main is not None else []), *(part.root for part in parts.shards)]


def _count(table: TableParts) -> int:
    return int(query(table, "SELECT count(*) AS n FROM ledger")["n"][0].as_py())


def _doubled_files(root: LedgerRoot, table: LedgerTable) -> Iterator[Finding]:
    for found in find_duplicate_rewrites(open_log(root.uri_of(table), root.storage_options)):
        yield Finding(
            Problem.DOUBLED_ROWS,
            table.name,
            f"versions {found.first} and {found.second} rewrote the same rows",
        )


_UNIQUE = {
    INVENTORY.name: (Problem.DOUBLED_OPERATION, "write_id"),
    RUNS.name: (Problem.DOUBLED_RUN, "run_id, host, pid, start_time, end_time"),
}


def _doubled_keys(opened: TableParts, table: LedgerTable) -> Iterator[Finding]:
    if table.name not in _UNIQUE:
        return
    problem, key = _UNIQUE[table.name]
    doubled = query(
        opened,
        f"SELECT {key}, count(*) AS times FROM ledger GROUP BY {key} HAVING count(*) > 1 LIMIT 100",
    )
    for row in doubled.to_pylist():
        first = key.partition(",")[0]
        text = f"{first} {row[first]} occurs {row['times']} times"
        yield Finding(problem, table.name, text, row.get("write_id"))


def _waiting(spools: Path) -> tuple[int, list[Finding]]:
    ids: set[str] = set()
    findings: list[Finding] = []
    for path in segments_of(spools):
        try:
            lines = decode(path.read_bytes())
        except FileNotFoundError:  # drained meanwhile
            continue
        ids |= {line.key for line in lines.valid if line.kind in {"N", "R"}}
        if lines.damaged:
            where = f"{path.parent.name}/{path.name}"
            verb = form_for(lines.damaged, "does not match its", "do not match their")
            text = f"{count_of(lines.damaged, 'line')} {verb} checksum"
            findings.append(Finding(Problem.DAMAGED_LINES, where, text))
    return len(ids), findings
