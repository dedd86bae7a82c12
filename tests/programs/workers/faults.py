"""Kill a worker, the driver or a drain in each of many rounds, then count rows of tables and of the ledger.

python faults.py ENGINE LAKE ROUNDS SEED

ENGINE is `ray` or `dask`. A cluster outlives the rounds. In each round a driver sends tasks that append rows
in a block of `once`, and the engine repeats tasks of killed workers. The driver of a round is started until
one ends. At the end the cluster is killed, and `deltawitness drain` and `reconcile --apply` run. The result is
a JSON object on the last line. The ledger is at `DELTAWITNESS_ROOT`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
TASKS, TABLES = 12, 2
VICTIMS = ("worker", "driver", "drain")
ROUND_LIMIT_S = 180.0


# --- the work -------------------------------------------------------------------------------------


def work(lake, number, task):
    """Append two rows to one table and one row to another, once, and note this process."""
    import pyarrow as pa
    from deltalake import write_deltalake

    from deltawitness import once

    note = Path(lake).with_name("processes") / f"{number}-{os.getpid()}"
    note.touch()
    key = f"round-{number}-task-{task}"
    with once(key, deadline=120):
        for part in range(2):
            rows = pa.table({"key": [key], "part": [part]})
            write_deltalake(f"{lake}/table{task % TABLES}", rows, mode="append")
        write_deltalake(f"{lake}/all", pa.table({"key": [key], "part": [2]}), mode="append")
    return task


def drive(engine, lake, number):
    """Send the tasks of a round to the cluster, in a run of the round."""
    from deltawitness import DeltaLakeInstrumentor, run

    DeltaLakeInstrumentor().instrument()
    with run(f"round-{number}"):
        sent = {"ray": drive_ray, "dask": drive_dask}[engine](lake, number)
    assert sent == list(range(TASKS)), sent


def drive_ray(lake, number):
    """Send the tasks to Ray."""
    import ray

    from deltawitness.integrations.ray import runtime_env

    environment = runtime_env({"env_vars": {"PYTHONPATH": str(HERE)}})
    ray.init(os.environ["CLUSTER"], runtime_env=environment, log_to_driver=False)
    task = ray.remote(max_retries=20)(work)
    return ray.get([task.remote(lake, number, each) for each in range(TASKS)])


def drive_dask(lake, number):
    """Send the tasks to Dask."""
    from deltawitness.integrations.dask import DeltaWitnessPlugin
    from distributed import Client

    with Client(os.environ["CLUSTER"]) as client:
        client.register_plugin(DeltaWitnessPlugin())
        futures = [client.submit(work, lake, number, each, pure=False) for each in range(TASKS)]
        return client.gather(futures)


# --- the clusters ---------------------------------------------------------------------------------


def start_ray(folder):
    """Start a Ray of two workers, and return its address and the processes to end."""
    ray = str(Path(sys.executable).with_name("ray"))
    port = "6398"
    # Ray writes the address of a cluster to its folder, where later programs look for one.
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray")
    head = subprocess.Popen(
        [ray, "start", "--head", "--block", "--num-cpus=2", f"--port={port}",
         "--include-dashboard=false", "--node-ip-address=127.0.0.1", "--disable-usage-stats"],
        env=plain_environment(), cwd="/", stdout=(folder / "ray.log").open("w"),
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    address = f"127.0.0.1:{port}"
    status = [ray, "health-check", "--address", address]
    wait_until(lambda: subprocess.run(status, capture_output=True).returncode == 0, "Ray")
    return address, [head]


def start_dask(folder):
    """Start a Dask of two workers with nannies, and return its address and the processes to end."""
    file = folder / "scheduler.json"
    processes = [
        start_dask_process(folder, "scheduler", "--port", "0", "--scheduler-file", str(file))
    ]
    wait_until(file.exists, "Dask")
    processes += [
        start_dask_process(folder, "worker", "--scheduler-file", str(file), "--nthreads", "1")
        for _ in range(2)
    ]
    return json.loads(file.read_text())["address"], processes


def start_dask_process(folder, name, *options):
    """Start a scheduler or a worker on loopback."""
    return subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{name}", "--no-dashboard",
         "--host", "127.0.0.1", *options],
        env=plain_environment(), stdout=(folder / f"dask-{name}.log").open("a"),
        stderr=subprocess.STDOUT, start_new_session=True, cwd=folder,
    )  # fmt: skip


def plain_environment():
    """Return the environment without deltawitness."""
    from jobs import outside

    return {**outside(os.environ), "PYTHONPATH": str(HERE)}


def wait_until(condition, what, limit_s=120.0):
    """Wait until a condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


