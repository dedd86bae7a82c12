"""A program that runs in a CI system: what its commits, spans, ledger and report say of where it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deltawitness import Ledger, read_commit_metadata
from deltawitness.semconv import Env
from helpers.ledger_commands import invoke
from helpers.terminal_commands import run_command

SHA = "1f3a" * 10

CI = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_WORKFLOW": "Nightly load",
    "GITHUB_RUN_ID": "1658821493",
    "GITHUB_RUN_ATTEMPT": "3",
    "GITHUB_JOB": "load",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "org/lake",
    "GITHUB_SHA": SHA,
    "GITHUB_ACTOR": "octocat",
}

PROGRAM = """\
import pyarrow as pa
from deltalake import write_deltalake


def load():
    write_deltalake("lake/flights", pa.table({"x": [1]}), mode="append")


load()
"""

LINK = "https://github.com/org/lake/actions/runs/1658821493"


def run(folder, *options, program="load.py", **variables):
    """Run the program under the command, in a project in the home directory of a user."""
    home = folder / "home/ann"
    (home / "project").mkdir(parents=True, exist_ok=True)
    (home / "project/pyproject.toml").touch()
    (home / "project/load.py").write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if name not in set(Env)}
    return run_command(
        *("run", *options, "--", sys.executable, home / "project" / program),
        folder=home / "project",
        environment={**environment, "HOME": str(home), **variables},
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The project after a run in a CI system, with the console's spans in `out.txt`."""
    folder = tmp_path_factory.mktemp("place")
    done = run(
        folder,
        *("--message", "backfill 2024-03"),
        **{**CI, "OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none"},
        OTEL_LOGS_EXPORTER="none",
    )
    assert done.returncode == 0, done.stderr
    project = folder / "home/ann/project"
    (project / "out.txt").write_text(done.stdout)
    return project


def spans_in(text):
    """Return the spans that the console exporter has printed."""
    decoder, spans = json.JSONDecoder(), []
    while (start := text.find("{")) >= 0:
        span, length = decoder.raw_decode(text[start:])
        spans.append(span)
        text = text[start + length :]
    return spans


@pytest.mark.slow
def test_the_commit_says_which_job_wrote_which_version_of_the_program_and_why(place):
    """It has no name of a user."""
    metadata = read_commit_metadata(str(place / "lake/flights")).metadata
    found = {key: metadata.get(key) for key in ("job_name", "code_version", "message", "author")}
    assert found == {
        "job_name": "Nightly load",
        "code_version": SHA,
        "message": "backfill 2024-03",
        "author": None,
    }
    assert json.loads(metadata["userMetadata"])["job_name"] == "Nightly load"


@pytest.mark.slow
def test_the_spans_have_the_conventions_of_ci_and_code(place):
    """The span of the run and of the write have the run of the CI; the write has its line."""
    spans = {span["name"]: span["attributes"] for span in spans_in((place / "out.txt").read_text())}
    expected = {
        "cicd.pipeline.name": "Nightly load",
        "cicd.pipeline.run.id": "1658821493",
        "cicd.pipeline.run.url.full": LINK,
        "cicd.pipeline.task.name": "load",
        "vcs.ref.head.revision": SHA,
        "deltawitness.run.system": "github",
        "deltawitness.run.attempt": 3,
        "deltawitness.message": "backfill ?-03",
    }
    for attributes in (spans["Nightly load"], spans["WRITE flights"]):
        assert expected.items() <= attributes.items()
    write = spans["WRITE flights"]
    found = {name: value for name, value in write.items() if name.startswith("code.")}
    assert found == {
        "code.file.path": "load.py",
        "code.line.number": 6,
        "code.function.name": "__main__.load",
    }


@pytest.mark.slow
def test_the_ledger_and_the_report_say_the_same(place, monkeypatch):
    """The run's row has where it ran; the write's row has the message and the line."""
    ledger = Ledger(place / ".deltawitness")
    (row,) = ledger.runs().to_pylist()
    expected = {
        "job": "Nightly load",
        "message": "backfill 2024-03",
        "author": None,
        "system": "github",
        "pipeline": "Nightly load",
        "pipeline_run_id": "1658821493",
        "task": "load",
        "attempt": 3,
        "code_version": SHA,
        "link": LINK,
    }
    assert {name: row[name] for name in expected} == expected
    (write,) = ledger.inventory().to_pylist()
    found = [write[name] for name in ("message", "code_file", "code_line", "code_function")]
    assert found == ["backfill 2024-03", "load.py", 6, "__main__.load"]
    monkeypatch.chdir(place)
    shown = invoke("show", row["run_id"]).output
    assert "message: backfill 2024-03" in shown
    assert f"link: {LINK}" in shown
    assert "github: pipeline Nightly load, run 1658821493, task load, attempt 3" in shown.replace(
        "\n", " "
    )


@pytest.mark.slow
def test_no_record_has_the_home_directory_or_a_user(place):
    """Neither the commits nor the spans have them; the ledger has the location of the table only."""
    log = "".join(path.read_text() for path in Path(place, "lake/flights/_delta_log").iterdir())
    for text in (log, (place / "out.txt").read_text()):
        attributes = "".join(json.dumps(span.get("attributes")) for span in spans_in(text))
        assert "octocat" not in text
        assert "home/ann" not in attributes
    assert "home/ann" not in log
    (write,) = Ledger(place / ".deltawitness").inventory().to_pylist()
    assert "ann" not in f"{write['code_file']} {write['code_function']} {write['message']}"


@pytest.mark.slow
def test_a_program_outside_any_system_has_the_commit_of_its_repository(tmp_path):
    """The job is the name of the script, which is no job that `DELTAWITNESS_REQUIRE` accepts."""
    project = tmp_path / "home/ann/project"
    project.mkdir(parents=True)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run([*git, "init", "-q"], cwd=project, check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], cwd=project, check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True
    )
    variables = dict.fromkeys(CI, "")
    done = run(tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    metadata = read_commit_metadata(str(project / "lake/flights")).metadata
    assert (metadata["job_name"], metadata["code_version"]) == ("load", commit.stdout.strip())
    refused = run(tmp_path, **variables, DELTAWITNESS_REQUIRE="job")
    assert refused.returncode == 1
    assert "RequirementError: DELTAWITNESS_REQUIRE refuses this write, which has no job" in (
        refused.stderr
    )
    named = run(tmp_path, "--job", "nightly", **variables, DELTAWITNESS_REQUIRE="job,run")
    assert named.returncode == 0, named.stderr


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--job", "load of https://ann:hunter2@host/x"]])
def test_the_job_on_the_service_and_in_the_summary_has_no_password(tmp_path, options):
    """Neither `service.name` nor the printed name has a secret; both have the rest of the job's name."""
    done = run(
        tmp_path,
        *options,
        **{**CI, "GITHUB_WORKFLOW": "https://ann:hunter2@host/x"},
        OTEL_TRACES_EXPORTER="console",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    )
    assert done.returncode == 0, done.stderr
    assert '"service.name": "' in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    assert "https://host/x" in done.stderr.partition("\n")[0]
