"""The page: all sections in one HTML file, with a policy that forbids every request."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from importlib import resources

from deltawitness.html_report import sections
from deltawitness.html_report.content import ReportContent
from deltawitness.html_report.failures import failures
from deltawitness.html_report.graph import lineage_graph
from deltawitness.html_report.island import island
from deltawitness.html_report.markup import Markup, element, isolated, join
from deltawitness.html_report.timeline import timeline
from deltawitness.html_report.verdict import verdict, worse_than_before
from deltawitness.plurals import count_of
from deltawitness.report.format import timestamp

__all__ = ["MAX_BYTES", "page"]

MAX_BYTES = 5_000_000
"""Maximum size of the file. With long names and messages, fewer operations are in it one by one."""

_SECTIONS: tuple[tuple[str, str, Callable[[ReportContent], Markup]], ...] = (
    ("failed", "What failed", failures),
    ("worse", "Worse than before", worse_than_before),
    ("timeline", "Timeline", timeline),
    ("errors", "Errors", sections.errors),
    ("runs", "Runs", sections.runs),
    ("tables", "Tables", sections.tables),
    ("lineage", "Lineage", lineage_graph),
    ("cache", "Cache", sections.cache),
    ("conflicts", "Conflicts", sections.conflicts),
)


def page(content: ReportContent) -> tuple[str, ReportContent]:
    """Return the HTML of the report, and the content that is in it.

    The text has at most `MAX_BYTES` characters, all ASCII, unless a single section is larger. If the operations
    need more, only the newest ones stay.
    """
    text = _page(content)
    while len(text) > MAX_BYTES and len(content.events) > 1:
        content = replace(content, events=content.events[: len(content.events) // 2])
        text = _page(content)
    return text, content


def _page(content: ReportContent) -> str:
    style, script = _resource("report.css"), _resource("report.js") + _resource("graph.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}';"
        " base-uri 'none'; form-action 'none'"
    )
    scope = sections.scope_text(content)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"Delta writes: {scope}"),
        element("style", Markup(style)),
    )
    body = element(
        "body",
        element("a", "Skip to the report", href="#failed", class_="skip"),
        _header(content, scope),
        element(
            "main", *(_section(*each, content) for each in _SECTIONS), _events(content), id="main"
        ),
        element("footer", element("p", _footer(content))),
        element("script", island(content), type="application/json", id="data"),
        element("script", Markup(script)),
    )
    text = f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _resource(name: str) -> str:
    """Return the text of a file of this package."""
    return resources.files("deltawitness.html_report").joinpath(name).read_text("ascii")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _header(content: ReportContent, scope: str) -> Markup:
    names = [*((name, title) for name, title, _ in _SECTIONS), ("events", "Events")]
    links = [element("li", element("a", title, href=f"#{name}")) for name, title in names]
    return element(
        "header",
        element("h1", "Delta writes"),
        element("p", isolated(scope), "; ledger ", isolated(content.root), class_="scope"),
        verdict(content),
        element("nav", element("ul", *links), aria_label="Sections"),
    )


def _section(
    name: str, title: str, make: Callable[[ReportContent], Markup], content: ReportContent
) -> Markup:
    heading = element("h2", title, id=f"{name}-title")
    return element(
        "section", heading, make(content), id=name, aria_labelledby=f"{name}-title", tabindex="-1"
    )


def _events(content: ReportContent) -> Markup:
    """Return the frame of the table of events, which the script fills."""
    note = f"{count_of(content.total, 'operation')}."
    if content.left_out > 0:
        shown = f"{len(content.events):,} of {count_of(content.total, 'operation')}"
        note = (
            f"{shown}: the newest, and the newest failed ones; the other {content.left_out:,} are in the"
            " sums. Use --since, --job or --run for fewer."
        )
    controls = element(
        "div",
        element(
            "label", "Filter ", element("input", type="search", id="filter", autocomplete="off")
        ),
        element("button", "Show all", type="button", id="clear"),
        element("span", id="count", role="status"),
        class_="controls",
    )
    pages = element(
        "div",
        element("button", "Previous page", type="button", id="previous"),
        element("button", "Next page", type="button", id="next"),
        class_="controls",
    )
    frame = element(
        "div", id="rows", class_="scroll", tabindex="0", role="region", aria_label="Events"
    )
    return element(
        "section",
        element("h2", "Events", id="events-title"),
        element("p", note, class_="note"),
        element("p", id="chosen", hidden=True),
        controls,
        frame,
        pages,
        element("noscript", element("p", "The table of events needs JavaScript.")),
        id="events",
        aria_labelledby="events-title",
        tabindex="-1",
    )


def _footer(content: ReportContent) -> Markup:
    return join(
        f"Made {timestamp(content.at)} by deltawitness. All times are in UTC. Names and messages are shortened."
        " The element with the id data has the values as JSON."
    )
