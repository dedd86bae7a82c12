"""`deltawitness drain` and the commands `ledger ...`: import spools, compact, fold, serve and check."""

from __future__ import annotations

import datetime as dt
import signal
import sys
import threading
from dataclasses import asdict
from typing import Annotated

import typer

from deltawitness.cli.console import FAILED, JsonOption, console, print_error, print_json
from deltawitness.cli.durations import parse_duration
from deltawitness.cli.ledger_option import (
    RootOption,
    any_ledger,
    existing_ledger,
    exit_on_ledger_error,
)
from deltawitness.report.maintenance import (
    print_drained,
    print_expired,
    print_folded,
    print_maintained,
    print_served,
    print_verification,
)

__all__ = [
    "drain_command",
    "expire_command",
    "fold_command",
    "optimize_command",
    "serve_command",
    "verify_command",
    "views_command",
]


def drain_command(
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Import the spools of dead processes into the ledger. Exits 1 if any is left."""
    from deltawitness.ledger.spool.reader import adopt  # noqa: PLC0415 - heavy

    with exit_on_ledger_error(root, "written"):
        ledger = existing_ledger(root, or_spools=True)
        drained = ledger.drain()
        left = sum(1 for _ in adopt(ledger.spools))
    if as_json:
        print_json({**asdict(drained), "left": left})
    else:
        print_drained(console(sys.stdout), drained)
    if left:
        print_error(
            f"the spools of {left} dead processes could not be imported and stay where they are"
        )
        raise typer.Exit(FAILED)


def optimize_command(
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Compact the ledger's tables, and delete files that no version of the last 7 days needs."""
    with exit_on_ledger_error(root, "maintained"):
        maintained = existing_ledger(root).optimize()
    if as_json:
        print_json([asdict(table) for table in maintained])
    else:
        print_maintained(console(sys.stdout), maintained)


def fold_command(
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Move the rows of all shards to the main tables. Exits 1 if a shard could not be folded."""
    with exit_on_ledger_error(root, "folded"):
        folded = existing_ledger(root).fold()
    if as_json:
        print_json([asdict(done) for done in folded])
    else:
        print_folded(console(sys.stdout), folded)
    if any(done.error is not None for done in folded):
        raise typer.Exit(FAILED)


def _age_of_expired(text: str) -> dt.timedelta:
    from deltawitness.ledger.drain.expire import MIN_AGE  # noqa: PLC0415 - heavy

    age = parse_duration(text)
    if age < MIN_AGE:
        msg = f"expected at least {MIN_AGE.days} days"
        raise typer.BadParameter(msg)
    return age


def expire_command(
    older_than: Annotated[
        dt.timedelta,
        typer.Option(
            parser=_age_of_expired,
            metavar="DURATION",
            help="Age of the rows to delete, in full days, such as 400d; at least 31d.",
        ),
    ],
    apply: Annotated[
        bool, typer.Option("--apply", help="Delete the rows; without it they are only counted.")
    ] = False,
    vacuum: Annotated[
        bool,
        typer.Option(
            "--vacuum", help="Also delete files that no version of the last 7 days needs."
        ),
    ] = False,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Delete old rows of the ledger; count them without --apply. Exits 1 if a table is being compacted."""
    with exit_on_ledger_error(root, "maintained"):
        expired = existing_ledger(root).expire(older_than, apply=apply, vacuum=vacuum)
    if as_json:
        print_json([asdict(table) for table in expired])
    else:
        print_expired(console(sys.stdout), expired, is_applied=apply)
    if apply and not all(table.is_done for table in expired):
        raise typer.Exit(FAILED)


def serve_command(
    interval: Annotated[
        dt.timedelta | None,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            help="Time between two drains, such as 5s; by default DELTAWITNESS_DRAIN_INTERVAL.",
        ),
    ] = None,
    fold: Annotated[
        dt.timedelta | None,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            help="Also fold the shards, with this time between two folds.",
        ),
    ] = None,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Import the spools of all processes on this host, until SIGTERM or Ctrl-C. Exits 1 if any drain failed."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with exit_on_ledger_error(root, "written"):
        served = any_ledger(root).serve(
            stop,
            interval=None if interval is None else interval.total_seconds(),
            fold_interval=None if fold is None else fold.total_seconds(),
        )
    if as_json:
        print_json(asdict(served))
    else:
        print_served(console(sys.stdout), served)
    if served.failures:
        raise typer.Exit(FAILED)


def verify_command(
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Check the ledger for duplicate, contradictory or unreadable rows. Exits 1 if there are any."""
    with exit_on_ledger_error(root, "read"):
        verification = existing_ledger(root).verify()
    if as_json:
        print_json({"is_good": verification.is_good, **asdict(verification)})
    else:
        print_verification(console(sys.stdout), verification)
    if not verification.is_good:
        raise typer.Exit(FAILED)


def views_command(root: Annotated[str | None, RootOption] = None) -> None:
    """Print a script for DuckDB that creates views over the ledger's tables.

    Example:
    deltawitness ledger views > ledger.sql && duckdb -init ledger.sql
    """
    from deltawitness.ledger.tables.duckdb_views import duckdb_script  # noqa: PLC0415 - heavy

    with exit_on_ledger_error(root, "read"):
        print(duckdb_script(existing_ledger(root).root), end="")
