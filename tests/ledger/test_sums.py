"""Sums: a run's row equals the sums over its operations, the metrics and the commits."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from deltawitness import (
    DeltaCache,
    DeltaLakeInstrumentor,
    Ledger,
    ObservedSessionContext,
    Settings,
    WritePipeline,
    WriteRequest,
    flush,
)
from deltawitness import run as open_run
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.testing import InMemoryTelemetry
from helpers.engine_versions import skip_without_session
from helpers.ledger_parts import rows_of

pytestmark = pytest.mark.slow

COUNTS = (
    *("rows_added", "rows_updated", "rows_deleted", "files_added", "files_removed"),
    *("bytes_added", "bytes_removed", "retries", "files_deleted", "bytes_deleted", "rows_served"),
)
"""Columns of a run that are sums of the same columns of its operations."""

CHANGES = {
    ("delta.commit.rows", "added"): "rows_added",
    ("delta.commit.rows", "updated"): "rows_updated",
    ("delta.commit.rows", "deleted"): "rows_deleted",
    ("delta.commit.rows", "copied"): "rows_copied",
    ("delta.commit.files", "added"): "files_added",
    ("delta.commit.files", "removed"): "files_removed",
    ("delta.commit.files", "deleted"): "files_deleted",
    ("delta.commit.size", "added"): "bytes_added",
    ("delta.commit.size", "removed"): "bytes_removed",
    ("delta.commit.size", "deleted"): "bytes_deleted",
}


class Program:
    """Random operations on a few tables, in nested runs.

    Attributes:
        folder: the folder of its tables.
        tables: their locations.
    """

    def __init__(self, folder, chance):
        self.folder, self.chance = folder, chance
        self.tables = [str(folder / "plain"), str(folder / "changes")]
        self.made = 0
        self.whole = {}
        skip_without_session()
        self.ctx = ObservedSessionContext()
        self.cache = DeltaCache(self.ctx, str(folder / "kept"))

    def run(self):
        write_deltalake(self.tables[0], self.rows(), partition_by=["part"])
        enabled = {"delta.enableChangeDataFeed": "true"}
        write_deltalake(self.tables[1], self.rows(), configuration=enabled)
        for table in self.tables:
            self.ctx.register_delta(Path(table).name, table)
        for _ in range(self.chance.randint(3, 9)):
            if self.chance.random() < 0.15:
                with open_run("inner"):
                    self.step()
            else:
                self.step()

    def step(self):
        name = self.chance.choice(OPERATIONS)
        try:
            getattr(self, name)()
        except Exception as error:
            if name not in {"fails", "lands_and_fails"}:
                msg = f"{name}: {error}"
                raise AssertionError(msg) from error

    def rows(self):
        count = self.chance.randint(1, 5)
        ids = [self.chance.randint(0, 9) for _ in range(count)]
        return pa.table({"id": ids, "part": [i % 2 for i in ids], "v": ["a"] * count})

    @property
    def table(self):
        return DeltaTable(self.chance.choice(self.tables))

    def append(self):
        write_deltalake(self.chance.choice(self.tables), self.rows(), mode="append")

    def appends_no_row(self):
        write_deltalake(self.table, self.rows().slice(0, 0), mode="append")

    def overwrites(self):
        write_deltalake(self.table, self.rows(), mode="overwrite")

    def replaces(self):
        rows = pa.table({"id": [1, 1], "part": [1, 1], "v": ["r", "r"]})
        write_deltalake(self.table, rows, mode="overwrite", predicate="part = 1 AND id = 1")

    def ignores(self):
        write_deltalake(self.tables[0], self.rows(), mode="ignore")

    def deletes(self):
        self.table.delete(self.chance.choice(["id < 3", "id = 77", "part = 0", None]))

    def deletes_nothing(self):
        self.table.delete("id = 77")

    def deletes_all(self):
        DeltaTable(self.tables[0]).delete()

    def vacuums_all(self):
        DeltaTable(self.tables[0]).vacuum(0, dry_run=False, enforce_retention_duration=False)

    def updates(self):
        self.table.update(updates={"v": "'u'"}, predicate=self.chance.choice(["id > 4", "id = 77"]))

    def merges(self):
        merge = self.table.merge(
            self.rows()
            .group_by("id")
            .aggregate([("part", "min"), ("v", "min")])
            .rename_columns(["id", "part", "v"]),
            "t.id = s.id",
            source_alias="s",
            target_alias="t",
        )
        if self.chance.random() < 0.5:
            merge = merge.when_matched_delete("t.part = 0")
        merge.when_matched_update_all().when_not_matched_insert_all().execute()

    def compacts(self):
        self.table.optimize.compact()

    def orders(self):
        self.table.optimize.z_order(["id"])

    def vacuums(self):
        table, is_dry = self.table, self.chance.random() < 0.3
        table.vacuum(0, dry_run=is_dry, enforce_retention_duration=False)
        if not is_dry:
            self.whole[table.table_uri] = table.version()

    def restores(self):
        table = self.table
        # A VACUUM may have deleted files of an earlier version.
        first = self.whole.get(table.table_uri, 0)
        if table.version() > first:
            table.restore(self.chance.randint(first, table.version() - 1))

    def alters(self):
        self.table.alter.set_table_properties({"delta.logRetentionDuration": "interval 9 days"})

    def checkpoints(self):
        self.table.create_checkpoint()

    def fails(self):
        write_deltalake(self.table, pa.table({"id": ["text"]}), mode="append")

    def lands_and_fails(self):
        self.made += 1
        uri = str(self.folder / f"landed{self.made}")
        self.tables.append(uri)
        every = {"delta.checkpointInterval": "1"}
        write_deltalake(uri, self.rows(), configuration=every)
        log = Path(uri, "_delta_log")
        (log / "_last_checkpoint").unlink(missing_ok=True)
        (log / "_last_checkpoint" / "x").mkdir(parents=True)
        self.tables.pop()
        write_deltalake(uri, self.rows(), mode="append")

    def inserts(self):
        self.ctx.sql("INSERT INTO plain VALUES (3, 1, 'i'), (4, 0, 'i')").collect()

    def looks(self):
        self.ctx.refresh("plain")
        self.cache.view("kept", "SELECT id, v FROM plain")

    def snapshots(self):
        self.cache.snapshot(self.chance.choice([["tables"], ["settings"]]))

    def exports(self):
        self.made += 1
        self.ctx.sql("SELECT id FROM plain").write_parquet(str(self.folder / f"out{self.made}"))

    def writes_by_pipeline(self):
        self.made += 1
        request = WriteRequest(source=self.rows(), destination=str(self.folder / f"p{self.made}"))
        result = WritePipeline().write(request)
        assert (result.version, result.rows) == (0, request.source.num_rows)


OPERATIONS = [
    name
    for name, member in vars(Program).items()
    if callable(member)
    and not name.endswith(("_all", "_nothing"))
    and name not in {"__init__", "run", "step", "rows"}
]


def tables_below(folder):
    return sorted(
        path.parent for path in folder.rglob("_delta_log") if "cache_ledgers" not in str(path)
    )


def actions_of(path):
    found = {"add": [], "remove": [], "commitInfo": []}
    for line in path.read_text().splitlines():
        for kind, action in json.loads(line).items():
            found.setdefault(kind, []).append(action)
    return found


def assert_rows_are_those_of_commits(rows, folder):
    """Assert that every commit has a row with the files and bytes of its actions."""
    recorded = {}
    for row in rows:
        if row["cache_operation"] not in {"read", "snapshot"}:
            for version in row["versions"] or ():
                recorded.setdefault((row["table_uri"], version), []).append(row)
    commits = {}
    for table in tables_below(folder):
        for path in sorted((table / "_delta_log").glob("*.json")):
            commits[ledger_uri(str(table)), int(path.stem)] = actions_of(path)
    assert recorded.keys() == commits.keys()
    assert {len(here) for here in recorded.values()} <= {1}
    sums = {}
    for commit, actions in commits.items():
        [row] = recorded[commit]
        [info] = actions["commitInfo"]
        assert info["write_id"] == row["write_id"]
        total = sums.setdefault(row["write_id"], Counter())
        total["files_added"] += len(actions["add"])
        total["files_removed"] += len(actions["remove"])
        total["bytes_added"] += sum(add["size"] for add in actions["add"])
        total["bytes_removed"] += sum(remove["size"] for remove in actions["remove"])
    for row in rows:
        if row["write_id"] in sums:
            total = sums[row["write_id"]]
            assert {name: row[name] for name in total} == dict(total), row


def assert_rows_make_the_content(rows, tables):
    """Assert that added and deleted rows add up to a table's content where counts are known."""
    checked = 0
    for table in tables:
        here = [
            row
            for row in rows
            if row["table_uri"] == ledger_uri(table) and row["version"] is not None
        ]
        changes = [(row["rows_added"], row["rows_deleted"]) for row in here]
        if any(None in change for change in changes):
            continue
        held = QueryBuilder().register("t", DeltaTable(table)).execute("SELECT count(*) FROM t")
        assert sum(a - d for a, d in changes) == pa.table(held.read_all())[0][0].as_py()
        checked += 1
    return checked


