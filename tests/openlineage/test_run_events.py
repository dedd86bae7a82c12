"""Parts of OpenLineage events: names of datasets, columns, and events of rows that other engines wrote."""

from __future__ import annotations

import datetime as dt
import json

import pyarrow as pa
import pytest
from openlineage.client.naming import dataset as naming

from deltawitness import InputVersion, WriteRow
from deltawitness.answers.lineage_events import event_of_row
from deltawitness.answers.rows import TableVersion
from deltawitness.column_sources import ColumnSource, ColumnUse, WriteColumns
from deltawitness.openlineage.column_facets import column_lineage_facet
from deltawitness.openlineage.datasets import (
    DatasetName,
    NamingOptions,
    dataset_name,
    table_symlink,
)
from deltawitness.openlineage.facets import schema_fields
from deltawitness.openlineage.run_events import EngineVersions, run_events, run_uuid
from helpers.lineage_server import REPORT

TIME = dt.datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("location", "upstream"),
    [
        ("s3://lake/sales/orders/", naming.S3(bucket_name="lake", object_key="sales/orders")),
        ("s3a://lake/orders", naming.S3(bucket_name="lake", object_key="orders")),
        ("gs://lake/orders", naming.GCS(bucket_name="lake", object_key="orders")),
        (
            "abfss://raw@account.dfs.core.windows.net/orders",
            naming.ABFSS(container="raw", service="account", path="orders"),
        ),
        ("file:///data/a%20b/", naming.LocalFileSystem(path="/data/a b")),
    ],
    ids=["s3", "s3a", "gs", "abfss", "local"],
)
def test_names_are_those_of_the_client(location, upstream):
    """Names of tables are those that the OpenLineage client makes."""
    found = dataset_name(location)
    assert found == (upstream.get_namespace(), upstream.get_name())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unitycatalog://uc/main.sales.t", ("unitycatalog://uc", "main.sales.t")),
        ("sales.t", ("jobs", "sales.t")),
        ("hive://metastore", ("jobs", "hive://metastore")),
    ],
)
def test_symlinks(name, expected):
    """A name with a namespace has it; any other is in the namespace of the jobs."""
    options = NamingOptions("jobs", {"s3://lake/t": name})
    assert table_symlink("s3a://lake/t/", options) == expected
    assert table_symlink("s3://lake/u", options) is None


def test_columns_of_tables_without_a_dataset_are_left_out():
    """Sources that are no Delta table, and inputs without a location, are in no facet; uses are merged."""
    columns = WriteColumns(
        {
            "a": (
                ColumnSource(0, "x", ColumnUse.IDENTITY),
                ColumnSource(0, "x", ColumnUse.CONDITION),
                ColumnSource("csv", "y", ColumnUse.IDENTITY),
                ColumnSource(1, "z", ColumnUse.IDENTITY),
            ),
            "b": None,
        }
    )
    found = column_lineage_facet(columns, [DatasetName("file", "/t"), None])
    (field,) = found["fields"]["a"]["inputFields"]
    assert [each["subtype"] for each in field["transformations"]] == ["IDENTITY", "CONDITIONAL"]
    assert set(found["fields"]) == {"a"}
    assert column_lineage_facet(columns, [None, None]) is None


def test_nested_types():
    """A struct has its fields; maps and arrays are named by their elements."""
    schema = pa.schema(
        [("s", pa.struct([("n", pa.int32())])), ("m", pa.map_(pa.string(), pa.float64()))]
    )
    assert schema_fields(schema) == [
        {"name": "s", "type": "struct", "fields": [{"name": "n", "type": "integer"}]},
        {"name": "m", "type": "map<string,double>"},
    ]


