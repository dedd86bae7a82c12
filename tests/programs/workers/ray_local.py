"""Write in tasks, generators and actors of a Ray that the program starts; it has no line for observation."""

import sys

import ray
from jobs import jobs, load

lake = sys.argv[1]


@ray.remote
def task(folder, name):
    """Write."""
    return load(folder, name)


@ray.remote
def items(folder, name):
    """Write between two items."""
    for number in range(2):
        load(folder, name)
        yield number


@ray.remote
def outer(folder, name):
    """Write in a task of a task."""
    return ray.get(task.remote(folder, name))


@ray.remote
class Loader:
    """Writes when it is created, and in a method."""

    def __init__(self, folder):
        load(folder, "actor_init")

    def load(self, folder, name="actor"):
        """Write."""
        return load(folder, name)


@ray.remote
class AsyncLoader:
    """Writes in a coroutine."""

    async def load(self, folder):
        """Write."""
        return load(folder, "async_actor")


def main(**options):
    """Run the cases in a Ray with these options of `ray.init`."""
    ray.init(include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1", **options)
    long_lived = Loader.remote(f"{lake}/process")
    for folder in jobs(lake):
        ray.get([task.remote(folder, "task"), task.remote(folder, name="task")])
        ray.get(task.options(num_cpus=1).remote(folder, "with_options"))
        ray.get(list(items.remote(folder, "generator")))
        ray.get(outer.remote(folder, "task_of_a_task"))
        ray.get(long_lived.load.remote(folder))
        short_lived = Loader.remote(folder)
        ray.get(short_lived.load.remote(folder, name="short_lived"))
        ray.get(AsyncLoader.remote().load.remote(folder))
        del short_lived
    ray.shutdown()


if __name__ == "__main__":
    main(address="local", num_cpus=2)
