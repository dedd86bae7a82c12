"""The OpenLineage events of `make demo`: openlineage-java and Feast accept each of them.

`tests/project/test_demo.py` checks them against the specification.
Java and Feast run in environments of their own, which `helpers.lineage_consumers` makes once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from deltawitness import lineage, writes
from deltawitness.openlineage.datasets import dataset_name
from helpers.ledger_commands import COMMAND, invoke
from helpers.lineage_consumers import (
    feast_graph,
    feast_server,
    missing_for_java,
    parse_in_java,
)
from helpers.lineage_server import lineage_server
from helpers.places import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PROGRAMS = {"lakehouse": "lakehouse.py", "cached-lakehouse": "cached_lakehouse.py"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of the demo's ledger, and the events that its two programs have sent."""
    folder = tmp_path_factory.mktemp("demo")
    with lineage_server() as (url, events):
        for job, program in PROGRAMS.items():
            script = [sys.executable, str(REPOSITORY / "examples" / program), str(folder / "lake")]
            subprocess.run(
                [*COMMAND, "run", "--job", job, "--quiet", "--", *script],
                cwd=folder,
                env={
                    **os.environ,
                    "DELTAWITNESS_ROOT": str(folder / "ledger"),
                    "DELTAWITNESS_OPENLINEAGE": url,
                    "DELTAWITNESS_SINK_TIMEOUT": "120",
                },
                capture_output=True,
                check=True,
                timeout=600,
            )
    return folder / "ledger", events


def sent_writes(ledger):
    """Return the rows of the ledger that are sent as events: not the reads of the cache."""
    return [row for row in writes(root=ledger) if row.result not in {"hit", "miss"}]


@pytest.mark.interop
@pytest.mark.skipif(missing_for_java() is not None, reason=missing_for_java() or "")
def test_openlineage_java_parses_every_event_of_the_demo(demo):
    """Each facet except `deltaCommitReport` has a class there, and the parsed events are the same JSON."""
    _, events = demo
    parsed, typed = parse_in_java(events)
    names = Counter(name for event in events for name in facet_names(event))
    assert names.pop("deltaCommitReport") > 0
    assert typed == dict(names)
    assert [with_short_time(event) for event in parsed] == list(map(with_short_time, events))


def facet_names(event):
    holders = [event["run"]["facets"], event["job"]["facets"]]
    for dataset in (*event["inputs"], *event["outputs"]):
        holders += [dataset.get(kind) or {} for kind in ("facets", "inputFacets", "outputFacets")]
    return [name for holder in holders for name in holder]


def with_short_time(event):
    """Return an event with its time without trailing zeros, which Java leaves out."""
    return {**event, "eventTime": event["eventTime"].rstrip("Z0").rstrip(".")}


@pytest.mark.interop
@pytest.mark.usefixtures("programs_with_pandas")
def test_the_graph_of_feast_is_that_of_lineage(demo, tmp_path, monkeypatch):
    """Feast receives the demo over HTTP, and has the datasets and the edges of `deltawitness lineage`."""
    ledger, events = demo
    monkeypatch.setenv("DELTAWITNESS_ROOT", str(ledger))
    monkeypatch.setenv("OPENLINEAGE_ENDPOINT", "api/v1/lineage")
    with feast_server(tmp_path) as url:
        done = invoke("lineage-export", "--send", url)
        assert done.exit_code == 0, done.output
        assert done.stdout == f"{len(events)} events sent\n"
        graph = feast_graph(url)
        files = feast_graph(url, "file")
    datasets = {
        (node["namespace"], node["name"]) for node in graph["nodes"] if node["type"] == "dataset"
    }
    assert datasets == {dataset_name(uri) for row in sent_writes(ledger) for uri in locations(row)}
    assert {node["name"] for node in files["nodes"]} >= {name for _, name in datasets}
    assert edges_of_feast(graph) == edges_of_lineage(ledger)


def locations(row):
    """Return the locations of the tables of an operation."""
    reads = (each.uri for each in row.inputs or row.run_inputs)
    return [uri for uri in (row.table_uri, *reads) if uri is not None]


def edges_of_feast(graph):
    """Return which dataset was made from which: by an edge of the two, or by one into and one out of a job."""
    return {
        (
            (edge["source_namespace"], edge["source_name"]),
            (edge["target_namespace"], edge["target_name"]),
        )
        for edge in graph["edges"]
        if edge["source_type"] == edge["target_type"] == "dataset"
    }


def edges_of_lineage(ledger):
    """Return which table was made from which, over all versions in the ledger, as datasets."""
    tables = {
        (row.table_uri, row.version) for row in writes(root=ledger) if row.version is not None
    }
    graphs = [lineage(f"{uri}@{version}", depth=1, root=ledger) for uri, version in tables]
    return {
        (dataset_name(edge.source.uri), dataset_name(edge.target.uri))
        for graph in graphs
        for edge in graph.edges
    }
