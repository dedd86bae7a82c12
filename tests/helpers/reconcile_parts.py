"""Observed and foreign commits for tests of reconcile, and the rows that it appends."""

from __future__ import annotations

import json
import time
from pathlib import Path

from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings
from deltawitness.ledger.drain.drain import append
from deltawitness.ledger.tables.arrow import operation_rows
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.ledger.tables.write_rows import as_json, ledger_uri
from helpers.ledger_parts import one, operation_row, rows_of

CLEAN = {"missing": 0, "foreign": 0, "phantom": 0, "differing": 0, "unreadable": 0}


def observe(cache, **options):
    """Record the writes of this process in a ledger."""
    settings = Settings(cache_root=cache, **options.pop("settings", {}))
    DeltaLakeInstrumentor().instrument(settings=settings, **options)


def observed_elsewhere(tmp_path, table, count):
    """Write several times with another ledger: commits with our metadata, and no row here."""
    observe(str(tmp_path / "elsewhere"))
    for number in range(count):
        write_deltalake(table, one(number), mode="append")
    DeltaLakeInstrumentor().uninstrument()


def commit_file(table, version):
    return Path(table, "_delta_log", f"{version:020d}.json")


def info_of(table, version):
    lines = commit_file(table, version).read_text().splitlines()
    return next(json.loads(line)["commitInfo"] for line in lines if "commitInfo" in line)


def add_commit(table, version, *lines):
    """Add a commit of another engine to a log, from raw lines or actions."""
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    commit_file(table, version).write_bytes(b"\n".join(texts) + b"\n")


def now_ms():
    return time.time_ns() // 1_000_000


def inventory_rows(ledger, columns="write_id, versions, source"):
    return rows_of(ledger.root, INVENTORY, columns, order="version")


def recorded_versions(ledger, table=None):
    """Return every version in the inventory, once per row that names it."""
    rows = rows_of(ledger.root, INVENTORY, "table_uri, versions")
    here = [row for row in rows if table is None or row["table_uri"] == ledger_uri(table)]
    return sorted(version for row in here for version in row["versions"] or ())


def add_row(ledger, **row):
    rows = operation_rows([as_json(operation_row(**row)).encode()])
    return append(ledger.root, INVENTORY, lambda _: (rows, {f"test/{row['write_id']}": 1}))
