"""A folder where programs have run under the command, and copies of it."""

from __future__ import annotations

import shutil
import signal

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from helpers.ledger_commands import KILLED, LOAD, NESTED, run


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder where three programs have run, the last of which was killed in the middle."""
    folder = tmp_path_factory.mktemp("place")
    done = [
        run(folder, LOAD, options=["--job", "load"]),
        run(folder, NESTED, options=["--job", "nested"]),
        run(folder, KILLED, options=["--job", "killed"]),
    ]
    assert [program.returncode for program in done] == [0, 0, -signal.SIGKILL], done
    (folder / "said.txt").write_text(done[0].stderr)
    (folder / "said_last.txt").write_text(done[2].stderr)
    return folder


@pytest.fixture
def copied(place, tmp_path, monkeypatch):
    """A copy of the ledger, to be damaged; the working directory is the folder above it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / ".deltawitness", ".deltawitness")
    return tmp_path / ".deltawitness/cache_ledgers"


@pytest.fixture
def here(place, monkeypatch):
    """The folder of the three programs, as the working directory."""
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def lake(place, tmp_path, monkeypatch):
    """A copy of four tables without a ledger; one commit was not observed."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "lake", "lake", ignore=shutil.ignore_patterns("killed"))
    write_deltalake("lake/inner", pa.table({"x": [1]}), mode="append")
    return tmp_path / "lake"
