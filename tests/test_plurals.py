"""A number is followed by the singular or the plural of its unit."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import deltawitness
from deltawitness.plurals import count_of, form_for

SOURCES = Path(deltawitness.__file__).parent

UNITS = {
    *(
        "bytes",
        "columns",
        "commits",
        "edges",
        "entries",
        "events",
        "files",
        "lines",
        "operations",
        "processes",
    ),
    *("records", "rows", "runs", "segments", "spools", "tables", "times", "versions", "writes"),
}

NEVER_ONE = {
    # Part of a larger number, which stands behind it.
    ("html_report/sections.py", "runs: the newest and the newest failed ones."),
    ("notebook/graphs.py", "edges are drawn."),
    ("notebook/parts.py", "rows are shown."),
    # More than a limit.
    ("answers/health/file_checks.py", "times the median of "),
    ("answers/health/log_checks.py", "commits "),
    ("answers/health/log_checks.py", "commits from version "),
    ("html_report/sections.py", "tables are listed."),
    ("html_report/sparkline.py", "writes: "),
    (
        "html_report/timeline.py",
        "operations are too many for a bar each: a bar shows the operations in 1/",
    ),
    # Several have the same name, prefix or key.
    ("answers/lookup.py", "runs begin with "),
    ("answers/lookup.py", "tables are named "),
    ("ledger/integrity.py", "times"),
}
"""Files, and texts in them behind a number that is never 1."""


def texts_behind_values(tree):
    """Yield each text of an f-string that follows a value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    yield text.value


def test_no_plural_stands_behind_a_number_that_may_be_one():
    """Texts with counts use `count_of()`, or have a number that is never 1."""
    found = {
        (path.relative_to(SOURCES).as_posix(), text[1:])
        for path in SOURCES.rglob("*.py")
        for text in texts_behind_values(ast.parse(path.read_text("utf-8")))
        if text.startswith(" ") and text[1:].split(" ")[0].strip(".,;:)") in UNITS
    }
    assert found == NEVER_ONE


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1.0, "1 row"), (12345, "12,345 rows")],
)
def test_counts(count, text):
    """Only 1 has the singular."""
    assert count_of(count, "row") == text
    assert form_for(count, "row") == text.partition(" ")[2]
