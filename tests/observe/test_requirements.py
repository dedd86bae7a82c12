"""`DELTAWITNESS_REQUIRE` refuses writes without a run, a job or a message, before the engine is called."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import (
    CommitProperties,
    DeltaTable,
    Field,
    TableFeatures,
    convert_to_deltalake,
    write_deltalake,
)
from deltalake.transaction import create_table_with_add_actions

import deltawitness
from deltawitness import (
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    ObservedWritePipeline,
    Settings,
    WritePipeline,
    WriteRequest,
    cache_context,
    run,
    suppressed,
)
from deltawitness.commit.seams import FUNCTION_SEAMS, MERGE_EXECUTE, METHOD_SEAMS
from deltawitness.events import Failed, Landed
from deltawitness.exceptions import ConfigurationError, RequirementError
from deltawitness.propagation.environment import child_environment
from deltawitness.run import forget_process_run
from deltawitness.run_variables import run_from_environment
from deltawitness.semconv import Env, ErrorType
from deltawitness.testing import capture_writes

DATA = pa.table({"id": pa.array([1], pa.int64())})


@pytest.fixture
def uri(tmp_path):
    """A Delta table of one row, written before the instrumentation."""
    write_deltalake(tmp_path / "t", DATA)
    return str(tmp_path / "t")


def require(*words):
    DeltaLakeInstrumentor().instrument(settings=Settings(require=words))


class ForeignPipeline:
    """A pipeline of the program whose writes deltawitness does not see."""

    def __init__(self):
        self.calls = 0

    def write(self, request):
        self.calls += 1


def session(uri):
    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri)
    return ctx


def merge(uri):
    merger = DeltaTable(uri).merge(DATA, "s.id = t.id", source_alias="s", target_alias="t")
    merger.when_matched_update_all().execute()


def convert(uri):
    folder = Path(uri).parent / "plain"
    folder.mkdir()
    pq.write_table(DATA, folder / "1.parquet")
    convert_to_deltalake(str(folder))


def piped(uri, **options):
    request = WriteRequest(source=DATA, **{"destination": uri, "mode": "append", **options})
    return ObservedWritePipeline(WritePipeline()).write(request)


WRITES = {
    "write_deltalake_rust": lambda uri: write_deltalake(uri, DATA, mode="append"),
    "write": lambda uri: write_deltalake(DeltaTable(uri), DATA, mode="append"),
    "write of a new table": lambda uri: write_deltalake(f"{uri}.new", DATA),
    "_create_deltalake": lambda uri: DeltaTable.create(f"{uri}.new", DATA.schema),
    "_create_table_with_add_actions": lambda uri: create_table_with_add_actions(
        f"{uri}.new", DeltaTable(uri).schema(), [], "error", []
    ),
    "_convert_to_deltalake": convert,
    "create_write_transaction": lambda uri: DeltaTable(uri).create_write_transaction(
        [], "append", DeltaTable(uri).schema(), []
    ),
    "update": lambda uri: DeltaTable(uri).update({"id": "2"}),
    "delete": lambda uri: DeltaTable(uri).delete(),
    "merge_execute": merge,
    "compact_optimize": lambda uri: DeltaTable(uri).optimize.compact(),
    "z_order_optimize": lambda uri: DeltaTable(uri).optimize.z_order(["id"]),
    "vacuum": lambda uri: DeltaTable(uri).vacuum(
        0, dry_run=False, enforce_retention_duration=False
    ),
    "restore": lambda uri: DeltaTable(uri).restore(0),
    "repair": lambda uri: DeltaTable(uri).repair(),
    "add_columns": lambda uri: DeltaTable(uri).alter.add_columns([Field("n", "long")]),
    "add_constraints": lambda uri: DeltaTable(uri).alter.add_constraint({"c": "id > 0"}),
    "drop_constraints": lambda uri: DeltaTable(uri).alter.drop_constraint(
        "c", raise_if_not_exists=False
    ),
    "add_feature": lambda uri: DeltaTable(uri).alter.add_feature(
        TableFeatures.AppendOnly, allow_protocol_versions_increase=True
    ),
    "drop_column_not_null": lambda uri: DeltaTable(uri).alter.drop_column_not_null("id"),
    "set_table_properties": lambda uri: DeltaTable(uri).alter.set_table_properties(
        {"delta.appendOnly": "false"}
    ),
    "set_table_name": lambda uri: DeltaTable(uri).alter.set_table_name("n"),
    "set_table_description": lambda uri: DeltaTable(uri).alter.set_table_description("n"),
    "set_column_metadata": lambda uri: DeltaTable(uri).alter.set_column_metadata("id", {"a": "b"}),
    "SQL INSERT": lambda uri: session(uri).sql("INSERT INTO t VALUES (2)").collect(),
    "SQL UPDATE": lambda uri: session(uri).sql("UPDATE t SET id = 2").collect(),
    "SQL DELETE": lambda uri: session(uri).sql("DELETE FROM t").collect(),
    "SQL MERGE": lambda uri: (
        session(uri)
        .sql(
            "MERGE INTO t USING (SELECT 2 AS id) s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)"
        )
        .collect()
    ),
    "SQL COPY": lambda uri: session(uri).sql(f"COPY t TO '{uri}.parquet'").collect(),
    "frame to Delta": lambda uri: session(uri).table("t").write_delta(f"{uri}.new"),
    "frame to a table": lambda uri: session(uri).table("t").write_table("t"),
    "frame to files": lambda uri: session(uri).table("t").write_parquet(f"{uri}.files"),
    "pipeline": piped,
    "pipeline to files": lambda uri: piped(uri, destination=f"{uri}.files", format="parquet"),
    "foreign pipeline": lambda uri: ObservedWritePipeline(ForeignPipeline()).write(
        WriteRequest(source=DATA, destination=uri, mode="append")
    ),
}


def everything_below(uri):
    """Return the paths and sizes of all files next to and in a table, without a folder that a case makes."""
    folder = Path(uri).parent
    paths = (path for path in folder.rglob("*") if path.is_file() and "plain" not in path.parts)
    return sorted((str(path), path.stat().st_size) for path in paths)


@pytest.mark.parametrize("case", WRITES)
def test_no_entry_point_writes_without_what_is_required(uri, case):
    """The error says what to set, nothing is written, and the write is one event with the result error."""
    require("message")
    before = everything_below(uri)
    with capture_writes() as writes, pytest.raises(RequirementError, match=Env.MESSAGE) as raised:
        WRITES[case](uri)
    assert "\n" not in str(raised.value)
    assert everything_below(uri) == before
    (event,) = writes.events
    assert isinstance(event.outcome, Failed)
    assert event.result.value == "error"
    assert event.outcome.error_type is ErrorType.REQUIREMENT_MISSING
    assert (event.outcome.landed, event.outcome.version) == (Landed.NO, None)


def test_the_walk_has_every_seam_that_commits():
    """A callable of delta-rs that is observed from now on gets a case above."""
    seams = [*FUNCTION_SEAMS, *METHOD_SEAMS, MERGE_EXECUTE]
    named = {seam.name for seam in seams if seam.commits}
    assert named - set(WRITES) == set()


@pytest.mark.parametrize(
    "case", ["update", "SQL INSERT", "pipeline", "frame to files", "merge_execute"]
)
def test_a_write_with_a_message_is_made(uri, case):
    """The message of the run or of the cache context is enough, and it is in the event."""
    require("message")
    with capture_writes() as writes:
        with run("load", message="first"):
            WRITES[case](uri)
        with cache_context(message="second"):
            write_deltalake(uri, DATA, mode="append")
    assert [event.message for event in writes.events] == ["first", "second"]
    assert all(not isinstance(event.outcome, Failed) for event in writes.events)


@pytest.mark.parametrize("message", ["", "  ", "\n\t", "\0\x1b"])
def test_a_message_has_text(message):
    """A message of blanks or control characters is an error in code, and is unset in the environment."""
    for opener in (partial(run, "load"), cache_context):
        with (
            pytest.raises(ConfigurationError, match="the message must be a non-empty string"),
            opener(message=message),
        ):
            pass
    assert run_from_environment({Env.MESSAGE: message}).message is None
    assert run_from_environment({Env.MESSAGE: " x "}).message == " x "


def test_a_run_must_be_opened(uri):
    """The run of a process that nothing has opened is no run."""
    require("run")
    with pytest.raises(RequirementError, match="has no run"):
        WRITES["update"](uri)
    with run("load"):
        WRITES["update"](uri)


def test_the_name_of_the_program_is_no_job(uri):
    """A job is named by `run()`, by a variable or by the scheduler."""
    require("job")
    with pytest.raises(RequirementError, match="has no job"):
        WRITES["update"](uri)
    with run("load"):
        WRITES["update"](uri)


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({Env.JOB: "load"}, "run"),
        ({Env.RUN_ID: "r-1"}, "job"),
        ({Env.RUN_ID: "r-1", Env.JOB: "load"}, None),
    ],
    ids=str,
)
def test_a_variable_of_the_run_names_no_job_and_the_reverse(uri, monkeypatch, variables, missing):
    """The run id and the job are required and given each on its own."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    forget_process_run()
    for word in ("run", "job"):
        require(word)
        if word == missing:
            with pytest.raises(RequirementError, match=f"has no {word}"):
                WRITES["update"](uri)
        else:
            WRITES["update"](uri)
        DeltaLakeInstrumentor().uninstrument()


