"""`deltawitness lineage-export`: the writes in the ledger as OpenLineage events."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from deltawitness.answers.lineage_events import read_lineage_events
from deltawitness.answers.lists import WriteFilter
from deltawitness.cli.console import errors_exit_with_2, print_error
from deltawitness.cli.durations import SinceOption
from deltawitness.cli.ledger_option import (
    RootOption,
    exit_on_ledger_error,
    listed_ledger,
    settings_of,
)
from deltawitness.extras import require
from deltawitness.openlineage.datasets import NamingOptions
from deltawitness.plurals import count_of, form_for
from deltawitness.redaction import redact_text

if TYPE_CHECKING:
    from deltawitness.openlineage.run_events import RunEvent

__all__ = ["lineage_export_command"]

MAX_FAILURES = 3
"""Number of events in succession that a server may refuse before the command stops."""


def lineage_export_command(
    run: Annotated[
        str | None, typer.Option(metavar="ID", help="Filter by run: its id, or a prefix of it.")
    ] = None,
    job: Annotated[str | None, typer.Option(help="Filter by job name.")] = None,
    table: Annotated[
        str | None,
        typer.Option(help="Filter by table: its name, id (or a prefix of it), path or URI."),
    ] = None,
    since: Annotated[dt.datetime | None, SinceOption] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File for the events, one JSON object a line."),
    ] = None,
    send: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send them to an OpenLineage server; `client`: where the OpenLineage client sends.",
        ),
    ] = None,
    root: Annotated[str | None, RootOption] = None,
) -> None:
    """Print the writes in the ledger as OpenLineage events, oldest first, one JSON object a line.

    Exits 0 if all were written or sent, 1 if a server refused some, 2 after any other error.

    Examples:
    deltawitness lineage-export --since 7d -o events.jsonl

    deltawitness lineage-export --run 0198 --send http://localhost:5000
    """
    if output is not None and send is not None:
        msg = "--output and --send select two destinations"
        raise typer.BadParameter(msg)
    refused = 0
    with errors_exit_with_2(), exit_on_ledger_error(root, "read"):
        options = NamingOptions.of(settings_of(root))
        chosen = WriteFilter(run=run, job=job, table=table, since=since)
        pairs = read_lineage_events(listed_ledger(root), chosen, options, option="--")
        events = (event for pair in pairs for event in pair)
        if send is not None:
            refused = _send(events, send)
        else:
            with _opened(output) as stream:
                _write(events, stream)
    if refused:
        raise typer.Exit(1)


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
    else:
        with output.open("w", encoding="utf-8") as stream:
            yield stream


def _write(events: Iterable[RunEvent], stream: TextIO) -> None:
    stream.writelines(
        json.dumps(event, separators=(",", ":"), ensure_ascii=False) + "\n" for event in events
    )


def _send(events: Iterable[RunEvent], destination: str) -> int:
    """Send the events, and print how many were sent; return the number of those that were refused."""
    require("lineage-export --send", "openlineage.client")
    from deltawitness.openlineage.sink import open_client, to_client_event  # noqa: PLC0415 - heavy

    client = open_client(destination)
    sent = refused = in_succession = 0
    for event in events:
        try:
            client.emit(to_client_event(event))
        except Exception as error:  # noqa: BLE001 - each transport raises errors of its libraries
            refused, in_succession = refused + 1, in_succession + 1
            if in_succession == 1:
                print_error(f"an event was refused: {redact_text(str(error))}")
            if in_succession >= MAX_FAILURES:
                verb = form_for(refused, "was", "were")
                print_error(f"stopped after {count_of(sent, 'event')}: {refused} {verb} refused")
                break
        else:
            sent, in_succession = sent + 1, 0
    client.close(10.0)
    print(f"{count_of(sent, 'event')} sent")
    return refused
