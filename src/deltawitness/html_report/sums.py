"""Sums of the operations of a report, by SQL: their number does not depend on that of the operations."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deltawitness.html_report.content import (
    CacheCount,
    ErrorCount,
    InputEdge,
    LaneCount,
    RunTable,
    TableCount,
)
from deltawitness.ids_and_clock import in_utc
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.locations import last_segment
from deltawitness.semconv import CacheResult
from deltawitness.sql_quoting import quote_literal

__all__ = [
    "INPUT_COLUMNS",
    "MAX_LANES",
    "MAX_TABLES",
    "OPERATIONS",
    "PARTS",
    "OperationSums",
    "ReasonSums",
    "read_edges",
    "read_lanes",
    "read_reasons",
    "read_run_tables",
    "read_sums",
]

OPERATIONS = "operations"
"""The name under which the ledger stores the operations of the report (`LedgerListing.store`)."""

INPUT_COLUMNS = ("inputs", "run_inputs")
"""The columns with the tables that an operation read, which ledgers of old releases lack."""

MAX_LANES = 30
"""Maximum number of tables in the timeline."""

MAX_TABLES = 500
"""Maximum number of tables that the report lists."""

MAX_EDGES = 200
"""Maximum number of edges of the lineage graph."""

PARTS = 160
"""Number of parts of the time if the timeline has a bar for each part of it."""

_PLACE = "coalesce(table_uri, table_id)"
_HIT, _MISS, _ERROR = (
    quote_literal(result.value) for result in (CacheResult.HIT, CacheResult.MISS, CacheResult.ERROR)
)
_SUMMED = ("rows_added", "rows_updated", "rows_deleted", "files_added", "bytes_added", "retries")


@dataclass(frozen=True, slots=True)
class OperationSums:
    """The sums of all operations.

    Attributes:
        results: number of operations by result.
        first: time of the first operation.
        last: time of the last one.
        tables: the sums by table, those with errors first, then the last written ones.
    """

    results: dict[str, int]
    first: dt.datetime | None
    last: dt.datetime | None
    tables: list[TableCount]

    @property
    def total(self) -> int:
        """The number of operations."""
        return sum(self.results.values())


@dataclass(frozen=True, slots=True)
class ReasonSums:
    """The numbers of failed operations and of reads of the cache, by their reasons.

    Attributes:
        errors: failed operations by type, the most frequent first.
        cache: reads of the cache by policy, result and reason.
        saved_seconds: estimate of the seconds that hits have saved; None if no miss was timed.
    """

    errors: list[ErrorCount]
    cache: list[CacheCount]
    saved_seconds: float | None


def read_sums(ledger: LedgerListing) -> OperationSums:
    """Return the sums of the operations.

    Args:
        ledger: the ledger, with the stored operations.
    """
    summed = ", ".join(f"CAST(coalesce(sum({name}), 0) AS BIGINT) AS {name}" for name in _SUMMED)
    rows = ledger.query(
        f"SELECT {_PLACE} AS place, result, last_value(table_name ORDER BY event_time) AS name,"  # noqa: S608 - quoted
        " count(*) AS count, min(version) AS first_version, max(version) AS last_version,"
        f" {summed}, coalesce(sum(duration_ms), 0.0) AS duration_ms,"
        " min(event_time) AS first_time, max(event_time) AS last_time"
        f" FROM {OPERATIONS} GROUP BY {_PLACE}, result"
    )
    results = Counter[str]()
    by_place: dict[str, list[Row]] = {}
    for row in rows:
        results[row["result"] or "unknown"] += row["count"]
        if row["place"] is not None:
            by_place.setdefault(row["place"], []).append(row)
    tables = [_table(place, same) for place, same in by_place.items()]
    tables.sort(key=lambda each: (each.errors, each.last_time), reverse=True)
    times = [
        (in_utc(row["first_time"]), in_utc(row["last_time"]))
        for row in rows
        if row["first_time"] is not None
    ]
    return OperationSums(
        dict(results),
        min((first for first, _ in times), default=None),
        max((last for _, last in times), default=None),
        tables[:MAX_TABLES],
    )


def _table(place: str, rows: Sequence[Row]) -> TableCount:
    """Return the sums of a table from those by result."""
    counts = {row["result"]: row["count"] for row in rows}
    newest = max(rows, key=lambda row: row["last_time"])
    name = newest["name"] or next((row["name"] for row in rows if row["name"]), None)
    versions = [row for row in rows if row["last_version"] is not None]
    return TableCount(
        place=place,
        name=name or last_segment(place) or place,
        operations=sum(counts.values()),
        writes=counts.get(CacheResult.WRITE.value, 0),
        errors=counts.get(CacheResult.ERROR.value, 0),
        first_version=min((row["first_version"] for row in versions), default=None),
        last_version=max((row["last_version"] for row in versions), default=None),
        **{name: sum(row[name] for row in rows) for name in _SUMMED},
        duration_ms=sum(row["duration_ms"] for row in rows),
        last_time=in_utc(newest["last_time"]),
    )


def read_reasons(ledger: LedgerListing, results: Mapping[str, int]) -> ReasonSums:
    """Return the numbers of failed operations and of reads of the cache.

    Args:
        ledger: the ledger, with the stored operations.
        results: number of operations by result.
    """
    if not any(results.get(name) for name in ("error", "hit", "miss")):
        return ReasonSums([], [], None)
    rows = ledger.query(
        "SELECT result, error_type, landed, policy, reason, count(*) AS count,"  # noqa: S608 - quoted
        " max(event_time) AS last_time, coalesce(sum(duration_ms), 0.0) AS duration_ms,"
        " last_value(error_message ORDER BY event_time) AS message"
        f" FROM {OPERATIONS} WHERE result IN ({_HIT}, {_MISS}, {_ERROR})"
        " GROUP BY result, error_type, landed, policy, reason ORDER BY policy, result, count DESC"
    )
    failed = [row for row in rows if row["result"] == CacheResult.ERROR.value]
    reads = [row for row in rows if row["result"] != CacheResult.ERROR.value]
    cache = [
        CacheCount(row["policy"], row["result"], row["reason"], row["count"], row["duration_ms"])
        for row in reads
    ]
    saved = _saved(ledger) if results.get("hit") and results.get("miss") else None
    return ReasonSums(_errors(failed), cache, saved)


def _errors(rows: Sequence[Row]) -> list[ErrorCount]:
    """Return the numbers by type of error and by whether the commit landed."""
    found: dict[tuple[str | None, str | None], list[Row]] = {}
    for row in rows:
        found.setdefault((row["error_type"], row["landed"]), []).append(row)
    counts = []
    for (error_type, landed), same in found.items():
        newest = max(same, key=lambda row: row["last_time"])
        time = in_utc(newest["last_time"])
        count = sum(row["count"] for row in same)
        counts.append(ErrorCount(error_type, landed, count, time, newest["message"]))
    return sorted(counts, key=lambda each: (each.count, each.last_time), reverse=True)


def _saved(ledger: LedgerListing) -> float | None:
    """Return an estimate of the seconds that hits have saved.

    A hit has saved the mean time of the misses of its key, less its own time.
    """
    saved = ledger.query(
        "SELECT sum(hits * missed - used) AS saved FROM (SELECT key,"  # noqa: S608 - quoted
        f" count(*) FILTER (WHERE result = {_HIT}) AS hits,"
        f" avg(duration_ms) FILTER (WHERE result = {_MISS}) AS missed,"
        f" coalesce(sum(duration_ms) FILTER (WHERE result = {_HIT}), 0.0) AS used"
        f" FROM {OPERATIONS} WHERE key IS NOT NULL AND result IN ({_HIT}, {_MISS})"
        " GROUP BY key)"
    )
    value = saved[0]["saved"] if saved else None
    return None if value is None else max(value / 1000, 0.0)


def read_lanes(ledger: LedgerListing, sums: OperationSums) -> list[LaneCount]:
    """Return the number of operations in each part of the time, by table and result.

    Args:
        ledger: the ledger, with the stored operations.
        sums: the sums of these operations.
    """
    if sums.first is None or sums.last is None:
        return []
    start = round(sums.first.timestamp() * 1_000_000)
    step = max(round((sums.last - sums.first).total_seconds() * 1_000_000) // PARTS + 1, 1)
    micros = "CAST(arrow_cast(event_time, 'Timestamp(Microsecond, None)') AS BIGINT)"
    places = is_in(_PLACE, [table.place for table in sums.tables[:MAX_LANES]])
    rows = ledger.query(
        f"SELECT {_PLACE} AS place, ({micros} - {start}) / {step} AS part, result,"  # noqa: S608 - quoted
        f" count(*) AS count FROM {OPERATIONS} WHERE {places}"
        f" GROUP BY {_PLACE}, ({micros} - {start}) / {step}, result"
    )
    return [
        LaneCount(row["place"], int(row["part"]), row["result"] or "unknown", row["count"])
        for row in rows
    ]


def read_run_tables(ledger: LedgerListing, run_ids: Sequence[str]) -> dict[str, list[RunTable]]:
    """Return the tables that runs have committed to, or have tried to, by id of the run.

    Args:
        ledger: the ledger, with the stored operations.
        run_ids: the runs.
    """
    if not run_ids:
        return {}
    rows = ledger.query(
        f"SELECT run_id, {_PLACE} AS place, max(table_name) AS name, min(version) AS first_version,"  # noqa: S608 - quoted
        f" max(version) AS last_version FROM {OPERATIONS} WHERE {is_in('run_id', run_ids)}"
        f" AND {_PLACE} IS NOT NULL AND (version IS NOT NULL OR result = {_ERROR})"
        f" AND coalesce(result, '') NOT IN ({_HIT}, {_MISS})"
        f" GROUP BY run_id, {_PLACE} ORDER BY min(event_time)"
    )
    found: dict[str, list[RunTable]] = {}
    for row in rows:
        name = row["name"] or last_segment(row["place"]) or row["place"]
        table = RunTable(row["place"], name, row["first_version"], row["last_version"])
        found.setdefault(row["run_id"], []).append(table)
    return found


def read_edges(ledger: LedgerListing) -> list[InputEdge]:
    """Return which table was made from which; without a plan, the tables that the run had read before.

    Args:
        ledger: the ledger, with the stored operations.
    """
    return sorted(_edges(ledger), key=lambda edge: -edge.count)[:MAX_EDGES]


def _edges(ledger: LedgerListing) -> Iterator[InputEdge]:
    there = [name for name in INPUT_COLUMNS if name in ledger.columns(INVENTORY)]
    if not there:
        return
    has_reads = " OR ".join(f"{name} IS NOT NULL" for name in there)
    is_inferred = "inputs IS NULL" if "inputs" in there else "true"
    rows = ledger.query(
        "SELECT source, target, last_value(source_version ORDER BY event_time) AS source_version,"  # noqa: S608 - quoted
        " last_value(version ORDER BY event_time) AS version, count(*) AS count,"
        " last_value(is_inferred ORDER BY event_time) AS is_inferred,"
        " last_value(write_id ORDER BY event_time) AS write_id, max(event_time) AS time FROM"
        " (SELECT coalesce(i['uri'], i['table_id']) AS source, i['version'] AS source_version,"
        " target, version, event_time, write_id, is_inferred FROM"
        f" (SELECT {_PLACE} AS target, version, event_time, write_id, {is_inferred} AS is_inferred,"
        f" unnest(coalesce({', '.join(there)})) AS i"
        f" FROM {OPERATIONS} WHERE version IS NOT NULL AND ({has_reads})))"
        " WHERE source <> target GROUP BY source, target"
    )
    for row in rows:
        yield InputEdge(
            source=row["source"],
            source_version=row["source_version"],
            target=row["target"],
            target_version=row["version"],
            is_inferred=row["is_inferred"],
            count=row["count"],
            write_id=row["write_id"],
            time=in_utc(row["time"]),
        )