def test_all_words_are_checked(uri):
    """The first that is missing is named; the words come from a variable as well, with either separator."""
    assert Settings.from_env({Env.REQUIRE: "message|run"}).require == ("run", "message")
    assert Settings(require="run, job").require == ("run", "job")
    with pytest.raises(ConfigurationError, match="DELTAWITNESS_REQUIRE: expected one or several"):
        Settings(require="ticket")
    DeltaLakeInstrumentor().instrument(require="run,message")
    with pytest.raises(RequirementError, match="has no run"):
        WRITES["update"](uri)
    with run("load"), pytest.raises(RequirementError, match="has no message"):
        WRITES["update"](uri)


def test_what_is_no_write_is_not_refused(uri):
    """Reads, dry runs, checkpoints, and writes that are not observed."""
    require("message")
    table = DeltaTable(uri)
    assert table.to_pyarrow_table().num_rows == 1
    assert session(uri).sql("SELECT * FROM t").count() == 1
    assert table.vacuum(0, enforce_retention_duration=False) == []
    table.create_checkpoint()
    with suppressed():
        table.delete()
        for case in ("SQL INSERT", "SQL COPY", "frame to files", "pipeline", "foreign pipeline"):
            WRITES[case](uri)


def test_properties_that_are_invalid_are_refused_as_well(uri):
    """The requirement is checked before the arguments of the program."""
    require("message")
    with pytest.raises(RequirementError):
        DeltaTable(uri).delete(commit_properties=CommitProperties({"job": "x"}))


