"""Kill a worker, the driver or a drain in each of many rounds, then count rows of tables and of the ledger.

python faults.py ENGINE FOLDER ROUNDS SEED [WEED]

The tables are in FOLDER/lake and the ledger is in FOLDER/root. With WEED, the program of SeaweedFS, both are in
its bucket `lake`, and the store is one of the victims: it is started again at once. ENGINE is `ray` or `dask`. A cluster outlives the rounds. In each round a driver sends tasks that append rows
in a block of `once`, and the engine repeats tasks of killed workers. The driver of a round is started until
one ends. At the end the cluster is killed, and `deltawitness drain` and `reconcile --apply` run. The result is
a JSON object on the last line.
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
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
TASKS = 12
TABLES = ("table0", "table1", "all")
VICTIMS = ("worker", "driver", "drain")
ROUND_LIMIT_S = 180.0


# --- the work -------------------------------------------------------------------------------------


def work(lake, notes, number, task):
    """Append two rows to one table and one row to another, once, and note this process after each write."""
    import pyarrow as pa
    from deltalake import write_deltalake

    from deltawitness import once

    key = f"round-{number}-task-{task}"
    with once(key, deadline=120):
        for part in range(2):
            rows = pa.table({"key": [key], "part": [part]})
            write_deltalake(f"{lake}/table{task % 2}", rows, mode="append")
            Path(notes, f"{number}-{os.getpid()}-{task}-{part}").touch()
        write_deltalake(f"{lake}/all", pa.table({"key": [key], "part": [2]}), mode="append")
        Path(notes, f"{number}-{os.getpid()}-{task}-2").touch()
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
    task = ray.remote(max_retries=20, retry_exceptions=True)(work)
    notes = os.environ["NOTES"]
    return ray.get([task.remote(lake, notes, number, each) for each in range(TASKS)])


def drive_dask(lake, number):
    """Send the tasks to Dask."""
    from deltawitness.integrations.dask import DeltaWitnessPlugin
    from distributed import Client

    with Client(os.environ["CLUSTER"]) as client:
        client.register_plugin(DeltaWitnessPlugin())
        notes = os.environ["NOTES"]
        futures = [
            client.submit(work, lake, notes, number, each, pure=False, retries=20)
            for each in range(TASKS)
        ]
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
    # It is written while it may be read already.
    wait_until(lambda: file.exists() and file.read_text().rstrip().endswith("}"), "Dask")
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


class Store:
    """A SeaweedFS on loopback with the bucket `lake`; it keeps its data and ports when it is started again."""

    def __init__(self, weed, folder):
        self.folder = folder
        (folder / "store").mkdir()
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        ports = dict(zip(names, (21401, 21402, 21403, 21404), strict=True))
        self.endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        self.command = [
            *(
                weed,
                "server",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-dir={folder / 'store'}",
                "-s3",
            ),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=20"),
            *("-master.volumeSizeLimitMB=64", *(f"-{name}={port}" for name, port in ports.items())),
        ]
        self.start()
        wait_until(self.has_bucket, "SeaweedFS")
        os.environ.update(
            AWS_ENDPOINT_URL=self.endpoint,
            AWS_ALLOW_HTTP="true",
            AWS_ACCESS_KEY_ID="any",
            AWS_SECRET_ACCESS_KEY="any",
            AWS_REGION="us-east-1",
        )

    def start(self):
        """Start the server."""
        log = (self.folder / "store.log").open("ab")
        self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def has_bucket(self):
        """Make the bucket; return whether the server has answered."""
        request = urllib.request.Request(f"{self.endpoint}/lake", method="PUT")
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except (OSError, urllib.error.URLError):
            return False
        return True

    def restart(self):
        """Kill the server, and start it again."""
        self.process.kill()
        self.process.wait(60)
        self.start()


# --- the rounds -----------------------------------------------------------------------------------


class Rounds:
    """The rounds of an engine.

    Args:
        engine: `ray` or `dask`.
        folder: the folder of the rounds.
        lake: the location of the tables.
        chance: chooses the victims and the times.
        store: the object store that has the tables, if they are in one.
    """

    def __init__(self, engine, folder, lake, chance, store):
        self.engine, self.folder, self.lake, self.chance = engine, folder, lake, chance
        self.store = store
        self.victims = VICTIMS if store is None else (*VICTIMS, "store")
        self.killed = Counter()

    def run(self, number):
        """Start the driver of a round, kill a victim, and start the driver again until it ends well."""
        victim = self.chance.choice(self.victims)
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
            [sys.executable, __file__, "drive", self.engine, self.lake, str(number)],
            stdout=(self.folder / "driver.log").open("a"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    def kill(self, victim, driver, number):
        """Kill a victim by SIGKILL a random time after a random number of the round's writes."""
        notes, writes = Path(os.environ["NOTES"]), self.chance.randrange(1, 3 * TASKS - 4)
        wait_until(
            lambda: driver.poll() is not None or len([*notes.glob(f"{number}-*")]) >= writes,
            f"{writes} writes",
        )
        drain = subprocess.Popen(
            [sys.executable, "-m", "deltawitness", "drain"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(
            self.chance.uniform(0, 0.2 if victim != "drain" else 1.2)
        )  # the time of the kill is what is tested
        if victim == "worker":
            workers = sorted({int(note.name.split("-")[1]) for note in notes.glob(f"{number}-*")})
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(workers), signal.SIGKILL)
                self.killed[victim] += 1
        elif victim == "driver":
            self.killed[victim] += driver.poll() is None
            driver.kill()
        elif victim == "drain":
            self.killed[victim] += drain.poll() is None
            drain.kill()
        else:
            self.killed[victim] += 1
            self.store.restart()
        drain.wait(120)


def main(engine, folder, rounds, seed, weed=None):
    """Run the rounds, end the cluster, repair the ledger, and print the counts."""
    folder = Path(folder).absolute()
    notes = folder / "processes"
    notes.mkdir()
    store = None if weed is None else Store(weed, folder)
    home = str(folder) if store is None else "s3://lake"
    lake = f"{home}/lake"
    os.environ.update(NOTES=str(notes), DELTAWITNESS_ROOT=f"{home}/root")
    state = Rounds(engine, folder, lake, random.Random(seed), store)
    address, processes = {"ray": start_ray, "dask": start_dask}[engine](folder)
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
    tables = [f"{lake}/{name}" for name in TABLES]
    commands = [
        command(*words)
        for words in (
            ("drain",),
            ("reconcile", *tables, "--apply"),
            ("reconcile", *tables, "--full"),
            ("ledger", "verify"),
        )
    ]
    found = counts(tables, f"{home}/root", int(rounds))
    print(json.dumps({"engine": engine, "killed": state.killed, "commands": commands, **found}))
    if store is not None:
        store.process.kill()


def counts(tables, root, rounds):
    """Return what is wrong with the rows of the tables and of the ledger, and how many commits there are."""
    from deltalake import DeltaTable

    from deltawitness import Ledger, history

    expected = {
        (f"round-{number}-task-{task}", part)
        for number in range(rounds)
        for task in range(TASKS)
        for part in range(3)
    }
    rows = Counter(
        (row["key"], row["part"])
        for table in tables
        for row in DeltaTable(table).to_pyarrow_table().to_pylist()
    )
    found = Ledger(root).query("SELECT table_uri, versions FROM inventory").to_pylist()
    versions = Counter(
        (row["table_uri"].rsplit("/", 1)[1], version)
        for row in found
        for version in row["versions"] or ()
    )
    commits = {
        (table.rsplit("/", 1)[1], each.version): each for table in tables for each in history(table)
    }
    return {
        "wrong_rows": [[*key, rows[key]] for key in rows.keys() | expected if rows[key] != 1],
        "wrong_versions": [
            [*key, versions[key]] for key in versions.keys() | commits.keys() if versions[key] != 1
        ],
        "commits": len(commits),
        "without_run": sum(each.run_id is None for each in commits.values()),
    }


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
