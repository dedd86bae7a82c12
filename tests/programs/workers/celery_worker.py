"""Write in tasks of a Celery worker that existed before; neither tasks nor publisher have a line for it.

The worker is started with `deltawitness run`, as its processes need an observer.
"""

import os
import subprocess
import sys
import time
from pathlib import Path


def main(lake):
    home = Path(f"{lake}-celery")
    for folder in ("queue", "control", "results"):
        (home / folder).mkdir(parents=True)
    os.environ["CELERY_FOLDER"] = str(home.absolute())
    from celery_tasks import write, write_by_task, write_in_retry
    from jobs import jobs, outside

    exporters = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
    worker = subprocess.Popen(
        [sys.executable, "-m", "deltawitness", "run", "--quiet", "--job", "celery", "--",
         sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "--pool", "prefork",
         "--concurrency", "2", "--loglevel", "ERROR", "--without-gossip", "--without-mingle"],
        env={**outside(os.environ), **exporters, "DELTAWITNESS_ROOT": os.environ["DELTAWITNESS_ROOT"],
             "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    try:
        for folder in jobs(lake):
            place = str(folder)
            for result in (write.delay(place, "delay"), write_in_retry.delay(place, "retry")):
                result.get(timeout=60)
            write.apply_async((place, "apply_async"), countdown=0.1).get(timeout=60)
            write_by_task.delay(place, "task_of_a_task").get(timeout=60)
            wait_for(folder / "task_of_a_task/_delta_log/00000000000000000000.json")
    finally:
        worker.terminate()
        worker.wait(60)


def wait_for(path):
    """Wait until a file exists."""
    limit = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < limit, path
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
