"""The progress line of `deltawitness run`: the writes of the program that last longer than a moment.

The program draws nothing: it keeps a small file of its running writes, which this process reads. So the line
costs the program no thread, and an error here cannot reach it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import typer
from rich.cells import cell_len, set_cell_size

from deltawitness.cli.console import MISUSED, print_error
from deltawitness.cli.run_ledger import RunLedger
from deltawitness.ids_and_clock import now_ns
from deltawitness.ledger.spool.progress_line import ProgressLine
from deltawitness.ledger.spool.reader import spools_in
from deltawitness.ledger.spool.running import read_running
from deltawitness.plurals import count_of
from deltawitness.report.format import number, operation
from deltawitness.report.lineage import visible
from deltawitness.report.live import duration
from deltawitness.semconv import Env, parse_flag

__all__ = ["is_progress_wanted", "progress_text", "showing_progress"]

Row = Mapping[str, Any]

INTERVAL = 0.25
"""Seconds between two updates of the line."""

SHOWN_AFTER = 2.0
"""Seconds after which a write is shown."""

MAX_NAME = 40

_MICROSECONDS = 1_000_000


def is_progress_wanted(option: bool | None) -> bool:
    """Return whether the line is wanted: by the option, else by the variable, else yes.

    Args:
        option: the option `--progress`; None if it is not given.

    Raises:
        typer.Exit: the variable is no flag.
    """
    if option is not None:
        return option
    text = os.environ.get(Env.PROGRESS, "")
    if not text:
        return True
    wanted = parse_flag(text)
    if wanted is None:
        print_error(f"{Env.PROGRESS}: expected one of true, false")
        raise typer.Exit(MISUSED)
    return wanted


@contextmanager
def showing_progress(ledger: RunLedger, lock: str, *, is_wanted: bool) -> Iterator[None]:
    """Show the line during the block, if it is wanted and stderr is a terminal that can show it.

    Args:
        ledger: the ledger of the program. Without one, nothing says which writes are running.
        lock: path of the supervisor's lock file, by which the processes of the program are recognized.
        is_wanted: whether the user wants the line.
    """
    if not (is_wanted and ledger.root is not None and _can_show()):
        yield
        return
    is_over = threading.Event()
    thread = threading.Thread(
        target=_show, args=(ledger.spools, lock, is_over), name="deltawitness-progress", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(1.0)  # it may wait for a terminal whose output the user has stopped


def _can_show() -> bool:
    is_capable = os.environ.get("TERM", "dumb") not in {"", "dumb"}
    return sys.platform != "win32" and is_capable and sys.stderr is not None and sys.stderr.isatty()


def _show(spools: Path, lock: str, is_over: threading.Event) -> None:
    with suppress(
        Exception
    ):  # the terminal or the folder is gone: the program goes on without the line
        descriptor = sys.stderr.fileno()
        line = ProgressLine(lock, lambda content: os.write(descriptor, content))
        while not is_over.wait(INTERVAL):
            if _is_in_foreground(descriptor):
                line.update(lambda: _line(spools, lock))
        line.update(lambda: None)


def _is_in_foreground(descriptor: int) -> bool:
    """Return whether this process may write to the terminal without being stopped."""
    return sys.platform != "win32" and os.tcgetpgrp(descriptor) == os.getpgrp()


def _line(spools: Path, lock: str) -> str | None:
    rows: list[Row] = []
    for home in spools_in(spools, None):
        published = read_running(home)
        if published is not None and published.header.get("supervisor") == lock:
            rows += published.writes
    return progress_text(rows, now_ns() // 1000, get_terminal_size().columns - 1)


def progress_text(rows: list[Row], now: int, width: int) -> str | None:
    """Return the text about running writes; None if none lasts long enough.

    Args:
        rows: the writes, as `read_running` returns them.
        now: microseconds since the Unix epoch.
        width: maximum number of cells.
    """
    parts = []
    for row in rows:
        elapsed = (now - row["started_at"]) / _MICROSECONDS
        if elapsed >= SHOWN_AFTER:
            parts.append(_part(row, elapsed))
    if not parts:
        return None
    text = f"deltawitness: {'; '.join(parts)}"
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"


def _part(row: Row, elapsed: float) -> str:
    name = visible(str(row.get("table") or row.get("table_id") or "?"))
    name = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
    what = [name, operation(visible(str(row.get("operation"))), row.get("mode"))]
    if row.get("rows"):
        what += [count_of(row["rows"], "row"), f"{number(round(row['rows'] / elapsed))} rows/s"]
    return "  ".join([*what, duration(elapsed)])