def test_row_of_another_engine():
    """The operation of an adopted commit is the similar one of delta-rs, and ids become UUIDs."""
    row = WriteRow(
        event_time=TIME,
        run_id="spark-1",
        write_id="adopted-7",
        job="spark",
        operation="STREAMING UPDATE",
        cache_operation="write",
        result="write",
        table_uri="s3://lake/t",
        version=7,
        inputs=(TableVersion(None, uri="s3://lake/u", table_id="u"),),
    )
    start, end = run_events(event_of_row(row), NamingOptions(), EngineVersions(name="Spark"))
    assert start["eventTime"] == end["eventTime"] == "2026-03-01T12:30:00.123456Z"
    assert end["run"]["runId"] == run_uuid("adopted-7")
    assert end["job"]["name"] == "spark.write.t"
    assert end["outputs"][0]["facets"]["version"]["datasetVersion"] == "7"
    assert "version" not in end["inputs"][0]["facets"]
    assert end["run"]["facets"]["processing_engine"]["name"] == "Spark"


def test_failed_row_and_row_without_a_commit():
    """Error texts of the ledger are redacted, and an operation without a commit says why."""
    failed = WriteRow(
        event_time=TIME,
        write_id="w",
        operation="MERGE",
        cache_operation="merge",
        result="error",
        table_uri="/data/t",
        exception_type="DeltaError",
        error_message="cannot read /home/ann/t: id = 'x'",
        landed="no",
        run_inputs=(TableVersion(3, uri="/data/u", table_id="u"),),
    )
    _, end = run_events(event_of_row(failed), NamingOptions(), EngineVersions())
    assert end["eventType"] == "FAIL"
    message = end["run"]["facets"]["errorMessage"]["message"]
    assert message == "DeltaError: cannot read [path]: id = ?"
    (tag,) = end["inputs"][0]["facets"]["tags"]["tags"]
    assert (tag["key"], tag["value"]) == ("deltawitness.input", "inferred")

    idle = WriteRow(write_id="w", operation="OPTIMIZE", cache_operation="optimize", result="noop")
    idle = event_of_row(idle)
    _, end = run_events(idle, NamingOptions(), EngineVersions())
    assert (end["eventType"], end["outputs"]) == ("COMPLETE", [])


def test_export_has_no_commit_report():
    """A COPY wrote files outside Delta: it has statistics, and no version, storage or report."""
    row = WriteRow(
        write_id="w",
        operation="COPY",
        cache_operation="write",
        result="write",
        table_uri="/data/out.parquet",
        rows_added=3,
    )
    _, end = run_events(event_of_row(row), NamingOptions(), EngineVersions())
    (output,) = end["outputs"]
    assert set(output["outputFacets"]) == {"outputStatistics"}
    assert "facets" not in output
    assert end["run"]["facets"]["processing_engine"]["name"] == "DataFusion"


def test_commit_report_has_a_schema():
    """The schema of the package describes each member of the report, and is itself valid."""
    schema = json.loads(REPORT.read_text("utf-8"))
    from jsonschema import Draft202012Validator  # a second, which other workers do not need

    Draft202012Validator.check_schema(schema)
    properties = schema["$defs"]["DeltaCommitReportOutputDatasetFacet"]["allOf"][1]["properties"]
    row = WriteRow(
        write_id="w", operation="WRITE", cache_operation="write", result="write", version=0,
        versions=(0,), table_uri="/t", mode="append", rows_added=1, files_added=1, retries=0,
    )  # fmt: skip
    _, end = run_events(event_of_row(row), NamingOptions(), EngineVersions())
    report = end["outputs"][0]["outputFacets"]["deltaCommitReport"]
    assert report["_schemaURL"].startswith(schema["$id"])
    assert {name for name in report if not name.startswith("_")} <= set(properties)
    assert set(report["commitMetrics"]) <= set(properties["commitMetrics"]["properties"])


def test_input_without_location_is_left_out():
    """An input of which only the id is known is no dataset."""
    row = WriteRow(
        write_id="w", operation="WRITE", cache_operation="write", result="write", table_uri="/t",
        inputs=(TableVersion(1, table_id="u"),),
    )  # fmt: skip
    event = event_of_row(row)
    assert event.intent.inputs == (InputVersion("u", 1),)
    _, end = run_events(event, NamingOptions(), EngineVersions())
    assert end["inputs"] == []
