"""`lineage` and `impact`: names, maintenance, cycles, diamonds, unknown versions, and every format."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import FrozenInstanceError

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    EdgeKind,
    Lineage,
    LineageDirection,
    LineageEdge,
    LineageNode,
    ObservedSessionContext,
    Settings,
    TableVersion,
    impact,
    lineage,
    run,
    suppressed,
    table_id,
)
from deltawitness.exceptions import LedgerLookupError
from deltawitness.report.lineage import dot_text, mermaid_text
from helpers.ledger_commands import error_of, invoke, json_of

DATA = pa.table({"x": [1, 2, 3]})

HOSTILE = 'a"];b-->c<b>\\N%{}`|#'


@pytest.fixture(scope="module")
def lakehouse(tmp_path_factory):
    """Tables `raw`, `left`, `right` and `both` (a diamond), two tables `twin`, and tables that read each other."""
    folder = tmp_path_factory.mktemp("lakehouse")
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(folder / ".deltawitness")))

    def place(name):
        return str(folder / "lake" / name)

    def derive(name, *inputs, mode="overwrite"):
        ctx = ObservedSessionContext()
        for each in inputs:
            ctx.register_delta(each, place(each))
        query = " UNION ALL ".join(f"SELECT x FROM {each}" for each in inputs)
        write_deltalake(place(name), ctx.sql(query), mode=mode)

    with suppressed():
        write_deltalake(place("outside"), DATA)
    with run("load"):
        write_deltalake(place("raw"), DATA)
        write_deltalake(place("raw"), DATA, mode="append")
        DeltaTable(place("raw")).optimize.compact()
        derive("left", "raw")
        derive("right", "raw", "outside")
        derive("both", "left", "right")
    with run("copy"):
        rows = DeltaTable(place("both")).to_pyarrow_table()
        for parent in ("a", "b"):
            write_deltalake(place(f"{parent}/twin"), rows)
    with run("circle"):
        derive("ping", "raw")
        derive("pong", "ping")
        derive("ping", "pong")
        derive("ping", "ping")
    with run("stale"):
        write_deltalake(place("raw"), DATA, mode="append")
        derive("right", "outside")
    DeltaLakeInstrumentor().uninstrument()
    return folder


@pytest.fixture
def here(lakehouse, monkeypatch):
    """The lakehouse as the working directory."""
    monkeypatch.chdir(lakehouse)
    return lakehouse


def edges_of(graph):
    """Return the edges as text."""
    return [f"{each.source} {each.kind.value} {each.target}" for each in graph.edges]


# --- lineage -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_name_of_a_table_is_accepted(here):
    """Name, path, URI, id and a prefix of the id give the same graph; `@` selects the version."""
    place = here / "lake/both"
    ids = table_id(place), table_id(place)[:12]
    names = ("both", "table:both", "lake/both", place, place.as_uri(), *ids)
    graphs = [json_of("lineage", f"{name}@0") for name in names]
    assert all(each == graphs[0] for each in graphs)
    assert json_of("lineage", "both") == graphs[0]
    assert json_of("lineage", "both", "--format", "json") == graphs[0]
    assert (graphs[0]["kind"], graphs[0]["direction"]) == ("lineage", "up")


@pytest.mark.slow
def test_a_diamond_has_each_version_once(here):
    """A version that is reached twice is one node with two edges, and a marked line of the tree."""
    graph = lineage("both@0")
    assert [str(node.table) for node in graph.nodes] == [
        *("both@0", "left@0", "right@0", "raw@1", "outside@0"),
    ]
    assert edges_of(graph) == [
        *("left@0 exact both@0", "right@0 exact both@0", "raw@1 exact left@0"),
        *("raw@1 exact right@0", "outside@0 exact right@0"),
    ]
    assert [edge.read_version for edge in graph.edges] == [0, 0, 2, 2, 0]
    tree = invoke("lineage", "both@0").stdout.splitlines()
    assert tree[0].startswith("both@0  WRITE overwrite  ")
    assert sum("raw@1 (read at 2)" in line for line in tree) == 2
    assert sum(line.endswith("raw@1 (read at 2)  (see above)") for line in tree) == 1
    assert "│   └── exact: raw@1 (read at 2)  WRITE append on 0  " in tree[2]
    assert any("outside@0  not in the ledger" in line for line in tree)
    assert (
        tree[-1]
        == "note: run `deltawitness reconcile TABLE` for versions that are not in the ledger"
    )


@pytest.mark.slow
def test_inferred_inputs_are_marked(here):
    """A write without a plan has the reads of its run as inputs, in every format."""
    graph = lineage("lake/a/twin")
    assert edges_of(graph)[0] == "both@0 inferred twin@0"
    assert "└── inferred: both@0  " in invoke("lineage", "lake/a/twin").stdout
    mermaid = invoke("lineage", "lake/a/twin", "--format", "mermaid").stdout
    assert "    n1 -.->|inferred| n0\n" in mermaid
    assert "    n2 -->|exact| n1\n" in mermaid
    dot = invoke("lineage", "lake/a/twin", "--format", "dot").stdout
    assert '    n1 -> n0 [label="inferred", style=dashed];\n' in dot
    assert '    n2 -> n1 [label="exact", style=solid];\n' in dot


@pytest.mark.slow
def test_maintenance_is_skipped(here):
    """A version that changed no row is replaced by the one before it, also as the start."""
    graph = lineage("raw@2", history=True)
    assert [str(node.table) for node in graph.nodes] == ["raw@1", "raw@0"]
    assert edges_of(graph) == ["raw@0 history raw@1"]
    assert str(graph.requested) == "raw@2"
    assert (
        "note: raw@2 changed no row: its rows are those of raw@1"
        in invoke("lineage", "raw@2").stdout
    )
    later = lineage("raw", history=True)
    assert [str(node.table) for node in later.nodes] == ["raw@3", "raw@1", "raw@0"]
    assert later.edges[0].read_version == 2
    assert "    n1 ==>|history read at 2| n0" in mermaid_text(later)
    assert lineage("raw").edges == ()


@pytest.mark.slow
def test_the_other_direction_is_followed(here):
    """`down` has the versions that were made from a version, and not those from a later one."""
    graph = lineage("raw@1", direction="down")
    names = {str(node.table) for node in graph.nodes}
    assert {"left@0", "right@0", "both@0", "ping@0", "pong@0", "ping@1", "twin@0"} < names
    assert lineage("raw@3", direction="down").edges == ()
    assert lineage("raw@1", direction="down", history=True).edges[-1].kind in set(EdgeKind)
    assert "└── " in invoke("lineage", "raw@1", "--down").stdout


@pytest.mark.slow
def test_tables_that_read_each_other_end(here):
    """A circle of tables is followed version by version; a table that reads itself has a history."""
    assert [str(node.table) for node in lineage("ping@1").nodes] == [
        *("ping@1", "pong@0", "ping@0", "raw@1"),
    ]
    assert lineage("ping@2").edges == ()
    assert edges_of(lineage("ping@2", history=True))[0] == "ping@1 history ping@2"


@pytest.mark.slow
def test_the_depth_is_noted(here):
    """A bounded graph says which versions have further edges; with depth 0 it is one version."""
    graph = lineage("both@0", depth=1)
    assert [str(node.table) for node in graph.cut] == ["left@0", "right@0"]
    shown = invoke("lineage", "both@0", "--depth", "1").stdout
    assert "left@0, right@0" in shown.splitlines()[-1]
    assert shown.count("  ...\n") == 2
    assert [str(node.table) for node in lineage("both@0", depth=0).cut] == ["both@0"]
    with pytest.raises(ValueError, match="depth: expected 0 or more"):
        lineage("both", depth=-1)


@pytest.mark.slow
def test_a_table_that_was_only_read_has_dependents(here):
    """A table without a row is found by name, path and id for what was made from it."""
    outside = here / "lake/outside"
    for name in ("outside", "outside@0", outside, outside.as_uri(), table_id(outside)):
        graph = lineage(str(name), direction="down")
        assert edges_of(graph)[0] == "outside@0 exact right@0"
        assert impact(str(name)).dependents[0].table.name == "right"
    assert "outside: the ledger has no write of this table" in error_of("lineage", "lake/outside")


@pytest.mark.slow
def test_errors_say_what_is_missing(here, tmp_path):
    """Unknown tables and versions, shared names and invalid options end with one line."""
    assert "no table has the name, id or location nothing" in error_of("lineage", "nothing")
    assert "no table has the name, id or location nothing" in error_of("impact", "nothing")
    assert error_of("lineage", "raw@99").startswith(
        "raw: the ledger has no version 99, the last one is 3"
    )
    assert "raw: the ledger has no version 99" in error_of("impact", "raw@99")
    assert error_of("lineage", "twin").startswith("2 tables are named twin: ")
    assert "there is no ledger" in error_of("lineage", "raw", "--root", tmp_path / "none")
    assert invoke("lineage", "raw", "--depth", "-1").exit_code == 2
    assert invoke("lineage", "raw", "--format", "svg").exit_code == 2
    assert invoke("lineage", "raw", "--json", "--format", "dot").exit_code == 2
    with pytest.raises(LedgerLookupError, match="2 tables are named twin"):
        impact("twin")


def test_tables_with_one_name_have_their_locations(here):
    """Versions of tables that share a name have their locations."""
    shown = invoke("lineage", "both", "--down").stdout
    for parent in ("a", "b"):
        assert f"twin@0 ({(here / 'lake' / parent / 'twin').as_uri()})" in shown


@pytest.mark.slow
def test_a_recreated_table_is_marked(tmp_path, monkeypatch):
    """If the ledger has several writes of a version, the node of the newest one says so."""
    monkeypatch.chdir(tmp_path)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=".deltawitness"))
    for _ in range(2):
        shutil.rmtree("t", ignore_errors=True)
        write_deltalake("t", DATA)
    DeltaLakeInstrumentor().uninstrument()
    (node,) = lineage("t@0").nodes
    assert node.has_other_writes
    assert "one of several writes of this version" in invoke("lineage", "t").stdout


# --- hostile names -----------------------------------------------------------------------------------


def hostile_graph(name):
    tables = TableVersion(0, name, "s3://lake/t", "1"), TableVersion(1, name, "s3://lake/u", "2")
    return Lineage(
        requested=tables[0],
        direction=LineageDirection.UP,
        depth=1,
        has_history=False,
        nodes=(
            LineageNode(table=tables[0], in_ledger=True, operation="WRITE", job=name),
            LineageNode(table=tables[1], in_ledger=False, is_cut=True),
        ),
        edges=(LineageEdge(tables[1], tables[0], EdgeKind.EXACT, 1),),
    )


@pytest.mark.parametrize(
    "name",
    [HOSTILE, 'x"]\nn9-->n0', "end", "</script>", "\x1b[2J", "a\\", '\\"', "é\u2028ü", "\ud800"],
)
def test_hostile_names_are_escaped(name):
    """A name changes neither the lines nor the syntax of Mermaid and Graphviz."""
    graph = hostile_graph(name)
    mermaid, dot = mermaid_text(graph).splitlines(), dot_text(graph).splitlines()
    assert len(mermaid) == 6
    assert len(dot) == 9
    assert mermaid[1].startswith('    n0["')
    assert mermaid[1].endswith('"]')
    inside = mermaid[1][8:-2].replace("<br/>", "")
    assert not set(inside) & set('"<>[]{}|`%\\')
    label = dot[3][len('    n0 [label="') : -len('"];')]
    assert label.replace("\\\\", "").replace('\\"', "").count('"') == 0
    assert (len(label) - len(label.rstrip("\\"))) % 2 == 0
    assert all(each.isprintable() for line in (*mermaid, *dot) for each in line)


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz")
@pytest.mark.parametrize("name", [HOSTILE, "a\\", '\\"'])
def test_graphviz_accepts_the_text(name):
    text = dot_text(hostile_graph(name))
    subprocess.run(["dot", "-Tplain"], input=text, text=True, check=True, timeout=60)


# --- impact ------------------------------------------------------------------------------------------


def test_the_dependents_have_their_state(here):
    """A dependent is stale if rows of an input changed later, and not if it was replaced."""
    found = impact("raw")
    states = {str(each.table): each for each in found.dependents}
    assert str(found.table) == "raw@3"
    left, right, both = states["left@0"], states["right@1"], states["both@0"]
    (read,) = left.inputs
    assert (str(read.table), read.newest, read.kind, read.read_by) == (
        "raw@2",
        3,
        EdgeKind.EXACT,
        0,
    )
    assert left.is_stale
    assert left.stale_since == lineage("raw@3").nodes[0].time
    assert [(each.is_replaced, each.is_stale) for each in right.inputs] == [(True, False)]
    assert both.is_stale  # it has read the replaced version of `right`
    assert (both.distance, both.job) == (2, "load")
    twins = [each for each in found.dependents if each.table.name == "twin"]
    assert [(each.is_stale, each.has_stale_input) for each in twins] == [(False, True)] * 2
    assert set(found.stale) == {each for each in found.dependents if each.is_stale}
    with pytest.raises(FrozenInstanceError):
        found.depth = 1


@pytest.mark.slow
def test_the_list_has_every_dependent(here):
    shown = invoke("impact", "raw").stdout
    lines = shown.splitlines()
    assert lines[0].endswith(" stale")
    assert lines[0].startswith("7 tables depend on raw@3, ")
    assert any(
        line.startswith("left@0  ") and "raw@2 (exact, newest 3)" in line and " stale " in line
        for line in lines
    )
    assert any(line.startswith("right@1") and "replaced" in line for line in lines)
    assert sum(line.startswith("twin@0 (file:") for line in lines) == 2
    found = json_of("impact", "raw")
    assert (found["kind"], len(found["dependents"])) == ("impact", 7)
    assert {"is_stale", "stale_since", "has_stale_input"} < set(found["dependents"][0])


@pytest.mark.slow
def test_a_version_limits_the_impact(here):
    """Only readers of the version or of a later one count; a compacted version counts as the one before it."""
    assert impact("raw@3").dependents == ()
    assert (
        "nothing in the ledger depends on raw from version 3 on" in invoke("impact", "raw@3").stdout
    )
    assert len(impact("raw@2").dependents) == 7
    assert impact("raw@2").from_version == 1


@pytest.mark.slow
def test_the_depth_limits_the_impact(here):
    found = impact("raw", depth=1)
    assert {each.table.name for each in found.dependents} == {"left", "right", "ping"}
    assert found.cut == 2
    shown = invoke("impact", "raw", "--depth", "1").stdout
    assert shown.endswith("note: cut at depth 1: 2 more tables at the next level\n")
