"""Write with the workers of a Dask cluster that existed before, with one line for observation.

The scheduler and the workers are processes that are started here, in an environment without deltawitness.
Two clients use them.
"""

import json
import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from jobs import outside

from distributed import Client


def drive(lake):
    """Do what the program without a line does, in a cluster that existed before."""
    import dask_local

    from deltawitness.integrations.dask import DeltaWitnessPlugin

    with Client(os.environ["CLUSTER"]) as client:
        client.wait_for_workers(2, timeout=60)
        client.register_plugin(DeltaWitnessPlugin())
        dask_local.drive(client, lake)


def address_in(file, scheduler):
    """Return the address in the file of a scheduler, which it writes while others may read it."""
    while True:
        assert scheduler.poll() is None
        with suppress(FileNotFoundError, ValueError):  # it is not there yet, or not complete
            return json.loads(file.read_text())["address"]


def main(lake):
    """Start the cluster, run the drivers, and stop the cluster."""
    here = str(Path(__file__).parent)
    environment = {**outside(os.environ), "PYTHONPATH": here}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
    with ExitStack() as stack:
        scheduler = stack.enter_context(
            subprocess.Popen(
                [
                    *command,
                    "--host",
                    "127.0.0.1",
                    "--port",
                    "0",
                    "--scheduler-file",
                    f"{lake}.json",
                ],
                env=environment,
            )
        )
        stack.callback(scheduler.terminate)
        command = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-dashboard"]
        for _ in range(2):
            worker = stack.enter_context(
                subprocess.Popen(
                    [*command, "--scheduler-file", f"{lake}.json", "--nthreads", "1", "--host",
                     "127.0.0.1", "--no-nanny"],
                    env=environment,
                )
            )  # fmt: skip
            stack.callback(worker.terminate)
        os.environ["CLUSTER"] = address_in(Path(f"{lake}.json"), scheduler)
        for driver in ("first", "second"):
            subprocess.run([sys.executable, __file__, f"{lake}/{driver}", "drive"], check=True)


if __name__ == "__main__":
    if sys.argv[2:] == ["drive"]:
        drive(sys.argv[1])
    else:
        main(sys.argv[1])
