"""The section of failed runs: what failed, why, what it wrote, whether it landed, and what depends on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deltawitness.answers.rows import WriteRow
from deltawitness.html_report.content import FailedRun, ReportContent, RunTable
from deltawitness.html_report.graph import dependents
from deltawitness.html_report.graph_drawing import name_of
from deltawitness.html_report.markup import Markup, element, isolated, join
from deltawitness.html_report.tables import link_to_run, links_to_tables
from deltawitness.html_report.values import operation_name, place_of, table_name
from deltawitness.plurals import count_of
from deltawitness.report.format import timestamp

__all__ = ["failures", "version_range"]


def failures(content: ReportContent) -> Markup:
    """Return a list of questions and answers for each failed run, the newest first."""
    if not content.failures:
        caught = count_of(content.failed, "failed operation")
        end = f" {caught} did not end a run: see Errors." if content.failed else ""
        return element("p", f"No run failed in this time.{end}")
    total = sum(content.statuses.get(status, 0) for status in ("error", "abandoned"))
    shown = [_failure(each, content) for each in content.failures]
    note = element(
        "p", f"{len(shown)} of {count_of(total, 'failed run')}: see Runs.", class_="note"
    )
    return join(*shown, note if total > len(shown) else "")


def _failure(failed: FailedRun, content: ReportContent) -> Markup:
    run = failed.run
    verb = "was abandoned" if run.status == "abandoned" else "failed"
    title = element(
        "h3", isolated(run.job or "run"), f" {verb} ", timestamp(run.start_time), " UTC"
    )
    places = [each.place for each in failed.tables]
    depending = [
        (place, name_of(place, content.names)) for place in dependents(content.edges, places)
    ]
    answers = (
        ("What failed", _list(_what(failed))),
        ("Why", _list(_why(failed))),
        ("Tables of the run", _tables(failed.tables)),
        ("Did it land", _list(_landed(failed))),
        ("Depends on these tables", links_to_tables(depending)),
        ("Run", link_to_run(run.run_id)),
    )
    pairs = [
        part for term, found in answers for part in (element("dt", term), element("dd", found))
    ]
    return element("article", title, element("dl", *pairs), class_="failure")


def _list(parts: Iterator[str]) -> Markup:
    """Return parts, as a list if there are several."""
    found = list(dict.fromkeys(parts))
    if len(found) == 1:
        return join(*found)
    return element("ul", *(element("li", each) for each in found))


def _what(failed: FailedRun) -> Iterator[str]:
    if not failed.operations:
        yield "the program; no operation on a table failed"
    for each in failed.operations:
        place = isolated(f"{operation_name(each)} on {table_name(each) or 'no table'}")
        code = isolated(f"{each.code_file}:{each.code_line}") if each.code_file else ""
        yield join(place, " in " if code else "", code)


def _why(failed: FailedRun) -> Iterator[str]:
    for each in failed.operations:
        message = f": {each.error_message}" if each.error_message else ""
        yield isolated(f"{each.error_type or 'unknown'}{message}")
    if not failed.operations:
        abandoned = "the process ended without an exception"
        reason = abandoned if failed.run.status == "abandoned" else "unknown"
        yield isolated(failed.run.error_type or reason)


def _tables(tables: Sequence[RunTable]) -> Markup:
    if not tables:
        return Markup("none")
    return links_to_tables([(each.place, f"{each.name}{version_range(each)}") for each in tables])


def version_range(each: RunTable) -> str:
    """Return the versions that a run committed to a table, such as `@2 to @4`."""
    if each.last_version is None:
        return " (no commit)"
    if each.first_version == each.last_version:
        return f"@{each.last_version}"
    return f"@{each.first_version} to @{each.last_version}"


def _landed(failed: FailedRun) -> Iterator[str]:
    for each in failed.operations:
        yield isolated(_landed_text(each))
    failing = {
        (place_of(each), each.version) for each in failed.operations if each.version is not None
    }
    others = [
        f"{each.name}{version_range(each)}"
        for each in failed.tables
        if each.last_version is not None and (each.place, each.last_version) not in failing
    ]
    if others:
        yield isolated(f"the commits before it are in the tables: {', '.join(others)}")
    elif not failed.operations:
        yield "it committed nothing"


def _landed_text(each: WriteRow) -> str:
    name = table_name(each) or "the table"
    version = "" if each.version is None else f"@{each.version}"
    if each.landed == "yes":
        return f"yes: the failed {operation_name(each)} is in {name}{version}"
    if each.landed == "no":
        return f"no: the failed {operation_name(each)} has not changed {name}"
    return f"not known for the {operation_name(each)} on {name}"
