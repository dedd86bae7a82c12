"""What the screens show, read with the functions that answer questions."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from deltawitness.answers.doctor import doctor
from deltawitness.answers.health.values import Health
from deltawitness.answers.lineage_graph import Lineage, LineageDirection
from deltawitness.answers.lists import list_reads
from deltawitness.answers.lookup import find_run_id
from deltawitness.answers.questions import ledger_of, lineage, runs, show, writes
from deltawitness.answers.rows import RunRow, TableVersion, WriteRow
from deltawitness.answers.run_report import read_run
from deltawitness.answers.shown_commit import ShownCommit
from deltawitness.cache.entries.entry import DamagedEntryError
from deltawitness.cache.entries.listing import CacheEntry, iter_entries
from deltawitness.cache.entries.store import Entries
from deltawitness.exceptions import DeltaWitnessError
from deltawitness.ledger.tables.locations import root_of
from deltawitness.locations import strip_credentials
from deltawitness.redaction import message_for_ledger
from deltawitness.report.cache import made_from_lines
from deltawitness.report.format import storage_reason
from deltawitness.report.runs import print_run
from deltawitness.report.shown_commit import print_shown_commit
from deltawitness.settings import LedgerMessages, Settings

__all__ = [
    "PAGE",
    "FilterError",
    "Reader",
    "error_text",
    "table_name",
    "write_filter",
    "write_lines",
]

PAGE = 200
"""Rows of a page of a list."""

_WIDTH = 100
"""Width in cells of the text of a version or a run."""

_KEYS = ("table", "run", "job", "user", "operation", "result", "version")


class FilterError(Exception):
    """The text of a filter is invalid."""


def write_filter(text: str) -> dict[str, Any]:
    """Parse the text of a filter of writes.

    Args:
        text: words such as `table=orders result=error`; a word without `=` is a table.

    Raises:
        FilterError: a word has an unknown name, or the version is no number.

    >>> write_filter("orders result=error")
    {'table': 'orders', 'result': 'error'}
    """
    try:
        words = shlex.split(text)
    except ValueError:
        msg = "filter: a quotation mark is not closed"
        raise FilterError(msg) from None
    chosen: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            name, value = "table", word
        if name not in _KEYS:
            msg = f"filter: expected {', '.join(f'{key}=' for key in _KEYS)} or the name of a table"
            raise FilterError(msg)
        if name == "version":
            if not value.isdecimal():
                msg = "filter: expected a number after version="
                raise FilterError(msg)
            chosen[name] = int(value)
        else:
            chosen[name] = value
    return chosen


def error_text(error: BaseException) -> str:
    """Return one line about an error of reading, without credentials."""
    if isinstance(error, DeltaWitnessError | FilterError | ValueError):
        return str(error)
    text = message_for_ledger(storage_reason(str(error)), LedgerMessages.SAFE)
    return text or type(error).__name__


def table_name(table: TableVersion) -> str:
    """Return the name by which `show` and `lineage` find a version of a table: its location, if known."""
    name = table.uri or table.table_id or table.name or ""
    return name if table.version is None else f"{name}@{table.version}"


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads a ledger and the logs of its tables.

    No method keeps a result: each call reads the newest state.

    Attributes:
        settings: the location of the ledger.
    """

    settings: Settings

    @property
    def title(self) -> str:
        """The location of the ledger, without credentials."""
        return strip_credentials(root_of(self.settings).uri)

    def runs(self, offset: int, limit: int = PAGE) -> Sequence[RunRow]:
        """Return a page of runs, newest first."""
        return runs(limit=limit, offset=offset, settings=self.settings)

    def writes(
        self, offset: int, limit: int = PAGE, chosen: Mapping[str, Any] | None = None
    ) -> Sequence[WriteRow]:
        """Return a page of operations, newest first.

        Args:
            offset: number of newer operations.
            limit: maximum number of operations.
            chosen: what :func:`write_filter` returned.
        """
        return writes(limit=limit, offset=offset, settings=self.settings, **(chosen or {}))

    def commit_text(self, table: str) -> str:
        """Return the text about one version of a table."""
        shown = show(f"table:{table}", settings=self.settings)
        assert isinstance(shown, ShownCommit)
        return _text(lambda console: print_shown_commit(console, shown))

    def run_text(self, run_id: str) -> str:
        """Return the text about one run, without the list of its operations."""
        ledger = ledger_of(self.settings)
        report = read_run(ledger, find_run_id(ledger, run_id))
        url = self.settings.trace_url
        return _text(lambda console: print_run(console, report, url, has_operations=False))

    def lineage(self, table: str, direction: LineageDirection) -> Lineage:
        """Return the versions that a version was made from, or those that were made from it."""
        return lineage(table, direction=direction, settings=self.settings)

    def cache(self) -> list[CacheEntry]:
        """Return the entries of the cache."""
        return list(iter_entries(Entries(root_of(self.settings))))

    def entry_text(self, entry: CacheEntry) -> str:
        """Return the text about an entry: its state, and what it was made from."""
        lines = [f"{entry.scope.value} {entry.name}: {entry.problem or 'live'}"]
        try:
            stored = Entries(root_of(self.settings)).read(entry.scope, entry.name)
        except DamagedEntryError as error:
            return f"{lines[0]}\n{error}"
        if stored is not None and stored.fingerprint is not None:
            lines += ["made from:", *made_from_lines(stored.fingerprint.as_json())]
        return "\n  ".join(lines)

    def cache_reads(self, name: str) -> Sequence[WriteRow]:
        """Return the last reads of an entry, newest first, with their reasons."""
        found = list_reads(ledger_of(self.settings, is_required=False), name, PAGE)
        return [WriteRow.of(row) for row in found]

    def health(self, *, files: bool) -> Health:
        """Return the health of all tables of the ledger.

        Args:
            files: also list the files on the storage.
        """
        return doctor(files=files, settings=self.settings)


def _text(print_on: Callable[[Console], object]) -> str:
    """Return what a function prints on a console of a fixed width."""
    output = io.StringIO()
    print_on(
        Console(
            file=output, width=_WIDTH, color_system=None, markup=False, emoji=False, highlight=False
        )
    )
    return output.getvalue()


def write_lines(row: WriteRow) -> list[tuple[str, str]]:
    """Return the names and values of an operation, without those that are not known."""
    values = {
        name: value for name, value in asdict(row).items() if value is not None and value != ()
    }
    return [(name.replace("_", " "), str(value)) for name, value in values.items()]
