"""Write in tasks of a Dask cluster that the program starts; it has no line for observation."""

import sys

from jobs import jobs, load

from distributed import Client, LocalCluster


def nested(folder):
    """Write in a task of a task."""
    from distributed import worker_client

    with worker_client() as client:
        client.submit(load, folder, "task_of_a_task", pure=False).result()


async def coroutine(folder):
    """Write in a coroutine."""
    load(folder, "coroutine")


class Loader:
    """Writes when it is created, and in a method."""

    def load(self, folder):
        """Write."""
        return load(folder, "actor")


def drive(client, lake):
    """Write in each way that Dask runs functions."""
    import dask

    for folder in jobs(lake):
        client.submit(load, folder, "submit", pure=False).result()
        client.gather(client.map(load, [folder] * 2, ["map1", "map2"], pure=False))
        dask.compute(
            [dask.delayed(load)(folder, f"delayed{n}") for n in range(2)], scheduler=client
        )
        client.submit(coroutine, folder, pure=False).result()
        client.submit(nested, folder, pure=False).result()


def main(lake):
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        drive(client, lake)


if __name__ == "__main__":
    main(sys.argv[1])
