"""`bisect` and `blame` of random histories find what a model in plain Python computes."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, bisect, blame, run
from deltawitness.answers.bisect_values import BisectState
from helpers.histories import build_history
from helpers.sizes import seeds, sized

SEEDS = seeds(1, 2, 100)
RUNS = sized(4, 6, 6)
ALL = 1_000_000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=SEEDS)
def history(request, tmp_path_factory):
    """A history; its seed is the parameter."""
    return build_history(tmp_path_factory.mktemp("history"), request.param, runs=RUNS)


def test_the_first_bad_version_is_that_of_the_model(history):
    """With all versions tested, the earliest bad version and whether later ones are good are exact."""
    source = random.Random(history.commits[0].table)
    for table in history.tables:
        commits = history.of(table)
        key = source.choice([key for commit in commits for key in commit.rows])
        bad = [commit.version for commit in commits if key in commit.rows]
        found = bisect(table, f"id = {key}", checks=ALL, root=history.root)
        assert (found.state, found.table.version) == (BisectState.FOUND, bad[0])
        assert found.last_good == (bad[0] - 1 if bad[0] else None)
        is_monotone = bad == [commit.version for commit in commits[bad[0] :]]
        assert found.is_monotone is is_monotone
        first = commits[bad[0]]
        assert found.commit.run_id == (first.run and first.run.run_id)
        assert found.commit.operation == first.operation
        assert_change(history, table, key, commits)


def assert_change(history, table, key, commits):
    """Assert that a search without further tests finds a change from good to bad, with few tests."""
    found = bisect(table, f"id = {key}", checks=0, root=history.root)
    version = found.table.version
    if key not in commits[-1].rows:
        assert found.state is BisectState.NEVER
        return
    assert key in commits[version].rows
    assert version == 0 or key not in commits[version - 1].rows
    assert len(found.tested) <= len(commits).bit_length() + 1


def writer_of(commits, version, key):
    """Return the version that wrote a row of a version as it is, from the rows of all versions."""
    value = commits[version].rows[key]
    while version > 0:
        commit, before = commits[version], commits[version - 1].rows
        if commit.restored is not None:
            version = commit.restored
        elif commit.mode == "overwrite" or before.get(key) != value:
            return version
        else:
            version -= 1
    return version


def test_the_commit_that_wrote_a_row_is_that_of_the_model(history):
    """Commits that only copied a row are skipped, and restores lead to the restored version."""
    source = random.Random(3)
    for table in history.tables:
        commits = history.of(table)
        rows = commits[-1].rows
        for key in source.sample(sorted(rows), min(6, len(rows))):
            found = blame(table, f"id = {key}", show_rows=True, root=history.root)
            (row,) = found.rows
            expected = writer_of(commits, commits[-1].version, key)
            assert (found.versions, row.rows) == ((expected,), 1)
            assert row.values == {"id": key, "value": rows[key]}
            (write,) = row.writes
            truth = commits[expected]
            assert write.is_certain
            assert write.commit.run_id == (truth.run and truth.run.run_id)
            assert set(write.copied_by) <= set(range(expected + 1, len(commits)))


# --- causes in inputs --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_cause_is_found_through_the_inputs(tmp_path, seed):
    """A bad row in one of several tables that were derived from each other is found where it was written."""
    source = random.Random(seed)
    names = [f"layer_{n}" for n in range(4)]
    planted = source.randrange(4), source.randrange(1, 5)
    versions = dict.fromkeys(names, -1)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "ledger")))
    try:
        for day in range(7):
            for layer, name in enumerate(names):
                with run(f"make {name}"):
                    rows = [day]
                    if layer:
                        rows = DeltaTable(str(tmp_path / names[layer - 1])).to_pyarrow_table()
                        rows = rows["value"].to_pylist()
                    elif day and not source.randrange(3):
                        continue  # the source does not change each day
                    if layer <= planted[0] and day >= planted[1]:
                        rows = [*rows, -1] if layer == planted[0] else rows
                    table = pa.table({"value": rows})
                    write_deltalake(str(tmp_path / name), table, mode="overwrite")
                    versions[name] += 1
                    if layer == planted[0] and day >= planted[1]:
                        planted = (*planted[:2], *(planted[2:] or (versions[name],)))
    finally:
        DeltaLakeInstrumentor().uninstrument()
    found = bisect(names[-1], "value < 0", root=tmp_path / "ledger")
    (cause,) = found.causes
    assert (cause.table.name, cause.table.version) == (names[planted[0]], planted[2])
    assert cause.commit.job == f"make {names[planted[0]]}"
