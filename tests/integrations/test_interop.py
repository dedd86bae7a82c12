"""Programs of other libraries that write with delta-rs, run unchanged by `opentelemetry-instrument`.

Each program writes the table `t` below its first argument, without any code for observation. A library
that conflicts with the pins of the project runs in a separate environment from the same lock file.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from deltawitness.commit.reader import history
from helpers.places import REPOSITORY

pytestmark = pytest.mark.interop

PROJECT = REPOSITORY

PROGRAMS = {
    "polars": """
        import sys, polars
        polars.DataFrame({"x": [1, 2]}).write_delta(sys.argv[1] + "/t")
    """,
    "dlt": """
        import os, sys, dlt
        os.environ["DESTINATION__FILESYSTEM__BUCKET_URL"] = "file://" + sys.argv[1]
        os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
        pipeline = dlt.pipeline("p", destination="filesystem", dataset_name="d", pipelines_dir=sys.argv[1] + "/w")
        pipeline.run([{"x": 1}, {"x": 2}], table_name="t", table_format="delta", loader_file_format="parquet")
        os.rename(sys.argv[1] + "/d/t", sys.argv[1] + "/t")
    """,
    "ibis": """
        import sys, ibis, polars
        backend = ibis.polars.connect()  # its DuckDB backend calls what DuckDB 2 has no more
        backend.create_table("m", polars.DataFrame({"x": [1, 2]}))
        backend.to_delta(backend.table("m"), sys.argv[1] + "/t")
    """,
    "kedro": """
        import sys, pandas
        from kedro_datasets.pandas import DeltaTableDataset
        dataset = DeltaTableDataset(filepath=sys.argv[1] + "/t")
        dataset.save(pandas.DataFrame({"x": [1, 2]}))
    """,
    "dask": """
        import sys, dask, dask.dataframe, deltalake, pandas, pyarrow
        from dask_deltatable import to_deltalake
        # It opens the table before it makes one, by an exception that delta-rs raises no more.
        deltalake.DeltaTable.create(sys.argv[1] + "/t", pyarrow.schema([("x", "int64")]))
        frame = dask.dataframe.from_pandas(pandas.DataFrame({"x": [1, 2]}), npartitions=2)
        with dask.config.set(scheduler="threads"):
            to_deltalake(sys.argv[1] + "/t", frame, mode="append", compute=True)
    """,
    "daft": """
        import sys, daft
        daft.from_pydict({"x": [1, 2]}).write_deltalake(sys.argv[1] + "/t")
    """,
    "dagster": """
        import sys, pyarrow, dagster
        from dagster_deltalake import LocalConfig
        from dagster_deltalake.io_manager import DeltaLakeIOManager
        from dagster_deltalake.handler import DeltaLakePyArrowTypeHandler

        class Lake(DeltaLakeIOManager):
            @staticmethod
            def type_handlers():
                return [DeltaLakePyArrowTypeHandler()]

        @dagster.asset(key_prefix=["d"])
        def t() -> pyarrow.Table:
            return pyarrow.table({"x": [1, 2]})

        manager = Lake(root_uri=sys.argv[1], storage_options=LocalConfig())
        assert dagster.materialize([t], resources={"io_manager": manager}).success
        import os
        os.rename(sys.argv[1] + "/d/t", sys.argv[1] + "/t")
    """,
}
OF_ITS_OWN = {"daft": "interop-daft", "dagster": "interop-dagster"}


def instrumented(library: str) -> list[str]:
    """Return the command that runs a program of the library under `opentelemetry-instrument`."""
    beside = Path(sys.executable).parent
    if library not in OF_ITS_OWN:
        return [str(beside / "opentelemetry-instrument"), sys.executable]
    environment = ["--no-default-groups", "--group", OF_ITS_OWN[library], "--extra", "otel"]
    uv = [str(beside / "uv"), "run", "--project", str(PROJECT), "--quiet", "--isolated", "--locked"]
    return [*uv, *environment, "--python", sys.executable, "opentelemetry-instrument", "python"]


@pytest.mark.parametrize("library", PROGRAMS)
def test_commits_of_other_libraries_are_stamped_with_no_change_of_the_program(library, tmp_path):
    """Each commit has our metadata, with an exported trace."""
    done = subprocess.run(
        [*instrumented(library), "-c", textwrap.dedent(PROGRAMS[library]), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "DO_NOT_TRACK": "1",
            "DAGSTER_DISABLE_TELEMETRY": "true",
            "OTEL_TRACES_EXPORTER": "console",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "threading",
        },
    )
    assert done.returncode == 0, done.stderr
    commits = list(history(tmp_path / "t"))
    assert commits
    assert all(commit.write_id for commit in commits)
    assert all(commit.metadata["traceparent"][3:35] in done.stdout for commit in commits)
