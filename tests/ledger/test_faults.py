"""Faults injected into ledgers: `reconcile` and `ledger verify` report each, and nothing else."""

from __future__ import annotations

import random
import shutil
from collections import Counter

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaCache, DeltaLakeInstrumentor, Ledger, ObservedSessionContext, Settings
from deltawitness import run as open_run
from deltawitness.ids_and_clock import new_id
from deltawitness.ledger.reconcile.findings import Difference
from deltawitness.ledger.tables.schema import INVENTORY, PARTITION
from helpers.engine_versions import skip_without_session
from helpers.ledger_parts import one, rows_of

pytestmark = pytest.mark.slow

PHANTOM = 90
"""A version beyond the end of every log here."""


class World:
    """A few tables with observed writes, and their ledger, in which faults are injected.

    Attributes:
        ledger: the ledger.
        rows: the rows of its inventory; changed in memory, then written back.
        expected: the expected findings of a reconcile: kind and write id, or kind and version.
        problems: the expected problems of `ledger verify`, by kind.
    """

    def __init__(self, folder, chance):
        self.folder, self.chance = folder, chance
        self.ledger = Ledger(folder / "cache")
        self.tables = [str(folder / f"t{number}") for number in range(chance.randint(2, 3))]
        self.expected = Counter()
        self.problems = Counter()
        self.faulty = set()
        DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(folder / "cache")))
        with open_run("history"):
            for table in self.tables:
                self._history(table)
            if chance.random() < 0.3:
                self._cached(folder)
        DeltaLakeInstrumentor().uninstrument()
        self.ledger.drain()
        self.rows = rows_of(self.ledger.root, INVENTORY, order="event_time")
        self.unused = [row for row in self.rows if row["version"] is not None and _commits(row)]
        chance.shuffle(self.unused)

    def _history(self, table):
        chance = self.chance
        for _ in range(chance.randint(3, 5)):
            what = chance.choice(["append", "append", "delete", "nothing", "vacuum"])
            if what == "append" or not DeltaTable.is_deltatable(table):
                write_deltalake(table, pa.table({"x": list(range(3))}), mode="append")
            elif what == "vacuum":
                opened = DeltaTable(table)
                opened.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
            else:
                DeltaTable(table).delete("x = 1" if what == "delete" else "x = 99")

    def _cached(self, folder):
        skip_without_session()
        ctx = ObservedSessionContext()
        ctx.register_delta("t", self.tables[0])
        cache = DeltaCache(ctx, str(folder / "kept"))
        for number in range(2):
            cache.view("v", "SELECT sum(x) AS s FROM t")
            cache.view("v", "SELECT sum(x) AS s FROM t")
            if not number:
                write_deltalake(self.tables[0], one(5), mode="append")
                ctx.refresh("t")
        cache.snapshot(["tables"])

    def _take(self):
        """Return a row for a fault; its table is not recreated afterwards."""
        row = self.unused.pop()
        self.faulty.add(row["table_uri"])
        return row

    # --- faults --------------------------------------------------------------------------------------

    def doubled(self):
        """A row is duplicated."""
        row = self._take()
        self.rows.append(dict(row))
        self.expected["differing", Difference.DOUBLED, row["write_id"]] += 1
        self.problems["doubled_operation"] += 1

    def doubled_as_another(self):
        """A second row, of the same run and time, names the version of a write that has its row."""
        row = self._take()
        self.rows.append(row | {"write_id": (name := new_id())})
        self.expected["differing", Difference.OTHER_WRITE, name] += 1
        self.problems["differing_row"] += 1

    def renamed(self):
        """The only row of a commit has the id of no commit."""
        row = self._take()
        self.expected["missing", row["write_id"]] += 1
        row["write_id"] = new_id()
        self.expected["differing", Difference.OTHER_WRITE, row["write_id"]] += 1
        self.problems["differing_row"] += 1

    def missing(self):
        """A commit has no row."""
        row = self._take()
        self.rows.remove(row)
        self.expected["missing", row["write_id"]] += 1

    def phantom(self):
        """A row names a version beyond the end of the log."""
        row = self._take()
        version = PHANTOM + self.chance.randint(0, 9)
        self.rows.append(
            row | {"write_id": (name := new_id()), "version": version, "versions": [version]}
        )
        self.expected["phantom", name, version] += 1
        self.problems["phantom_row"] += 1

    def wrong_version(self):
        """A row names the version of another write."""
        row = self._take()
        others = [
            other["version"]
            for other in self.rows
            if other["table_uri"] == row["table_uri"]
            and _commits(other)
            and other["version"] not in {None, *row["versions"]}
            and other["version"] < PHANTOM
        ]
        if not others:
            return
        row["version"] = self.chance.choice(others)
        row["versions"] = [row["version"]]
        self.expected["differing", Difference.MISSING_COMMIT, row["write_id"]] += 1
        self.problems["differing_row"] += 1

    def of_another_table(self):
        """A second row of a write names another table."""
        row = self._take()
        other = next(
            (
                found
                for found in self.unused
                # Not a table that was created later: the row would belong to its predecessor.
                if found["table_uri"] != row["table_uri"]
                and found["versions"] == row["versions"]
                and found["event_time"] < row["event_time"]
            ),
            None,
        )
        if other is None:
            return
        self.rows.append(row | {"table_uri": other["table_uri"]})
        self.faulty.add(other["table_uri"])
        self.expected["differing", Difference.OTHER_WRITE, row["write_id"]] += 1
        self.problems["doubled_operation"] += 1
        self.problems["differing_row"] += 1

    def foreign(self):
        """A process that is not observed commits."""
        table = self.chance.choice(self.tables)
        write_deltalake(table, one(7), mode="append")
        self.expected["foreign", DeltaTable(table).version()] += 1
        self.faulty.add(f"file://{table}")

    def recreated(self):
        """A process that is not observed recreates a table at the same location, at once."""
        uri = f"file://{self.tables[-1]}"
        if uri in self.faulty or len(self.tables) == 1:
            return  # recreating it would remove the faults that it has already
        self.unused = [row for row in self.unused if row["table_uri"] != uri]
        table = self.tables.pop()
        shutil.rmtree(table)
        for number in range(self.chance.randint(1, 6)):
            write_deltalake(table, one(number), mode="append")
            self.expected["foreign", number] += 1

    def write_back(self):
        """Recreate the inventory from the changed rows."""
        location = self.ledger.root.uri_of(INVENTORY)
        shutil.rmtree(location)
        self.ledger.root.open_or_create(INVENTORY)
        rows = pa.Table.from_pylist(self.rows, INVENTORY.schema)
        write_deltalake(location, rows, mode="append", partition_by=[PARTITION])


