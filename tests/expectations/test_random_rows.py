"""Random rows and rules: a write commits if, and only if, a plain Python reading of the rules says so."""

from __future__ import annotations

import random
from collections import Counter

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import expect
from deltawitness.exceptions import ExpectationError

COLUMNS = ("a", "b", "c")


def random_rows(dice):
    """Return rows with few distinct values, nulls, and sometimes no rows or no column `c`."""
    count = dice.choice([0, 1, 2, 3, 5, 8])
    names = COLUMNS if dice.random() < 0.8 else COLUMNS[:2]
    span = dice.choice([1, 4, 30])
    return [
        {name: None if dice.random() < 0.15 else dice.randint(0, span) for name in names}
        for _ in range(count)
    ], names


def random_rules(dice):
    rules = {}
    if dice.random() < 0.4:
        low = dice.choice([None, 0, 1, 3])
        rules["rows_added"] = (low, dice.choice([3, 5, 9]))
    if dice.random() < 0.5:
        most = dice.choice([0, 1, 0.25, 0.5])
        rules["nulls"] = dict.fromkeys(dice.sample(COLUMNS, dice.randint(1, 2)), most)
    if dice.random() < 0.4:
        rules["unique"] = dice.sample(COLUMNS, dice.randint(1, 2))
    if dice.random() < 0.4:
        allowed = dice.choice([(0, 3), (None, 10), (1, None), {0, 1, 2, 3, 4}])
        rules["values"] = {dice.choice(COLUMNS): allowed}
    if dice.random() < 0.3 or not rules:
        rules["schema"] = dice.choice(["unchanged", "compatible"])
    return rules


def is_allowed(value, allowed):
    if isinstance(allowed, set):
        return value in allowed
    low, high = allowed
    return (low is None or value >= low) and (high is None or value <= high)


def are_met(rows, names, rules):
    """Return whether the rows meet the rules of the documentation, without Arrow."""
    nulls = {name: sum(row.get(name) is None for row in rows) for name in COLUMNS}
    return all(
        (
            is_allowed(len(rows), rules.get("rows_added", (None, None))),
            "schema" not in rules or set(names) == set(COLUMNS),
            all(
                nulls[name] <= (most * len(rows) if isinstance(most, float) else most)
                for name, most in rules.get("nulls", {}).items()
            ),
            is_unique(rows, names, rules.get("unique", [])),
            all(
                name in names
                and all(is_allowed(row[name], allowed) for row in rows if row[name] is not None)
                for name, allowed in rules.get("values", {}).items()
            ),
        )
    )


def is_unique(rows, names, key):
    if not set(key) <= set(names):
        return False
    keys = Counter(tuple(row[name] for name in key) for row in rows)
    return not key or all(count == 1 for found, count in keys.items() if None not in found)


@pytest.mark.slow
@pytest.mark.parametrize("action", ["fail", "warn", "quarantine"])
def test_a_write_commits_if_its_rows_meet_the_rules(tmp_path, captured_writes, action, size):
    dice, table = random.Random(action), str(tmp_path / "t")
    schema = pa.schema([(name, pa.int64()) for name in COLUMNS])
    write_deltalake(table, schema.empty_table())
    version, quarantined, met = 0, 0, 0
    count = size(fair=40, full=400, small=15)
    for _ in range(count):
        rows, names = random_rows(dice)
        rules = random_rules(dice)
        batches = [
            pa.RecordBatch.from_pylist(
                rows[start : start + 2], schema.empty_table().select(names).schema
            )
            for start in range(0, max(len(rows), 1), 2)
        ]
        expected = are_met(rows, names, rules)
        with expect(**rules, on_failure=action) as block:
            try:
                write_deltalake(table, batches, mode="append", schema_mode="merge")
            except ExpectationError:
                assert action == "fail"
        met += expected
        assert (block.reports[0].result == "passed") == expected, (rows, rules, block.reports)
        version += expected or action == "warn"
        quarantined += 0 if expected or action != "quarantine" else len(rows)
        assert DeltaTable(table).version() == version
    assert 0 < met < count
    if action == "quarantine":
        assert DeltaTable(f"{table}_quarantine").to_pyarrow_table().num_rows == quarantined
