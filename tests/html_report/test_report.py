"""The report says what the ledger has, and its HTML is complete, harmless and bounded."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from deltawitness import report_html
from deltawitness.exceptions import LedgerLookupError
from deltawitness.html_report import edge_columns, reading
from deltawitness.html_report import page as page_module
from helpers.histories import build_history
from helpers.report_ledgers import COLUMNS, START, hostile_ledger, operation, run_row, write_ledger

VOID = {"meta", "input"}


class Page(HTMLParser):
    """The elements of a report: their names, ids and attributes, and the texts of some."""

    def __init__(self, text):
        super().__init__()
        self.names, self.ids, self.attributes, self.open = Counter(), [], [], []
        self.texts = {"script": [], "style": [], "title": []}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.names[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in self.texts:
            self.texts[self.open[-1]].append(data)

    @property
    def data(self):
        """The values of the JSON island."""
        return json.loads(self.texts["script"][0])

    def events(self):
        """The events of the JSON island, with their texts."""
        data = self.data
        texts = set(data["event_text_fields"])
        for event in data["events"]:
            yield {
                name: data["strings"][value] if name in texts and value is not None else value
                for name, value in zip(data["event_fields"], event, strict=True)
            }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A ledger of a job that failed in its second run."""
    second = "00000031-0000-7000-8000-000000000000"
    inventory = [
        operation(0),
        operation(1, version=1),
        operation(30, version=2, run_id=second, retries=1),
        operation(30, version=1, write_id="rival", job="other", run_id="other-run"),
        operation(
            31,
            run_id=second,
            result="error",
            version=None,
            versions=[],
            error_type="schema_mismatch",
            error_message="no",
            landed="no",
        ),
        operation(
            32,
            run_id=second,
            table_name="totals",
            version=0,
            inputs=[{"uri": "file:///lake/orders", "table_id": "id-orders", "version": 2}],
            column_lineage=COLUMNS,
            plan_hash="plan",
        ),
        operation(
            33,
            key="k",
            result="miss",
            reason="new",
            policy="daily",
            duration_ms=2000.0,
            version=None,
        ),
        operation(
            34, key="k", result="hit", reason=None, policy="daily", duration_ms=500.0, version=None
        ),
    ]
    runs = [run_row(0), run_row(30, status="error", error_type="SchemaMismatchError", errors=1)]
    return write_ledger(tmp_path_factory.mktemp("small"), inventory, runs)


@pytest.fixture(scope="module")
def report(small):
    """The report of all operations of the small ledger."""
    return report_html(root=small)


@pytest.mark.slow
def test_the_verdict_counts_what_failed_and_the_island_has_every_event(report):
    data = Page(report.html).data
    assert not report.is_ok
    assert report.verdict.startswith("1 failed run, 1 failed operation, 1 broken job")
    assert data["verdict"] == report.verdict
    assert data["results"] == {"write": 5, "error": 1, "miss": 1, "hit": 1}
    assert (report.operations, report.left_out, len(data["events"])) == (8, 0, 8)
    assert [each["kind"] for each in data["regressions"]] == ["broken"]
    assert [(each["error_type"], each["landed"]) for each in data["errors"]] == [
        ("schema_mismatch", "no")
    ]


def test_the_graph_has_the_versions_that_were_read_and_written(report):
    html = report.html
    (edge,) = Page(html).data["edges"]
    assert (edge["source_version"], edge["target_version"]) == (2, 0)
    assert "totals@0 was made from orders@2" in html


def test_a_failed_run_says_what_it_wrote_and_what_depends_on_it(report):
    """The run has appended to orders before an append to orders failed; totals was made from orders."""
    (card,) = re.findall(r'<article class="failure">(.*?)</article>', report.html)
    text = re.sub(r"<[^>]+>", "", card.replace("</dd>", "\n"))
    assert "What failedWRITE append on orders\n" in text
    assert "Whyschema_mismatch: no\n" in text
    assert "Tables of the runorders@2, totals@0\n" in text
    assert "no: the failed WRITE append has not changed orders" in text
    assert "the commits before it are in the tables: orders@2, totals@0" in text
    assert "Depends on these tablesno table\n" in text
    (failed,) = Page(report.html).data["failed_runs"]
    assert (failed["run_id"][:8], failed["failed_operations"]) == ("00000031", ["write-31"])
    assert [each["name"] for each in failed["tables"]] == ["orders", "totals"]


def test_an_edge_has_the_columns_of_its_last_write(report):
    (edge,) = Page(report.html).data["edges"]
    assert (edge["count"], edge["is_inferred"], edge["write_id"]) == (1, False, "write-32")
    assert edge["columns"] == {
        "pairs": [
            ["id", "id", "identity"],
            ["euros", "price", "aggregation"],
            [None, "state", "filter"],
        ],
        "left_out": 0,
        "reason": None,
    }
    assert "euros: aggregation of price" in report.html


@pytest.mark.slow
def test_columns_above_the_bound_are_counted(small, monkeypatch):
    monkeypatch.setattr(edge_columns, "MAX_PAIRS", 1)
    (edge,) = Page(report_html(root=small).html).data["edges"]
    assert (len(edge["columns"]["pairs"]), edge["columns"]["left_out"]) == (1, 2)


