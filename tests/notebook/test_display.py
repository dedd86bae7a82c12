"""Results of questions as HTML for notebooks."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from deltalake import write_deltalake

import deltawitness
from deltawitness import (
    DeltaCache,
    DeltaLakeInstrumentor,
    EdgeKind,
    Lineage,
    LineageDirection,
    LineageEdge,
    LineageNode,
    ObservedSessionContext,
    RunRow,
    Settings,
    TableVersion,
    WriteRow,
    column_lineage,
    diff,
    errors,
    impact,
    lineage,
    overdue,
    regressions,
    runs,
    show,
    writes,
)
from deltawitness.html_display import RowList
from helpers.report_ledgers import HOSTILE, hostile_ledger, operation, run_row, write_ledger

pytestmark = pytest.mark.slow

ALLOWED = {
    *("div", "style", "table", "caption", "thead", "tbody", "tr", "th", "td", "bdi", "span", "p"),
    *("svg", "g", "path", "rect", "text", "title"),
}
"""Elements of the HTML; none of them runs code or requests something."""


class Page(HTMLParser):
    """Elements, attributes and texts of a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.texts, self.elements = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)


def page_of(result):
    """Return the HTML of a result, which is well-formed and has no script, link or request."""
    page = Page(result._repr_html_())
    assert not page.open
    assert set(page.elements) <= ALLOWED
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [name for name, _ in page.attributes if name in {"href", "src", "xlink:href"}]
    return page


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Settings of a ledger with two runs, a table that was made from another one, and a failed write."""
    folder = tmp_path_factory.mktemp("lake")
    settings = Settings(cache_root=f"{folder}/ledger")
    DeltaLakeInstrumentor().instrument(settings=settings)
    for day in range(2):
        with deltawitness.run("nightly", message="<b>load</b>", attributes={"team": "sales"}):
            write_deltalake(f"{folder}/raw", pa.table({"x": [1, day]}), mode="append")
            ctx = ObservedSessionContext()
            ctx.register_delta("raw", f"{folder}/raw")
            ctx.sql("SELECT x + 1 AS y FROM raw").write_delta(f"{folder}/clean", mode="overwrite")
            with pytest.raises(Exception, match="Cannot cast schema"):
                write_deltalake(f"{folder}/raw", pa.table({"x": [1], "<i>": ["a"]}), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    return settings


def test_lists_of_runs_and_operations(lake):
    """A list is still a list, and has a table with a row for each of its members."""
    found = runs(settings=lake)
    assert (type(found), isinstance(found, list)) == (RowList, True)
    assert found == list(found)
    assert page_of(found).elements.count("tr") == 1 + 2
    assert page_of(writes(settings=lake)).elements.count("tr") == 1 + 6
    text = page_of(errors(settings=lake)).text
    assert text.count("error: schema_mismatch") == 2
    assert "raw@" not in text
    assert "no rows" in page_of(runs(job="other", settings=lake)).text


def test_a_run_and_a_commit(lake):
    """They show who, why, and what was written from what."""
    newest, _ = runs(settings=lake)
    text = page_of(show(newest.run_id, settings=lake)).text
    for expected in ("<b>load</b>", "attribute team", "sales", "clean@1", "failed operations"):
        assert expected in text
    text = page_of(show("clean@1", settings=lake)).text
    for expected in ("clean@1", "WRITE overwrite", "raw@1", "nightly", "rows added"):
        assert expected in text
    assert "nightly" in page_of(newest).text
    assert "raw@1" in page_of(writes(settings=lake, table="clean")[0]).text


def test_lineage_is_drawn(lake):
    """A graph is the drawing of the HTML report, with a table of its versions."""
    page = page_of(lineage("clean", settings=lake))
    assert page.elements.count("rect") == 2
    assert page.elements.count("path") == 1
    assert "clean@1 was made from raw@1" in page.text
    assert "nothing is known" in page_of(lineage("raw@0", settings=lake)).text
    assert "raw@1.x" in page_of(column_lineage("clean", settings=lake)).text
    assert "clean@1" in page_of(impact("raw", settings=lake)).text


def test_differences(lake):
    """Comparisons of versions and of runs show both sides."""
    second, first = (row.run_id for row in runs(settings=lake))
    text = page_of(diff(first, second, settings=lake)).text
    assert "the runs read other inputs or versions" in text
    text = page_of(diff("raw@0", "raw@1", settings=lake)).text
    assert re.search(r"rows before\s+2\s+rows after\s+4", text)


def test_health(lake):
    assert "none is worse than before" in page_of(regressions(settings=lake)).text
    assert "clean" in page_of(overdue(settings=lake)).text


def test_an_explanation_of_the_cache(tmp_path):
    """It says whether an entry would be served, and what has changed."""
    ctx = ObservedSessionContext()
    ctx.from_arrow(pa.table({"x": [1]}), name="numbers")
    cache = DeltaCache(ctx, tmp_path / "cache")
    cache.view("twice", "SELECT x * 2 AS y FROM numbers").collect()
    assert "hit" in page_of(cache.explain("twice")).text
    cache.invalidate("twice")
    assert "invalidated" in page_of(cache.explain("twice")).text


def test_hostile_texts(tmp_path):
    """Names and messages of any content are text, with control characters made visible and long ones cut."""
    root = hostile_ledger(tmp_path / "ledger")
    for found in (runs(root=root), writes(root=root), regressions(root=root), overdue(root=root)):
        page = page_of(found)
        assert not {"\x00", "\u202e", "\x1b"} & set(page.text)
    for row in (*runs(root=root), *writes(root=root)):
        page_of(row)
    assert len(page_of(runs(root=root)).text) < 100_000


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_drawing_of_hostile_names(text):
    """Names of tables are texts of the drawing."""
    source, target = (TableVersion(1, text, f"file:///{place}/{text}", text) for place in "ab")
    nodes = [LineageNode(table=each, in_ledger=True, job=text) for each in (target, source)]
    found = Lineage(
        requested=target,
        direction=LineageDirection.UP,
        depth=1,
        has_history=False,
        nodes=tuple(nodes),
        edges=(LineageEdge(source, target, EdgeKind.INFERRED, 1),),
    )
    assert page_of(found).elements.count("rect") == 2


def test_long_lists_are_cut(tmp_path):
    """A table has 50 rows, and says how many there are."""
    root = write_ledger(
        tmp_path / "ledger",
        [operation(number) for number in range(60)],
        [run_row(number) for number in range(1234)],
    )
    page = page_of(runs(root=root))
    assert page.elements.count("tr") == 51
    assert "50 of 1,234 rows are shown." in page.text


def test_rows_without_values():
    page_of(RunRow(run_id="r"))
    page_of(WriteRow())


def test_without_datafusion(tmp_path):
    """Runs are shown where DataFusion is not installed."""
    program = """
import sys
sys.modules["datafusion"] = None
from deltawitness import RunRow
print(len(RunRow(run_id="r")._repr_html_()) > 100)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "True\n"
