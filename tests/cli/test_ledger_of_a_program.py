"""The command line keeps a ledger of each program that it runs."""

from __future__ import annotations

import os
import signal
import sys
import textwrap

import pytest

from deltawitness import Ledger
from deltawitness.semconv import Env
from helpers.ledger_commands import LOAD, json_of, run
from helpers.terminal_commands import run_command


@pytest.mark.slow
def test_the_ledger_of_a_program_is_in_its_working_directory(here):
    """Git ignores it; the summary names its location and the command that shows the run."""
    assert (here / ".deltawitness/.gitignore").read_text() == "*\n"
    load = json_of("runs", "--job", "load")[0]
    last_line = (here / "said.txt").read_text().splitlines()[-1]
    expected = f"ledger {here / '.deltawitness'}: deltawitness show {load['run_id']}"
    assert last_line == expected


@pytest.mark.slow
def test_a_program_that_writes_nothing_leaves_nothing_behind(tmp_path):
    """With any end of the program there is no folder, and the summary names no ledger."""
    for text in (
        "print(1)",
        "raise SystemExit(3)",
        "import deltalake, os; os.kill(os.getpid(), 9)",
    ):
        done = run(tmp_path, text)
        assert "ledger" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_existing_ledger_gets_the_run_of_a_program_without_writes(tmp_path):
    """The run is listed, without operations."""
    run(tmp_path, LOAD, options=["--job", "load"])
    run(tmp_path, "print(1)", options=["--job", "idle"])
    rows = Ledger(tmp_path / ".deltawitness").runs().sort("start_time").to_pylist()
    assert [(row["job"], row["status"], row["writes"]) for row in rows] == [
        ("load", "ok", 4),
        ("idle", "ok", 0),
    ]


@pytest.mark.slow
def test_a_run_whose_children_write_has_the_programs_exit_code(tmp_path):
    """The run has a row, although the program itself has written nothing."""
    text = f"""
        import subprocess, sys
        subprocess.run([sys.executable, "-c", {textwrap.dedent(LOAD)!r}], check=True)
        raise RuntimeError("after all")
    """
    assert run(tmp_path, text).returncode == 1
    (row,) = Ledger(tmp_path / ".deltawitness").runs().to_pylist()
    assert (row["status"], row["error_type"], row["writes"]) == ("error", "RuntimeError", 4)
    assert row["processes"] == 2


@pytest.mark.parametrize(
    ("options", "variables"),
    [(["--no-ledger"], {}), ([], {Env.LEDGER.value: "false"})],
    ids=["option", "variable"],
)
@pytest.mark.slow
def test_no_ledger_is_written_with_the_option_or_the_setting(options, variables, tmp_path):
    """`--no-ledger` or `DELTAWITNESS_LEDGER=false` switches the ledger off."""
    done = run(tmp_path, LOAD, options=options, **variables)
    assert done.returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["lake"]
    assert "ledger" not in done.stderr


@pytest.mark.slow
def test_a_relative_cache_root_of_the_environment_is_resolved_at_the_start(tmp_path):
    """A later `chdir` does not move it; a folder of the user gets no `.gitignore`."""
    (tmp_path / "else").mkdir()
    text = "import os; os.chdir('else')\n" + textwrap.dedent(LOAD)
    done = run(tmp_path, text, DELTAWITNESS_CACHE_ROOT="cache")
    assert str(tmp_path / "cache") in "".join(done.stderr.splitlines())  # a long line is wrapped
    assert sorted(entry.name for entry in (tmp_path / "cache").iterdir()) == [
        ".cache_spool.lock",
        "cache_ledgers",
        "cache_spool",
    ]
    assert Ledger(tmp_path / "cache").inventory().count() == 5


@pytest.mark.slow
def test_a_cache_root_that_is_a_uri_is_unchanged(tmp_path):
    """Percent-encoded blanks in the URI are unchanged."""
    root = (tmp_path / "a b").as_uri()
    assert run(tmp_path, LOAD, DELTAWITNESS_CACHE_ROOT=root).returncode == 0
    assert Ledger(tmp_path / "a b").inventory().count() == 5


