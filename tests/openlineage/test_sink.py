"""The OpenLineage events of writes: what they contain, and what a server that does not answer costs."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import deltawitness
from deltawitness import DeltaLakeInstrumentor, ObservedSessionContext, Settings
from deltawitness.openlineage.sink import OpenLineageSink
from deltawitness.semconv import METRIC_EVENTS_DROPPED
from helpers.ledger_commands import invoke
from helpers.lineage_server import lineage_server, spec_validator

PATIENCE = 60.0
"""Seconds for the first event, before which the client is imported, on a busy machine."""

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Make an empty folder the working directory, with the ledger in it."""
    monkeypatch.setenv("DELTAWITNESS_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "root"


def write_demo(folder, url, **settings):
    """Write tables in every way that an event shows, and return their locations."""
    instrumentor = DeltaLakeInstrumentor()
    root = os.environ["DELTAWITNESS_ROOT"]
    instrumentor.instrument(settings=Settings(openlineage=url, cache_root=root, **settings))
    prices, euros = f"{folder}/prices", f"{folder}/euros"
    try:
        with deltawitness.run("nightly", attributes={"team": "sales"}, message="backfill"):
            rows = pa.table({"id": [1, 2], "price": [1.5, 2.5], "tags": [["a"], []]})
            write_deltalake(prices, rows)
            write_deltalake(prices, rows, mode="append")
            ctx = ObservedSessionContext()
            ctx.register_delta("prices", prices)
            ctx.sql("SELECT id, price * 2 AS euros FROM prices WHERE id > 1").write_delta(
                euros, mode="overwrite"
            )
            DeltaTable(prices).delete("id = 1")
            DeltaTable(prices).optimize.compact()
            with pytest.raises(Exception, match="Cannot cast schema"):
                write_deltalake(prices, pa.table({"id": [1], "secret": ["x"]}), mode="append")
        deltawitness.flush()
    finally:
        instrumentor.uninstrument()
    return prices, euros


def ended(events):
    """Return the events that end a run, by their jobs."""
    return [event for event in events if event["eventType"] != "START"]


@pytest.mark.slow
def test_events_of_writes(tmp_path):
    """Each write has a START and one COMPLETE or FAIL, with exact versions, parent run and columns."""
    with lineage_server() as (url, events):
        prices, euros = write_demo(
            tmp_path,
            url,
            openlineage_namespace="lake",
            openlineage_tables={euros_of(tmp_path): "unitycatalog://uc.example/main.sales.euros"},
            openlineage_repository="https://git.example/team/jobs",
        )
    assert [event["eventType"] for event in events[::2]] == ["START"] * 6
    assert [event["run"]["runId"] for event in events[::2]] == [
        event["run"]["runId"] for event in events[1::2]
    ]
    created, appended, derived, deleted, compacted, failed = ended(events)
    assert [event["job"]["name"] for event in ended(events)] == [
        "nightly.write.prices",
        "nightly.write.prices",
        "nightly.write.euros",
        "nightly.delete.prices",
        "nightly.optimize.prices",
        "nightly.write.prices",
    ]
    output = created["outputs"][0]
    assert (output["namespace"], output["name"]) == ("file", prices)
    assert fields_of(output) == [("id", "long"), ("price", "double"), ("tags", "array<string>")]
    assert output["facets"]["lifecycleStateChange"]["lifecycleStateChange"] == "CREATE"
    assert output["facets"]["storage"]["storageLayer"] == "delta"
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 2
    report = output["outputFacets"]["deltaCommitReport"]
    assert (report["version"], report["operation"]) == (0, "WRITE")
    assert report["commitMetrics"]["addedRecords"] == 2

    assert version_of(appended["outputs"][0]) == "1"
    assert [(each["name"], version_of(each)) for each in derived["inputs"]] == [(prices, "1")]
    target = derived["outputs"][0]
    assert target["facets"]["symlinks"]["identifiers"] == [
        {"namespace": "unitycatalog://uc.example", "name": "main.sales.euros", "type": "TABLE"}
    ]
    columns = target["facets"]["columnLineage"]
    assert columns["fields"]["euros"]["inputFields"] == [
        {
            "namespace": "file",
            "name": prices,
            "field": "price",
            "transformations": [{"type": "DIRECT", "subtype": "TRANSFORMATION"}],
        }
    ]
    assert columns["dataset"][0]["transformations"] == [{"type": "INDIRECT", "subtype": "FILTER"}]
    (entry,) = derived["job"]["facets"]["lineage"]["entries"]
    assert (entry["name"], set(entry["fields"])) == (euros, {"id", "euros"})
    assert version_of(deleted["outputs"][0]) == "2"
    assert compacted["eventType"] == "COMPLETE"

    assert failed["eventType"] == "FAIL"
    error = failed["run"]["facets"]["errorMessage"]
    assert error["programmingLanguage"] == "PYTHON"
    assert "version" not in failed["outputs"][0]["facets"]
    assert failed["outputs"][0]["outputFacets"]["deltaCommitReport"]["landed"] == "no"

    parent = failed["run"]["facets"]["parent"]
    assert parent["job"] == {"namespace": "lake", "name": "nightly"}
    assert parent["run"]["runId"] == created["run"]["facets"]["parent"]["run"]["runId"]
    assert created["run"]["facets"]["processing_engine"]["name"] == "delta-rs"
    tags = {tag["key"]: tag["value"] for tag in created["run"]["facets"]["tags"]["tags"]}
    assert (tags["team"], tags["message"]) == ("sales", "backfill")
    source = created["job"]["facets"]["sourceCodeLocation"]
    assert source["url"].startswith("https://git.example/team/jobs/blob/")
    assert "tests/openlineage/test_sink.py#L" in source["url"]


def euros_of(folder):
    return f"file://{folder}/euros/"


def fields_of(output):
    return [(field["name"], field["type"]) for field in output["facets"]["schema"]["fields"]]


def version_of(dataset):
    return dataset["facets"]["version"]["datasetVersion"]


@pytest.mark.slow
def test_live_and_replayed_events_meet_the_specification(tmp_path):
    """Events of the sink and those of `lineage-export` are valid, and they agree except for schemas and tags."""
    validate = spec_validator()
    with lineage_server() as (url, events):
        write_demo(tmp_path, url)
        file = tmp_path / "events.jsonl"
        assert invoke("lineage-export", "-o", file).exit_code == 0
        live = list(events)
        assert invoke("lineage-export", "--send", url).exit_code == 0
    sent = events[len(live) :]
    assert len(live) == len(sent) == 12
    for event in (*live, *sent):
        validate(event)
    assert [comparable(event) for event in sent] == [comparable(event) for event in live]


def comparable(event):
    """Return an event without what only one of ledger and live event has."""
    run = {name: facet for name, facet in event["run"]["facets"].items() if name != "tags"}
    outputs = [
        {**each, "facets": {k: v for k, v in (each.get("facets") or {}).items() if k != "schema"}}
        for each in event["outputs"]
    ]
    job = {k: v for k, v in event["job"].items() if k != "facets"}
    return {**event, "eventTime": event["eventTime"][:19], "run": {**event["run"], "facets": run}, "outputs": outputs, "job": job}  # fmt: skip


@pytest.mark.slow
@pytest.mark.internal_errors
def test_dead_server_loses_no_write_silently(tmp_path, caplog):
    """With a server that is gone, every write succeeds, and each that was not sent is counted as dropped."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    reader = InMemoryMetricReader()
    sink = OpenLineageSink(url, capacity=3)
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(
        settings=Settings(sink_timeout=PATIENCE),
        sinks=[sink],
        meter_provider=MeterProvider([reader]),
    )
    with caplog.at_level(logging.WARNING, logger="deltawitness"):
        for x in range(6):
            write_deltalake(str(tmp_path / "t"), pa.table({"x": [x]}), mode="append")
        instrumentor.uninstrument()
    assert DeltaTable(str(tmp_path / "t")).version() == 5
    assert dropped_of(reader) == 6
    assert [line for line in caplog.messages if "not sent" in line] == [
        "openlineage: 6 of 6 writes were not sent"
    ]


def dropped_of(reader):
    points = [
        point
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == METRIC_EVENTS_DROPPED
        for point in metric.data.data_points
    ]
    return sum(point.value for point in points)


def _write_in_child(path):
    write_deltalake(path, pa.table({"x": [1]}))


@pytest.mark.slow
@pytest.mark.timeout(360)
def test_child_processes_send_their_writes(tmp_path, monkeypatch):
    """A spawned child of an instrumented program sends the events of its writes before it ends."""
    with lineage_server() as (url, events):
        monkeypatch.setenv("DELTAWITNESS_OPENLINEAGE", url)
        monkeypatch.setenv("DELTAWITNESS_SINK_TIMEOUT", str(PATIENCE))
        instrumentor = DeltaLakeInstrumentor()
        instrumentor.instrument()
        try:
            child = multiprocessing.get_context("spawn").Process(
                target=_write_in_child, args=(str(tmp_path / "t"),)
            )
            child.start()
            child.join(300)
        finally:
            instrumentor.uninstrument()
    assert child.exitcode == 0
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]


@pytest.mark.slow
def test_client_configuration_is_used(tmp_path, monkeypatch):
    """With `client`, events go where the configuration of the OpenLineage client says."""
    file = tmp_path / "events.jsonl"
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(file))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
    before = dict(os.environ)
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(settings=Settings(openlineage="client", sink_timeout=PATIENCE))
    write_deltalake(str(tmp_path / "t"), pa.table({"x": [1]}))
    instrumentor.uninstrument()
    assert len(file.read_text("utf-8").splitlines()) == 2
    assert dict(os.environ) == before


@pytest.mark.slow
def test_server_that_refuses_the_replay(tmp_path):
    """The export stops after three refused events in succession, says so, and exits 1."""
    DeltaLakeInstrumentor().instrument()
    for x in range(3):
        write_deltalake(str(tmp_path / "t"), pa.table({"x": [x]}), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    with lineage_server(status=400) as (url, _):
        done = invoke("lineage-export", "--send", url)
    assert done.exit_code == 1
    assert "stopped after 0 events: 3 were refused" in done.stderr
