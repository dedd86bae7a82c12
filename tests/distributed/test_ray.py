"""Distributed writes on a Ray cluster, in a separate environment with Ray.

The cluster runs in a network namespace with only the loopback interface.
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from helpers.neighbours import PRIVATE, Neighbour, build_wheel, make_environment, namespace
from helpers.places import PROGRAMS

pytestmark = pytest.mark.interop

IS_LONG = os.environ.get("TEST_SIZE") == "long"
RAY = Neighbour(
    title="Ray",
    file="distributed_ray.py",
    packages=("ray",),
    requires=("ray[data]==2.60.0", "pandas"),
    is_long=True,
    is_local=True,
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the program has seen, as its last line of output."""
    if not IS_LONG:
        pytest.skip("the environment of Ray is made at full size only")
    if not namespace():
        pytest.skip("unshare cannot make a network namespace, which a cluster needs")
    folder = tmp_path_factory.mktemp("ray")
    python = make_environment(RAY, folder / "environment", build_wheel(folder / "wheel"))
    (folder / "lake").mkdir()
    done = subprocess.run(
        [*namespace(), str(python), str(PROGRAMS / RAY.file), str(folder / "lake")],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **PRIVATE},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_tasks_stage_and_the_driver_commits_once(found):
    """Object references, tables, functions and streams are parts; the commit is in the run of the driver."""
    assert found["parts"] == [0, 40, 4, True]
    assert found["run"] == "r1"
    kinds = [["CREATE TABLE", 4, "Committed"], ["WRITE", 2, "Committed"]]
    skipped, failed = ["WRITE", None, "NoCommit"], ["WRITE", None, "Failed"]
    assert found["events"] == [*kinds, skipped, ["CREATE TABLE", 4, "Committed"], failed]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_task_is_retried_and_its_rows_are_there_once(found):
    """Ray executes the part again; a second call with the key commits nothing."""
    assert found["died"]
    assert (found["killed"], found["again"]) == ([1, 20, 2, True], [1, 20, 2, False])
    assert found["ids"] == sorted([*range(10), *range(50)])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_ray_dataset_is_written_in_its_blocks(found):
    assert found["dataset"] == [0, 40, 4, True]
    assert found["dataset ids"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_error_of_delta_rs_keeps_its_class(found):
    assert found["error"] == ["SchemaMismatchError", "part 0: Field x not found in schema"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_writer_of_ray_data_is_observed_in_the_run_of_the_driver(found):
    """A new column is a separate commit before the rows: two commits, two events, one run."""
    events = [event[:2] for event in found["ray data"]["events"]]
    assert events == [["ADD COLUMN", "r2"], ["WRITE", "r2"]]
    assert found["ray data"]["rows"] == [0, 1, 2]
