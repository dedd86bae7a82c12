"""`deltawitness bench` measures on the user's storage, and removes everything that it creates."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector

from deltawitness import read_commit_metadata
from deltawitness.bench import measure, storage
from deltawitness.bench.measure import BenchError, Case, run_case, summary
from deltawitness.bench.storage import check_location, temporary_folder
from deltawitness.exceptions import ConfigurationError
from deltawitness.semconv import Env
from helpers.terminal_commands import run_command

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "deltawitness", "bench"]
SMALL = Case(name="small", rows=3, by="uri", variants=("bare", "bare again"))


def bench(*arguments, **environment):
    return run_command("bench", *arguments, environment={**os.environ, **environment})


def error_of(done):
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_the_table_holds_each_variant_and_the_control(tmp_path):
    """Existing files stay, files of the benchmark are removed, and no ledger is written."""
    (tmp_path / "mine.txt").write_text("kept")
    root = tmp_path / "root"
    environment = {"DELTAWITNESS_CACHE_ROOT": str(root), "DELTAWITNESS_ACTIVATE": "1"}
    done = bench("--uri", tmp_path, "--rounds", 2, "--case", "handle", **environment)
    assert done.returncode == 0, done.stderr
    for variant in ("bare", "bare again", "observed", "hand-written"):
        assert f"  {variant} " in done.stdout
    assert "control" in done.stdout
    assert [path.name for path in tmp_path.rglob("*")] == ["mine.txt"]


def objects(server, uri="s3://lake"):
    store = DeltaStorageHandler(uri, server.options)
    return {info.path for info in store.get_file_info_selector(FileSelector("", recursive=True))}


def test_a_benchmark_on_an_object_store_removes_its_objects_alone(server):
    """Credentials come from the setting, and are in no command line and no output."""
    write_deltalake("s3://lake/below/t", pa.table({"x": [1]}), storage_options=server.options)
    before = objects(server)
    done = bench(
        "--uri", "s3://lake/below/", "--rounds", 1, "--json", "--case", "handle",
        DELTAWITNESS_STORAGE_OPTIONS=json.dumps(server.options),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert objects(server) == before
    told = json.loads(done.stdout)
    assert (told["uri"], told["rounds"]) == ("s3://lake/below", 1)
    assert told["machine"]["deltalake"]
    base, *others = told["results"]
    assert (base["variant"], base["ratio_of_medians"], base["writes"]) == ("bare", 1.0, 1)
    assert [line["variant"] for line in others] == ["bare again", "observed", "hand-written"]


def test_tables_are_recreated_on_an_object_store_as_on_a_disk(server):
    """The old table is removed, so that a long benchmark needs no more space than a short one."""
    with temporary_folder("s3://lake/renewed", server.options) as place:
        case = Case(name="c", rows=3, by="uri", variants=("bare",))
        times = run_case(case, 18, place, storage_options=server.options)
        left = objects(server, place)
    assert len(times["bare"]) == 18
    assert {path.split("/")[1] for path in left if path.count("/") == 1} == {"2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds: expected an integer from 1"),
        (["--rounds", "1000000"], "--rounds: expected an integer from 1"),
        (["--case", "nothing"], "--case: expected a part of one of"),
        (["--uri", "/no/such/folder"], "--uri: the folder /no/such/folder does not exist"),
        (["--uri", "foo://bucket/x"], "--uri: the storage cannot be read"),
        (["--uri", "s3://"], "--uri: expected a URI that names a bucket"),
        (["--uri", "s3://bucket/x?sig=canary"], "--uri: expected a URI without a query"),
    ],
)
@pytest.mark.one_case_in(3)
def test_bad_input_is_one_line_before_anything_is_written(arguments, message):
    line = error_of(bench(*arguments))
    assert message in line
    assert "canary" not in line


def test_an_unreadable_setting_is_one_line(tmp_path):
    done = bench("--uri", tmp_path, DELTAWITNESS_STORAGE_OPTIONS="{")
    assert "DELTAWITNESS_STORAGE_OPTIONS" in error_of(done)


def test_a_missing_bucket_is_an_error_in_one_line(server):
    options = json.dumps(server.options)
    done = bench("--uri", "s3://nothing/x", DELTAWITNESS_STORAGE_OPTIONS=options)
    assert "--uri: the storage cannot be read" in error_of(done)


def test_a_delta_table_is_refused_as_a_location(tmp_path, server):
    """A VACUUM of the Delta table would delete the benchmark's files as unreferenced."""
    write_deltalake(tmp_path / "t", pa.table({"x": [1]}))
    with pytest.raises(ConfigurationError, match="is a Delta table"):
        check_location(str(tmp_path / "t"), None)
    write_deltalake("s3://lake/itself", pa.table({"x": [1]}), storage_options=server.options)
    with pytest.raises(ConfigurationError, match="not itself a Delta table"):
        check_location("s3://lake/itself", server.options)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.os, "access", lambda *_: False)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        check_location(str(tmp_path), None)


