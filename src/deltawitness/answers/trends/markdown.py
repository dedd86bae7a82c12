"""Markdown of a report: tables whose cells cannot break them, of bounded length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from deltawitness.answers.rows import RunRow, seconds_of_run
from deltawitness.answers.trends.ci_values import CiProblem
from deltawitness.plurals import count_of

__all__ = ["MARKER", "report_text"]

MARKER = "<!-- deltawitness ci-report -->"
"""The first line, by which a program finds the comment to replace."""

_SHOWN = 50
"""Maximum number of rows of a table; hosts limit the length of a comment."""

_CELL = 300
"""Maximum number of characters of a cell."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$!])")

_NOT_IN_CODE = re.compile(r"[`|\s]")


def report_text(
    problems: Sequence[CiProblem], runs: Sequence[RunRow], since: datetime, at: datetime
) -> str:
    """Return a report as Markdown.

    Args:
        problems: the problems.
        runs: the runs.
        since: the start of the time of the report.
        at: its end.
    """
    failed = sum(run.status != "ok" for run in runs)
    lines = [MARKER, f"## deltawitness: {_verdict(problems, failed)}", ""]
    if problems:
        rows = [
            (
                "**fails**" if each.fails else "warning",
                each.check.value,
                escape(each.subject),
                escape(each.detail),
                _code(each.run_id),
            )
            for each in problems
        ]
        lines += _table(("", "check", "job or table", "what", "run"), rows)
    summary = f"{count_of(len(runs), 'run')}, {failed} not ok, {_time(since)} to {_time(at)} UTC"
    if not runs:
        return "\n".join([*lines, summary, ""])
    lines += ["<details>", f"<summary>{summary}</summary>", ""]
    lines += _table(("job", "status", "began", "seconds", "rows", "run"), map(_run_cells, runs))
    return "\n".join([*lines, "</details>", ""])


def _verdict(problems: Sequence[CiProblem], failed: int) -> str:
    """Return the heading: the numbers of problems and warnings, else of runs that no check has found."""
    fails = sum(each.fails for each in problems)
    warnings = len(problems) - fails
    parts = [count_of(fails, "problem")] if fails else []
    parts += [count_of(warnings, "warning")] if warnings else []
    if not parts and failed:
        return f"no problems, but {count_of(failed, 'run')} not ok"
    return ", ".join(parts) or "no problems"


def _run_cells(run: RunRow) -> tuple[str, ...]:
    start, took = run.start_time, seconds_of_run(run.start_time, run.end_time, run.status)
    seconds = "" if took is None else f"{took:.1f}"
    rows = sum(each or 0 for each in (run.rows_added, run.rows_updated, run.rows_deleted))
    status = escape(run.status or "")
    return (
        escape(run.job or ""),
        status if run.status == "ok" else f"**{status}**",
        _time(start) if start else "",
        seconds,
        f"{rows:,}",
        _code(run.run_id),
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = list(rows)
    lines = [_row(names), _row(["---"] * len(names)), *map(_row, cells[:_SHOWN])]
    more = len(cells) - _SHOWN
    return [*lines, *(["", f"and {more} more"] if more > 0 else []), ""]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    r"""Return a text as one line in which Markdown and HTML have no meaning, and `@` mentions no user.

    >>> print(escape("a|b <i>"))
    a\|b \<i\>
    """
    line = " ".join(text.split())
    short = line if len(line) <= _CELL else f"{line[: _CELL - 1]}…"
    return _SPECIAL.sub(r"\\\1", short).replace("@", "@\u200b")


def _code(text: str | None) -> str:
    """Return an id as code; characters that would end the code or the cell are left out."""
    return "" if text is None else f"`{_NOT_IN_CODE.sub('', text)[:_CELL]}`"


def _time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
