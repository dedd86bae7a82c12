"""Write with the workers of a Ray cluster that existed before, with one line for observation.

The cluster is started here, in an environment without deltawitness, and two drivers use it.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from jobs import outside

HERE = Path(__file__).parent
RAY = [str(Path(sys.executable).with_name("ray"))]


def drive(lake):
    """Do what the program without a line does, in a cluster that existed before."""
    import ray_local

    from deltawitness.integrations.ray import runtime_env

    ray_local.lake = lake
    ray_local.main(address=os.environ["CLUSTER"], runtime_env=runtime_env())


def main(lake):
    """Start the cluster, run the drivers, and stop the cluster."""
    os.environ["CLUSTER"] = "127.0.0.1:6399"
    # Ray writes the address of a cluster to its folder, where later programs look for one.
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray")
    started = subprocess.run(
        [*RAY, "start", "--head", "--num-cpus=2", "--port=6399", "--include-dashboard=false",
         "--node-ip-address=127.0.0.1", "--disable-usage-stats"],
        env=outside(os.environ),
        capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    for driver in ("first", "second"):
        subprocess.run([sys.executable, __file__, f"{lake}/{driver}", "drive"], check=True)


if __name__ == "__main__":
    if sys.argv[2:] == ["drive"]:
        drive(sys.argv[1])
    else:
        main(sys.argv[1])
