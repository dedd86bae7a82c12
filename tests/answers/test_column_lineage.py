"""`lineage --columns`: columns through queries, statements, history, and writes without a plan."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    ColumnUse,
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    ObservedWritePipeline,
    Settings,
    WritePipeline,
    WriteRequest,
    column_lineage,
    run,
    writes,
)
from deltawitness.exceptions import LedgerLookupError
from helpers.ledger_commands import error_of, invoke, json_of

pytestmark = pytest.mark.slow

ORDERS = pa.table(
    {"id": [1, 2, 3], "price": [1.0, 2.0, 3.0], "pieces": [2, 1, 5], "who": [1, 2, 1]}
)
PEOPLE = pa.table({"id": [1, 2], "city": ["Basel", "Bern"]})
RATES = pa.table({"city": ["Basel", "Bern"], "rate": [1.0, 2.0]})

TOTALS = """
    SELECT p.city, sum(o.price * o.pieces) AS total, max(r.rate) AS rate
    FROM orders o JOIN people p ON o.who = p.id JOIN rates r ON r.city = p.city
    WHERE o.pieces > 0 GROUP BY p.city
"""

MERGE = """
    MERGE INTO report r USING totals t ON r.town = t.city
    WHEN MATCHED AND t.rate > 1 THEN UPDATE SET big = t.total + r.big
    WHEN NOT MATCHED THEN INSERT (town, big) VALUES (t.city, 0)
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Tables of three levels: a query, an INSERT, an UPDATE, a MERGE, a DELETE, a copy, and merges of delta-rs."""
    folder = tmp_path_factory.mktemp("columns")
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(folder / ".deltawitness")))

    def place(name):
        return str(folder / "lake" / name)

    with run("load"):
        write_deltalake(place("orders"), ORDERS)
        write_deltalake(place("people"), PEOPLE)
    with run("derive"):
        ctx = ObservedSessionContext()
        ctx.from_arrow(RATES, name="rates")
        for name in ("orders", "people"):
            ctx.register_delta(name, place(name))
        write_deltalake(place("totals"), ctx.sql(TOTALS))
        ctx.register_delta("totals", place("totals"))
        query = "SELECT city AS town, CASE WHEN total > 1 THEN total ELSE 0 END AS big FROM totals"
        write_deltalake(place("report"), ctx.sql(query))
        ctx.register_delta("report", place("report"))
        for statement in (
            "INSERT INTO report SELECT city, rate FROM totals",
            "UPDATE report SET big = big + 1 WHERE town = 'Basel'",
            MERGE,
        ):
            ctx.sql(statement).collect()
        write_deltalake(place("final"), ctx.sql("SELECT town, big * 2 AS twice FROM report"))
        pipeline = ObservedWritePipeline(WritePipeline(ctx))
        pipeline.write(
            WriteRequest(source="SELECT id + 1 AS next FROM orders", destination=place("piped"))
        )
        write_deltalake(place("copy"), ctx.sql("SELECT id, price FROM orders").to_arrow_table())
        source = ctx.sql("SELECT id, price * 2 AS price FROM orders")
        merger = DeltaTable(place("copy")).merge(
            source, "t.id = s.id", source_alias="s", target_alias="t"
        )
        merger.when_matched_update_all().execute()
        DeltaTable(place("report")).delete("big > 1000000")
        DeltaTable(place("report")).delete("town = 'Bern'")
    with run("plain"):
        write_deltalake(place("plain"), DeltaTable(place("final")).to_pyarrow_table())
    DeltaLakeInstrumentor().uninstrument()
    return folder


def graph_of(lake, table, **options):
    return column_lineage(table, root=lake / ".deltawitness", **options)


def command(lake, *words):
    return ["lineage", *words, "--root", lake / ".deltawitness"]


def edges(graph):
    """Return the edges as texts: target, use, source."""
    return {
        f"{edge.target} {'history' if edge.is_history else edge.use} {edge.source}"
        for edge in graph.edges
    }


def rows(graph):
    return {f"{each.target} {each.use} {each.source}" for each in graph.rows}


def unknown(graph):
    return {str(each.table): each.reason for each in graph.unknown}


TOTAL_EDGES = {
    "totals@0.city identity people@0.city",
    "totals@0.total aggregation orders@0.price",
    "totals@0.total aggregation orders@0.pieces",
    "totals@0.rate aggregation rates.rate",
}


def test_the_columns_of_a_query(lake):
    graph = graph_of(lake, "totals")
    assert edges(graph) == TOTAL_EDGES
    assert "totals@0 filter orders@0.pieces" in rows(graph)
    assert "totals@0 group people@0.city" in rows(graph)
    assert [str(each) for each in graph.columns][:3] == [
        "totals@0.city",
        "totals@0.total",
        "totals@0.rate",
    ]
    assert set(unknown(graph)) == {"orders@0", "people@0"}


def test_columns_are_followed_through_statements(lake):
    """INSERT by position, UPDATE, and the clauses of a MERGE."""
    assert edges(graph_of(lake, "report@1", depth=1)) == {
        "report@1.town identity totals@0.city",
        "report@1.big identity totals@0.rate",
    }
    assert edges(graph_of(lake, "report@2")) == {
        "report@2.town identity report@1.town",
        "report@2.big transformation report@1.big",
    }
    merged = graph_of(lake, "report@3", depth=1)
    assert edges(merged) == {
        "report@3.town identity totals@0.city",
        "report@3.big transformation totals@0.total",
        "report@3.big transformation report@2.big",
    }
    assert rows(merged) == {
        "report@3 join report@2.town",
        "report@3 join totals@0.city",
        "report@3 filter totals@0.rate",
    }


def test_a_write_of_a_pipeline_has_the_columns_of_its_query(lake):
    assert edges(graph_of(lake, "piped")) == {"piped@0.next transformation orders@0.id"}


def test_history_follows_the_versions_of_a_table(lake):
    """Rows of earlier versions keep the values that earlier writes gave them."""
    graph = graph_of(lake, "report@3", column="big", history=True)
    assert {
        "report@3.big transformation report@2.big",
        "report@2.big transformation report@1.big",
        "report@1.big history report@0.big",
        "report@0.big transformation totals@0.total",
        "report@1.big identity totals@0.rate",
    } <= edges(graph)


def test_a_delete_has_the_columns_of_the_version_before(lake):
    """It assigns no column, so only the history has columns."""
    alone = graph_of(lake, "report")
    assert not alone.columns
    assert unknown(alone)["report@4"].startswith("the write has removed rows")
    graph = graph_of(lake, "report", history=True)
    assert "report@4.big history report@3.big" in edges(graph)


def test_what_was_made_from_a_column(lake):
    graph = graph_of(lake, "orders", direction="down", column="price")
    assert edges(graph) == {
        "totals@0.total aggregation orders@0.price",
        "report@0.big transformation totals@0.total",
        "report@3.big transformation totals@0.total",
        "final@0.twice transformation report@3.big",
        "copy@0.price identity orders@0.price",
    }
    assert unknown(graph)["copy@1"].startswith("the assignments of a MERGE of delta-rs")


def test_without_a_column_all_columns_that_were_read_are_followed_down(lake):
    """The columns of a table that was loaded without a plan are those that its readers name."""
    graph = graph_of(lake, "orders", direction="down", depth=1)
    found = {each.column for each in graph.columns if str(each.table) == "orders@0"}
    assert found == {"id", "price", "pieces", "who"}
    assert "totals@0 filter orders@0.pieces" in rows(graph)


def test_a_write_without_a_plan_says_so(lake):
    """An Arrow table has no plan, and a merge of delta-rs has its assignments elsewhere."""
    reason = "its rows came from no plan of an observed session"
    assert unknown(graph_of(lake, "plain")) == {"plain@0": reason}
    assert set(unknown(graph_of(lake, "copy"))) == {"copy@1"}


def test_the_depth_bounds_the_graph(lake):
    """A version at the depth is named as cut, and its columns have no sources."""
    graph = graph_of(lake, "final", depth=1)
    assert edges(graph) == {
        "final@0.town identity report@3.town",
        "final@0.twice transformation report@3.big",
    }
    assert [str(each) for each in graph.cut] == ["report@3"]


def test_a_column_that_does_not_exist_is_an_error(lake):
    """The message lists the columns that the plan has written."""
    with pytest.raises(LedgerLookupError, match="no column nope, only: city, total, rate"):
        graph_of(lake, "totals", column="nope")


def test_the_ledger_has_names_and_no_literals(lake):
    """The text of a write has no value of its query."""
    found = [each.column_lineage for each in writes(root=lake / ".deltawitness")]
    listed = [json.loads(each) for each in found if each is not None]
    assert any("columns" in each for each in listed)
    assert not any("Basel" in each for each in found if each is not None)


def test_the_command_prints_a_tree(lake):
    """The columns of the version come first, then what decided about its rows."""
    printed = invoke(*command(lake, "totals", "--column", "total")).output
    assert printed.startswith(
        "totals@0\n"
        "├── total\n"
        "│   ├── aggregation: orders@0.pieces\n"
        "│   └── aggregation: orders@0.price\n"
        "└── (rows)\n"
    ), printed
    assert "note: orders@0: columns unknown: its rows came from no plan" in printed


def test_the_command_prints_what_depends_on_a_column(lake):
    printed = invoke(*command(lake, "orders", "--down", "--column", "pieces")).output
    assert "transformation: report@0.big\n" in printed
    assert "filter: totals@0 (rows)\n" in printed


@pytest.mark.parametrize(
    ("format_", "parts"),
    [
        (
            "mermaid",
            ["flowchart LR", 'subgraph t0["totals@0"]', "-->|aggregation|", "-.->|filter|"],
        ),
        ("dot", ["digraph columns {", 'label="totals@0";', 'label="aggregation", style=solid']),
    ],
)
def test_the_command_prints_graphs_of_other_programs(lake, format_, parts):
    """A version is a group, and a column a node of it."""
    printed = invoke(*command(lake, "totals", "--columns", "--format", format_)).output
    assert all(part in printed for part in parts), printed


def test_the_command_prints_json(lake):
    """The object has the attributes of the result."""
    found = json_of(*command(lake, "totals", "--columns"))
    assert found["kind"] == "column_lineage"
    uses = {each["use"] for each in found["edges"]}
    assert uses == {ColumnUse.IDENTITY, ColumnUse.AGGREGATION}


def test_the_command_fails_for_an_unknown_column(lake):
    """One line says which columns there are."""
    assert "only: city, total, rate" in error_of(*command(lake, "totals", "--column", "nope"))