def assert_runs_are_the_sums_of_rows(rows, runs):
    """Assert that every count of a run's row is the sum over its operations."""
    by_run = {}
    for row in rows:
        by_run.setdefault(row["run_id"], []).append(row)
    for run in runs:
        mine = by_run.pop(run["run_id"], [])
        assert {name: run[name] for name in COUNTS} == {
            name: sum(row[name] or 0 for row in mine) for name in COUNTS
        }
        kinds = Counter((row["cache_operation"], row["result"]) for row in mine)
        assert {(t["operation"], t["result"]): t["count"] for t in run["operations"]} == kinds
        results = Counter(row["result"] for row in mine)
        assert run["reads"] == sum(row["cache_operation"] == "read" for row in mine)
        assert run["snapshots"] == sum(row["cache_operation"] == "snapshot" for row in mine)
        assert run["writes"] == results["write"] - kinds["snapshot", "write"]
        names = {"hits": "hit", "misses": "miss", "noops": "noop", "errors": "error"}
        assert {name: run[name] for name in names} == {n: results[r] for n, r in names.items()}
        touched = {
            row["table_id"]
            for row in mine
            if row["version"] is not None and row["cache_operation"] not in {"read", "snapshot"}
        }
        assert (run["tables_touched"], set(run["table_ids"])) == (len(touched), touched)
    assert by_run == {}
    ids = {run["run_id"] for run in runs}
    assert {run["parent_run_id"] for run in runs} - {None} <= ids


