"""`lineage` and `impact` about random histories are the truth about them."""

from __future__ import annotations

import pytest

from deltawitness import EdgeKind, impact, lineage
from helpers.histories import build_history
from helpers.sizes import seeds

SEEDS = seeds(1, 4, 100)

KEEPING = {"OPTIMIZE"}
"""Operations of the histories that change no row."""


class Truth:
    """The edges between versions, from the model of a history."""

    def __init__(self, history):
        self.history = history
        self.known = {
            (each.table, each.version): each for each in history.commits if each.is_observed
        }
        self.edges = {
            (*edge, kind) for each in self.known.values() for *edge, kind in self.edges_to(each)
        }

    def resolve(self, key):
        """Return the version that changed rows last; itself where nothing observed the commit."""
        while key in self.known and self.known[key].operation in KEEPING:
            key = key[0], key[1] - 1
        return key

    def content(self, table, version):
        """Return the version that wrote the content of a version; restores lead to the restored version."""
        key = self.resolve((table, version))
        commit = self.known.get(key)
        if commit is not None and commit.restored is not None:
            return self.content(table, commit.restored)
        return key[1]

    def base(self, table, version):
        """Return the versions on which a version was made, newest first; itself is the first one."""
        found = []
        while version is not None and version >= 0:
            found.append(version)
            commit = self.known.get((table, version))
            version = version - 1 if commit is None or commit.restored is None else commit.restored
        return found

    def last(self, table):
        """Return the newest version that was observed."""
        return max(version for name, version in self.known if name == table)

    def edges_to(self, commit):
        """Yield the edges to a version: source, target and kind."""
        if commit.operation in KEEPING:
            return
        target = commit.table, commit.version
        kind = EdgeKind.EXACT if commit.has_plan else EdgeKind.INFERRED
        if commit.restored is not None:
            restored = commit.table, commit.restored
            yield self.resolve(restored), target, EdgeKind.EXACT
        for read in commit.inputs:
            if read[0] != commit.table:
                yield self.resolve(read), target, kind
        previous = self.previous(commit)
        if previous is not None:
            yield self.resolve((commit.table, previous)), target, EdgeKind.HISTORY

    def previous(self, commit):
        """Return the version on which a write was made."""
        if commit.version == 0 or commit.restored is not None:
            return None
        if commit.mode == "overwrite":
            return dict(commit.inputs).get(commit.table)
        return commit.version - 1

    def graph(self, start, *, is_up, has_history, depth=1000):
        """Return nodes and edges that can be reached, by breadth."""
        edges = {each for each in self.edges if has_history or each[2] is not EdgeKind.HISTORY}
        near, far = (1, 0) if is_up else (0, 1)
        nodes, found, frontier = {start}, set(), {start}
        for _ in range(depth):
            step = {each for each in edges if each[near] in frontier}
            found |= step
            frontier = {each[far] for each in step} - nodes
            nodes |= frontier
        cut = {each[near] for each in edges if each[near] in frontier}
        return nodes, found, cut

    def changes(self, table):
        """Return the versions of operations that may change rows and were observed."""
        return [
            version
            for (name, version), each in self.known.items()
            if name == table and each.operation not in KEEPING
        ]


@pytest.fixture(scope="module", params=SEEDS)
def truth(request, tmp_path_factory):
    """The truth about a history; its seed is the parameter."""
    folder = tmp_path_factory.mktemp("history")
    return Truth(build_history(folder, request.param, tables=4, runs=5, operations=7))


def key_of(table):
    return table.name, table.version


def edges_of(graph):
    return {(key_of(each.source), key_of(each.target), each.kind) for each in graph.edges}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("has_history", [False, True])
