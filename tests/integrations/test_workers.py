"""Workers of other engines: each write has the run, policy and trace of the code that sent the work.

The programs are in `tests/programs/workers`. In the run `one` they write to the tables of the folder
`one`, and so on: the folder says what is expected of a commit. Engines that are not in the development
environment run in a separate one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.neighbours import build_wheel, install, namespace
from helpers.places import REPOSITORY
from helpers.workers import problems, run_traced, worker_processes

pytestmark = [pytest.mark.interop, pytest.mark.slow]

IS_LONG = os.environ.get("TEST_SIZE") == "long"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the project."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


HERE = {
    # program: tables that it writes, folders of jobs included
    "process_pools.py": 2 * 8,
    "dask_local.py": 2 * 7,
    "dask_existing.py": 2 * 2 * 7,
}
SMALL = {"process_pools.py": 2 * 9, "celery_worker.py": 2 * 4, "gunicorn_app.py": 3}
RAY = {"ray_local.py": 1 + 2 * 8, "ray_existing.py": 2 * (1 + 2 * 8)}


KILLED = {"gunicorn_app.py": 3}
"""Programs that kill workers, whose last spans are lost."""


def check(traced, tables, lost_spans=0):
    assert traced.code == 0, traced.output
    assert (problems(traced, lost_spans=lost_spans), len(traced.commits())) == ([], tables), (
        traced.output
    )
    assert len(worker_processes(traced)) > 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", HERE)
def test_a_write_of_a_worker_belongs_to_the_run_that_sent_it(program, tmp_path):
    """Process pools and Dask, with workers that the program starts and workers that existed before."""
    pytest.importorskip("distributed")
    traced = run_traced(Path(sys.executable), program, tmp_path / "run", is_local=False)
    check(traced, HERE[program])


@pytest.mark.timeout(1200)
def test_the_same_with_loky_celery_and_gunicorn(wheel, tmp_path):
    """They share an environment. One worker of gunicorn is killed after its write."""
    requires = ["celery==5.7.0", "gunicorn==27.0.1", "joblib==1.6.0", "loky==3.7.0"]
    python = install(requires, ("cli", "otel"), tmp_path / "environment", wheel)
    for program, tables in SMALL.items():
        traced = run_traced(python, program, tmp_path / program, is_local=bool(namespace()))
        check(traced, tables, KILLED.get(program, 0))


@pytest.fixture(scope="module")
def python_with_ray(wheel, tmp_path_factory):
    """The interpreter of an environment with Ray."""
    if not namespace():
        pytest.skip("unshare cannot make a network namespace, which Ray needs")
    folder = tmp_path_factory.mktemp("ray") / "environment"
    return install(["ray[data]==2.60.0"], ("cli", "otel"), folder, wheel)


@pytest.mark.timeout(600)
def test_the_example_of_ray_shows_the_same(python_with_ray, tmp_path):
    """The writes of its tasks are in the run and trace of the program."""
    said = example_output(python_with_ray, "workers_ray.py", tmp_path / "lake", namespace())
    assert said == shown_output()[1]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("program", RAY)
def test_a_write_of_a_task_of_ray_belongs_to_the_run_that_sent_it(program, request, tmp_path):
    """With a Ray that the program starts, and with a cluster that existed before."""
    if not IS_LONG:
        pytest.skip("at full size")
    python = request.getfixturevalue("python_with_ray")
    check(run_traced(python, program, tmp_path / program), RAY[program])


@pytest.mark.timeout(1800)
def test_the_same_with_airflow(wheel, tmp_path):
    """The task processes are children of the scheduler, and write in the run of the command."""
    if not IS_LONG:
        pytest.skip("at full size")
    if not namespace():
        pytest.skip("unshare cannot make a network namespace, in which the servers run")
    python = install(["apache-airflow==3.3.2"], ("cli", "otel"), tmp_path / "environment", wheel)
    # Airflow flushes the spans before the process of a task ends by os._exit().
    check(run_traced(python, "airflow_tasks.py", tmp_path / "run"), 2)


IDS = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHOWN = re.compile(r"<!-- workers: begin -->\n```text\n\$ (.*)\n([^`]+)```\n<!-- workers: end -->")


def example_output(python, program, lake, prefix=()):
    """Return the output of an example with zeros in its ids."""
    done = subprocess.run(
        [*prefix, str(python), str(REPOSITORY / "examples" / program), str(lake)],
        capture_output=True,
        text=True,
        cwd=lake.parent,
    )
    assert done.returncode == 0, done.stderr
    return IDS.sub(lambda found: re.sub("[0-9a-f]", "0", found[0]), done.stdout)


def shown_output():
    """Return the output on the page, and the program."""
    command, output = SHOWN.search((REPOSITORY / "docs/workers.md").read_text()).groups()
    return command, output


@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", ["workers_joblib.py", "workers_dask.py"])
def test_an_example_shows_each_write_in_the_run_and_trace_of_the_program(program, tmp_path):
    """The page has the output; it is the same for each engine."""
    pytest.importorskip("distributed")
    command, output = shown_output()
    assert command == "python workers_dask.py lake"
    assert example_output(Path(sys.executable), program, tmp_path / "lake") == output
