"""Parts of results in a notebook: tables, names with values, and notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from deltawitness.answers.rows import TableVersion
from deltawitness.html_report.markup import Markup, element, isolated
from deltawitness.html_report.tables import scrolled, table
from deltawitness.locations import last_segment
from deltawitness.report.format import timestamp

__all__ = [
    "MAX_ROWS",
    "STYLE",
    "cut_listing",
    "facts_table",
    "listing",
    "names_of",
    "note",
    "short_id",
]

MAX_ROWS = 50
"""Maximum number of rows of a table in a notebook."""

_ID_CHARACTERS = 13

STYLE = """
.deltawitness { font-size: .9em; line-height: 1.4; }
.deltawitness .scroll { overflow-x: auto; max-width: 100%; }
.deltawitness table { border-collapse: collapse; margin: .4em 0; color: inherit; }
.deltawitness caption { text-align: left; font-weight: 600; caption-side: top; color: inherit; }
.deltawitness .scroll th, .deltawitness .scroll td { text-align: left; vertical-align: top;
  padding: .2em .8em .2em 0; border-bottom: 1px solid rgba(128, 128, 128, .4); }
.deltawitness .scroll .n { text-align: right; }
.deltawitness .w { white-space: nowrap; }
.deltawitness td bdi { display: inline-block; max-width: 30em; overflow-wrap: break-word; }
.deltawitness .note { opacity: .75; }
.deltawitness .lineage { display: block; }
.deltawitness .lineage rect { fill: rgba(128, 128, 128, .15); stroke: currentColor; }
.deltawitness .lineage text { fill: currentColor; font: 13px sans-serif; }
.deltawitness .lineage .edge { fill: none; stroke: currentColor; stroke-width: 1.5; }
.deltawitness .lineage .inferred { stroke-dasharray: 5 4; }
"""
"""Text and lines have the colour of the notebook's text, so that they fit a light and a dark theme."""


def listing(
    caption: str,
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    numbers: Iterable[str] = (),
) -> list[Markup]:
    """Return a table of the first lines, and a note about the others; nothing without a line."""
    if not lines:
        return []
    found = [table(caption, head, lines[:MAX_ROWS], numbers)]
    if len(lines) > MAX_ROWS:
        text = f"{MAX_ROWS} of {len(lines):,} rows are shown."
        found.append(element("p", text, class_="note"))
    return found


def facts_table(caption: str, facts: Mapping[str, object]) -> Markup:
    """Return a table of names and values, without those that are not known."""
    lines = (
        element("tr", element("th", name, scope="row"), element("td", _cell(value)))
        for name, value in facts.items()
        if value not in {None, ""}
    )
    return scrolled(caption, element("table", element("caption", caption), *lines))


def _cell(value: object) -> Markup:
    if isinstance(value, Markup):
        return value
    if isinstance(value, datetime):
        return isolated(timestamp(value))
    return isolated(f"{value:,}" if isinstance(value, int) else value)


def short_id(run_id: str | None) -> Markup:
    """Return the beginning of an id, with all of it as a tooltip."""
    if not run_id:
        return Markup("")
    return element("span", isolated(run_id[:_ID_CHARACTERS]), title=run_id)


def note(text: str) -> Markup:
    """Return a line of text."""
    return element("p", isolated(text, None), class_="note")


def names_of(versions: Iterable[TableVersion]) -> str:
    """Return the names and versions of tables, separated by commas.

    A table without a name has the end of its location.

    >>> names_of([TableVersion(1, uri="s3://lake/orders/")])
    'orders@1'
    """
    return ", ".join(
        str(each if each.name or not each.uri else replace(each, name=last_segment(each.uri)))
        for each in versions
    )


def cut_listing(
    caption: str,
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    count: int,
    numbers: Iterable[str],
) -> list[Markup]:
    """Return a table of lines that were made for the first rows only, of `count` rows."""
    found = listing(caption, head, lines[:MAX_ROWS], numbers)
    if count > MAX_ROWS:
        found.append(note(f"{MAX_ROWS} of {count:,} rows are shown."))
    return found
