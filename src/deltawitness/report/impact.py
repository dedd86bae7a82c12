"""The tables that depend on a table, as a list."""

from __future__ import annotations

from rich.console import Console

from deltawitness.answers.impact_report import Dependent, DependentInput, Impact
from deltawitness.plurals import count_of
from deltawitness.report.format import text, timestamp
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["print_impact"]

_COLUMNS = (
    Column("table", wrap_at=12),
    Column("state"),
    Column("since", wrap_at=10, splits_words=False),
    Column("level", is_number=True),
    Column("has read", wrap_at=16),
    Column("written", wrap_at=10, splits_words=False),
    Column("job", wrap_at=8),
)


def print_impact(console: Console, found: Impact) -> None:
    """Print a line for each table that depends on a table."""
    if not found.dependents:
        print_line(console, f"nothing in the ledger depends on {_versions_text(found)}")
        return
    names = [each.table.name for each in found.dependents]
    cells = [
        [
            _name(each, is_shared=names.count(each.table.name) > 1),
            _state(each),
            timestamp(each.stale_since),
            str(each.distance),
            ", ".join(map(_input_text, each.inputs)),
            timestamp(each.time),
            text(each.job),
        ]
        for each in found.dependents
    ]
    count = count_of(len(found.dependents), "table depends", "tables depend")
    print_line(console, f"{count} on {_versions_text(found)}, {len(found.stale)} stale")
    print_table(console, _COLUMNS, cells)
    if found.cut:
        more = count_of(found.cut, "more table", "more tables")
        print_line(console, f"note: cut at depth {found.depth}: {more} at the next level")


def _versions_text(found: Impact) -> str:
    if found.from_version:
        return f"{found.table.name or found.table.uri} from version {found.from_version} on"
    return str(found.table)


def _name(dependent: Dependent, *, is_shared: bool) -> str:
    place = f" ({dependent.table.uri})" if is_shared else ""
    return f"{dependent.table}{place}"


def _state(dependent: Dependent) -> str:
    """Return whether a table is stale."""
    if dependent.is_stale:
        return "stale"
    if dependent.has_stale_input:
        return "stale input"
    is_replaced = all(each.is_replaced for each in dependent.inputs)
    return "replaced" if is_replaced else "fresh"


def _input_text(read: DependentInput) -> str:
    parts = [str(read.table), read.kind.value]
    if read.is_replaced:
        parts.append("replaced")
    elif read.is_stale:
        parts.append(f"newest {read.newest}")
    return f"{parts[0]} ({', '.join(parts[1:])})"
