"""Entries of a cache, why they were hits or misses, and results of verifying and pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from deltawitness.plurals import count_of
from deltawitness.report.format import seconds, short_ids, size, text, timestamp
from deltawitness.report.tables import Column, print_line, print_table

if TYPE_CHECKING:
    from deltawitness.cache.entries.prune import PruneResult
    from deltawitness.cache.verify.results import VerifyResult

__all__ = ["made_from_lines", "print_entries", "print_pruned", "print_verified", "print_why"]

Row = Mapping[str, Any]

_MILLISECONDS = 1000


_ENTRY_COLUMNS = (
    Column("scope"),
    Column("name", wrap_at=12),
    Column("policy", wrap_at=8),
    Column("version", is_number=True),
    Column("made", wrap_at=10, splits_words=False),
    Column("state", wrap_at=12),
)


def print_entries(console: Console, entries: Sequence[Row]) -> None:
    """Print a line for each entry."""
    rows = [
        [
            text(entry["scope"]),
            entry["name"],
            text(entry["policy"]),
            text(entry["version"]),
            timestamp(entry["made_at"]),
            entry["problem"] or "live",
        ]
        for entry in entries
    ]
    print_table(console, _ENTRY_COLUMNS, rows)


_READ_COLUMNS = (
    Column("time", wrap_at=10, splits_words=False),
    Column("run"),
    Column("job", wrap_at=8),
    Column("result"),
    Column("reason", wrap_at=16),
    Column("seconds", is_number=True),
)


def print_why(console: Console, name: str, entries: Sequence[Row], reads: Sequence[Row]) -> None:
    """Print the inputs of an entry, and the results of its last reads.

    Args:
        console: the console to print on.
        name: name of the entry.
        entries: the entries of that name, one for each scope.
        reads: the reads of the entry in the ledger, newest first.
    """
    if not entries:
        print_line(
            console, f"no entry {name} in this cache: it was deleted, or is at another --root"
        )
    for entry in entries:
        where = f"{entry['scope']} {name}: {entry['state']}"
        if "policy" in entry:
            age = _age(entry["age_s"])
            where += f", version {entry['version']} of policy {entry['policy']}, {age} old"
        print_line(console, where)
        for line in made_from_lines(entry.get("made_from") or {}):
            print_line(console, f"  {line}")
    if not reads:
        print_line(console, "the ledger has no read of it")
        return
    ids = short_ids(read["run_id"] for read in reads)
    print_table(console, _READ_COLUMNS, [_read_cells(read, ids) for read in reads])


def _read_cells(read: Row, ids: Mapping[str, str]) -> list[str]:
    milliseconds = read["duration_ms"]
    return [
        timestamp(read["event_time"]),
        ids.get(read["run_id"], ""),
        text(read["job"]),
        text(read["result"]),
        text(read["reason"]),
        seconds(None if milliseconds is None else milliseconds / _MILLISECONDS),
    ]


def made_from_lines(fingerprint: Row) -> list[str]:
    """Return a line for each input in the fingerprint of an entry."""
    plan_hash, version = fingerprint.get("plan_hash"), fingerprint.get("version")
    lines = [f"plan {plan_hash}"] if plan_hash else []
    lines += [
        f"table {table['name']} {table['version']}" for table in fingerprint.get("tables", ())
    ]
    lines += [f"file {file['name']}, {size(file['size'])}" for file in fingerprint.get("files", ())]
    lines += [f"in memory {data['name']}" for data in fingerprint.get("data", ())]
    lines += [
        f"function {udf['name']} {udf['version']}" for udf in fingerprint.get("functions", ())
    ]
    return lines + ([f"version {version}"] if version else [])


_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"))


def _age(count: float) -> str:
    for unit, sign in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f}{sign}"
    return f"{count:.0f}s"


def print_verified(console: Console, verified: Sequence[VerifyResult]) -> None:
    """Print a line for each verified result, and the number of each verdict if there are several."""
    for found in verified:
        print_line(console, str(found))
    if len(verified) != 1:
        counts: dict[str, int] = {}
        for found in verified:
            word = found.verdict.value.replace("_", " ")
            counts[word] = counts.get(word, 0) + 1
        summary = ", ".join(f"{count} {word}" for word, count in counts.items())
        print_line(console, summary or "nothing was written")


def print_pruned(console: Console, pruned: PruneResult) -> None:
    """Print the pruned entries, and the number and size of deleted files."""
    for what, names in (
        ("pruned", pruned.entries),
        ("old versions deleted", pruned.vacuumed),
        ("set aside before, deleted", pruned.set_aside),
        ("damaged, left alone", pruned.damaged),
        ("could not be pruned", pruned.failed),
    ):
        if names:
            print_line(console, f"{what}: {', '.join(names)}")
    freed = size(pruned.bytes) or "0 B"
    print_line(console, f"{count_of(pruned.files, 'file')} deleted, {freed}")
