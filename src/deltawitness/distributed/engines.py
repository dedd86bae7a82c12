"""Execute the staging of parts on the workers of an engine, with a bounded number of parts at a time.

An engine takes the next part when a worker has finished one, so a program whose parts are made one after
another has only a few of them in memory. Dask and Ray are imported when they are used.
"""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import os
import pickle
from collections.abc import Generator, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import replace
from typing import Any, Protocol

from deltawitness.distributed.parts import (
    is_dask_collection,
    is_dask_object,
    is_ray_dataset,
    is_ray_reference,
    is_stream,
    parts_of,
)
from deltawitness.distributed.staging import StagedPart, StagingTask, stage
from deltawitness.exceptions import ConfigurationError, WriteRequestError

__all__ = ["Engine", "engine_for", "stage_parts"]

NAMES = ("executor", "dask", "ray")
"""Names of the engines."""

Result = Any
"""A future of an engine."""


class Engine(Protocol):
    """Executes functions on workers."""

    limit: int
    """Number of parts that are submitted at the same time."""

    def takes(self, part: Any) -> bool:
        """Return whether a worker can read the part; a stream is read in this process."""

    def submit(self, task: StagingTask, number: int, part: Any) -> Result:
        """Start the staging of a part."""

    def next_done(self, pending: set[Result]) -> tuple[set[Result], list[StagedPart]]:
        """Wait for at least one part; return the parts that are still pending, and the finished ones."""

    def abandon(self, pending: set[Result]) -> None:
        """Cancel what has not begun, after an error."""

    def close(self) -> None:
        """Release what the engine has started itself."""


def stage_parts(
    engine: Engine, task: StagingTask, source: Any
) -> Generator[StagedPart, None, None]:
    """Stage each part and yield the results in the order in which the workers finish.

    Args:
        engine: executes the work.
        task: the distributed write.
        source: the parts, see :func:`deltawitness.distributed.parts.parts_of`.
    """
    if is_ray_dataset(source):
        yield from _stage_ray_dataset(task, source)
        return
    pending: set[Result] = set()
    try:
        for number, part in enumerate(parts_of(source)):
            if not engine.takes(part):
                yield stage(task, number, part)
                continue
            while len(pending) >= engine.limit:
                pending, done = engine.next_done(pending)
                yield from done
            pending.add(engine.submit(task, number, part))
        while pending:
            pending, done = engine.next_done(pending)
            yield from done
    finally:
        engine.abandon(pending)


def engine_for(engine: Any, source: Any, max_in_flight: int | None) -> Engine:
    """Return the engine that a program has chosen.

    Args:
        engine: a name, a `concurrent.futures.Executor` or a Dask client; None for the engine of the parts.
        source: the parts.
        max_in_flight: number of parts at a time; from the number of workers when None.

    Raises:
        ConfigurationError: there is no such engine, or it is not started.
    """
    if engine is None:
        engine = _engine_of(source)
    if isinstance(engine, Executor):
        return ExecutorEngine(engine, max_in_flight)
    if engine == "executor":
        return ExecutorEngine(None, max_in_flight)
    if engine == "ray":
        return RayEngine(max_in_flight)
    if engine == "dask" or (hasattr(engine, "submit") and hasattr(engine, "scatter")):
        return DaskEngine(None if engine == "dask" else engine, max_in_flight)
    msg = (
        f"engine: expected one of {', '.join(NAMES)}, an Executor or a Dask client, not {engine!r}"
    )
    raise ConfigurationError(msg)


def _engine_of(source: Any) -> str:
    if is_dask_collection(source):
        return "dask"
    return "ray" if is_ray_dataset(source) else "executor"


class ExecutorEngine:
    """An executor of the standard library; by default a pool of spawned processes.

    Args:
        executor: the program's executor, which is not shut down; a new pool when None.
        max_in_flight: number of parts at a time.
    """

    def __init__(self, executor: Executor | None, max_in_flight: int | None) -> None:
        self._own = executor is None
        workers = os.cpu_count() or 1
        if executor is None:
            # Forked processes cannot use delta-rs, whose threads do not exist in them.
            spawn = multiprocessing.get_context("spawn")
            executor = ProcessPoolExecutor(workers, mp_context=spawn)
        self._executor = executor
        self._is_local = isinstance(executor, ThreadPoolExecutor)
        self.limit: int = max_in_flight or getattr(executor, "_max_workers", workers) + 1

    def takes(self, part: Any) -> bool:
        """Return whether a worker can read the part."""
        if is_dask_object(part) or is_ray_reference(part):
            name = "dask" if is_dask_object(part) else "ray"
            msg = f"parts: a {type(part).__name__} needs engine='{name}'"
            raise WriteRequestError(msg)
        return self._is_local or not is_stream(part)

    def submit(self, task: StagingTask, number: int, part: Any) -> Future[StagedPart]:
        """Start the staging of a part."""
        return self._executor.submit(stage, task, number, part)

    def next_done(
        self, pending: set[Future[StagedPart]]
    ) -> tuple[set[Future[StagedPart]], list[StagedPart]]:
        """Wait for at least one part."""
        done, rest = wait(pending, return_when=FIRST_COMPLETED)
        return rest, [future.result() for future in done]

    def abandon(self, pending: set[Future[StagedPart]]) -> None:
        """Cancel what has not begun, and wait for what has."""
        for future in pending:
            future.cancel()
        wait(pending)

    def close(self) -> None:
        """End the processes of the pool, if it is not the program's."""
        if self._own:
            self._executor.shutdown(cancel_futures=True)