def test_the_errors_name_the_tables_that_were_made_from_failed_ones(report):
    """The failed write is on orders, from which totals was made."""
    *_, listed = re.findall(r"<dl>(.*?)</dl>", report.html)
    assert re.findall(r"<bdi>(.*?)</bdi>", listed) == ["orders", "totals"]


def test_a_hit_saves_the_time_of_the_miss_less_its_own(report):
    html = report.html
    assert "saved about 1.5 s" in html
    assert "50%" in html


def test_a_retried_write_names_the_commit_it_collided_with(report):
    assert "orders@1 WRITE append, job other" in report.html


@pytest.mark.slow
def test_one_run_is_compared_with_the_previous_run_of_its_job(small, report):
    """The report of a run has only its operations, and outlines of those of the run before."""
    one = report_html(run="00000031", root=small)
    page = Page(one.html)
    assert one.operations == 3
    assert {event["run_id"] for event in page.events()} == {"00000031-0000-7000-8000-000000000000"}
    assert ("rect", "class", "ghost") in page.attributes
    assert ("rect", "class", "ghost") not in Page(report.html).attributes


@pytest.mark.slow
def test_job_and_since_select_operations(small):
    assert report_html(job="other", root=small).operations == 1
    assert report_html(since=START + dt.timedelta(minutes=32), root=small).operations == 3
    nothing = report_html(since=START + dt.timedelta(days=9), root=small)
    assert nothing.operations == 0
    Page(nothing.html)


def test_a_run_cannot_be_combined_with_other_filters_and_must_exist(small):
    with pytest.raises(ValueError, match="run: cannot be combined"):
        report_html(run="0", job="load", root=small)
    with pytest.raises(LedgerLookupError, match="no run begins with ffff"):
        report_html(run="ffff", root=small)


def test_the_policy_allows_only_the_style_and_the_script_of_the_page(report):
    """No attribute holds style or script, no element loads anything, and the hashes are those of the content."""
    page = Page(report.html)
    (policy,) = [
        value
        for tag, name, value in page.attributes
        if tag == "meta" and name == "content" and "default-src" in value
    ]
    assert policy.startswith("default-src 'none';")
    for text in (page.texts["style"][0], page.texts["script"][1]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not page.names.keys() & {"img", "link", "iframe", "object", "base", "form"}
    for _, name, value in page.attributes:
        assert name not in {"style", "src", "srcset", "action"}
        assert not name.startswith("on")
        assert name != "href" or value.startswith("#")


def test_links_within_the_page_have_targets_and_ids_are_unique(report):
    page = Page(report.html)
    assert len(set(page.ids)) == len(page.ids)
    anchors = {
        value[1:] for _, name, value in page.attributes if name == "href" and "=" not in value
    }
    assert anchors <= set(page.ids)


@pytest.mark.slow
def test_hostile_names_and_messages_make_no_element(tmp_path):
    """The page has no element but its own, no control character, and says how long cut texts were."""
    html = report_html(root=hostile_ledger(tmp_path)).html
    page = Page(html)
    assert page.names["script"] == 2
    assert page.names["b"] == page.names["img"] == 0
    assert "injected" not in page.ids
    assert not set(re.findall(r"[\x00-\x08\x0b-\x1f\x7f]", html))
    assert "\\u202egpj.exe" in html
    assert "(10,000 characters)" in html
    assert len(page.data["events"]) == page.data["events_total"]
    assert html.isascii()


@pytest.mark.slow
def test_above_the_bounds_the_report_is_sums_and_says_so(small, monkeypatch):
    """Operations that are left out are in the sums; failed ones stay even if they are older."""
    monkeypatch.setattr(reading, "MAX_EVENTS", 2)
    monkeypatch.setattr(reading, "MAX_BARS", 3)
    report = report_html(root=small)
    page = Page(report.html)
    assert (report.operations, report.left_out) == (8, 5)
    assert [event["result"] for event in page.events()] == ["hit", "miss", "error"]
    assert "3 of 8 operations: the newest, and the newest failed ones" in report.html
    assert "8 operations are too many for a bar each" in report.html
    assert sum(each["operations"] for each in page.data["tables"]) == 8


@pytest.mark.slow
def test_a_report_that_is_too_large_has_fewer_events(small, report, monkeypatch):
    monkeypatch.setattr(page_module, "MAX_BYTES", len(report.html) - 1)
    smaller = report_html(root=small)
    assert len(smaller.html) < len(report.html)
    assert (smaller.operations, smaller.left_out) == (8, 4)


@pytest.mark.slow
def test_the_sums_are_those_of_a_random_history(tmp_path):
    """Commits, failures and versions of each table are those that the programs made."""
    history = build_history(tmp_path, 11)
    page = Page(report_html(root=history.root).html)
    tables = {each["name"]: each for each in page.data["tables"]}
    for name in history.tables:
        versions = [each.version for each in history.of(name) if each.is_observed]
        assert tables[name]["last_version"] == max(versions)
        assert tables[name]["errors"] == sum(each.table == name for each in history.failures)
    assert page.data["results"].get("error", 0) == len(history.failures)
    read = {(source, each.table) for each in history.commits for source, _ in each.inputs}
    edges = {(each["source"], each["target"]) for each in page.data["edges"]}
    names = {each["place"]: each["name"] for each in page.data["tables"]}
    drawn = {(names[source], names[target]) for source, target in edges}
    assert drawn == {pair for pair in read if pair[0] != pair[1]}
