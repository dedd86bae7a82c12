"""`--storage-option` reaches every location of a command, and its values are shown nowhere."""

from __future__ import annotations

import json
import os

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import Ledger, Settings
from deltawitness.cli import storage_options
from deltawitness.semconv import Env
from helpers.ledger_commands import invoke, run

pytestmark = pytest.mark.slow

ID_CANARY, KEY_CANARY = "AKIDCANARY01", "keycanary02"

PROGRAM = """
import sys, os, json, pyarrow as pa
from deltalake import write_deltalake
from deltawitness import DeltaCache, ObservedSessionContext
options = json.loads(os.environ["DELTAWITNESS_STORAGE_OPTIONS"])
write_deltalake(sys.argv[1], pa.table({"x": [1]}), storage_options=options)
DeltaCache(ObservedSessionContext()).view("answers", "SELECT 6 * 7 AS answer")
try:
    write_deltalake(sys.argv[1], pa.table({"x": [1]}), storage_options=options)
except Exception as error:
    print(type(error).__name__)
"""


@pytest.fixture
def given(server):
    """The storage options of the server, with canaries as credentials, as words of a command."""
    options = server.options | {
        "AWS_ACCESS_KEY_ID": ID_CANARY,
        "AWS_SECRET_ACCESS_KEY": KEY_CANARY,
    }
    return [word for pair in options.items() for word in ("--storage-option", "=".join(pair))]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory, and no credentials in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv(Env.STORAGE_OPTIONS, "{}")  # the option changes it: restored after the test
    return tmp_path


@pytest.fixture
def command(given, monkeypatch):
    """Run a command with the options; return its result."""

    def command(*words, after=(), expect=0):
        monkeypatch.setenv(Env.STORAGE_OPTIONS, "{}")
        done = invoke(*words, *given, *after)
        assert done.exit_code == expect, done.output
        assert_no_canary(done.output)
        return done

    return command


def assert_no_canary(text):
    for canary in (ID_CANARY, KEY_CANARY):
        assert canary not in text


def test_every_command_takes_storage_options(command, given, server, tmp_path):
    """A ledger, a cache and a table on an object store are written and read with options alone."""
    root, table = f"s3://lake/{tmp_path.name}/root", f"s3://lake/{tmp_path.name}/t"
    observed = run(
        tmp_path, PROGRAM, table, options=["--job", "load", *given], DELTAWITNESS_ROOT=root
    )
    assert observed.returncode == 0, observed.stderr
    assert_no_canary(observed.stdout + observed.stderr)
    place = ["--root", root]
    assert [row["job"] for row in json.loads(command("runs", *place, "--json").stdout)] == ["load"]
    writes = command("writes", *place, "--json").stdout
    assert {row["result"] for row in json.loads(writes)} >= {"write", "error", "miss"}
    run_id = json.loads(command("runs", *place, "--json").stdout)[0]["run_id"]
    for words in (
        ["show", run_id, *place],
        ["commit", table],
        ["audit", table],
        ["reconcile", table, *place],
        ["drain", *place],
        ["info", "--paths", *place],
        ["ledger", "verify", *place],
        ["cache", "ls", *place],
        ["cache", "why", "answers", *place],
        ["cache", "verify", "answers", *place],
        ["cache", "prune", *place],
        ["verify", run_id, *place],
        ["ledger", "optimize", *place],
    ):
        command(*words)
    ledger = Ledger(root, server.options, settings=Settings())
    rows = [ledger.query(f"SELECT * FROM {name}").to_pylist() for name in ("inventory", "runs")]
    assert all(rows)
    log = [DeltaTable(table, storage_options=server.options).history()]
    assert_no_canary(repr((rows, log)))


def test_a_local_ledger_reconciles_a_remote_table(command, server, tmp_path):
    """A ledger on a local disk needs no options: they are those of the tables."""
    table = f"s3://lake/{tmp_path.name}/t"
    write_deltalake(table, pa.table({"x": [1]}), storage_options=server.options)
    command("audit", table, expect=1)
    command("reconcile", table, "--apply")
    rows = json.loads(command("writes", "--json").stdout)
    assert [row["version"] for row in rows] == [0]


def test_values_are_in_no_error(command, tmp_path):
    """Neither an unreachable storage nor an option without a name shows a value."""
    nowhere = ("--storage-option", "AWS_ENDPOINT_URL=http://127.0.0.1:9")
    command("runs", "--root", f"s3://lake/{tmp_path.name}", after=nowhere, expect=1)
    refused = command("runs", after=("--storage-option", f"={KEY_CANARY}"), expect=2)
    assert "expected NAME=VALUE" in refused.stderr
    refused = command("runs", after=("--storage-option", KEY_CANARY), expect=2)
    assert "expected NAME=VALUE" in refused.stderr


def test_options_add_to_those_of_the_environment(monkeypatch):
    """An option replaces the one of the same name, and leaves the others."""
    monkeypatch.setenv(Env.STORAGE_OPTIONS, '{"AWS_REGION": "eu", "timeout": "5s"}')
    storage_options._add_to_environment(["AWS_REGION=us", "token=a=b"])
    expected = {"AWS_REGION": "us", "timeout": "5s", "token": "a=b"}
    assert Settings.from_env().storage_options == expected
