"""Write the Grafana dashboard of collector/dashboards; with `--check`, exit 1 if it differs.

The panels are a list here, because most queries repeat one long expression.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

PATH = Path(__file__).parent.parent / "collector/dashboards/delta-writes.json"

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, COLUMNS = 8, 8, 3
STEP, RANGE = "$__interval", "$__range"
TOP = 10
"""Series of a panel by job, table or policy; the others are one series `_other`."""

JOB = 'job=~"(.*/)?($service)"'
CALLS = 'traces_span_metrics_calls_total{db_operation_name!="", service_name=~"$service"%s}'
TABLES = 'traces_table_metrics_calls_total{db_collection_name!="", service_name=~"$service"%s}'
ROWS = f"traces_table_metrics_rows_total{{{JOB}%s}}"
BUCKETS = (
    'traces_span_metrics_duration_seconds_bucket{db_operation_name!="", service_name=~"$service"}'
)
DECISIONS = 'otelcol_processor_tail_sampling_count_traces_sampled{sampled="true"}'
FAILED = ', status_code="STATUS_CODE_ERROR"'


class Panel(NamedTuple):
    """A panel: what it shows, and its queries, each with the legend of its series."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    type: str = "timeseries"


def increase(selector: str, window: str) -> str:
    """Return a query: by how much each counter of a selector grew in a window that ends now.

    `increase()` does not count the first value of a series, and the series of a short job has only one
    value. This query counts it: a series without a value in the 6 hours before the window began at 0. That
    is right because no series of the Collector ever falls: a restart makes a new one. Nothing is
    extrapolated, so the values of consecutive windows add up.
    """
    last = f"last_over_time({selector}[{window}])"
    return f"(({last} - last_over_time({selector}[6h] offset {window})) or {last})"


def by(labels: str, selector: str, window: str = STEP) -> str:
    """Return a query: the growth of counters in a window, summed by labels."""
    return f"sum by ({labels}) {increase(selector, window)}"


def top(label: str, selector: str, total: str = "") -> str:
    """Return a query: the growth in the range by a label, the largest, and the sum of the others.

    Args:
        label: the label.
        selector: series that have it.
        total: selects the series of the sum, if some of them do not have the label.
    """
    every = by(label, selector, RANGE)
    all_of_it = f"sum({increase(total, RANGE)})" if total else f"sum({every})"
    rest = f"{all_of_it} - sum(topk({TOP}, {every})) > 0"
    return f'topk({TOP}, {every} > 0) or label_replace({rest}, "{label}", "_other", "", "")'


def share(part: str, all_of_it: str, window: str, labels: str = "") -> str:
    """Return a query: the growth of one selector over that of another; 0 where the first has no series."""
    summed = f"sum by ({labels})" if labels else "sum"
    total = f"({summed} {increase(all_of_it, window)} > 0)"
    return f"({summed} {increase(part, window)} or 0 * {total}) / {total}"


def burn(window: str) -> str:
    """Return a query: the share of failures in a window, in multiples of an error budget of 0.5 %."""
    return f"({share(CALLS % FAILED, CALLS % '', window)}) / 0.005"


READS = f'cache_operation_count_total{{cache_operation="read", {JOB}%s}}'

