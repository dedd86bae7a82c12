"""Undos of the runs of random histories: the content of each table is the one before the run."""

from __future__ import annotations

import random

import pytest
from deltalake import DeltaTable

from deltawitness import UndoState, undo
from helpers.histories import build_history
from helpers.sizes import seeds, sized

SEEDS = seeds(1, 3, 100)
RUNS = sized(4, 5, 5)


class Truth:
    """The rows that each version of a table has, and who made it.

    The content of a version is the list of the commits that made it, oldest first. A RESTORE by others
    than the run in question makes it the content of another version.
    """

    def __init__(self, history, table):
        self.rows, self.commits = [], []
        for commit in history.of(table):
            run = None if commit.run is None else commit.run.run_id
            is_change = commit.operation != "OPTIMIZE"
            self.add(run, commit.rows, is_change=is_change, restored=commit.restored)

    def add(self, run, rows, *, is_change=True, restored=None):
        """Add a version."""
        self.rows.append(rows)
        self.commits.append((run, is_change, restored))

    def is_of(self, family):
        """Return whether a run has committed a version."""
        return any(run in family for run, *_ in self.commits)

    def undone(self, family):
        """Return the version before the run in the present content, and the later commits of others.

        The version is None if the content has no commit of the run, and -1 if the first one is version 0.
        """
        contents = [()]
        for version, (run, is_change, restored) in enumerate(self.commits):
            is_own = run in family
            base = contents[-1] if restored is None or is_own else contents[restored + 1]
            contents.append((*base, (version, is_own)) if is_change else base)
        content = contents[-1]
        own = [place for place, (_, is_own) in enumerate(content) if is_own]
        if not own:
            return None, []
        first = content[own[0]][0]
        return first - 1, [version for version, is_own in content[own[0] :] if not is_own]


def rows_of(history, table):
    """Return the rows of the newest version of a table."""
    found = DeltaTable(history.uri(table)).to_pyarrow_table().to_pydict()
    return dict(zip(found["id"], found["value"], strict=True))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_undos_restore_the_content_before_the_run(tmp_path, seed):
    """Of all runs, in random order, with and without `discard_later`: state, reason and content are the truth."""
    history = build_history(tmp_path, seed, runs=RUNS)
    source = random.Random(seed)
    truths = {table: Truth(history, table) for table in history.tables}
    undone = source.sample(history.runs, len(history.runs))
    states = []
    for number, target in enumerate([*undone, *undone[:2]]):
        family = {target.run_id} | {
            child.run_id for child in history.runs if child.parent_run_id == target.run_id
        }
        discard_later = source.random() < 0.6
        options = {"discard_later": discard_later, "root": history.root}
        expected = {}
        for name, truth in truths.items():
            if truth.is_of(family):
                expected[name] = truth.undone(family)
        plan = undo(target.run_id, **options)
        done = undo(target.run_id, apply=True, **options)
        assert {table.name for table in plan.tables} == expected.keys()
        for planned, table in zip(plan.tables, done.tables, strict=True):
            truth, (before, later) = truths[table.name], expected[table.name]
            states.append(table.state)
            if before is None:
                assert table.state in {UndoState.RESTORED, UndoState.UNCHANGED}
                assert planned.state is table.state
            elif before < 0:
                assert planned.state is table.state is UndoState.CREATED
            elif later and not discard_later:
                assert planned.state is table.state is UndoState.REFUSED
                assert [each.version for each in table.later] == later
            else:
                assert (planned.state, table.state) == (UndoState.RESTORE, UndoState.RESTORED), (
                    table
                )
                assert planned.before == table.before == before
                assert [each.version for each in planned.later] == later
                assert table.restored_version == len(truth.rows)
                truth.add(f"undo {number}", truth.rows[before], restored=before)
            assert rows_of(history, table.name) == truth.rows[-1], (number, table)
            assert DeltaTable(history.uri(table.name)).version() == len(truth.rows) - 1
    assert UndoState.RESTORED in states
