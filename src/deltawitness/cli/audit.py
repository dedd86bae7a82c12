"""`deltawitness audit`: check that the commits of tables have the standard metadata."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from deltawitness.cli.console import (
    FAILED,
    MISUSED,
    CommandError,
    JsonOption,
    console,
    exit_on_error,
    print_error,
    print_json,
)
from deltawitness.cli.ledger_option import TABLES_HELP, RootOption, any_ledger
from deltawitness.commit import CommitMetadata
from deltawitness.commit.parallel import LogReaders
from deltawitness.commit.reader import parse_commit
from deltawitness.locations import local_path, strip_credentials
from deltawitness.redaction import redact_text
from deltawitness.report.audit import AuditResult, audit_json, print_audit
from deltawitness.report.format import storage_reason
from deltawitness.semconv import CommitKey

if TYPE_CHECKING:
    from deltawitness.ledger.reconcile.targets import Target

__all__ = ["REQUIRED", "audit_command"]

REQUIRED = (
    CommitKey.RUN_ID,
    CommitKey.WRITE_ID,
    CommitKey.CACHE_POLICY,
    CommitKey.CACHE_SCOPE,
    CommitKey.CACHE_OPERATION,
    CommitKey.CACHE_RESULT,
    CommitKey.WITNESS_VERSION,
)
"""Keys that every commit of an observed write has."""

_OF_WRITE = frozenset({CommitKey.WRITE_ID, CommitKey.CACHE_OPERATION})
"""Those that a commit of an observed Spark session may lack: Spark names the operation, and a streaming
query has no write id."""


def audit_command(
    tables: Annotated[list[str], typer.Argument(help=TABLES_HELP)],
    since_version: Annotated[
        int, typer.Option(min=0, metavar="N", help="Only commits from this version on.")
    ] = 0,
    last: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the last commits of each table.")
    ] = None,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Check that every commit has the standard metadata. Exits 1 if any does not.

    Exits 2 if a table or folder cannot be read.

    Examples:
    deltawitness audit 's3://lake/**' --last 20

    deltawitness audit lake/orders
    """
    with exit_on_error("the tables cannot be read"):
        audited = list(_audit_tables(tables, since_version, last, root))
    if as_json:
        print_json(audit_json(audited))
    else:
        print_audit(console(sys.stdout), audited, len(REQUIRED))
        for table in audited:
            if table.error is not None:
                print_error(f"{table.table} cannot be read: {table.error}")
    if any(table.error is not None for table in audited):
        raise typer.Exit(MISUSED)
    if any(table.failing for table in audited):
        raise typer.Exit(FAILED)


def _audit_tables(
    tables: list[str], first: int, last: int | None, root: str | None
) -> Iterator[AuditResult]:
    from deltawitness.ledger.reconcile.targets import targets_of  # noqa: PLC0415 - heavy

    targets, unreadable = targets_of(any_ledger(root).root, None, tables)
    with LogReaders() as readers:
        is_remote = any(target.is_remote for target in targets)
        yield from readers.map(
            lambda target: _audit(target, first, last, readers), targets, is_remote=is_remote
        )
    for failure in unreadable:
        yield AuditResult(strip_credentials(failure.table_uri), error=storage_reason(failure.text))


def _audit(target: Target, first: int, last: int | None, readers: LogReaders) -> AuditResult:
    audited = AuditResult(local_path(target.uri) or target.uri)
    try:
        for commit in _commits(target, first, last, readers):
            audited.add(commit, _missing(commit))
    except CommandError as error:
        audited.error = str(error)
    except Exception as error:  # noqa: BLE001 - the other tables are audited too
        audited.error = redact_text(storage_reason(str(error)))
    return audited


def _missing(commit: CommitMetadata) -> list[str]:
    missing = (key for key in REQUIRED if key not in commit.witness)
    return [key.value for key in missing if not (commit.is_from_spark and key in _OF_WRITE)]


def _commits(
    target: Target, first: int, last: int | None, readers: LogReaders
) -> Iterator[CommitMetadata]:
    log = target.log()
    versions = log.versions()
    if not versions:
        msg = "there is no Delta log"
        raise CommandError(msg)
    newest = itertools.islice(reversed(versions), last)
    wanted = [number for number in newest if number >= first][::-1]
    for version, raw in readers.commits(log, wanted):
        if raw is not None:  # None if log cleanup has deleted it meanwhile
            yield parse_commit(version, raw)
