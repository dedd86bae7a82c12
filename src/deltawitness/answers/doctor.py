"""The public function `doctor`: check the health of tables."""

from __future__ import annotations

import datetime as dt
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from deltawitness.answers.health.checks import Checkup
from deltawitness.answers.health.doubled_rows import check_doubled_rows
from deltawitness.answers.health.file_checks import (
    check_file_sizes,
    check_files,
    check_leftovers,
    check_partitions,
    leftovers_of,
    size_histogram,
)
from deltawitness.answers.health.ledger_checks import (
    LedgerSide,
    check_conflicts,
    check_ledger,
    check_observation,
)
from deltawitness.answers.health.log_checks import check_checkpoints, check_log, check_readers
from deltawitness.answers.health.release_checks import check_releases
from deltawitness.answers.health.repairs import Repairs
from deltawitness.answers.health.table_state import TableState, error_text, read_state, reason_text
from deltawitness.answers.health.values import (
    Health,
    HealthCheck,
    HealthFinding,
    Severity,
    TableHealth,
)
from deltawitness.answers.lookup import NamedTable, find_table
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.storage import storage_options_for
from deltawitness.commit.discovery import find_tables
from deltawitness.commit.parallel import LogReaders
from deltawitness.exceptions import LedgerLookupError
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.releases import read_releases
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.locations import (
    canonical_uri,
    is_uri,
    last_segment,
    local_path,
    strip_credentials,
)
from deltawitness.settings import Settings

__all__ = ["COMMITS", "doctor", "named_tables"]

COMMITS = 10_000
"""Number of commits of a log that are read by default, from the last one on."""


