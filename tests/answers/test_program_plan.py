"""A plan runs a program against clones of its tables; `apply` runs it for real if they have not changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import Settings, apply, plan, show
from deltawitness.answers.program_plan.application import apply_plan
from deltawitness.answers.program_plan.question import run_command_line
from deltawitness.exceptions import PlanError

pytestmark = pytest.mark.slow

JOB = """
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake
    from deltawitness import ObservedSessionContext

    raw = DeltaTable("lake/raw").to_pyarrow_table()
    write_deltalake("lake/orders", raw, mode="append")
    orders = DeltaTable("lake/orders")
    orders.update({"x": "x + 1"}, predicate="id = 1")
    orders.delete("id = 2")
    write_deltalake("lake/new", pa.table({"k": ["a"]}))
    ctx = ObservedSessionContext()
    ctx.register_delta("orders", "lake/orders")
    ctx.sql("INSERT INTO orders VALUES (20, 2.5)").collect()
    assert ctx.sql("SELECT id FROM orders WHERE x = 2.5").to_pydict() == {"id": [20]}
    ctx.table("orders").write_delta("lake/wide", mode="append", schema_mode="merge")
    try:
        DeltaTable("lake/nothing")
    except Exception:
        pass
    print("done")
"""


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """The working directory, with three tables."""
    monkeypatch.chdir(tmp_path)
    write_deltalake("lake/orders", pa.table({"id": [1, 2, 3], "x": [1.0, 2.0, 3.0]}))
    write_deltalake("lake/raw", pa.table({"id": [10, 11], "x": [0.5, 1.5]}))
    write_deltalake("lake/wide", pa.table({"id": [100]}))
    return tmp_path


def program(text):
    Path("job.py").write_text(textwrap.dedent(text))
    return [sys.executable, "job.py"]


def hashes(folder="lake"):
    """Return the hash of each file, of logs and of data."""
    files = (each for each in Path(folder).rglob("*") if each.is_file())
    return {str(each): hashlib.sha256(each.read_bytes()).hexdigest() for each in files}


def changes(found):
    """Return state, versions, operations and rows of each table."""
    return {
        each.name: (
            each.state.value,
            each.version,
            each.planned_version,
            [operation.operation for operation in each.operations],
            None if each.rows is None else (each.rows.added, each.rows.removed, each.rows.changed),
        )
        for each in found.tables
    }


def test_a_planned_program_changes_no_table_until_it_is_applied(lake, capfd):
    """The plan has each table with its operations, rows and columns; `apply` commits just these."""
    before = hashes()
    found = plan(program(JOB), job="load", message="why", key="id")
    assert hashes() == before
    assert "done" in capfd.readouterr().out
    assert changes(found) == {
        "raw": ("read", 0, 0, [], None),
        "orders": ("change", 0, 4, ["WRITE", "UPDATE", "DELETE", "WRITE"], (3, 1, 1)),
        "new": ("create", None, 0, ["WRITE"], None),
        "wide": ("change", 0, 1, ["WRITE"], (5, 0, 0)),
        "nothing": ("absent", None, None, [], None),
    }
    columns = {each.name: [c.name for c in each.columns] for each in found.tables if each.columns}
    assert columns == {"new": ["k"], "wide": ["x"]}
    assert (found.exit_code, found.is_applicable, found.refused) == (0, True, ())
    assert not list(Path(".deltawitness").rglob("*.parquet"))

    done = apply(found.plan_id[:13])
    assert (done.exit_code, done.reasons) == (0, ())
    assert all(table.is_as_planned for table in done.tables)
    assert DeltaTable("lake/orders").version() == 4
    shown = show(done.run_id)
    assert (shown.run.job, shown.run.message) == ("load", "why")

    again = apply(found.plan_id)
    assert not again.is_started
    assert again.reasons[0].startswith("orders was at 0 in the plan and is at 4: ")
    assert DeltaTable("lake/orders").version() == 4


def test_a_plan_is_not_applied_after_a_change(lake):
    """A commit, a table that was created again, another script and a new table are reasons, each."""
    command = program(JOB)
    found = plan(command, rows=False)
    assert found.in_state("change")[0].rows is None
    copy = shutil.copytree("lake", "copy")

    def reasons():
        done = apply(found.plan_id)
        shutil.rmtree("lake")
        shutil.copytree(copy, "lake")
        assert (done.is_started, done.exit_code, done.run_id) == (False, None, None)
        return [reason.split(": ")[0] for reason in done.reasons]

    write_deltalake("lake/raw", pa.table({"id": [1], "x": [1.0]}), mode="append")
    assert reasons() == ["raw was at 0 in the plan and is at 1"]
    shutil.rmtree("lake/raw")
    write_deltalake("lake/raw", pa.table({"id": [1], "x": [1.0]}))
    assert reasons() == ["raw was created again since the plan"]
    write_deltalake("lake/new", pa.table({"k": ["b"]}))
    assert reasons() == ["new was absent in the plan and is at 0"]
    Path("job.py").write_text("print('another')")
    assert reasons() == [f"{lake / 'job.py'} has changed since the plan"]
    with pytest.raises(PlanError, match="no plan begins with 9"):
        apply("9")


ROUTES = """
    import multiprocessing, os, pathlib, shlex, subprocess, sys
    import pyarrow as pa
    from deltalake import DeltaTable, convert_to_deltalake, write_deltalake
    from deltalake.transaction import AddAction, create_table_with_add_actions
    from deltawitness import DeltaLakeInstrumentor, ObservedSessionContext, Settings, once

    def append(target, number=0):
        write_deltalake(target, pa.table({"id": [number], "x": [0.0]}), mode="append")

    if __name__ == "__main__":
        place, start = os.path.abspath("lake/orders"), DeltaTable("lake/orders").version()
        for target in ("lake/orders", pathlib.Path("lake/link"), f"file://{place}/", DeltaTable(place)):
            append(target)
        append(DeltaTable(place).table_uri)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.map(append, ["lake/orders"])
        child = [sys.executable, "-c", "import job; job.append('lake/orders')"]
        subprocess.run(child, check=True)
        subprocess.run(child, check=True, env={"PATH": os.environ["PATH"]})
        subprocess.run(child, check=True, env={**os.environ, "PYTHONPATH": "elsewhere"})
        os.environ["PYTHONPATH"] = "elsewhere"
        assert os.system(shlex.join(child)) == 0
        DeltaLakeInstrumentor().uninstrument()
        append("lake/orders")
        DeltaLakeInstrumentor().instrument(settings=Settings(cache_root="other"))
        for _ in range(2):
            with once("key"):
                append("lake/orders")
        assert DeltaTable(place).version() == start + 12, DeltaTable(place).version()
        convert_to_deltalake("lake/files")
        assert DeltaTable("lake/files").count() == 2
        ctx = ObservedSessionContext()
        ctx.register_delta("orders", "lake/orders")
        ctx.sql("COPY orders TO 'lake/copied' STORED AS DELTATABLE").collect()
        ctx.write_distributed("SELECT id FROM orders", "lake/distributed")
        create_table_with_add_actions("lake/made", DeltaTable(place).schema(), [])
        DeltaTable.create("lake/created", pa.schema([("a", pa.int64())]))
        assert DeltaTable.is_deltatable("lake/created")
        optimized = DeltaTable(place)
        optimized.optimize.compact()
        optimized.vacuum(0, dry_run=False, enforce_retention_duration=False)
