"""`diff` of runs: inputs, plans, code, environment, results and durations."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DataFusionInstrumentor,
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    Settings,
    diff,
    run,
)
from deltawitness.answers.diff.run_values import DiffCause
from helpers.ledger_commands import invoke, json_of

QUERY = "SELECT id FROM source WHERE id > {least}"


@pytest.fixture(scope="module")
def lakehouse(tmp_path_factory):
    """Runs `r1` to `r6` of one job that copies rows: each differs from the one before in one thing."""
    folder = tmp_path_factory.mktemp("runs")
    settings = Settings(cache_root=str(folder / ".deltawitness"))
    instrumentors = DeltaLakeInstrumentor(), DataFusionInstrumentor()
    for each in instrumentors:
        each.instrument(settings=settings)
    source, target = str(folder / "source"), str(folder / "target")
    with run("load"):
        write_deltalake(source, pa.table({"id": [1, 2, 3]}))

    def copy(run_id, query):
        with run("copy", run_id=run_id):
            ctx = ObservedSessionContext()
            ctx.register_table("source", DeltaTable(source))
            write_deltalake(target, ctx.sql(query), mode="append")

    copy("r1", QUERY.format(least=0))
    copy("r2", QUERY.format(least=0))
    with run("load"):
        write_deltalake(source, pa.table({"id": [4]}), mode="append")
    copy("r3", QUERY.format(least=0))
    copy("r4", QUERY.format(least=2))
    copy("r5", "SELECT count(*) AS id FROM source")
    with pytest.raises(Exception, match=r".+"), run("copy", run_id="r6"):
        write_deltalake(target, pa.table({"other": ["x"]}), mode="append")
    for each in instrumentors:
        each.uninstrument()
    return folder


@pytest.fixture
def here(lakehouse, monkeypatch):
    """The lakehouse as the working directory."""
    monkeypatch.chdir(lakehouse)


def causes(a, b):
    """Return the causes of the differences of two runs, without durations."""
    found = diff(a, b)
    return [each for each in found.causes if each is not DiffCause.DURATION]


@pytest.mark.slow
def test_equal_runs(here):
    """Runs that differ only in their durations are no difference."""
    found = diff("r1", "r2")
    assert not found.is_different
    assert found.explanation in {"only durations differ", "nothing differs"}
    assert invoke("diff", "r1", "r2").exit_code == 0


@pytest.mark.slow
def test_other_inputs_come_first(here):
    """An input at another version explains other row counts."""
    found = diff("r2", "r3")
    first = found.differences[0]
    assert (first.cause, first.what) == (DiffCause.INPUTS, "source")
    assert (first.a, first.b) == ("source@0", "source@1")
    assert causes("r2", "r3") == [DiffCause.INPUTS, DiffCause.RESULT]
    assert found.explanation == "the runs read other inputs or versions"
    (table,) = found.tables
    assert (table.name, table.a.rows_added, table.b.rows_added) == ("target", 3, 4)
    assert (table.a.versions, table.b.versions) == ((1,), (2,))


@pytest.mark.slow
def test_other_literals_and_other_plans(here):
    """A plan with other literals is distinguished from another plan."""
    literals, shape = diff("r3", "r4").differences[0], diff("r4", "r5").differences[0]
    assert (literals.cause, literals.what) == (DiffCause.PLAN, "target: literals of the plan")
    assert (shape.cause, shape.what) == (DiffCause.PLAN, "target: plan shape")


@pytest.mark.slow
def test_failures_are_results(here):
    """A failed operation is a difference of the results."""
    found = diff("r5", "r6")
    results = {each.what: (each.a, each.b) for each in found.differences}
    assert results["status"] == ("ok", "error")
    assert results["target: operations"][1].startswith("WRITE append: ")


@pytest.mark.slow
def test_code_and_environment(here, lakehouse):
    """Runs of other code versions say so after inputs and plans."""
    for run_id, code in (("c1", "one"), ("c2", "two")):
        DeltaLakeInstrumentor().instrument(
            settings=Settings(cache_root=".deltawitness", code_version=code)
        )
        with run("code", run_id=run_id):
            write_deltalake("other", pa.table({"id": [1]}), mode="append")
        DeltaLakeInstrumentor().uninstrument()
    found = diff("c1", "c2")
    assert DiffCause.CODE in found.causes
    (code,) = (each for each in found.differences if each.cause is DiffCause.CODE)
    assert (code.what, code.a, code.b) == ("code version", "one", "two")


@pytest.mark.slow
def test_the_command(here):
    """The command prints the differences and the explanation, and has the same as JSON."""
    text = invoke("diff", "r2", "r3").stdout
    assert text.startswith("run r2 (copy) -> run r3 (copy)\n")
    assert text.splitlines()[2].split() == ["inputs", "source", "source@0", "source@1"]
    assert text.endswith("the runs read other inputs or versions\n")
    found = json_of("diff", "r2", "r3", code=1)
    assert (found["kind"], found["is_different"]) == ("runs", True)
    assert found["differences"][0]["cause"] == "inputs"