def _commits(row):
    return row["cache_operation"] not in {"read", "snapshot"}


FAULTS = [
    "doubled",
    "doubled_as_another",
    "renamed",
    "missing",
    "phantom",
    "wrong_version",
    "of_another_table",
    "foreign",
    "recreated",
]


def found_by(plan):
    """Return the findings of a reconcile in the form of `World.expected`."""
    found = Counter()
    for write in plan.missing:
        found["missing", write.write_id] += 1
    for write in plan.foreign:
        found["foreign", write.versions[-1]] += 1
    for row in plan.phantom:
        found["phantom", row.write_id, row.version] += 1
    for row in plan.differing:
        found["differing", row.difference, row.write_id] += 1
    return found


def check(world, faults):
    """Inject faults, and assert that exactly these are found."""
    for fault in faults:
        if fault in {"foreign", "recreated"} or world.unused:
            getattr(world, fault)()
    world.write_back()
    # Tables are passed, because the inventory does not name a table that has lost all its rows.
    logs = world.folder.rglob("_delta_log")
    tables = [str(log.parent) for log in logs if "cache_ledgers" not in log.parts]
    plan = world.ledger.reconcile(tables, full=True)
    assert found_by(plan) == world.expected
    assert plan.unreadable == ()
    found = world.ledger.verify()
    assert Counter(finding.problem.value for finding in found.findings) == world.problems
    plan.apply()
    kept = {
        key: count for key, count in world.expected.items() if key[0] in {"differing", "phantom"}
    }
    assert found_by(world.ledger.reconcile(tables, full=True)) == kept


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.one_case_in(3)
def test_each_fault_by_itself(tmp_path, fault):
    """A single fault is reported as one finding of its kind."""
    check(World(tmp_path, random.Random(3)), [fault])


@pytest.mark.timeout(1800)
def test_faults_in_random_ledgers(tmp_path, size, say):
    """Every fault of a random combination is reported, and nothing else."""
    count, planted = size(10, 150, 2), Counter()
    for seed in range(count):
        chance = random.Random(seed)
        world = World(tmp_path / str(seed), chance)
        faults = chance.choices(FAULTS, k=chance.randint(0, 5))
        check(world, faults)
        planted.update(key[0] for key in world.expected.elements())
        shutil.rmtree(tmp_path / str(seed))
    say(
        f"ledger faults: {count} random ledgers, findings {dict(sorted(planted.items()))}, none else"
    )
