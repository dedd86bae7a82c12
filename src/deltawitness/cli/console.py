"""Output of the command: consoles, errors in one line, and JSON."""

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

from deltawitness.exceptions import ConfigurationError, DeltaWitnessError, MissingExtraError
from deltawitness.redaction import message_for_ledger
from deltawitness.report.format import storage_reason
from deltawitness.report.tables import UNBOUNDED
from deltawitness.settings import LedgerMessages

__all__ = [
    "MISUSED",
    "CommandError",
    "JsonOption",
    "console",
    "errors_exit_with_2",
    "exit_on_error",
    "log_to_stderr",
    "print_error",
    "print_json",
]

FAILED = 1
"""Exit code when the requested object does not exist, or a check fails."""

MISUSED = 2
"""Exit code of an invalid argument or setting, the same as the argument parser's."""


class CommandError(Exception):
    """An error that ends the command with one line on stderr.

    Args:
        message: the line, without credentials.
        code: the exit code.
    """

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def console(stream: TextIO | None) -> Console:
    """Return a console without markup.

    The width is that of the terminal or of the variable COLUMNS. In a pipe, lines have no maximum
    width unless COLUMNS sets one. The variable NO_COLOR turns styles off.
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
    """Print an error in one line on stderr."""
    sys.stderr.write(f"deltawitness: {message}\n")


@contextmanager
def exit_on_error(where: str) -> Iterator[None]:
    """End the command with one line on stderr if the block fails.

    Args:
        where: starts the line of an error that is not this package's, such as one of the storage.

    Raises:
        typer.Exit: the block failed; 2 for an invalid argument or setting, else usually 1.
    """
    try:
        yield
    except typer.Exit:
        raise
    except CommandError as error:
        print_error(str(error))
        raise typer.Exit(error.code) from None
    except DeltaWitnessError as error:
        print_error(str(error))
        is_misuse = isinstance(error, ConfigurationError | MissingExtraError)
        raise typer.Exit(MISUSED if is_misuse else FAILED) from None
    except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
        text = message_for_ledger(storage_reason(str(error)), LedgerMessages.SAFE)
        print_error(f"{where}: {text or type(error).__name__}")
        raise typer.Exit(FAILED) from None


@contextmanager
def errors_exit_with_2() -> Iterator[None]:
    """End a command whose exit code 1 is an answer with 2 after any error, as `diff` and `grep` do."""
    try:
        yield
    except typer.Exit as done:
        raise typer.Exit(MISUSED if done.exit_code else 0) from None


class _OneLineHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print_error(self.format(record))


def log_to_stderr() -> None:
    """Print the library's log records as errors of the command, one line each on stderr."""
    logger = logging.getLogger("deltawitness")
    if not any(isinstance(handler, _OneLineHandler) for handler in logger.handlers):
        logger.addHandler(_OneLineHandler())
        logger.propagate = False


def print_json(value: object) -> None:
    """Print a value as JSON, with times in ISO 8601."""
    print(json.dumps(value, indent=2, default=_as_text))


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.date) else str(value)


JsonOption: Any = typer.Option("--json", help="Print JSON.")
