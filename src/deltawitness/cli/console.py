"""What the command says: on its own streams, in one line when something is wrong, or as JSON."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import typer
from rich.console import Console

from deltawitness.exceptions import ConfigurationError, DeltaWitnessError
from deltawitness.redaction import message_for_ledger
from deltawitness.report.tables import UNBOUNDED
from deltawitness.settings import LedgerMessages

__all__ = [
    "CommandError",
    "JsonOption",
    "clearly",
    "console",
    "log_to_stderr",
    "print_error",
    "print_json",
]

FAILED = 1
"""Exit code when what was asked for is not there, or not as it should be."""

MISUSED = 2
"""Exit code of a wrong argument or setting, as the argument parser's own."""


class CommandError(Exception):
    """Something that ends the command with one line.

    Args:
        message: the line, fit to be shown.
        code: the exit code.
    """

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def console(stream: TextIO | None) -> Console:
    """Return a console without markup.

    A terminal has its own width, or that of the variable COLUMNS; lines of a pipe have no bound, unless
    COLUMNS sets one. The variable NO_COLOR leaves out styles.
    """
    is_terminal = stream is not None and stream.isatty()
    is_bounded = is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return Console(
        file=stream,
        width=None if is_bounded else UNBOUNDED,
        markup=False,
        emoji=False,
        no_color=bool(os.environ.get("NO_COLOR")),
    )


def print_error(message: str) -> None:
    """Say in one line what is wrong."""
    sys.stderr.write(f"deltawitness: {message}\n")


@contextmanager
def clearly(where: str) -> Iterator[None]:
    """End the command with one clear line when the block fails.

    Args:
        where: what an error of the storage is about.
    """
    try:
        yield
    except typer.Exit:
        raise
    except CommandError as complaint:
        print_error(str(complaint))
        raise typer.Exit(complaint.code) from None
    except DeltaWitnessError as error:
        print_error(str(error))
        raise typer.Exit(MISUSED if isinstance(error, ConfigurationError) else FAILED) from None
    except Exception as error:  # noqa: BLE001 - the engines raise whatever they like
        text = message_for_ledger(str(error), LedgerMessages.SAFE)
        print_error(f"{where}: {text or type(error).__name__}")
        raise typer.Exit(FAILED) from None


class _OneLine(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print_error(self.format(record))


def log_to_stderr() -> None:
    """Have what the library logs of its own troubles said as the command says it."""
    logger = logging.getLogger("deltawitness")
    if not any(isinstance(handler, _OneLine) for handler in logger.handlers):
        logger.addHandler(_OneLine())
        logger.propagate = False


def print_json(value: object) -> None:
    """Print a value as JSON, times in ISO 8601."""
    print(json.dumps(value, indent=2, default=_as_text))


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.date) else str(value)


JsonOption = typer.Option("--json", help="Print JSON.")