"""


@pytest.mark.timeout(400)
def test_every_way_to_open_and_write_a_table_is_redirected(lake):
    """Spellings, child processes, sessions and conversions; also after the program ends its observation."""
    os.symlink("orders", "lake/link")
    Path("lake/files").mkdir()
    pq.write_table(pa.table({"a": [1, 2]}), "lake/files/f.parquet")
    before = hashes()
    found = plan(program(ROUTES))
    assert found.exit_code == 0
    assert hashes() == before
    assert not Path("other").exists()
    states = {each.name: each.state.value for each in found.tables}
    names = ("files", "copied", "distributed", "made", "created")
    assert states == {"orders": "change", **dict.fromkeys(names, "create")}
    orders = next(each for each in found.tables if each.name == "orders")
    assert (orders.rows.added, orders.rows.removed) == (12, 0)
    assert any("vacuum deletes files" in note for note in found.notes)


FAILING = """
    import deltalake._internal, os, pyarrow as pa
    from deltalake import DeltaTable, write_deltalake
    write_deltalake("lake/orders", pa.table({"id": [4], "x": [4.0]}), mode="append")
    for action in (
        lambda: DeltaTable("s3://bucket/t"),
        lambda: deltalake._internal.RawDeltaTable(os.path.abspath("lake/orders")).delete(),
    ):
        try:
            action()
        except Exception as error:
            print(type(error).__name__, error)
    raise SystemExit(7)
"""


def test_a_plan_of_a_failed_program_cannot_be_applied(lake, capfd):
    """A remote table and a write past the public callables of delta-rs are refused in the program."""
    before = hashes()
    found = plan(program(FAILING), keep=True)
    assert hashes() == before
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("PlanError deltawitness plan: s3://bucket/t: it is on an object")
    assert "was refused: the table is not a clone" in lines[1]
    assert (found.exit_code, found.is_applicable) == (7, False)
    assert found.refused == (
        "s3://bucket/t: it is on an object store; only local tables can be planned",
    )
    assert len(list(Path(found.clones).glob("tables/*/orders"))) == 1
    assert apply(found.plan_id).reasons == (
        "the planned program ended with exit code 7",
        *found.refused,
    )
    record = Path(found.clones, "plan.json")
    assert json.loads(record.read_text())["plan"]["exit_code"] == 7
    if os.name == "posix":
        assert record.stat().st_mode & 0o077 == 0


LATE = """
    import os
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake
    for _ in range(2):
        write_deltalake("lake/raw", pa.table({"id": [4], "x": [4.0]}), mode="append")
    if os.path.exists("flag"):
        DeltaTable("lake/wide")
    else:
        DeltaTable("lake/orders").delete()
"""


def test_a_commit_between_the_check_and_the_program_is_found(lake, capfd):
    """The program gets an error when it first opens this table. Tables that the plan lacks are named."""
    found = plan(program(LATE))

    def run_late(command, environment):
        write_deltalake("lake/orders", pa.table({"id": [9], "x": [9.0]}), mode="append")
        return run_command_line(command, environment)

    settings = Settings(cache_root=".deltawitness")
    done = apply_plan(found.plan_id, settings, run_late)
    assert done.exit_code == 1
    assert "lake/orders has changed: it was at 0 in the plan" in capfd.readouterr().err
    assert {table.name: table.others for table in done.tables} == {"raw": (), "orders": (1,)}
    assert DeltaTable("lake/orders").count() == 4

    found = plan(program(LATE))
    Path("flag").touch()
    done = apply_plan(found.plan_id, settings, run_command_line)
    assert (done.exit_code, done.unplanned) == (0, (str(lake / "lake" / "wide"),))
    assert not done.tables[1].is_as_planned