@pytest.mark.parametrize("word", ["run", "job"])
def test_a_scheduler_opens_a_run(uri, monkeypatch, word):
    """A run of a task that a scheduler has started satisfies all but the message."""
    monkeypatch.delenv(Env.DETECT_ENVIRONMENT)
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "load")
    require(word)
    with pytest.raises(RequirementError) if word == "run" else nullcontext():
        WRITES["update"](uri)
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "7")
    forget_process_run()
    WRITES["update"](uri)


@pytest.mark.parametrize(
    ("run_id", "job", "is_implicit", "has_default_job"),
    [
        ("r-1", "load", True, True),
        ("r-1", "export", True, False),
        ("r-2", "load", False, False),
    ],
)
def test_values_that_are_set_after_the_parent_are_chosen(run_id, job, is_implicit, has_default_job):
    """A child of a run that nothing opened gets another job, which opens no run, or another run id."""
    environ = {Env.IMPLICIT_RUN: "r-1 run+job load", Env.RUN_ID: run_id, Env.JOB: job}
    found = run_from_environment(environ)
    assert (found.is_implicit, found.has_default_job) == (is_implicit, has_default_job)


def test_a_run_that_is_opened_under_the_id_of_an_implicit_one_is_no_longer_implicit(monkeypatch):
    """The children of the program are in a run that it has opened."""
    monkeypatch.setenv(Env.IMPLICIT_RUN, "r-1 run+job load")
    monkeypatch.setenv(Env.RUN_ID, "r-1")
    with run("export", run_id="r-1"):
        found = run_from_environment({**os.environ, **child_environment()})
    assert (found.run_id, found.job) == ("r-1", "export")
    assert (found.is_implicit, found.has_default_job) == (False, False)


CHILD = """
import os, subprocess, sys
import pyarrow as pa
from deltalake import write_deltalake
from deltawitness import DeltaLakeInstrumentor, run
from deltawitness.exceptions import RequirementError
DeltaLakeInstrumentor().instrument()
def attempt():
    try:
        write_deltalake(os.environ["T"], pa.table({"id": [1]}), mode="append")
    except RequirementError as error:
        return str(error).partition(":")[0]
    return "written"
print(attempt())
if len(sys.argv) == 1:
    sys.stdout.flush()
    subprocess.run([sys.executable, __file__, "child"], check=True)
    named = {**os.environ, "DELTAWITNESS_JOB": "export"}
    subprocess.run([sys.executable, __file__, "child"], check=True, env=named)
    with run("load"):
        subprocess.run([sys.executable, __file__, "child"], check=True)
"""


@pytest.mark.slow
def test_a_child_process_has_a_run_only_if_its_parent_has_one(tmp_path):
    """A child of a run that nothing opened joins it, and is refused as its parent is."""
    script = tmp_path / "load.py"
    script.write_text(textwrap.dedent(CHILD))
    variables = {Env.REQUIRE.value: "run,job", "T": str(tmp_path / "t"), "PATH": "/usr/bin"}
    source = str(Path(deltawitness.__file__).parents[1])
    variables["PYTHONPATH"] = os.pathsep.join([os.environ["PYTHONPATH"], source])
    done = subprocess.run(
        [sys.executable, str(script)], env=variables, capture_output=True, text=True
    )
    refused = "DELTAWITNESS_REQUIRE refuses this write, which has no run"
    assert done.stdout.splitlines() == [refused, refused, refused, "written"], done.stderr
