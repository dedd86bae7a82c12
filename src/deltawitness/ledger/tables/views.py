"""SQL views over the ledger's tables: the questions of operators as relations.

The texts are in the common part of the SQL of DataFusion and of DuckDB; they name the relations `inventory` and
`runs`. Only the relation `runs` itself, in which the processes of a run are summed, has one text for each
engine: DataFusion builds it as a frame (:mod:`deltawitness.ledger.tables.frames`), DuckDB executes
:func:`duckdb_runs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deltawitness.ledger.tables.schema import (
    OPENER_COLUMNS,
    PARTITION,
    RUNS,
    UNSUMMED_COUNTS,
    ColumnKind,
)

__all__ = ["LAST_END", "VIEWS", "duckdb_runs", "view_statements"]

_TABLE = "table_id, table_uri, table_name"

_WRITES = """
SELECT i.*, r.parent_run_id, r.status AS run_status, r.message AS run_message, r.author,
       r.code_version, r.system, r.pipeline, r.pipeline_run_id, r.task,
       r.start_time AS run_start_time, r.end_time AS run_end_time
FROM {inventory} i LEFT JOIN {runs} r ON r.run_id = i.run_id
"""

_ERRORS = f"""
SELECT event_time, run_id, write_id, trace_id, job, operation, mode, {_TABLE}, error_type, exception_type,
       error_message, landed, version, code_file, code_line, code_function
FROM {{inventory}} WHERE result = 'error'
"""

_VERSIONS = f"""
SELECT {_TABLE}, version, event_time, run_id, write_id, trace_id, job, operation, mode, rows_added,
       rows_updated, rows_deleted, bytes_added, duration_ms
FROM (SELECT {_TABLE}, unnest(versions) AS version, event_time, run_id, write_id, trace_id, job, operation,
             mode, rows_added, rows_updated, rows_deleted, bytes_added, duration_ms
      FROM {{inventory}}) made
"""

_EDGES = """
SELECT source['table_id'] AS source_table_id, source['uri'] AS source_uri, source['version'] AS source_version,
       table_id, table_uri, table_name, version, kind, event_time, run_id, write_id, job
FROM (SELECT unnest(inputs) AS source, 'exact' AS kind, table_id, table_uri, table_name, version, event_time,
             run_id, write_id, job FROM {inventory} WHERE version IS NOT NULL
      UNION ALL
      SELECT unnest(run_inputs) AS source, 'inferred' AS kind, table_id, table_uri, table_name, version,
             event_time, run_id, write_id, job FROM {inventory} WHERE version IS NOT NULL) used
"""

_OUTPUTS = """
SELECT run_id, job, table_id, max(table_uri) AS table_uri, max(table_name) AS table_name,
       min(version) AS first_version, max(version) AS last_version, count(*) AS writes,
       CAST(sum(rows_added) AS BIGINT) AS rows_added, CAST(sum(rows_updated) AS BIGINT) AS rows_updated,
       CAST(sum(rows_deleted) AS BIGINT) AS rows_deleted, CAST(sum(bytes_added) AS BIGINT) AS bytes_added,
       min(event_time) AS first_time, max(event_time) AS last_time
FROM {inventory} WHERE version IS NOT NULL GROUP BY run_id, job, table_id
"""

_TABLES = """
SELECT table_id, max(table_uri) AS table_uri, max(table_name) AS table_name, max(version) AS last_version,
       min(event_time) AS first_time, max(event_time) AS last_time,
       CAST(sum(CASE WHEN version IS NOT NULL THEN 1 ELSE 0 END) AS BIGINT) AS writes,
       CAST(sum(CASE WHEN result = 'error' THEN 1 ELSE 0 END) AS BIGINT) AS errors,
       count(DISTINCT run_id) AS runs, count(DISTINCT job) AS jobs,
       CAST(sum(rows_added) AS BIGINT) AS rows_added,
       CAST(sum(bytes_added) AS BIGINT) AS bytes_added, CAST(sum(retries) AS BIGINT) AS retries
