"""Programs of other libraries that write with delta-rs, run without a change of their code.

The programs are in `tests/programs/neighbours`. Those whose library is not in the development environment
run in a separate environment, which is made from the package index. `tools/neighbours.py` runs the same
programs and writes docs/neighbours.md.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deltawitness.commit.reader import history
from helpers.neighbours import (
    DEFINITIONS,
    FOLDER,
    NEIGHBOURS,
    build_wheel,
    compare,
    execute,
    is_complete,
    make_environment,
    namespace,
    resolve,
)
from helpers.repository_tools import load_tool
from helpers.sizes import cases

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("programs_with_pandas")]

IS_LONG = os.environ.get("TEST_SIZE") == "long"
HERE = [each for each in NEIGHBOURS if not each.requires]
ELSEWHERE = {
    each.name: each for each in NEIGHBOURS if each.requires and (IS_LONG or not each.is_long)
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the project."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def check_observed(neighbour, python, folder):
    """Run a program without and with observation, and check that only the metadata differ."""
    bare = execute(neighbour, python, folder / "bare", is_observed=False)
    assert bare.code == 0, bare.stderr
    observed = execute(neighbour, python, folder / "observed", is_observed=True)
    found = compare(bare, observed)
    assert is_complete(found, neighbour), (found, observed.stdout, observed.stderr)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("neighbour", HERE, ids=lambda each: each.name)
def test_a_program_does_the_same_and_each_commit_has_its_metadata_and_one_row(neighbour, tmp_path):
    """Output, exit code and operations are the same under `deltawitness run`."""
    check_observed(neighbour, Path(sys.executable), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", cases(ELSEWHERE, ["rivers_assets"]))
def test_the_same_in_a_separate_environment(name, wheel, tmp_path):
    """The wheel and the library are installed together, as of the day in `neighbours.toml`."""
    neighbour = ELSEWHERE[name]
    if neighbour.is_local and not namespace():
        pytest.skip("unshare cannot make a network namespace, which a program with servers needs")
    python = make_environment(neighbour, tmp_path / "environment", wheel)
    check_observed(neighbour, python, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("neighbour", HERE, ids=lambda each: each.name)
def test_each_commit_is_in_an_exported_trace_under_opentelemetry_instrument(neighbour, tmp_path):
    """The launcher of OpenTelemetry loads the instrumentation by its entry point."""
    lake = tmp_path / "lake"
    launcher = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    done = subprocess.run(
        [launcher, sys.executable, str(FOLDER / neighbour.file), str(lake)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "DO_NOT_TRACK": "1",
            "OTEL_TRACES_EXPORTER": "console",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "threading",
        },
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    commits = [commit for log in lake.rglob("_delta_log") for commit in history(log.parent)]
    assert commits
    assert all(commit.write_id for commit in commits)
    assert all(commit.metadata["traceparent"][3:35] in done.stdout for commit in commits)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "environment", DEFINITIONS["resolution"], ids=lambda each: ",".join(each["requires"])
)
def test_an_environment_with_a_neighbour_resolves(environment, wheel):
    """The requirements of the wheel, with its extras, exclude no other library but what is declared."""
    versions = resolve(wheel, environment["requires"], environment["extras"])
    assert isinstance(versions, dict) != environment.get("is-impossible", False), versions


def test_the_page_has_the_tables_of_the_results():
    """`make interop` runs the programs, resolves the environments, and writes docs/neighbours.md."""
    tool = load_tool("neighbours")
    assert tool.PAGE.read_text() == tool.page()


def test_each_program_is_defined_and_has_a_result():
    """A program that is in no definition would never run."""
    tool = load_tool("neighbours")
    found = tool.results()
    files = {file.name for file in FOLDER.glob("*.py")}
    assert files == {each.file for each in NEIGHBOURS}
    assert found["programs"].keys() == {each.name for each in NEIGHBOURS}
    incomplete = [
        each.name for each in NEIGHBOURS if not is_complete(found["programs"][each.name], each)
    ]
    assert incomplete == []