def assert_metrics_are_the_sums_of_rows(rows, points):
    """Assert that the counters equal the sums over the rows of commits and exports."""
    recorded = Counter()
    for name in ("delta.commit.rows", "delta.commit.files", "delta.commit.size"):
        for point in points.get(name, ()):
            recorded[CHANGES[name, point.attributes["delta.change"]]] += point.value
    commits = [row for row in rows if row["operation"] != "COPY"]
    assert recorded == Counter(
        {name: total for name in CHANGES.values() if (total := _sum(commits, name))}
    )
    exported = {
        "deltawitness.export.rows": "rows_added",
        "deltawitness.export.files": "files_added",
        "deltawitness.export.size": "bytes_added",
    }
    copies = [row for row in rows if row["operation"] == "COPY"]
    assert {name: sum(p.value for p in points.get(name, ())) for name in exported} == {
        name: _sum(copies, column) for name, column in exported.items()
    }
    counted = Counter()
    for point in points["cache.operation.count"]:
        attributes = point.attributes
        counted[attributes["cache.operation"], attributes["cache.result"]] += point.value
    assert counted == Counter((row["cache_operation"], row["result"]) for row in rows)


def _sum(rows, name):
    return sum(row[name] or 0 for row in rows)


def observed(folder, chance, program=Program):
    """Run a random program; return it with its rows, runs and metrics."""
    telemetry = InMemoryTelemetry.create()
    settings = Settings(cache_root=str(folder / "cache"))
    DeltaLakeInstrumentor().instrument(settings=settings, **telemetry.providers())
    program = program(folder / "lake", chance)
    with open_run("program"):
        program.run()
    flush()
    points = telemetry.metric_points()
    DeltaLakeInstrumentor().uninstrument()
    ledger = Ledger(folder / "cache")
    ledger.drain()
    rows, runs = rows_of(ledger.root, INVENTORY, order="event_time"), rows_of(ledger.root, RUNS)
    return program, ledger, rows, runs, points


def assert_reconciled_alike(ledger, rows, folder):
    """Assert that a ledger rebuilt from the logs has the same counts."""
    shutil.rmtree(ledger.root.uri)
    tables = [str(path) for path in tables_below(folder)]
    ledger.reconcile(tables, full=True).apply()
    counts = [name for name in (*COUNTS, "rows_copied") if name != "rows_served"]
    again = {row["write_id"]: row for row in rows_of(ledger.root, INVENTORY)}
    for row in rows:
        if row["write_id"] in again:
            rebuilt = again.pop(row["write_id"])
            assert {n: rebuilt[n] for n in counts} == {n: row[n] for n in counts}, row["operation"]
    assert again == {}


@pytest.fixture
def world(tmp_path):
    """Run operations in one run; return the rows, the run's row and the metrics."""

    def carried_out(*names):
        class Fixed(Program):
            def run(self):
                write_deltalake(self.tables[0], self.rows(), partition_by=["part"])
                enabled = {"delta.enableChangeDataFeed": "true"}
                write_deltalake(self.tables[1], self.rows(), configuration=enabled)
                for table in self.tables:
                    self.ctx.register_delta(Path(table).name, table)
                with open_run("looked at"):
                    for name in names:
                        with suppress(Exception):
                            getattr(self, name)()

        _, _, rows, runs, points = observed(tmp_path, random.Random(1), Fixed)
        [run] = [run for run in runs if run["job"] == "looked at"]
        return [row for row in rows if row["run_id"] == run["run_id"]], run, points

    return carried_out


