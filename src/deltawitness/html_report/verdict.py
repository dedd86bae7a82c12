"""The first lines of the report: whether something failed, is late or is worse than before."""

from __future__ import annotations

from deltawitness.answers.trends.values import RegressionKind, TableState
from deltawitness.html_report.content import ReportContent
from deltawitness.html_report.markup import Markup, element, isolated, join
from deltawitness.html_report.tables import link_to_run, table
from deltawitness.html_report.values import duration
from deltawitness.plurals import count_of
from deltawitness.report.format import timestamp

__all__ = ["is_ok", "verdict", "verdict_text", "worse_than_before"]

MAX_LISTED = 50
"""Maximum number of unusual numbers of rows, and of runs without a change, that are listed."""

_FAILED_STATUSES = ("error", "abandoned")


def _failed_runs(content: ReportContent) -> int:
    return sum(content.statuses.get(status, 0) for status in _FAILED_STATUSES)


def _problems(content: ReportContent) -> list[str]:
    """Return what is wrong, in the order of importance."""
    landed = sum(each.count for each in content.errors if each.landed == "yes")
    regressions = content.regressions
    kinds = (
        (RegressionKind.BROKEN, "broken"),
        (RegressionKind.FLAKY, "flaky"),
        (RegressionKind.SLOWER, "slower"),
        (RegressionKind.SMALLER, "smaller"),
    )
    worse = [
        (0 if regressions is None else len(regressions.of_kind(kind)), f"{word} job")
        for kind, word in kinds
    ]
    counts = [
        (_failed_runs(content), "failed run"),
        (content.failed, "failed operation"),
        (landed, "failed operation whose commit landed"),
        *worse,
        (len(content.overdue.late), "late table"),
        (len(content.overdue.volumes), "unusual number of rows"),
        (len(content.overdue.empty_runs), "run without a change"),
        (content.dropped, "dropped event"),
    ]
    plurals = {
        "failed operation whose commit landed": "failed operations whose commits landed",
        "unusual number of rows": "unusual numbers of rows",
        "run without a change": "runs without a change",
    }
    return [count_of(count, unit, plurals.get(unit)) for count, unit in counts if count]


def is_ok(content: ReportContent) -> bool:
    """Return whether nothing failed, is late or is worse than before."""
    return not _problems(content)


def verdict_text(content: ReportContent) -> str:
    """Return the verdict in one line."""
    problems = _problems(content)
    runs = sum(content.statuses.values())
    operations = (
        f"{count_of(content.total, 'operation')} on {count_of(len(content.tables), 'table')}"
    )
    seen = f"{count_of(runs, 'run')}, {operations}"
    if not content.total and not runs:
        return "nothing was recorded in this time"
    return f"{', '.join(problems)} ({seen})" if problems else f"all is well: {seen}"


def verdict(content: ReportContent) -> Markup:
    """Return the verdict as a paragraph."""
    name = "good" if is_ok(content) else "bad"
    mark = "OK" if is_ok(content) else "PROBLEMS"
    return element(
        "p", element("strong", mark), " ", verdict_text(content), class_=f"verdict {name}"
    )


def worse_than_before(content: ReportContent) -> Markup:
    """Return what is broken, slower, smaller, late or unusual, each as a table."""
    parts = [*_regressions(content), *_late(content), *_volumes(content), *_empty_runs(content)]
    overdue = content.overdue
    longest = max(map(len, (overdue.volumes, overdue.empty_runs)))
    if longest > MAX_LISTED:
        parts.append(
            element("p", f"Only the newest {MAX_LISTED} of each kind are listed.", class_="note")
        )
    return join(*parts) if parts else element("p", "Nothing is worse than its own past.")


def _regressions(content: ReportContent) -> list[Markup]:
    if content.regressions is None or content.regressions.is_ok:
        return []
    rows = [
        (
            element("strong", each.kind.value, class_=f"kind k-{each.kind.value}"),
            isolated(each.job),
            _value(each.kind, each.value),
            _typical(each.kind, each.typical),
            timestamp(each.time),
            isolated(each.error_type),
            "yes" if each.has_new_code else "",
            link_to_run(each.run_id),
        )
        for each in content.regressions.regressions
    ]
    head = ("kind", "job", "value", "before", "since", "error", "new code", "run")
    return [table("Jobs that are worse than before", head, rows)]


def _value(kind: RegressionKind, value: float) -> str:
    if kind is RegressionKind.SLOWER:
        return duration(value)
    if kind is RegressionKind.SMALLER:
        return count_of(value, "row")
    return count_of(round(value), "failed run")


def _typical(kind: RegressionKind, value: float) -> str:
    if kind is RegressionKind.SLOWER:
        return f"median {duration(value)}"
    if kind is RegressionKind.SMALLER:
        return f"median {count_of(value, 'row')}"
    return f"of {count_of(round(value), 'run')}"


def _late(content: ReportContent) -> list[Markup]:
    rows = [
        (
            element("strong", each.state.value, class_="kind k-late"),
            isolated(each.table),
            timestamp(each.last),
            timestamp(each.due),
            duration(each.interval_seconds),
            isolated(each.job),
            link_to_run(each.run_id),
        )
        for each in content.overdue.tables
        if each.state is TableState.LATE
    ]
    head = ("state", "table", "last change", "due until", "every", "job", "run")
    return [table("Tables that are late", head, rows)] if rows else []


def _volumes(content: ReportContent) -> list[Markup]:
    rows = [
        (
            isolated(each.table),
            f"{each.rows:,}",
            f"{each.typical:,.0f}",
            f"{each.low:,.0f} to {each.high:,.0f}",
            timestamp(each.time),
            isolated(each.job),
            link_to_run(each.run_id),
        )
        for each in content.overdue.volumes[:MAX_LISTED]
    ]
    head = ("table", "rows", "median", "usual", "time", "job", "run")
    return [table("Unusual numbers of rows", head, rows)] if rows else []


def _empty_runs(content: ReportContent) -> list[Markup]:
    rows = [
        (
            isolated(each.job),
            timestamp(each.start_time),
            f"{each.wrote} of {each.history}",
            f"{each.typical:,.0f}",
            link_to_run(each.run_id),
        )
        for each in content.overdue.empty_runs[:MAX_LISTED]
    ]
    head = ("job", "began", "earlier runs with changes", "median rows", "run")
    return [table("Runs that ended ok and changed nothing", head, rows)] if rows else []