FROM {inventory} WHERE table_id IS NOT NULL GROUP BY table_id
"""

_JOBS = """
SELECT job, count(*) AS runs, CAST(sum(CASE WHEN status = 'ok' THEN 1 ELSE 0 END) AS BIGINT) AS ok,
       CAST(sum(CASE WHEN status = 'error' THEN 1 ELSE 0 END) AS BIGINT) AS errors,
       max(end_time) AS last_end_time,
       median(CASE WHEN status <> 'abandoned' AND end_time >= start_time
                   THEN CAST(extract(epoch FROM end_time - start_time) AS DOUBLE) END) AS median_seconds,
       CAST(sum(writes) AS BIGINT) AS writes, CAST(sum(rows_added) AS BIGINT) AS rows_added
FROM {runs} GROUP BY job
"""

_CACHE_RESULTS = """
SELECT policy, table_id, max(table_name) AS table_name, result, reason, count(*) AS reads,
       CAST(sum(rows_served) AS BIGINT) AS rows_served, max(event_time) AS last_time
FROM {inventory} WHERE result IN ('hit', 'miss') GROUP BY policy, table_id, result, reason
"""

VIEWS: Mapping[str, str] = {
    "writes": _WRITES,
    "errors": _ERRORS,
    "versions": _VERSIONS,
    "edges": _EDGES,
    "outputs": _OUTPUTS,
    "tables": _TABLES,
    "jobs": _JOBS,
    "cache_results": _CACHE_RESULTS,
}
"""The query of each view, with `{inventory}` and `{runs}` where it names these relations."""


LAST_END = "coalesce(max(CASE WHEN status <> 'abandoned' THEN end_time END), max(end_time))"
"""The end of a run with several rows. That of an abandoned process is when it was found, perhaps days later."""


def view_statements(schema: str) -> Iterator[tuple[str, str]]:
    """Yield name and query of each view.

    Args:
        schema: the schema with the relations `inventory` and `runs`.
    """
    names = {name: f"{schema}.{name}" for name in ("inventory", "runs")}
    for view, query in VIEWS.items():
        yield view, " ".join(query.format(**names).split())


def duckdb_runs(source: str) -> str:
    """Return the query, for DuckDB, that sums the processes of a run, as `frames.frame_of` does.

    Args:
        source: a relation with the rows of the ledger's table of runs.
    """
    order = "ORDER BY is_part DESC NULLS LAST, end_time NULLS LAST"
    names = [name for name, *_ in RUNS.columns]
    summed = [
        name
        for name, kind, _ in RUNS.columns
        if kind is ColumnKind.COUNT and name not in UNSUMMED_COUNTS
    ]
    values = {
        "run_id": "run_id",
        **{name: f"min({name})" for name in (PARTITION, "start_time")},
        "end_time": LAST_END,
        **{name: f"last({name} {order})" for name in OPENER_COLUMNS},
        **{name: f"CAST(sum({name}) AS BIGINT)" for name in summed},
        "operations": "flatten(list(operations) FILTER (operations IS NOT NULL))",
        "table_ids": "list_distinct(flatten(list(table_ids)))",
        "tables_touched": "len(list_distinct(flatten(list(table_ids))))",
        "attributes": f"last(attributes {order})",
        "processes": "count(DISTINCT concat_ws(':', host, CAST(pid AS VARCHAR)))",
    }
    columns = ", ".join(
        f"{values[name]} AS {name}" for name in (*names, "processes") if name in values
    )
    rebuilt = "coalesce(status = 'reconstructed', false)"
    return (
        f"WITH recorded AS (SELECT * FROM {source} WHERE NOT {rebuilt}),"
        f" parts AS (SELECT * FROM recorded UNION ALL BY NAME SELECT * FROM {source}"
        f" WHERE {rebuilt} AND run_id NOT IN (SELECT run_id FROM recorded))"
        f" SELECT {columns} FROM parts GROUP BY run_id"
    )
