"""Ledgers whose rows are written directly, for reports of names and messages that no engine would accept."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness.column_sources import ColumnSource, ColumnUse, WriteColumns
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, LedgerRoot

START = dt.datetime(2026, 3, 1, 8, tzinfo=dt.UTC)

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror='window.hacked = 1'>",
    "\"'><b id=injected>&amp;",
    "--><!--]]>",
    "javascript:window.hacked=1",
    "a\x00b\x1b[31m",
    "abc\u202egpj.exe",
    "\u05e9\u05dc\u05d5\u05dd",
    "long " * 2_000,
    "z" * 10_000,
)
"""Names and messages that a careless page would run, or show as something else."""


COLUMNS = WriteColumns(
    {
        "id": (ColumnSource(0, "id", ColumnUse.IDENTITY),),
        "euros": (ColumnSource(0, "price", ColumnUse.AGGREGATION),),
    },
    (ColumnSource(0, "state", ColumnUse.FILTER),),
).to_text()
"""The columns of a write that has read one table, as the ledger has them."""


def write_ledger(root: Path, inventory: list[dict[str, Any]], runs: list[dict[str, Any]]) -> str:
    """Write rows to a new ledger, and return its root."""
    place = LedgerRoot(str(root))
    for table, rows in ((INVENTORY, inventory), (RUNS, runs)):
        opened = place.open_or_create(table)
        data = pa.Table.from_pylist(rows, schema=pa.schema(opened.schema()))
        write_deltalake(opened, data, mode="append")
    return str(root)


def operation(number: int, **values: Any) -> dict[str, Any]:
    """Return the row of an operation that began a number of minutes after the start."""
    time = START + dt.timedelta(minutes=number)
    name = values.get("table_name", "orders")
    return {
        "event_date": time.date(),
        "event_time": time,
        "run_id": "00000001-0000-7000-8000-000000000000",
        "write_id": f"write-{number}",
        "job": "load",
        "operation": "WRITE",
        "mode": "append",
        "scope": "dataset",
        "policy": "unmanaged",
        "result": "write",
        "table_uri": f"file:///lake/{name}",
        "table_id": f"id-{name}",
        "table_name": name,
        "version": number,
        "versions": [number],
        "rows_added": 10 + number,
        "files_added": 1,
        "bytes_added": 1000,
        "retries": 0,
        "duration_ms": 1500.0,
        "source": "observed",
        **values,
    }


def run_row(number: int, **values: Any) -> dict[str, Any]:
    """Return the row of a run that began a number of minutes after the start."""
    time = START + dt.timedelta(minutes=number)
    counts = ("reads", "hits", "misses", "writes", "snapshots", "noops", "errors", "dropped")
    return {
        "event_date": time.date(),
        "run_id": f"{number + 1:08}-0000-7000-8000-000000000000",
        "job": "load",
        "is_part": False,
        "start_time": time,
        "end_time": time + dt.timedelta(seconds=30),
        "status": "ok",
        "host": "worker",
        "pid": 1,
        **dict.fromkeys(counts, 0),
        **values,
    }


_USE = ColumnUse.TRANSFORMATION


def hostile_ledger(root: Path) -> str:
    """Write a ledger with a hostile text in each place, and return its root."""
    inventory, runs = [], []
    for number, text in enumerate(HOSTILE):
        run_id = f"{text[:40]}-{number}"
        names = {
            "job": text,
            "run_id": run_id,
            "table_name": text,
            "table_uri": f"file:///lake/{text}",
        }
        failed = {
            "result": "error",
            "version": None,
            "versions": [],
            "landed": "yes",
            "error_type": text,
        }
        inventory += [
            operation(number, **names, message=text, code_file=text, code_line=1),
            operation(number, **names, **failed, error_message=text, write_id=text),
            operation(
                number,
                **names,
                result="miss",
                operation=None,
                cache_operation="read",
                policy=text,
                reason=text,
            ),
            operation(
                number,
                table_name="orders",
                retries=1,
                inputs=[{"uri": f"file:///lake/{text}", "table_id": text, "version": number}],
                plan_hash="plan",
                column_lineage=WriteColumns({text: (ColumnSource(0, text, _USE),)}).to_text(),
                write_id=f"made-{number}",
                version=number + 1,
            ),
        ]
        runs.append(
            run_row(number, run_id=run_id, job=text, message=text, status="error", error_type=text)
        )
    return write_ledger(root, inventory, runs)
