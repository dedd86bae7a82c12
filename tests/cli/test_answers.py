"""Every command that answers a question names its exit codes, and prints valid JSON when it finds nothing."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from typer.main import get_command

from deltawitness import DeltaLakeInstrumentor, Settings, run
from deltawitness.cli.app import app
from helpers.ledger_commands import invoke
from helpers.places import REPOSITORY

NOTHING = {
    "runs --job other": 0,
    "writes --job other": 0,
    "errors": 0,
    "show t": 0,
    "show RUN": 0,
    "diff t 0 0": 0,
    "lineage t": 0,
    "lineage t --columns": 0,
    "impact t": 0,
    "bisect t --bad x<0": 3,
    "blame t --where x<0": 3,
    "overdue": 0,
    "regressions": 0,
    "ci-report": 0,
    "undo RUN": 3,
    "verify RUN": 3,
    "time RUN": 0,
    "cost --job other": 0,
    "doctor t": 0,
    "commit t": 0,
    "audit t": 0,
    "reconcile t": 0,
    "release ls": 0,
}
"""The exit code of each question about a table `t` with one write, which has nothing to find."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a ledger of one write, and the id of its run."""
    folder = tmp_path_factory.mktemp("place")
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(folder / ".deltawitness")))
    try:
        with run("load") as opened:
            write_deltalake(str(folder / "t"), pa.table({"x": [1]}))
    finally:
        DeltaLakeInstrumentor().uninstrument()
    return folder, opened.run_id


@pytest.mark.slow
@pytest.mark.parametrize("question", NOTHING)
def test_an_answer_without_findings_is_json(place, monkeypatch, question):
    """`--json` prints one JSON document and nothing else, also where the answer is empty."""
    folder, run_id = place
    monkeypatch.chdir(folder)
    arguments = [run_id if each == "RUN" else each for each in question.split()]
    done = invoke(*arguments, "--json")
    assert done.exit_code == NOTHING[question], done.output
    assert isinstance(json.loads(done.stdout), dict | list)
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("question", NOTHING)
def test_without_a_ledger_the_answer_is_an_error_or_json(tmp_path, monkeypatch, question):
    """Without a ledger and a table, a command prints JSON, or one line on stderr and nothing on stdout."""
    monkeypatch.chdir(tmp_path)
    done = invoke(*question.split(), "--json")
    assert done.exit_code in {0, 1, 2}
    if done.stdout:
        json.loads(done.stdout)
    else:
        assert done.exit_code
        assert re.fullmatch(r"deltawitness: .+\n", done.stderr)


NAMES = sorted({re.match(r"release \w+|\S+", each)[0] for each in NOTHING})


@pytest.mark.parametrize("name", NAMES)
def test_the_exit_codes_are_documented(name):
    """The help of each command names them, and so does the page of the answers."""
    command = get_command(app)
    for part in name.split():
        command = command.commands[part]
    assert re.search(r"\b[Ee]xits \d|exit code", command.help), command.help
    page = (REPOSITORY / "docs/answers.md").read_text(encoding="utf-8")
    section = page.split("## Exit codes\n")[1].split("\n## ")[0]
    others = {"show", "lineage"}  # they have only the codes of all questions
    assert name in others or f"`{name}" in section
