"""The data of the report as JSON, for its script and for other programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deltawitness.answers.json_values import json_value
from deltawitness.answers.rows import WriteRow
from deltawitness.html_report.content import EdgeColumns, FailedRun, InputEdge, ReportContent
from deltawitness.html_report.graph import dependents
from deltawitness.html_report.graph_drawing import versioned_name
from deltawitness.html_report.markup import SHOWN_CHARACTERS, Markup, visible
from deltawitness.html_report.values import operation_name, place_of, table_name
from deltawitness.html_report.verdict import is_ok, verdict_text

__all__ = ["FIELDS", "FORMAT_VERSION", "TEXT_FIELDS", "island"]

FORMAT_VERSION = 1

TEXT_FIELDS = (
    *("run_id", "job", "table", "table_place", "operation", "result", "error_type", "landed"),
    *("message", "policy", "reason", "code", "write_id", "expectation_result"),
)
"""Fields of an event whose values are positions in the list `strings`."""

_NUMBER_FIELDS = (
    *("version", "rows_added", "rows_updated", "rows_deleted", "files_added", "files_removed"),
    *("bytes_added", "retries", "duration_ms"),
)

FIELDS = ("time_ms", *_NUMBER_FIELDS, *TEXT_FIELDS)
"""Names of the values of an event, in their order."""

_LIMITS = tuple(
    None if name == "table_place" or name.endswith("_id") else SHOWN_CHARACTERS
    for name in TEXT_FIELDS
)
"""Maximum numbers of characters of the text fields; ids and locations are complete, because links use them."""


def island(content: ReportContent) -> Markup:
    """Return the text of the script element with the data."""
    strings = _Strings()
    events = [_values(event, strings) for event in content.events]
    data = {
        "format_version": FORMAT_VERSION,
        "made_at": content.at,
        "root": content.root,
        "is_ok": is_ok(content),
        "verdict": verdict_text(content),
        "scope": content.scope,
        "results": content.results,
        "run_statuses": content.statuses,
        "dropped": content.dropped,
        "tables": content.tables,
        "errors": [json_value(each) | {"message": _short(each.message)} for each in content.errors],
        "cache": content.cache,
        "edges": [_edge(each, content.names) for each in content.edges],
        "failed_runs": [_failure(each, content) for each in content.failures],
        "regressions": [] if content.regressions is None else content.regressions.regressions,
        "late": content.overdue.late,
        "unusual_volumes": content.overdue.volumes,
        "empty_runs": content.overdue.empty_runs,
        "events_total": content.total,
        "events_left_out": content.left_out,
        "event_fields": FIELDS,
        "event_text_fields": TEXT_FIELDS,
    }
    text = json.dumps(json_value(data), separators=(",", ":"))[:-1]
    lists = json.dumps({"strings": list(strings.shown), "events": events}, separators=(",", ":"))[
        1:
    ]
    return Markup(_harmless(f"{text},{lists}"))


def _harmless(text: str) -> str:
    """Return JSON that cannot end the element that it is in; JSON is ASCII here."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _short(text: str | None) -> str | None:
    return None if text is None else visible(text)


def _failure(failed: FailedRun, content: ReportContent) -> dict[str, Any]:
    """Return a failed run with the ids of its failed operations, its tables, and those that depend on them."""
    run, places = failed.run, [each.place for each in failed.tables]
    return {
        "run_id": run.run_id,
        "job": run.job,
        "status": run.status,
        "error_type": run.error_type,
        "failed_operations": [each.write_id for each in failed.operations],
        "tables": [json_value(each) for each in failed.tables],
        "dependents": dependents(content.edges, places),
    }


def _edge(edge: InputEdge, names: Mapping[str, str]) -> dict[str, Any]:
    """Return an edge with the names that the page shows, and with columns whose names are bounded."""
    pairs = [
        [None if pair.target is None else visible(pair.target), visible(pair.source), pair.use]
        for pair in edge.columns.pairs
    ]
    columns = {"pairs": pairs, "left_out": edge.columns.left_out, "reason": edge.columns.reason}
    shown = {
        "source_name": visible(versioned_name(edge.source, edge.source_version, names)),
        "target_name": visible(versioned_name(edge.target, edge.target_version, names)),
    }
    found: dict[str, Any] = json_value(replace(edge, columns=_NO_COLUMNS))
    return found | shown | {"columns": columns}


_NO_COLUMNS = EdgeColumns()


@dataclass(slots=True)
class _Strings:
    """The texts of the events, each once.

    Attributes:
        shown: the texts as the page has them, with their positions.
        seen: the texts of the ledger, by their limit of characters.
    """

    shown: dict[str, int] = field(default_factory=dict)
    seen: dict[tuple[str, int | None], int] = field(default_factory=dict)

    def position(self, text: str | None, limit: int | None) -> int | None:
        """Return the position of a text, which it adds if it is new; None for None."""
        if text is None:
            return None
        found = self.seen.get((text, limit))
        if found is None:
            found = self.shown.setdefault(visible(text, limit), len(self.shown))
            self.seen[text, limit] = found
        return found


def _values(event: WriteRow, strings: _Strings) -> Sequence[Any]:
    time = None if event.event_time is None else round(event.event_time.timestamp() * 1000)
    code = None if event.code_file is None else f"{event.code_file}:{event.code_line}"
    texts = (
        *(event.run_id, event.job, table_name(event) or None, place_of(event)),
        *(operation_name(event), event.result, event.error_type, event.landed),
        *(event.error_message or event.message, event.policy, event.reason, code),
        *(event.write_id, event.expectation_result),
    )
    numbers = [getattr(event, name) for name in _NUMBER_FIELDS]
    numbers[-1] = None if event.duration_ms is None else round(event.duration_ms, 1)
    positions = [strings.position(text, limit) for text, limit in zip(texts, _LIMITS, strict=True)]
    return [time, *numbers, *positions]
