"""A location that no storage has, or whose credentials are missing, is an error in one line."""

from __future__ import annotations

import os

import pytest

from helpers.ledger_commands import invoke, run

COMMANDS = [
    ["commit", "{uri}", "0"],
    ["audit", "{uri}"],
    ["reconcile", "{uri}"],
    ["reconcile", "{uri}", "--apply"],
    ["runs", "--root", "{uri}"],
    ["show", "x", "--root", "{uri}"],
    ["writes", "--root", "{uri}"],
    ["drain", "--root", "{uri}"],
    ["ledger", "optimize", "--root", "{uri}"],
    ["ledger", "verify", "--root", "{uri}"],
    ["verify", "x", "--root", "{uri}"],
    ["cache", "ls", "--root", "{uri}"],
    ["cache", "why", "x", "--root", "{uri}"],
    ["cache", "prune", "--root", "{uri}"],
    ["cache", "verify", "x", "--root", "{uri}"],
]
"""Every command that takes a table or a root."""

NO_CREDENTIALS = "no credentials found: set the variables of the storage, such as AWS_ACCESS_KEY_ID"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory, and no credentials in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uri", "reason"),
    [("foo://x/y", "no storage has the URI scheme foo"), ("s3://bucket/y", NO_CREDENTIALS)],
)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_location_without_a_storage_is_one_line(command, uri, reason, folder):
    """The command fails with the reason and without a list of everything that delta-rs has tried."""
    done = invoke(*(word.format(uri=uri) for word in command))
    assert done.exit_code in {1, 2}, done.output
    lines = [line for line in done.output.splitlines() if reason in line]
    assert len(lines) == 1, done.output
    assert "Known schemes" not in done.output
    assert "Attempted" not in done.output
    assert "Traceback" not in done.output
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_program_writes_where_the_root_has_no_storage(folder):
    """The program's write and exit code are unchanged; the drain reports the scheme."""
    text = """
        import pyarrow as pa
        from deltalake import write_deltalake
        write_deltalake("t", pa.table({"x": [1]}))
    """
    done = run(folder, text, DELTAWITNESS_ROOT="foo://x/y")
    assert done.returncode == 0, done.stderr
    assert (folder / "t" / "_delta_log").is_dir()
    assert "Unknown scheme: foo" in done.stderr
    assert "Traceback" not in done.stderr
