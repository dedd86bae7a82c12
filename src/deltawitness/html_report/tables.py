"""Tables of the report, in a frame that scrolls on a narrow screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from deltawitness.html_report.markup import Markup, element, isolated, visible

__all__ = ["link_to_events", "link_to_run", "links_to_tables", "scrolled", "table"]

MAX_LINKS = 30
"""Maximum number of tables that are listed in a line."""

_ID_CHARACTERS = 13

_UNBROKEN = {"began", "due until", "job", "last", "last change", "run", "since", "time", "versions"}
"""Names of columns whose cells have one line."""


def scrolled(label: str, content: Markup) -> Markup:
    """Return content in a frame that scrolls sideways, also with the keyboard.

    Args:
        label: name of the frame for screen readers.
        content: the content.
    """
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=label)


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Iterable[str] = (),
    *,
    has_heading: bool = False,
) -> Markup:
    """Return a table.

    Args:
        caption: its caption.
        head: names of the columns.
        rows: the cells of each row; texts are escaped.
        numbers: names of the columns that are aligned to the right.
        has_heading: whether a heading says the same as the caption, which only screen readers then read.
    """
    right = set(numbers)
    classes = [_class_of(name, right) for name in head]

    def line(cells: Sequence[str]) -> Markup:
        return element(
            "tr",
            *(element("td", cell, class_=name) for cell, name in zip(cells, classes, strict=True)),
        )

    titles = element(
        "tr",
        *(element("th", name, scope="col", class_="n" if name in right else None) for name in head),
    )
    body = element(
        "table",
        element("caption", caption, class_="quiet-caption" if has_heading else None),
        element("thead", titles),
        element("tbody", *map(line, rows)),
    )
    return scrolled(caption, body)


def _class_of(name: str, right: set[str]) -> str | None:
    """Return the class of the cells of a column: on the right, in one line, or wide enough for a message."""
    if name in right:
        return "n"
    if name in _UNBROKEN:
        return "w"
    return "m" if name == "last message" else None


def link_to_run(run_id: str | None) -> Markup:
    """Return a link that selects the operations of a run; an empty text without a run."""
    if not run_id:
        return Markup("")
    shown = isolated(run_id[:_ID_CHARACTERS])
    return element("a", shown, href=f"#run={_quoted(run_id)}", title=visible(run_id))


def link_to_events(name: str, value: str, text: str) -> Markup:
    """Return a link that selects operations by a value.

    Args:
        name: name of the filter: `table`, `job`, `result` or `q`.
        value: the value.
        text: the text of the link.
    """
    return element("a", isolated(text), href=f"#{name}={_quoted(value)}", title=visible(value))


def links_to_tables(named: Sequence[tuple[str, str]]) -> Markup:
    """Return links to the events of tables, separated by commas.

    Args:
        named: the location and the shown text of each table.
    """
    if not named:
        return Markup("no table")
    links = [link_to_events("table", place, text) for place, text in named[:MAX_LINKS]]
    more = f", {len(named) - MAX_LINKS:,} more" if len(named) > MAX_LINKS else ""
    return Markup(", ".join(links) + more)


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "replace"), safe="")
