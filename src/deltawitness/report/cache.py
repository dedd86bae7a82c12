"""What a cache holds, why it was served or not, whether it can be made again, what was let go of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from deltawitness.report.format import count_of, seconds, short_id, size, text, timestamp

if TYPE_CHECKING:
    from deltawitness.cache.entries.prune import PruneResult
    from deltawitness.cache.verify.verifier import VerifyResult

__all__ = ["print_entries", "print_pruned", "print_verified", "print_why"]

Row = Mapping[str, Any]

_MILLISECONDS = 1000


def print_entries(console: Console, entries: Sequence[Row]) -> None:
    """Print a line for each entry."""
    table = Table()
    for name in ("scope", "name", "policy"):
        table.add_column(name)
    table.add_column("version", justify="right")
    table.add_column("made", no_wrap=True)
    table.add_column("state")
    for entry in entries:
        table.add_row(
            text(entry["scope"]),
            entry["name"],
            text(entry["policy"]),
            text(entry["version"]),
            timestamp(entry["made_at"]),
            entry["problem"] or "live",
        )
    console.print(table, highlight=False)


def print_why(console: Console, name: str, known: Sequence[Row], reads: Sequence[Row]) -> None:
    """Print what an entry was made from, and how it was found when it was asked for."""
    if not known:
        console.print(f"{name} is not there any more", highlight=False)
    for entry in known:
        where = f"{entry['scope']} {name}: {entry['state']}"
        if "policy" in entry:
            age = _span(entry["age_s"])
            where += f", version {entry['version']} of policy {entry['policy']}, {age} old"
        console.print(where, highlight=False, soft_wrap=True)
        for line in _made_from(entry.get("made_from") or {}):
            console.print(f"  {line}", highlight=False, soft_wrap=True)
    if not reads:
        console.print("the ledger knows of no read", highlight=False)
        return
    table = Table()
    table.add_column("time", no_wrap=True)
    table.add_column("run", no_wrap=True)
    for column in ("job", "result", "reason"):
        table.add_column(column)
    table.add_column("seconds", justify="right")
    for read in reads:
        lasted = read["duration_ms"]
        table.add_row(
            timestamp(read["event_time"]),
            short_id(read["run_id"]),
            text(read["job"]),
            text(read["result"]),
            text(read["reason"]),
            seconds(None if lasted is None else lasted / _MILLISECONDS),
        )
    console.print(table, highlight=False)


def _made_from(known: Row) -> list[str]:
    lines = [f"plan {known['plan_hash']}"] if known.get("plan_hash") else []
    lines += [f"table {mark['name']} {mark['version']}" for mark in known.get("tables", ())]
    lines += [f"file {mark['name']}, {size(mark['size'])}" for mark in known.get("files", ())]
    lines += [f"in memory {mark['name']}" for mark in known.get("data", ())]
    lines += [f"function {mark['name']} {mark['version']}" for mark in known.get("functions", ())]
    return lines + ([f"version {known['version']}"] if known.get("version") else [])


_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"))


def _span(count: float) -> str:
    for unit, sign in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f}{sign}"
    return f"{count:.0f}s"


def print_verified(console: Console, verified: Sequence[VerifyResult]) -> None:
    """Print a line for each result that was made again, and a count."""
    for found in verified:
        console.print(str(found), highlight=False, soft_wrap=True)
    if len(verified) != 1:
        counts: dict[str, int] = {}
        for found in verified:
            word = found.verdict.value.replace("_", " ")
            counts[word] = counts.get(word, 0) + 1
        told = ", ".join(f"{count} {word}" for word, count in counts.items())
        console.print(told or "nothing was written", highlight=False)


def print_pruned(console: Console, pruned: PruneResult) -> None:
    """Print what was let go of."""
    for what, names in (
        ("pruned", pruned.entries),
        ("old versions deleted", pruned.vacuumed),
        ("set aside before, deleted", pruned.set_aside),
        ("damaged, left alone", pruned.damaged),
        ("could not be pruned", pruned.failed),
    ):
        if names:
            console.print(f"{what}: {', '.join(names)}", highlight=False, soft_wrap=True)
    freed = size(pruned.bytes) or "0 B"
    console.print(f"{count_of(pruned.files, 'file')} deleted, {freed}", highlight=False)