def doctor(
    *tables: str | os.PathLike[str],
    files: bool = True,
    commits: int = COMMITS,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> Health:
    """Check the health of tables: their logs, their files, and what the ledger knows of them.

    Nothing is written. Each finding has a severity, its evidence, and the command that mends it, if there
    is one. The checks need no ledger; without one, gaps and conflicts are not known.

    Args:
        *tables: the tables: names, ids (or prefixes of them), paths and URIs, folders and URI prefixes with
            tables below them, or globs. Without any, all tables of the ledger.
        files: list the files of each table on its storage, to find missing files, orphans and files of
            old versions. On an object store this is a request for each 1,000 files.
        commits: maximum number of commits of a log that are read, from the last one on.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: a name means no table, or several; or there is no name and no ledger.
        ValueError: the number of commits is less than 1.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import doctor
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in range(12):
    ...         write_deltalake(f"{folder}/t", pa.table({"x": [number]}), mode="append")
    ...     health = doctor(f"{folder}/t", root=f"{folder}/ledger")
    ...     for each in health.findings:
    ...         print(each.check, each.severity)
    small_files info
    unannotated info
    """
    if commits < 1:
        msg = "commits: expected 1 or more"
        raise ValueError(msg)
    chosen = settings_with(root, storage_options, settings)
    ledger = ledger_of(chosen, is_required=not tables)
    named = named_tables(ledger, [os.fspath(table) for table in tables], chosen)
    now = dt.datetime.now(dt.UTC)
    side = LedgerSide.of(ledger)
    releases = read_releases(ledger.root) if files else []
    of_releases = partial(check_releases, releases=releases, settings=chosen)
    given_root = None if root is None else os.fspath(root)
    is_remote = any(local_path(table.location) is None for table in named)

    def check(table: NamedTable) -> TableHealth:
        state = read_state(table, chosen, readers, commits=commits, has_files=files)
        return _health(Checkup(state, Repairs(state, given_root), now), side, of_releases)

    with LogReaders() as readers:
        return Health(tuple(readers.map(check, named, is_remote=is_remote)))


def named_tables(
    ledger: LedgerListing, names: Sequence[str], settings: Settings
) -> list[NamedTable]:
    """Return the tables that some names mean, each once.

    Args:
        ledger: the ledger; it may have no tables.
        names: names, ids, locations, folders, URI prefixes and globs; all tables of the ledger if empty.
        settings: the storage options of object stores.

    Raises:
        LedgerLookupError: a name means no table, or several; the message lists them.
        OSError: the storage cannot be read.
    """
    found: dict[str, NamedTable] = {}
    for name in names:
        for table in _tables_of(ledger, name, settings):
            found.setdefault(table.uri, table)
    if not names:
        rows = ledger.query(
            "SELECT DISTINCT table_uri FROM inventory WHERE table_uri IS NOT NULL AND version IS NOT NULL"
            " ORDER BY table_uri"
        )
        for row in rows if ledger.has(INVENTORY) else ():
            found[row["table_uri"]] = _named(row["table_uri"])
    return list(found.values())


def _tables_of(ledger: LedgerListing, name: str, settings: Settings) -> Iterator[NamedTable]:
    is_place = is_uri(name) or os.path.isdir(name) or glob.has_magic(name)  # noqa: PTH112 - text
    if is_place:
        searched = find_tables(name, storage_options_for(name, settings))
        if searched.errors and not searched.tables:
            msg = (
                f"{strip_credentials(name)} cannot be read: {reason_text(searched.errors[0].text)}"
            )
            raise LedgerLookupError(msg)
        if searched.tables:
            # A folder that cannot be listed may have tables: it is a table that cannot be read.
            yield from map(_named, (*searched.tables, *(each.location for each in searched.errors)))
            return
        if glob.has_magic(name) or os.path.isdir(name):  # noqa: PTH112 - text
            msg = f"there is no Delta table below {name}"
            raise LedgerLookupError(msg)
    yield find_table(ledger, name)


def _named(location: str) -> NamedTable:
    uri = canonical_uri(location)
    return NamedTable(uri, location, None, last_segment(uri) or location)


def _health(checkup: Checkup, side: LedgerSide | None, of_releases: _Check) -> TableHealth:
    state, snapshot = checkup.state, checkup.state.snapshot
    found = sorted(_findings(checkup, side, of_releases), key=lambda each: -each.severity.rank)
    leftovers = leftovers_of(state, checkup.now)
    checkpoints = state.complete_checkpoints
    last = checkpoints[-1] if checkpoints else None
    files = () if snapshot is None else snapshot.files
    rows = [file.rows for file in files]
    is_partitioned = snapshot is not None and bool(snapshot.partition_columns)
    return TableHealth(
        name=state.name,
        uri=state.shown_uri,
        version=None if snapshot is None else snapshot.version,
        files=None if snapshot is None else len(files),
        bytes=None if snapshot is None else sum(file.size for file in files),
        rows=None if snapshot is None or None in rows else sum(row or 0 for row in rows),
        partitions=len({file.partition for file in files}) if is_partitioned else None,
        sizes=() if snapshot is None else size_histogram(files),
        commits=len(state.versions),
        log_bytes=sum(file.size for file in state.log_files.values()),
        checkpoint=last,
        commits_since_checkpoint=sum(
            version > (-1 if last is None else last) for version in state.versions
        ),
        held_files=None if leftovers is None else len(leftovers.held),
        held_bytes=None if leftovers is None else sum(file.size for file in leftovers.held),
        orphan_files=None if leftovers is None else len(leftovers.orphans),
        orphan_bytes=None if leftovers is None else sum(file.size for file in leftovers.orphans),
        findings=tuple(found),
    )


_Check = Callable[[Checkup], Iterator[HealthFinding]]


def _findings(
    checkup: Checkup, side: LedgerSide | None, of_releases: _Check
) -> Iterator[HealthFinding]:
    """Yield the findings of all checks; a check that fails is a finding, too."""
    state = checkup.state
    for part, text in state.problems:
        yield _unreadable(checkup, f"its {part} cannot be read: {text}")
    if not state.log_files:
        if not state.problems:
            yield _unreadable(checkup, "there is no Delta log")
        return
    for check in _checks(state, checkup, side, of_releases):
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
            yield _unreadable(checkup, f"a check failed: {error_text(error)}")


def _checks(
    state: TableState, checkup: Checkup, side: LedgerSide | None, of_releases: _Check
) -> Iterator[Callable[[], Iterator[HealthFinding]]]:
    for check in (
        check_doubled_rows,
        check_files,
        check_file_sizes,
        check_log,
        check_checkpoints,
        check_readers,
        check_observation,
        check_partitions,
    ):
        yield partial(check, checkup)
    if side is not None:
        yield partial(check_ledger, checkup, side)
        yield partial(check_conflicts, checkup, side)
    yield partial(of_releases, checkup)
    yield lambda: check_leftovers(checkup, leftovers_of(state, checkup.now))


def _unreadable(checkup: Checkup, text: str) -> HealthFinding:
    return checkup.finding(HealthCheck.UNREADABLE, Severity.ERROR, text)
