"""`lineage` and `impact` as processes: exit codes, streams, and commands that change nothing."""

from __future__ import annotations

import json

import pytest

from helpers.ledger_commands import run
from helpers.terminal_commands import run_command

DERIVE = """
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake
    from deltawitness import run
    write_deltalake("lake/raw", pa.table({"x": [1]}))
    with run("derive"):
        write_deltalake("lake/clean", DeltaTable("lake/raw").to_pyarrow_table())
    write_deltalake("lake/raw", pa.table({"x": [2]}), mode="append")
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A folder with a table that was derived from another one, and their ledger."""
    folder = tmp_path_factory.mktemp("derived")
    done = run(folder, DERIVE)
    assert done.returncode == 0, done.stderr
    return folder


def command(folder, *words):
    """Run a command as a process, in a folder."""
    return run_command(*words, folder=folder)


@pytest.mark.slow
def test_the_graph_goes_to_standard_output(lake):
    shown = command(lake, "lineage", "clean")
    assert (shown.returncode, shown.stderr) == (0, "")
    first, second = shown.stdout.splitlines()
    assert first.startswith("clean@0  WRITE  ")
    assert second.startswith("└── inferred: raw@0  WRITE  ")
    down = json.loads(command(lake, "lineage", "raw@0", "--down", "--json").stdout)
    assert [node["table"]["name"] for node in down["nodes"]] == ["raw", "clean"]


@pytest.mark.slow
def test_stale_tables_are_no_failure(lake):
    shown = command(lake, "impact", "raw")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[0] == "1 table depends on raw@1, 1 stale"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("lineage", "nothing"), 1),
        (("lineage", "raw@9"), 1),
        (("impact", "nothing"), 1),
        (("lineage", "raw", "--format", "svg"), 2),
        (("impact", "raw", "--depth", "0"), 2),
    ],
)
@pytest.mark.one_case_in(2)
def test_a_failure_has_its_exit_code(lake, words, code):
    done = command(lake, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr


@pytest.mark.slow
def test_a_folder_without_a_ledger_stays_empty(tmp_path):
    for words in (("lineage", "raw"), ("impact", "raw")):
        done = command(tmp_path, *words)
        assert done.returncode == 1
        assert "there is no ledger" in done.stderr
    assert list(tmp_path.iterdir()) == []
