"""The sections of the report that are tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from deltawitness.answers.rows import RunRow, WriteRow
from deltawitness.html_report.content import ReportContent, TableCount
from deltawitness.html_report.graph import dependents
from deltawitness.html_report.markup import Markup, element, isolated, join
from deltawitness.html_report.reading import MAX_CONFLICTS
from deltawitness.html_report.sparkline import sparkline
from deltawitness.html_report.sums import MAX_TABLES
from deltawitness.html_report.tables import link_to_events, link_to_run, links_to_tables, table
from deltawitness.html_report.values import (
    duration,
    operation_name,
    place_of,
    run_seconds,
    table_name,
)
from deltawitness.locations import last_segment
from deltawitness.plurals import count_of
from deltawitness.report.format import number, rows, size, timestamp

__all__ = ["cache", "conflicts", "errors", "runs", "scope_text", "tables"]

_POINTS = 30
"""Number of writes in a small chart."""

_SMALL_FILE = 16 * 1024 * 1024
"""Bytes below which files are small on average."""


def runs(content: ReportContent) -> Markup:
    """Return the runs, newest first."""
    if not content.runs:
        return element("p", "No run has ended in this time.")
    listed = [_run(run) for run in content.runs]
    total = sum(content.statuses.values())
    note = (
        element(
            "p",
            f"{len(listed):,} of {total:,} runs: the newest and the newest failed ones.",
            class_="note",
        )
        if total > len(listed)
        else Markup("")
    )
    head = ("began", "job", "run", "status", "error", "time", "writes", "errors", "rows", "message")
    return join(
        table("Runs", head, listed, ("time", "writes", "errors", "rows"), has_heading=True), note
    )


def _run(run: RunRow) -> tuple[str, ...]:
    status = run.status or "not ended"
    name = "k-broken" if status in {"error", "abandoned"} else "k-ok"
    return (
        timestamp(run.start_time),
        isolated(run.job),
        link_to_run(run.run_id),
        element("strong", status, class_=f"kind {name}"),
        isolated(run.error_type),
        duration(run_seconds(run)),
        number(run.writes),
        number(run.errors),
        rows(run.rows_added, run.rows_updated, run.rows_deleted),
        isolated(run.message),
    )


def tables(content: ReportContent) -> Markup:
    """Return the tables: versions, rows, bytes, files, retries and small charts of the last writes."""
    if not content.tables:
        return element("p", "No table was written in this time.")
    history: dict[str, list[WriteRow]] = defaultdict(list)
    for event in content.events:
        place = place_of(event)
        if place is not None and event.version is not None and len(history[place]) < _POINTS:
            history[place].append(event)
    listed = [_table(each, history[each.place][::-1]) for each in content.tables]
    head = (
        *("table", "versions", "operations", "errors", "rows", "bytes", "files", "mean file"),
        *("retries", "time", "rows each", "time each", "last"),
    )
    right = ("operations", "errors", "rows", "bytes", "files", "mean file", "retries", "time")
    note = (
        element("p", f"Only {MAX_TABLES:,} tables are listed.", class_="note")
        if len(listed) == MAX_TABLES
        else Markup("")
    )
    return join(table("Tables", head, listed, right, has_heading=True), note)


def _table(each: TableCount, writes: list[WriteRow]) -> tuple[str, ...]:
    changed = [
        float(sum((row.rows_added or 0, row.rows_updated or 0, row.rows_deleted or 0)))
        for row in writes
    ]
    times = [float(row.duration_ms or 0) for row in writes]
    mean = each.bytes_added / each.files_added if each.files_added else 0
    shown_mean = size(mean)
    return (
        link_to_events("table", each.place, each.name),
        _versions(each),
        number(each.operations),
        element("strong", number(each.errors), class_="kind k-broken") if each.errors else "",
        rows(each.rows_added, each.rows_updated, each.rows_deleted),
        size(each.bytes_added),
        number(each.files_added),
        f"{shown_mean} (small)" if 0 < mean < _SMALL_FILE and each.files_added > 1 else shown_mean,
        number(each.retries),
        duration(each.duration_ms / 1000),
        sparkline(changed, "rows"),
        sparkline(times, "milliseconds"),
        timestamp(each.last_time),
    )


def _versions(each: TableCount) -> str:
    if each.first_version is None or each.last_version is None:
        return ""
    if each.first_version == each.last_version:
        return f"@{each.last_version}"
    return f"@{each.first_version} to @{each.last_version}"


def cache(content: ReportContent) -> Markup:
    """Return the hit ratio of each policy, the reasons of misses, and the seconds saved."""
    if not content.cache:
        return element("p", "The cache was not read in this time.")
    by_policy: dict[str, dict[str, int]] = defaultdict(lambda: {"hit": 0, "miss": 0})
    for each in content.cache:
        by_policy[each.policy or ""][each.result] += each.count
    ratios = [
        (
            isolated(policy),
            number(counts["hit"]),
            number(counts["miss"]),
            f"{counts['hit'] / sum(counts.values()):.0%}",
        )
        for policy, counts in by_policy.items()
    ]
    reasons = [
        (
            isolated(each.policy),
            isolated(each.reason or "unknown"),
            number(each.count),
            duration(each.duration_ms / 1000),
        )
        for each in content.cache
        if each.result == "miss"
    ]
    saved = (
        ""
        if content.saved_seconds is None
        else f"Hits have saved about {duration(content.saved_seconds)}: an estimate from the mean time of the"
        " misses of the same key."
    )
    parts = [
        table(
            "Hit ratio by policy",
            ("policy", "hits", "misses", "ratio"),
            ratios,
            ("hits", "misses", "ratio"),
        )
    ]
    if reasons:
        head = ("policy", "reason", "misses", "time")
        parts.append(table("Misses by reason", head, reasons, ("misses", "time")))
    return join(element("p", saved) if saved else "", *parts)


def errors(content: ReportContent) -> Markup:
    """Return the failed operations by type, with whether their commits landed."""
    if not content.errors:
        return element("p", "No operation failed in this time.")
    words = {"yes": "yes: the commit is in the table", "no": "no", "unknown": "unknown"}
    listed = [
        (
            link_to_events("q", each.error_type or "error", each.error_type or "unknown"),
            words.get(each.landed or "", "not known"),
            number(each.count),
            timestamp(each.last_time),
            isolated(each.message),
        )
        for each in content.errors
    ]
    head = ("type", "landed", "operations", "last", "last message")
    return join(table("Errors by type", head, listed, ("operations",)), _affected(content))


def _affected(content: ReportContent) -> Markup:
    """Return the tables with errors, and those that were made from them."""
    failed = [each for each in content.tables if each.errors]
    found = dependents(content.edges, (each.place for each in failed))
    names = content.names
    shown = [names.get(place) or last_segment(place) or place for place in found]
    return element(
        "dl",
        element("dt", "Tables with errors"),
        element("dd", links_to_tables([(each.place, each.name) for each in failed])),
        element("dt", "Made from them in this time"),
        element("dd", links_to_tables(list(zip(found, shown, strict=True)))),
    )


def conflicts(content: ReportContent) -> Markup:
    """Return the operations that collided with commits of others, and these."""
    if not content.conflicts:
        return element("p", "No operation was retried or failed because of another commit.")
    listed = list(_conflicts(content))
    head = ("time", "table", "operation", "job", "run", "retries", "result", "collided with")
    note = f"Only the newest {MAX_CONFLICTS} are listed."
    return join(
        table("Conflicts", head, listed, ("retries",), has_heading=True),
        element("p", note, class_="note") if len(listed) == MAX_CONFLICTS else "",
    )


def _conflicts(content: ReportContent) -> Iterator[tuple[str, ...]]:
    for each in content.conflicts:
        version = "" if each.version is None else f"@{each.version}"
        rivals = content.rivals.get(each.write_id or "", ())
        shown = [
            element("li", isolated(f"{_rival(other)}"), " ", link_to_run(other.run_id))
            for other in rivals
        ]
        yield (
            timestamp(each.event_time),
            isolated(f"{table_name(each)}{version}"),
            isolated(operation_name(each)),
            isolated(each.job),
            link_to_run(each.run_id),
            number(each.retries),
            isolated(each.error_type if each.result == "error" else each.result),
            element("ul", *shown) if shown else "a commit that the ledger does not have",
        )


def _rival(other: WriteRow) -> str:
    return f"{table_name(other)}@{other.version} {operation_name(other)}, job {other.job or 'none'}"


def scope_text(content: ReportContent) -> str:
    """Return what the report is about, in a few words."""
    scope = content.scope
    if scope.run_id is not None:
        children = len(scope.family) - 1
        return f"run {scope.run_id}" + (
            f" and {count_of(children, 'child run')}" if children else ""
        )
    job = "" if scope.job is None else f"job {scope.job}, "
    since = "all time" if scope.since is None else f"since {timestamp(scope.since)} UTC"
    return f"{job}{since}"