# --- the rounds -----------------------------------------------------------------------------------


class Rounds:
    """The rounds of an engine.

    Args:
        engine: `ray` or `dask`.
        lake: the folder of the tables; files of the rounds are next to it.
        chance: chooses the victims and the times.
    """

    def __init__(self, engine, lake, chance):
        self.engine, self.lake, self.chance = engine, Path(lake).absolute(), chance
        self.folder = self.lake.parent
        self.killed = Counter()

    def run(self, number):
        """Start the driver of a round, kill a victim, and start the driver again until it ends well."""
        victim = self.chance.choice(VICTIMS)
        deadline = time.monotonic() + ROUND_LIMIT_S
        while True:
            driver = self.start_driver(number)
            if victim is not None:
                self.kill(victim, driver, number)
                victim = None
            code = driver.wait(max(1.0, deadline - time.monotonic()))
            if code == 0:
                return
            assert code == -signal.SIGKILL, (number, code, (self.folder / "driver.log").read_text())

    def start_driver(self, number):
        """Start the driver of a round."""
        return subprocess.Popen(
            [sys.executable, __file__, "drive", self.engine, str(self.lake), str(number)],
            stdout=(self.folder / "driver.log").open("a"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    def kill(self, victim, driver, number):
        """Kill a victim by SIGKILL at a random time after the first task has started."""
        notes = self.folder / "processes"
        wait_until(lambda: driver.poll() is not None or any(notes.glob(f"{number}-*")), "a task")
        drain = subprocess.Popen(
            [sys.executable, "-m", "deltawitness", "drain"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(self.chance.uniform(0, 1.2))  # the time of the kill is what is tested
        if victim == "worker":
            workers = sorted(int(note.name.split("-")[1]) for note in notes.glob(f"{number}-*"))
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(workers), signal.SIGKILL)
                self.killed[victim] += 1
        elif victim == "driver":
            self.killed[victim] += driver.poll() is None
            driver.kill()
        else:
            self.killed[victim] += drain.poll() is None
            drain.kill()
        drain.wait(60)


def main(engine, lake, rounds, seed):
    """Run the rounds, end the cluster, repair the ledger, and print the counts."""
    state = Rounds(engine, lake, random.Random(seed))
    (state.folder / "processes").mkdir()
    address, processes = {"ray": start_ray, "dask": start_dask}[engine](state.folder)
    os.environ["CLUSTER"] = address
    started = time.monotonic()
    try:
        for number in range(int(rounds)):
            state.run(number)
            print(
                f"round {number}: {dict(state.killed)}, {time.monotonic() - started:.0f} s",
                flush=True,
            )
    finally:
        end(processes)
    tables = sorted(str(log.parent) for log in state.lake.glob("*/_delta_log"))
    commands = [
        command(*words)
        for words in (
            ("drain",),
            ("reconcile", *tables, "--apply"),
            ("reconcile", *tables, "--full"),
            ("ledger", "verify"),
        )
    ]
    print(json.dumps({"engine": engine, "killed": state.killed, "commands": commands}))


def command(*words):
    """Run a command of deltawitness, and return its exit code and its output."""
    done = subprocess.run(
        [sys.executable, "-m", "deltawitness", *words], capture_output=True, text=True
    )
    return [" ".join(words[:2]), done.returncode, done.stdout + done.stderr]


def end(processes):
    """End the processes of a cluster, with those that they have started."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1] == "drive":
        drive(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