class DaskEngine:
    """A Dask cluster.

    Args:
        client: the program's client; the default client of the process when None.
        max_in_flight: number of parts at a time; twice the number of threads of the workers when None.
    """

    def __init__(self, client: Any, max_in_flight: int | None) -> None:
        distributed = self._distributed = importlib.import_module("distributed")
        if client is None:
            try:
                client = distributed.get_client()
            except ValueError:
                msg = "engine: dask has no client in this process; create a distributed.Client, or pass it"
                raise ConfigurationError(msg) from None
        self._client = client
        self.limit: int = max_in_flight or 2 * max(1, sum(client.nthreads().values()))

    def takes(self, part: Any) -> bool:
        """Return whether a worker can read the part."""
        return is_dask_object(part) or not is_stream(part)

    def submit(self, task: StagingTask, number: int, part: Any) -> Any:
        """Start the staging of a part."""
        if hasattr(part, "__dask_graph__"):
            staged = importlib.import_module("dask").delayed(stage, pure=False)(task, number, part)
            return self._client.compute(staged)
        if hasattr(part, "nbytes") and not is_dask_object(part):
            [part] = self._client.scatter([part], hash=False)
        return self._client.submit(stage, task, number, part, pure=False)

    def next_done(self, pending: set[Any]) -> tuple[set[Any], list[StagedPart]]:
        """Wait for at least one part."""
        found = self._distributed.wait(list(pending), return_when="FIRST_COMPLETED")
        return set(found.not_done), [future.result() for future in found.done]

    def abandon(self, pending: set[Any]) -> None:
        """Cancel what has not finished."""
        if pending:
            self._client.cancel(list(pending))

    def close(self) -> None:
        """Do nothing: the cluster is the program's."""


class RayEngine:
    """A Ray cluster that the program has connected to.

    Args:
        max_in_flight: number of parts at a time; twice the number of CPUs of the cluster when None.
    """

    def __init__(self, max_in_flight: int | None) -> None:
        ray = importlib.import_module("ray")
        if not ray.is_initialized():
            msg = "engine: ray is not initialized; call ray.init() before"
            raise ConfigurationError(msg)
        self._ray = ray
        self._stage = ray.remote(stage)
        cpus = ray.cluster_resources().get("CPU", 1)
        self.limit: int = max_in_flight or max(2, 2 * int(cpus))

    def takes(self, part: Any) -> bool:
        """Return whether a worker can read the part."""
        return is_ray_reference(part) or not is_stream(part)

    def submit(self, task: StagingTask, number: int, part: Any) -> Any:
        """Start the staging of a part."""
        return self._stage.remote(task, number, part)

    def next_done(self, pending: set[Any]) -> tuple[set[Any], list[StagedPart]]:
        """Wait for at least one part."""
        done, rest = self._ray.wait(list(pending), num_returns=1)
        return set(rest), self._ray.get(done)

    def abandon(self, pending: set[Any]) -> None:
        """Cancel what has not begun."""
        for reference in pending:
            self._ray.cancel(reference)

    def close(self) -> None:
        """Do nothing: the cluster is the program's."""


def _stage_ray_dataset(task: StagingTask, dataset: Any) -> Iterator[StagedPart]:
    """Stage each block of a Ray Dataset, in the streaming execution of Ray Data."""
    staged = dataset.map_batches(
        _stage_block, fn_args=(task,), batch_format="pyarrow", batch_size=None, zero_copy_batch=True
    )
    numbers = itertools.count()
    for row in staged.iter_rows():
        yield _renumbered(row["staged"], next(numbers))


def _stage_block(block: Any, task: StagingTask) -> dict[str, list[Any]]:
    return {"staged": [pickle.dumps(stage(task, 0, block))]}


def _renumbered(content: bytes, number: int) -> StagedPart:
    part: StagedPart = pickle.loads(content)  # noqa: S301 - from a task of this program
    return replace(part, number=number)
