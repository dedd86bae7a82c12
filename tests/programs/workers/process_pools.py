"""Write in workers of process pools that outlive two runs: standard library with each start method, joblib."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from jobs import jobs, load


def main(lake):
    executors = {
        method: ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method))
        for method in ("fork", "forkserver", "spawn")
    }
    executors["fork"].submit(int).result()  # fork before this process uses delta-rs
    for folder in jobs(lake):
        for method, executor in executors.items():
            executor.submit(load, folder, method).result()
            list(executor.map(load, [folder], [f"{method}_map"]))
        in_joblib(folder)
        in_loky(folder)
    for executor in executors.values():
        executor.shutdown()


def in_joblib(folder):
    """Write in joblib's workers."""
    import joblib

    joblib.Parallel(n_jobs=2)(joblib.delayed(load)(folder, f"joblib{n}") for n in range(2))


def in_loky(folder):
    """Write in loky's workers, if it is installed."""
    try:
        from loky import get_reusable_executor
    except ImportError:
        return
    get_reusable_executor(max_workers=1).submit(load, folder, "loky").result()


if __name__ == "__main__":
    main(sys.argv[1])
