"""Write in the task processes of an Airflow with a scheduler; the DAG has no line for observation."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

DAG = """
from airflow.sdk import dag, task


@dag(schedule=None)
def shop():
    @task
    def load(table):
        import pyarrow as pa
        from deltalake import write_deltalake

        write_deltalake(f"{folder}/{{table}}", pa.table({{"id": [1, 2]}}))
        return table

    @task
    def load_next(table):
        return load.function(f"{{table}}_next")

    load_next(load("first"))


shop()
"""

SETTINGS = {
    "AIRFLOW__API__HOST": "127.0.0.1",
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
    "AIRFLOW__CORE__PARALLELISM": "1",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
    "OTEL_TRACES_SAMPLER": "always_on",
}


def main(lake):
    folder = Path(lake, "process").absolute()
    home = Path.home() / "airflow"
    (home / "dags").mkdir(parents=True)
    (home / "dags/shop.py").write_text(DAG.format(folder=folder))
    here = Path(sys.executable).parent  # where `airflow standalone` finds `airflow`
    os.environ.update(SETTINGS, AIRFLOW_HOME=str(home), PATH=f"{here}:{os.environ['PATH']}")
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], check=True)
    subprocess.run([*airflow, "dags", "reserialize"], check=True)
    server = subprocess.Popen([*airflow, "standalone"], start_new_session=True)
    try:
        wait_for(is_serving)
        wait_for(lambda: subprocess.run([*airflow, "dags", "trigger", "shop"]).returncode == 0)
        subprocess.run([*airflow, "dags", "unpause", "shop"], check=True)
        wait_for((folder / "first_next/_delta_log/00000000000000000000.json").exists)
        wait_for(lambda: "success" in state_of_runs(airflow))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def is_serving():
    """Return whether the server to which the tasks connect answers."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:8080/api/v2/monitor/health", timeout=10):
            return True
    except (ConnectionError, urllib.error.URLError):
        return False


def state_of_runs(airflow):
    """Return the states of the runs of the DAG, as text."""
    return subprocess.run(
        [*airflow, "dags", "list-runs", "shop", "--output", "plain"], capture_output=True, text=True
    ).stdout


def wait_for(condition):
    """Wait until a condition holds."""
    limit = time.monotonic() + 500
    while not condition():
        assert time.monotonic() < limit
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1])