def test_without_the_sdk_the_error_names_the_extra_to_install(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from deltawitness.cli import bench as command
    from deltawitness.cli.app import app

    monkeypatch.setattr(command, "is_installed", lambda _: False)
    done = CliRunner().invoke(app, ["bench", "--uri", str(tmp_path)])
    assert done.exit_code == 2
    assert "deltawitness[otel]" in done.stderr


def test_only_the_observed_variant_is_witnessed(tmp_path):
    """The bare process does not import the package."""
    case = Case(name="c", rows=3, by="handle", variants=("bare", "observed", "hand-written"))
    run_case(case, 1, str(tmp_path))
    last = {
        variant: read_commit_metadata(tmp_path / str(number) / "1", 5)
        for number, variant in enumerate(case.variants)
    }
    assert last["bare"].witness == {}
    assert last["observed"].witness["cache_operation"] == "write"
    assert set(last["hand-written"].witness) == {"run_id", "traceparent"}


def test_the_rounds_of_a_case_are_interleaved_and_the_first_are_not_counted(tmp_path):
    times = run_case(SMALL, 2, str(tmp_path))
    assert {variant: len(taken) for variant, taken in times.items()} == dict.fromkeys(
        SMALL.variants, 2
    )
    counts = {DeltaTable(tmp_path / str(n) / "1").version() for n in range(len(SMALL.variants))}
    assert counts == {measure.WARM_UP_ROUNDS + 2 + 1}


def test_the_figures_are_ratios_over_the_base():
    times = {"bare": [1000, 2000, 3000], "bare again": [1000, 2000, 3000], "observed": [2000] * 3}
    case = Case(name="c", rows=3, by="uri", variants=tuple(times))
    base, control, observed = summary(case, times)
    assert (base.ratio_of_medians, control.ratio_of_medians) == (1.0, 1.0)
    assert (observed.median_us, observed.added_us, observed.ratio_of_medians) == (2.0, 0.0, 1.0)
    assert observed.median_of_ratios == 1.0


def test_an_error_of_a_variant_is_reported_without_its_location(tmp_path):
    place = tmp_path / "canary"
    place.write_text("a file, below which no folder can be made")
    with pytest.raises(BenchError, match=r"bench: the variant '.+' cannot write: ") as caught:
        run_case(SMALL, 1, str(place))
    assert "canary" not in str(caught.value)


def test_a_bare_write_is_refused_where_every_process_is_instrumented(tmp_path, monkeypatch):
    """Under `opentelemetry-instrument` the base of all ratios would be observed, so the benchmark fails."""
    (tmp_path / "sitecustomize.py").write_text(
        "from deltawitness import DeltaLakeInstrumentor; DeltaLakeInstrumentor().instrument()"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(BenchError, match="instruments every Python process"):
        run_case(SMALL, 1, str(tmp_path / "place"))


def test_a_process_that_dies_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(measure.worker, "__file__", str(tmp_path / "nothing.py"))
    with pytest.raises(BenchError, match="died"):
        run_case(SMALL, 1, str(tmp_path))


def test_a_benchmark_that_is_terminated_removes_its_tables(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "--uri", str(tmp_path), "--rounds", "100000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.parquet")):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # the loop polls for the files
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_variants_run_without_variables_that_instrument_them(monkeypatch):
    monkeypatch.setenv(Env.ACTIVATE, "1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    environment = measure._environment()
    assert Env.ACTIVATE.value not in environment
    assert environment[Env.LEDGER.value] == "false"
    assert environment["AWS_REGION"] == "eu-west-1"