def test_a_write_that_failed_and_landed_counts(world):
    """A failed write that landed is counted in its row, its run's row and the metrics."""
    rows, run, points = world("lands_and_fails")
    first, failed = rows
    assert (failed["result"], failed["landed"], failed["versions"]) == ("error", "yes", [1])
    assert failed["rows_added"] > 0 < failed["bytes_added"]
    assert run["rows_added"] == first["rows_added"] + failed["rows_added"]
    assert (run["writes"], run["errors"], run["tables_touched"]) == (1, 1, 1)
    files = sum(point.value for point in points["delta.commit.files"])
    assert files == 4


def test_a_write_that_failed_and_did_not_land_counts_nothing(world):
    """A failed write that did not land has counts of zero, and its table is not touched."""
    [failed], run, _ = world("fails")
    assert (failed["landed"], failed["rows_added"], failed["files_added"]) == ("no", 0, 0)
    assert (run["errors"], run["tables_touched"], run["table_ids"]) == (1, 0, [])


def test_reads_and_operations_without_a_commit_touch_no_table(world):
    """A table that was only read, or in which no row matched, does not count as touched."""
    rows, run, _ = world("looks", "looks", "deletes_nothing", "checkpoints")
    assert [(row["cache_operation"], row["result"]) for row in rows] == [
        ("read", "miss"),
        ("write", "write"),
        ("read", "hit"),
        ("delete", "noop"),
        ("checkpoint", "noop"),
    ]
    assert (run["tables_touched"], run["table_ids"]) == (1, [rows[1]["table_id"]])
    assert (rows[2]["rows_served"], rows[2]["rows_added"]) == (rows[1]["rows_added"], 0)
    assert run["rows_served"] == rows[2]["rows_served"]


def test_a_snapshot_counts_once(world):
    """A snapshot and its write count as one write, and as one operation each in the metrics."""
    rows, run, points = world("snapshots")
    assert sorted(row["cache_operation"] for row in rows) == ["snapshot", "write"]
    assert (run["writes"], run["snapshots"], run["tables_touched"]) == (1, 1, 1)
    kinds = Counter()
    for point in points["cache.operation.count"]:
        kinds[point.attributes["cache.operation"], point.attributes["cache.scope"]] += point.value
    assert (kinds["snapshot", "metadata"], kinds["write", "metadata"]) == (1, 1)


def test_an_export_has_its_location(world, tmp_path):
    """The row of an export has its location and no version, and touches no table."""
    [row], run, _ = world("exports")
    location = tmp_path / "lake" / "out1"
    assert (row["operation"], row["table_uri"]) == ("COPY", ledger_uri(str(location)))
    assert row["table_id"] is not None
    assert (row["version"], row["rows_added"], run["writes"]) == (None, run["rows_added"], 1)
    assert run["tables_touched"] == 0


def test_a_vacuum_counts_no_file_that_a_delete_has_removed(world):
    """A run that deletes and vacuums counts each removed file once."""
    rows, run, _ = world("deletes_all", "vacuums_all")
    deleted, vacuumed = rows
    assert deleted["files_removed"] == run["files_removed"] > 0 == deleted["files_deleted"]
    assert (vacuumed["files_removed"], vacuumed["bytes_removed"]) == (0, 0)
    assert vacuumed["files_deleted"] == deleted["files_removed"]
    assert vacuumed["bytes_deleted"] == deleted["bytes_removed"] == run["bytes_deleted"]


@pytest.mark.timeout(3000)
def test_sums_of_random_programs(tmp_path, size, say):
    """Runs, operations, metrics and commits agree, also with a ledger rebuilt from the logs."""
    count, contents, done = size(12, 500, 3), 0, Counter()
    for seed in range(count):
        folder = tmp_path / str(seed)
        program, ledger, rows, runs, points = observed(folder, random.Random(seed))
        try:
            assert_rows_are_those_of_commits(rows, folder)
            assert_runs_are_the_sums_of_rows(rows, runs)
            assert_metrics_are_the_sums_of_rows(rows, points)
            contents += assert_rows_make_the_content(rows, program.tables)
            done.update(f"{row['operation']} {row['result']}" for row in rows)
            assert_reconciled_alike(ledger, rows, folder)
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
        shutil.rmtree(folder)
    say(f"sums: {count} random programs, {done.total()} operations of {len(done)} kinds, 0 broken")
    say(f"sums: rows of {contents} tables recorded exactly what they held")
