"""`deltawitness notify`: send what is newly broken, overdue or recovered to a webhook."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from deltawitness.alerts.question import send_alerts
from deltawitness.alerts.state import StateFile
from deltawitness.alerts.values import AlertKind, MessageFormat, NotifyResult
from deltawitness.alerts.webhook import Webhook
from deltawitness.answers.trends.overdue import TOLERANCE
from deltawitness.cli.console import (
    FAILED,
    CommandError,
    JsonOption,
    errors_exit_with_2,
    print_error,
    print_json,
)
from deltawitness.cli.durations import AtOption
from deltawitness.cli.ledger_option import (
    RootOption,
    exit_on_ledger_error,
    listed_ledger,
    settings_of,
)
from deltawitness.plurals import count_of
from deltawitness.semconv import Env

__all__ = ["notify_command"]


def _kinds(text: str) -> tuple[AlertKind, ...]:
    """Parse names of kinds, separated by commas.

    Raises:
        typer.BadParameter: there is no such kind.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [kind.value for kind in AlertKind]
    for name in names:
        if name not in known:
            msg = f"no kind {name!r}: use {', '.join(known)}"
            raise typer.BadParameter(msg)
    return tuple(map(AlertKind, names))


def notify_command(
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help=f"URL of the webhook; by default {Env.NOTIFY_URL}."),
    ] = None,
    shown_as: Annotated[
        MessageFormat, typer.Option("--format", help="How alerts are written.")
    ] = MessageFormat.JSON,
    on: Annotated[
        str, typer.Option(metavar="KIND[,KIND]", help="Which alerts are sent.")
    ] = ",".join(AlertKind),
    secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"File with the secret that signs requests; by default {Env.NOTIFY_SECRET} has it.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the alerts; send and record nothing.")
    ] = False,
    allow_http: Annotated[
        bool,
        typer.Option("--allow-http", help="Accept http for a host that is not this machine."),
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for the record of what was sent; by default in the cache root.",
        ),
    ] = None,
    at: Annotated[dt.datetime | None, AtOption] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.1, help="Standard deviations that are not unusual.")
    ] = TOLERANCE,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Send jobs that are newly broken, tables that are overdue, and recoveries to a webhook, each once.

    Exits 0 if all alerts were sent, or there was none, 1 if the receiver did not accept them (the next call
    sends them), 2 after any other error.

    Examples:
    deltawitness notify --format slack

    deltawitness notify --dry-run --on broken,overdue
    """
    kinds = _kinds(on)
    with errors_exit_with_2(), exit_on_ledger_error(root, "read"):
        webhook_url = _url(url)
        webhook = Webhook(webhook_url, _secret(secret_file), allow_http=allow_http)
        ledger = listed_ledger(root)
        found = send_alerts(
            ledger,
            webhook,
            StateFile(settings_of(root), ledger.root, webhook_url, state),
            shown_as,
            kinds=kinds,
            at=at,
            tolerance=tolerance,
            dry_run=dry_run,
        )
    if as_json:
        alerts = [{"id": each.id, **asdict(each)} for each in found.alerts]
        print_json({"kind": "notify", "is_ok": found.is_ok, **asdict(found), "alerts": alerts})
    else:
        _print(found)
    if not found.is_ok:
        raise typer.Exit(FAILED)


def _url(option: str | None) -> str:
    """Return the URL.

    Raises:
        CommandError: there is none.
    """
    url = (option or os.environ.get(Env.NOTIFY_URL, "")).strip()
    if not url:
        msg = f"there is no webhook: pass --url, or set {Env.NOTIFY_URL}"
        raise CommandError(msg)
    return url


def _secret(file: Path | None) -> str | None:
    """Return the secret; None if there is none.

    Raises:
        CommandError: the file cannot be read, or is empty.
    """
    if file is None:
        return os.environ.get(Env.NOTIFY_SECRET) or None
    try:
        secret = file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        msg = f"--secret-file cannot be read: {reason}"
        raise CommandError(msg) from None
    if not secret:
        msg = "--secret-file is empty"
        raise CommandError(msg)
    return secret


def _print(found: NotifyResult) -> None:
    for each in found.alerts:
        print(f"{each.kind.value}: {each.text}")
    count = count_of(len(found.alerts), "alert")
    if found.error is not None:
        print_error(f"{found.error}; {found.sent} of {count} sent")
    elif found.is_dry_run:
        print(f"{count} for {found.destination}; nothing was sent (--dry-run)")
    else:
        print(f"{count} sent to {found.destination}")