PANELS = (
    Panel(
        "Operations",
        "Every operation in each interval, counted before sampling.",
        "short",
        ((by("db_operation_name", CALLS % ""), "{{db_operation_name}}"),),
        "bars",
    ),
    Panel(
        "Share that fails",
        "Failed operations over all of them.",
        "percentunit",
        ((share(CALLS % FAILED, CALLS % "", STEP, "service_name"), "{{service_name}}"),),
    ),
    Panel(
        "Why they fail",
        "By the closed set of error types; `deltawitness errors` lists them.",
        "short",
        ((by("error_type", CALLS % ', error_type!=""'), "{{error_type}}"),),
        "bars",
    ),
    Panel(
        "Duration",
        "How long operations take.",
        "s",
        ((by("le", BUCKETS), "{{le}}"),),
        "heatmap",
    ),
    Panel(
        "Duration, 95th percentile",
        "By operation.",
        "s",
        (
            (
                f"histogram_quantile(0.95, {by('db_operation_name, le', BUCKETS)})",
                "{{db_operation_name}}",
            ),
        ),
    ),
    Panel(
        "Hit ratio of the cache",
        "Hits over hits and misses.",
        "percentunit",
        (
            (
                share(
                    READS % ', cache_result="hit"',
                    READS % ', cache_result=~"hit|miss"',
                    STEP,
                    "cache_policy",
                ),
                "{{cache_policy}}",
            ),
        ),
    ),
    Panel(
        "Rows",
        "Rows that commits added, updated, deleted, copied in each interval.",
        "short",
        ((by("delta_change", f"delta_commit_rows_total{{{JOB}}}"), "{{delta_change}}"),),
        "bars",
    ),
    Panel(
        "Bytes",
        "Bytes that commits added and removed in each interval.",
        "bytes",
        ((by("delta_change", f"delta_commit_size_bytes_total{{{JOB}}}"), "{{delta_change}}"),),
        "bars",
    ),
    Panel(
        "Retries of commits",
        "Commits that were tried again after a conflict.",
        "short",
        (
            (
                by("db_operation_name", f"delta_commit_retries_total{{{JOB}}}"),
                "{{db_operation_name}}",
            ),
        ),
        "bars",
    ),
    Panel(
        "Jobs with the most rows",
        f"Rows added in the range that is shown; past {TOP} jobs: `_other`.",
        "short",
        (
            (
                top("job", f'delta_commit_rows_total{{delta_change="added", {JOB}}}'),
                "{{job}}",
            ),
        ),
        "bargauge",
    ),
    Panel(
        "Tables with the most operations",
        f"In the range that is shown; past {TOP} tables: `_other`.",
        "short",
        (
            (
                top(
                    "db_collection_name",
                    TABLES % "",
                    f"traces_table_metrics_calls_total{{{JOB}}}",
                ),
                "{{db_collection_name}}",
            ),
        ),
        "bargauge",
    ),
    Panel(
        "Tables with the most rows",
        f"Rows added in the range that is shown; past {TOP} tables: `_other`.",
        "short",
        (
            (
                top("db_collection_name", ROWS % ', db_collection_name!=""', ROWS % ""),
                "{{db_collection_name}}",
            ),
        ),
        "bargauge",
    ),
    Panel(
        "Tables with the most failures",
        f"In the range that is shown; past {TOP} tables: `_other`.",
        "short",
        ((top("db_collection_name", TABLES % FAILED), "{{db_collection_name}}"),),
        "bargauge",
    ),
    Panel(
        "Policies with the most operations",
        f"In the range that is shown; past {TOP} policies: `_other`.",
        "short",
        ((top("cache_policy", f"cache_operation_count_total{{{JOB}}}"), "{{cache_policy}}"),),
        "bargauge",
    ),
    Panel(
        "Waiting for the ledger",
        "Operations in spools.",
        "short",
        ((f"sum by (job) (deltawitness_spool_pending{{{JOB}}})", "{{job}}"),),
    ),
    Panel(
        "Burn of the error budget (99.5 %)",
        "1 spends the budget exactly; over 14.4 in an hour spends 2 % of a month's.",
        "short",
        ((burn("1h"), "1 h"), (burn("6h"), "6 h")),
    ),
    Panel(
        "Errors of deltawitness",
        "Beside the writes, which are never touched.",
        "short",
        (
            (
                by("deltawitness_component", "deltawitness_internal_errors_total"),
                "error: {{deltawitness_component}}",
            ),
            (
                by("deltawitness_component", "deltawitness_events_dropped_total"),
                "dropped: {{deltawitness_component}}",
            ),
        ),
        "bars",
    ),
    Panel(
        "Queue to the backend",
        "How full the Collector's queue on disk is.",
        "percentunit",
        (
            (
                "otelcol_exporter_queue_size / otelcol_exporter_queue_capacity",
                "{{exporter}} {{data_type}}",
            ),
        ),
    ),
    Panel(
        "Decisions of the sampler",
        "Traces kept, by the policy that kept them.",
        "ops",
        (
            (
                f"sum by (policy) (rate({DECISIONS}[$__rate_interval]))",
                "{{policy}}",
            ),
        ),
    ),
)


def panel_json(number: int, panel: Panel) -> dict[str, Any]:
    """Return a panel as Grafana stores it.

    Args:
        number: its place, from 0 on.
        panel: the panel.
    """
    is_bars = panel.type == "bars"
    custom = {"drawStyle": "bars", "fillOpacity": 80, "stacking": {"mode": "normal"}}
    options: dict[str, Any] = {
        "heatmap": {"calculate": False},
        "bargauge": {"orientation": "horizontal"},
    }.get(panel.type, {})
    targets = []
    for letter, (expression, legend) in zip("AB", panel.queries, strict=False):
        target = {
            "refId": letter,
            "datasource": SOURCE,
            "expr": expression,
            "legendFormat": legend,
        }
        if panel.type == "heatmap":
            target["format"] = "heatmap"
        if panel.type == "bargauge":
            target["instant"] = True
        targets.append(target)
    return {
        "id": number + 1,
        "title": panel.title,
        "type": "timeseries" if is_bars else panel.type,
        "description": panel.description,
        "datasource": SOURCE,
        # At least as long as the interval between two scrapes.
        "interval": "1m",
        "gridPos": {
            "x": number % COLUMNS * WIDTH,
            "y": number // COLUMNS * HEIGHT,
            "w": WIDTH,
            "h": HEIGHT,
        },
        "fieldConfig": {
            "defaults": {"unit": panel.unit, **({"custom": custom} if is_bars else {})},
            "overrides": [],
        },
        "options": options,
        "targets": targets,
    }


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    return {
        "title": "Delta writes",
        "uid": "deltawitness",
        "schemaVersion": 39,
        "version": 2,
        "editable": True,
        "refresh": "1m",
        "tags": ["delta-lake", "deltawitness"],
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "type": "datasource",
                    "query": "prometheus",
                    "label": "Data source",
                },
                {
                    "name": "service",
                    "type": "query",
                    "label": "Service",
                    "datasource": SOURCE,
                    "query": "label_values(traces_span_metrics_calls_total, service_name)",
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                },
            ]
        },
        "panels": [panel_json(number, panel) for number, panel in enumerate(PANELS)],
    }


def page_of_panels() -> str:
    """Return the table of the panels for the page of the Collector."""
    rows = "".join(f"| {panel.title} | {panel.description} |\n" for panel in PANELS)
    return f"| panel | what it shows |\n|---|---|\n{rows}"


if __name__ == "__main__":
    text = json.dumps(dashboard(), indent=2) + "\n"
    if "--check" in sys.argv[1:]:
        sys.exit(None if PATH.read_text() == text else f"{PATH.name}: run tools/dashboard.py")
    PATH.write_text(text)
    print(page_of_panels(), end="")
