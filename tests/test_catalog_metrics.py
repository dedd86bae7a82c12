"""Reports of commits to Unity Catalog: each request is what its OpenAPI document describes."""

from __future__ import annotations

import json
import logging

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import CatalogMetricsSink, CatalogTable, DeltaLakeInstrumentor, Settings, flush
from deltawitness.exceptions import ConfigurationError
from deltawitness.observe import queued_sink
from helpers.webhook_server import webhook_server

TABLE_ID = "123e4567-e89b-12d3-a456-426614174000"
INTEGER = {"type": "integer"}
COUNTS = ("files-added", "bytes-added", "files-removed", "bytes-removed")
ROWS = ("rows-inserted", "rows-removed", "rows-updated")
HISTOGRAM = {
    "type": "object",
    "required": ["sorted-bin-boundaries", "file-counts", "total-bytes"],
    "properties": {
        **{
            name: {"type": "array", "items": INTEGER}
            for name in ("sorted-bin-boundaries", "file-counts", "total-bytes")
        },
        "commit-version": INTEGER,
    },
}
REQUEST = {
    "type": "object",
    "required": ["table-id"],
    "additionalProperties": False,
    "properties": {
        "table-id": {"type": "string", "format": "uuid"},
        "report": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "commit-report": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        **{f"num-{name}": INTEGER for name in (*COUNTS, *ROWS)},
                        "file-size-histogram": HISTOGRAM,
                    },
                }
            },
        },
    },
}
"""`DeltaReportMetricsRequest` of Unity Catalog (`api/delta.yaml`), without members that it does not name."""

PATH = "/delta/v1/catalogs/main/schemas/sales/tables/orders%20%2F/metrics"


@pytest.fixture
def catalog():
    """A catalog on loopback."""
    with webhook_server() as receiver:
        yield receiver


def observe(sink, **settings):
    """Instrument with a sink, and without waits at the end."""
    DeltaLakeInstrumentor().instrument(
        settings=Settings(sink_timeout=60.0, **settings), sinks=[sink]
    )


def reports_of(catalog):
    """Return the reports, each of which is valid."""
    from jsonschema import Draft202012Validator  # a second, which other workers do not need

    found = []
    for _, body in catalog.requests:
        content = json.loads(body)
        Draft202012Validator(REQUEST, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
            content
        )
        assert content["table-id"] == TABLE_ID
        found.append(content["report"]["commit-report"])
    return found


@pytest.mark.slow
def test_each_commit_of_a_table_in_the_catalog_is_reported(tmp_path, catalog):
    """Rows, files and bytes are those of the commit; other tables and writes without a commit send nothing."""
    orders = CatalogTable("main.sales.orders /", TABLE_ID)
    sink = CatalogMetricsSink(catalog.url, {f"file://{tmp_path}/orders/": orders}, token=lambda: "t0ken")  # fmt: skip
    observe(sink)
    place = str(tmp_path / "orders")
    for _ in range(2):
        write_deltalake(place, pa.table({"x": [1, 2]}), mode="append")
    write_deltalake(str(tmp_path / "other"), pa.table({"x": [1]}))
    DeltaTable(place).delete("x = 7")
    DeltaTable(place).update(updates={"x": "9"}, predicate="x = 2")
    with pytest.raises(Exception, match="Cannot cast schema"):
        write_deltalake(place, pa.table({"x": [1], "y": ["a"]}), mode="append")
    flush()
    DeltaLakeInstrumentor().uninstrument()
    first, second, updated = reports_of(catalog)
    assert first["num-rows-inserted"] == second["num-rows-inserted"] == 2
    assert first["num-files-added"] == 1
    assert first["num-bytes-added"] > 100
    assert updated["num-rows-updated"] == 2
    assert (updated["num-files-removed"], updated["num-files-added"]) == (2, 1)
    assert {headers["Authorization"] for headers, _ in catalog.requests} == {"Bearer t0ken"}
    assert {path.removeprefix("/hook/s3cret-path") for path in catalog.paths} == {PATH}


@pytest.mark.slow
@pytest.mark.internal_errors
def test_failures_are_retried_and_counted(tmp_path, catalog, caplog, monkeypatch):
    """A report is sent three times at most, and then dropped; a refused one does not hold up the next."""
    monkeypatch.setattr(queued_sink, "PAUSE", 0.0)
    waits = []
    table = CatalogTable("main.sales.orders", TABLE_ID)
    sink = CatalogMetricsSink(catalog.url, lambda _: table, token="t0ken", wait=waits.append)
    catalog.answers += [503, lambda: None, 204, 404, 204, 500, 500, 500]
    observe(sink)
    with caplog.at_level(logging.WARNING, logger="deltawitness"):
        for x in range(4):
            write_deltalake(str(tmp_path / "t"), pa.table({"x": [x]}), mode="append")
        flush()
        counts = sink.counts
        DeltaLakeInstrumentor().uninstrument()
    assert (counts.received, counts.sent, counts.dropped) == (4, 2, 2)
    assert len(catalog.requests) == 8
    assert len(waits) == 4
    assert "catalog_metrics: 2 of 4 writes were not sent" in caplog.messages
    assert "t0ken" not in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.slow
@pytest.mark.internal_errors
def test_a_function_of_tables_that_fails_changes_no_write(tmp_path, catalog):
    """The write succeeds, and is counted as dropped."""
    sink = CatalogMetricsSink(catalog.url, {}.__getitem__)
    observe(sink)
    write_deltalake(str(tmp_path / "t"), pa.table({"x": [1]}))
    flush()
    dropped = sink.counts.dropped
    DeltaLakeInstrumentor().uninstrument()
    assert (DeltaTable(str(tmp_path / "t")).version(), dropped) == (0, 1)
    assert catalog.requests == []


def test_arguments_are_checked():
    """The URL must be `https` elsewhere, and the name of a table has three parts."""
    with pytest.raises(ConfigurationError, match="the URL of the catalog is http"):
        CatalogMetricsSink("http://catalog.example/api", {})
    CatalogMetricsSink("http://catalog.example/api", {}, allow_http=True)
    with pytest.raises(ValueError, match=r"expected catalog\.schema\.table"):
        CatalogTable("orders", TABLE_ID)
