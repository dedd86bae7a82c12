"""Distributed writes on a Dask cluster."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import SchemaMismatchError

from deltawitness import run, write_distributed
from deltawitness.exceptions import ConfigurationError
from deltawitness.instrumentation import DeltaLakeInstrumentor
from helpers.engine_versions import needs_deltalake
from programs.distributed_driver import Part, parts

pytestmark = [
    pytest.mark.slow,
    needs_deltalake("1.6.3", "write transactions contain no application transactions"),
]

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "t")


def ids(uri):
    return sorted(DeltaTable(uri).to_pyarrow_table()["id"].to_pylist())


def forms(client):
    """Return the parts of the rows 0 to 19 in the forms of Dask."""
    import dask

    tables = [part() for part in parts(2)]
    return {
        "tables": tables,
        "functions": parts(2),
        "futures": [client.submit(part, pure=False) for part in parts(2)],
        "delayed": [dask.delayed(part)() for part in parts(2)],
        "streams": [table.to_reader() for table in tables],
    }


def test_without_a_client_there_is_an_error(uri, captured_writes):
    """The first test of the file, before the module's client exists."""
    with pytest.raises(ConfigurationError, match=r"distributed\.Client"):
        write_distributed([Part(0)], uri, engine="dask")


@pytest.mark.parametrize("form", ["tables", "functions", "futures", "delayed", "streams"])
def test_every_form_of_parts(form, client, uri, captured_writes):
    """One commit and one event, in the run of the driver."""
    with run("load") as context:
        result = write_distributed(forms(client)[form], uri, engine=client)
    assert (result.rows, result.parts, ids(uri)) == (20, 2, list(range(20)))
    (event,) = captured_writes.events
    assert (event.run.run_id, event.intent.parts) == (context.run_id, 2)


def test_a_dask_frame(client, uri, captured_writes):
    """Its partitions are the parts, and its engine is the default."""
    frames = pytest.importorskip("dask.dataframe")
    frame = frames.from_pandas(pd.DataFrame({"id": range(20), "s": ["a"] * 20}), npartitions=4)
    result = write_distributed(frame, uri)
    assert (result.rows, result.parts, ids(uri)) == (20, 4, list(range(20)))
    assert DeltaTable(uri).schema().to_arrow().names == ["id", "s"]


def test_errors_of_workers_keep_their_class(client, uri, captured_writes):
    write_deltalake(uri, pa.table({"id": [1]}))
    with pytest.raises(SchemaMismatchError, match="part 1"):
        write_distributed([Part(0), pa.table({"x": [1]})], uri, engine="dask")
    assert ids(uri) == [1]


def test_a_killed_worker_is_retried_and_its_rows_are_there_once(client, uri, tmp_path):
    """The scheduler runs the part again, in another folder; one commit has one of the two."""
    DeltaLakeInstrumentor().instrument()
    write_deltalake(uri, Part(9)())
    fatal = tmp_path / "fatal"
    fatal.touch()
    result = write_distributed(parts(4, str(fatal)), uri, engine=client, key="load")
    assert not fatal.exists()
    assert (result.version, result.rows, result.parts) == (1, 40, 4)
    assert ids(uri) == [*range(40), *range(90, 100)]
    again = write_distributed(parts(4), uri, engine=client, key="load")
    assert (again.version, again.is_new) == (1, False)
    assert len(list(Path(uri).glob("staging-*"))) >= 4