@pytest.mark.slow
def test_an_unwritable_ledger_does_not_change_the_exit_code(tmp_path):
    """Spooled records remain, and the exit code is that of the program."""
    (tmp_path / ".deltawitness").mkdir()
    (tmp_path / ".deltawitness/cache_ledgers").write_text("in the way")
    done = run(tmp_path, LOAD + "\n    raise SystemExit(3)", options=["--quiet"])
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "deltawitness: drain failed with" in done.stderr
    (tmp_path / ".deltawitness/cache_ledgers").unlink()
    assert json_of("drain", "--root", tmp_path / ".deltawitness")["operations"] == 5


@pytest.mark.slow
def test_the_command_records_the_end_of_a_killed_program(here):
    """Its run has the status error and the signal, and each of its writes is a row."""
    (row,) = [each for each in json_of("runs", "--status", "error") if each["exit_code"] == -9]
    assert (row["job"], row["writes"], row["rows_added"]) == ("killed", 4, 4)
    rows = json_of("writes", "--run", row["run_id"])
    assert [(row["version"], row["result"]) for row in rows] == [
        (version, "write") for version in (3, 2, 1, 0)
    ]
    assert (
        "the program was ended by SIGKILL: its last writes may be missing above"
        in (here / "said_last.txt").read_text()
    )
    assert row["run_id"] in (here / "said_last.txt").read_text().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [
        [sys.executable, "-c", f"{textwrap.dedent(LOAD)}\nraise SystemExit(3)"],
        ["sh", "-c", '"$0" -c "$1"; exit 3', sys.executable, textwrap.dedent(LOAD)],
    ],
    ids=["observed", "shell"],
)
def test_the_end_of_a_program_is_drained_to_its_shard(program, tmp_path):
    """In the mode `shard`, the row of the run is there when the command returns, with the exit code."""
    variables = {Env.LEDGER_MODE: "shard", Env.LEDGER_SHARD: "a"}
    done = run_command(
        "run", "--", *program, folder=tmp_path, environment={**os.environ, **variables}
    )
    assert done.returncode == 3
    ledger = Ledger(tmp_path / ".deltawitness")
    (row,) = ledger.runs().to_pylist()
    assert (row["status"], row["exit_code"], row["writes"]) == ("error", 3, 4)
    assert list(ledger.spools.iterdir()) == []
    folders = [path.name for path in (tmp_path / ".deltawitness/cache_ledgers").iterdir()]
    assert folders == ["shards"]  # no commit to a main table


IN_THE_MIDDLE = """
    import os, signal, pyarrow as pa
    from deltalake import write_deltalake
    def batches():
        os.kill(os.getpid(), signal.SIGKILL)
        yield
    schema = pa.schema([("x", pa.int64())])
    write_deltalake("t", pa.RecordBatchReader.from_batches(schema, batches()))
"""


@pytest.mark.slow
def test_a_program_killed_inside_its_first_write_has_a_run(tmp_path):
    """Its run has a row, although no operation has finished."""
    assert run(tmp_path, IN_THE_MIDDLE).returncode == -signal.SIGKILL
    (row,) = Ledger(tmp_path / ".deltawitness").runs().to_pylist()
    assert (row["status"], row["exit_code"], row["writes"]) == ("error", -9, 0)


@pytest.mark.slow
def test_the_summary_says_that_the_ledger_cannot_be_created(tmp_path):
    """A file is where the root should be. The program's writes and its exit code are those without a ledger."""
    (tmp_path / "file").touch()
    root = str(tmp_path / "file/root")
    done = run(tmp_path, LOAD, **{Env.ROOT: root})
    assert done.returncode == 0
    expected = f"no ledger: {root} cannot be created; set DELTAWITNESS_ROOT to another location"
    assert done.stderr.splitlines()[-1] == expected