def test_the_graph_of_every_version_is_the_truth(truth, direction, has_history):
    """Nodes, edges and their kinds are those of the model, in both directions, with and without history."""
    for start in list(truth.known)[::2]:
        graph = lineage(
            "@".join(map(str, start)),
            direction=direction,
            history=has_history,
            depth=1000,
            root=truth.history.root,
        )
        first = truth.resolve(start)
        nodes, edges, _ = truth.graph(first, is_up=direction == "up", has_history=has_history)
        assert key_of(graph.nodes[0].table) == first
        assert sorted(key_of(each.table) for each in graph.nodes) == sorted(nodes)
        assert edges_of(graph) == edges
        assert len(graph.edges) == len(edges)
        assert graph.cut == ()
        for node in graph.nodes:
            known = truth.known.get(key_of(node.table))
            assert node.in_ledger == (known is not None)
            if known is not None:
                assert (node.run_id, node.operation) == (known.run.run_id, known.operation)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.one_case_in(2)
def test_the_depth_bounds_the_graph(truth, depth):
    """Nodes beyond the depth are left out, and the nodes with edges to them are marked."""
    for start in list(truth.known)[::5]:
        first = truth.resolve(start)
        for is_up in (True, False):
            nodes, edges, cut = truth.graph(first, is_up=is_up, has_history=True, depth=depth)
            graph = lineage(
                "@".join(map(str, start)),
                direction="up" if is_up else "down",
                history=True,
                depth=depth,
                root=truth.history.root,
            )
            assert {key_of(each.table) for each in graph.nodes} == nodes
            assert edges_of(graph) == edges
            assert {key_of(each.table) for each in graph.cut} == cut


def reads_of(truth):
    """Return for each pair of reader and input the versions: of the reader, and the one that was read."""
    found = {}
    for each in truth.known.values():
        if each.operation in KEEPING:
            continue
        for table, version in each.inputs:
            if table != each.table:
                found.setdefault((each.table, table), []).append((each.version, version))
    return found


def affected(reads, table, version):
    """Return the first version of each table that depends on a table from a version on."""
    first = {table: version}
    for _ in range(len(reads) ** 2 + 1):
        for (reader, read), versions in reads.items():
            for written, was_read in versions:
                if read in first and was_read >= first[read]:
                    first[reader] = min(written, first.get(reader, written))
    return first


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_impact_of_every_table_is_the_truth(truth):
    """Dependents, their newest versions, and which are stale since when, are those of the model."""
    reads = reads_of(truth)
    for table in truth.history.tables:
        changes = {name: truth.changes(name) for name in truth.history.tables}
        middle = sorted(changes[table])[len(changes[table]) // 2]
        for version in (None, middle):
            name = table if version is None else f"{table}@{version}"
            found = impact(name, root=truth.history.root)
            first = affected(reads, table, version or 0)
            expected = {each: least for each, least in first.items() if each != table}
            assert {each.table.name: each.first_version for each in found.dependents} == expected
            for each in found.dependents:
                assert each.table.version == max(changes[each.table.name])
                check_inputs(truth, each, reads, first)


def is_stale(truth, table, version):
    """Return whether observed operations have given a table other content than that of one of its versions."""
    last = truth.last(table)
    is_changed = any(version < each <= last for each in truth.changes(table))
    return is_changed and truth.content(table, last) != truth.content(table, version)


def check_inputs(truth, dependent, reads, first):
    """Assert that the inputs of a dependent, and its state, are the truth."""
    name = dependent.table.name
    base = truth.base(name, truth.last(name))
    overwrites = [
        each.version
        for each in truth.known.values()
        if (each.table, each.mode) == (name, "overwrite") and each.version in base
    ]
    expected = {}
    for (reader, read), versions in reads.items():
        counted = [each for each in versions if each[1] >= first.get(read, 1 << 60)]
        if reader == name and counted:
            current = [each for each in counted if each[0] in base]
            written, was_read = max(current or counted)
            is_replaced = not current or max(overwrites, default=-1) > written
            expected[read] = (was_read, written, is_replaced, is_stale(truth, read, was_read))
            if is_replaced:
                expected[read] = (*expected[read][:3], False)
    assert {
        each.table.name: (each.table.version, each.read_by, each.is_replaced, each.is_stale)
        for each in dependent.inputs
    } == expected
    assert dependent.is_stale == any(each[3] for each in expected.values())
