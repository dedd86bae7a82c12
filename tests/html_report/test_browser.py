"""The report in Chromium: charts, filter, links, no request, no error, no serious accessibility fault."""

from __future__ import annotations

import pytest

from deltawitness import report_html
from helpers import browser
from helpers.report_ledgers import (
    COLUMNS,
    HOSTILE,
    hostile_ledger,
    operation,
    run_row,
    write_ledger,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.interop,
    pytest.mark.timeout(600),
    pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing())),
]

RUN = "00000031-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What Chromium shows of a ledger of two tables and two runs."""
    folder = tmp_path_factory.mktemp("shown")
    inputs = [{"uri": "file:///lake/orders", "table_id": "id-orders", "version": 2}]
    inventory = [operation(number, version=number) for number in range(12)]
    inventory += [
        operation(30, run_id=RUN, version=12),
        operation(
            31,
            run_id=RUN,
            table_name="totals",
            version=0,
            inputs=inputs,
            column_lineage=COLUMNS,
            plan_hash="plan",
        ),
        operation(
            32,
            run_id=RUN,
            result="error",
            version=None,
            versions=[],
            error_type="schema_mismatch",
            error_message="no such column",
            landed="no",
        ),
    ]
    root = write_ledger(folder / "ledger", inventory, [run_row(0), run_row(30, status="error")])
    return _browse(root, folder, RUN, "no such")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """What Chromium shows of a ledger of hostile names and messages."""
    folder = tmp_path_factory.mktemp("hostile")
    root = hostile_ledger(folder / "ledger")
    return _browse(root, folder, f"{HOSTILE[0][:40]}-0", "javascript:")


def _browse(root, folder, run, wanted):
    path = folder / "report.html"
    path.write_text(report_html(root=root).html, encoding="ascii")
    return browser.run("browse_report.py", str(path), run, wanted)


def test_charts_are_drawn(shown):
    """The timeline has a visible bar for each operation, the graph both tables and their edge."""
    assert shown["bars"] == 15
    assert min(shown["widths"]) > 1
    assert (shown["nodes"], shown["edges"], shown["sparks"]) == (2, 1, 2)


def test_the_table_of_events_filters_and_sorts_with_the_keyboard(shown):
    """The filter finds messages and is in the address; a header sorts both ways and keeps the focus."""
    assert shown["at_start"] == "15 of 15 events"
    assert shown["first_times"] == sorted(shown["first_times"], reverse=True)
    assert shown["filtered"] == ["orders"]
    assert shown["filter_address"] == "#q=no%20such"
    assert shown["cleared"] == "15 of 15 events"
    versions = [int(each) for each in shown["ascending"] if each]
    assert versions == sorted(versions)
    assert shown["sorted"] == "ascending"
    assert shown["focused"].startswith("version")
    assert [int(each) for each in shown["descending"] if each] == versions[::-1]


def test_a_table_or_an_edge_of_the_graph_shows_its_columns(shown):
    """A click and the keys do the same: the focus goes to the columns, and Escape returns it to the graph."""
    pairs = ["id id identity", "euros price aggregation", "(which rows) state filter"]
    assert shown["edge_columns"] == pairs
    assert shown["node_columns"] == pairs
    assert shown["columns_heading"] == "Columns: totals@0"
    assert shown["columns_focused"] == "columns"
    assert shown["columns_left"] == [True, "totals@0"]
    assert shown["graph_stops"] == 1


def test_a_link_selects_a_run_also_when_the_page_opens_with_it(shown):
    """The other operations fade in the timeline, and the page is at the events."""
    assert shown["followed"] == shown["deep_link"] == [RUN[:13]]
    assert shown["faded"] == 12
    assert abs(shown["deep_link_top"]) < 900


def test_dark_and_light_differ_and_a_phone_does_not_scroll_sideways(shown):
    light, dark, phone = shown["background"]
    assert light == phone != dark
    assert [shown[f"overflow_{name}"] for name in ("light", "dark", "phone")] == [0, 0, 0]


@pytest.mark.parametrize("ledger", ["shown", "hostile"])
def test_nothing_is_requested_reported_or_inaccessible(ledger, request):
    """The only request is for the page; the console is empty; axe-core finds no serious fault."""
    result = request.getfixturevalue(ledger)
    assert result["requests"] == [result["address"]]
    assert result["console"] == []
    for view in ("light", "dark", "phone", "columns"):
        assert result[f"faults_{view}"] == []


def test_hostile_names_and_messages_are_shown_as_text(hostile):
    """Nothing ran, no element came from a text, and each text can be read."""
    assert (hostile["hacked"], hostile["foreign"]) == ("no", 0)
    for text in HOSTILE[:5]:
        assert text in hostile["text"]
    assert "a\\u0000b\\u001b[31m" in hostile["text"]
    assert "abc\\u202egpj.exe" in hostile["text"]
    assert hostile["filtered"]
    assert hostile["followed"] == [HOSTILE[0][:13]]
    assert [hostile[f"overflow_{name}"] for name in ("light", "phone")] == [0, 0]
