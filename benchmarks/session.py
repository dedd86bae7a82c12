"""Measure the overhead of an observed session: interleaved variants, with an A/A control and limits.

    python benchmarks/session.py [--rounds N] [--case NAME]

The base is DataFusion's own session and delta-rs' own `write_deltalake`. The variants alternate in random
order, so that other load on the machine affects all of them equally, and a ratio compares measurements of
the same round. Differences of microseconds are measured in one process; writes in a process per variant,
so that a bare write never runs next to an observed session; memory in a new process each time.

This process imports no engine: on Linux a child's peak memory starts at that of its parent.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

Turn = Callable[[], float]
"""Runs the measured call once, and returns the measurement."""

WARM_UP_ROUNDS = 3
"""Number of rounds at the start that are not measured."""

REMAKE_EVERY = 20
"""Writes after which a table is created again, to limit the length of its log."""

SOURCE = "src.parquet"
"""The rows of the memory case: a file, so that no process holds them in memory."""


# --- sessions ------------------------------------------------------------------------------------------


def plain() -> Any:
    from datafusion import SessionContext

    return SessionContext()


def observed() -> Any:
    from deltawitness import ObservedSessionContext

    return ObservedSessionContext()


def observed_sdk() -> Any:
    """Return a session in a process that exports all signals, as in production."""
    from overhead import sdk

    from deltawitness import DeltaLakeInstrumentor

    DeltaLakeInstrumentor().instrument(**sdk())
    return observed()


# --- calls: figures are microseconds -------------------------------------------------------------------


def timed(call: Callable[[], object], times: int) -> Turn:
    def turn() -> float:
        started = time.perf_counter_ns()
        for _ in range(times):
            call()
        return (time.perf_counter_ns() - started) / times / 1e3

    return turn


def select(ctx: Any) -> Turn:
    return timed(lambda: ctx.sql("SELECT 1").collect(), times=20)


def session_id(ctx: Any) -> Turn:
    return timed(lambda: ctx.session_id(), times=1000)  # noqa: PLW0108 - the look-up is a part of the call


def table_exist(ctx: Any) -> Turn:
    ctx.from_pydict({"id": [1]}, "t")
    return timed(lambda: ctx.table_exist("t"), times=1000)


def schema(ctx: Any) -> Turn:
    frame = ctx.from_pydict({"id": [1]})
    return timed(lambda: frame.schema(), times=1000)  # noqa: PLW0108 - as above


def limit(ctx: Any) -> Turn:
    frame = ctx.from_pydict({"id": [1]})
    return timed(lambda: frame.limit(1), times=1000)


# --- writes: figures are milliseconds ------------------------------------------------------------------


def million() -> Any:
    import pyarrow as pa

    numbers = range(1_000_000)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "amount": pa.array((n * 0.5 for n in numbers), pa.float64()),
            "name": pa.array((f"row {n}" for n in numbers), pa.string()),
        }
    )


def by_location(ctx: Any, place: Path) -> Callable[[], object]:
    """The equivalent of the statement without SQL writes: run the query, and write its frame by URI."""
    from deltalake import write_deltalake

    return lambda: write_deltalake(str(place), ctx.sql("SELECT * FROM src"), mode="append")


def by_statement(ctx: Any, place: Path) -> Callable[[], object]:
    ctx.deregister_table("t")
    ctx.register_delta("t", place)
    return lambda: ctx.sql("INSERT INTO t SELECT * FROM src").collect()


def inserted(ctx: Any, write_to: Callable[[Any, Path], Callable[[], object]], folder: Path) -> Turn:
    """Append a million rows. The query and the write are timed, creating tables is not."""
    from deltalake import write_deltalake

    data = million()
    ctx.from_arrow(data, name="src")
    place = folder / f"table-{os.getpid()}"
    count = 0
    write: Callable[[], object] = lambda: None  # noqa: E731 - until there is a table

    def turn() -> float:
        nonlocal count, write
        if count % REMAKE_EVERY == 0:
            shutil.rmtree(place, ignore_errors=True)
            write_deltalake(place, data.slice(0, 10))
            write = write_to(ctx, place)
            write()
        count += 1
        started = time.perf_counter_ns()
        write()
        return (time.perf_counter_ns() - started) / 1e6

    return turn


# --- memory: figures are megabytes ---------------------------------------------------------------------


def create_source(folder: Path) -> None:
    rows = "SELECT value AS id, value * 0.5 AS amount, 'row ' || value AS name FROM range(10000000)"
    plain().sql(f"COPY ({rows}) TO '{folder / SOURCE}' STORED AS PARQUET").collect()


def peak(ctx: Any, write_to: Callable[[Any, Path], Callable[[], object]], folder: Path) -> Turn:
    from deltalake import write_deltalake

    ctx.register_parquet("src", str(folder / SOURCE))
    place = folder / f"table-{os.getpid()}"
    write_deltalake(place, plain().read_parquet(str(folder / SOURCE)).limit(10))
    write = write_to(ctx, place)

    def turn() -> float:
        write()
        shutil.rmtree(place)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    return turn


# --- cases ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """The limit of a variant: a ratio of medians, or a difference to the base."""

    text: str
    limit: float
    variant: str = "observed"
    adds: bool = False


@dataclass(frozen=True)
class Case:
    """A measured case: the preparation of its variants, their processes, and the number of rounds."""

    name: str
    unit: str
    variants: Mapping[str, Callable[[Path], Turn]]
    processes: str
    """`one` for all variants, one for `each`, or a `new` one for each turn."""
    bar: Bar
    rounds: float = 1.0
    """Fraction of the requested rounds."""
    create_data: Callable[[Path], None] | None = None
    """Creates the data that all variants read."""


def call(name: str, act: Callable[[Any], Turn], bar: Bar) -> Case:
    sessions = {"bare": plain, "bare again": plain, "observed": observed}
    return Case(
        name=name,
        unit="us",
        variants={v: lambda _, make=make: act(make()) for v, make in sessions.items()},
        processes="one",
        bar=bar,
    )


def write(name: str, unit: str, act: Callable[..., Turn], **how: Any) -> Case:
    variants = {
        "bare": (plain, by_location),
        "bare again": (plain, by_location),
        "observed": (observed, by_statement),
        "observed, SDK": (observed_sdk, by_statement),
    }
    return Case(
        name=name,
        unit=unit,
        variants={
            v: lambda folder, make=make, to=to: act(make(), to, folder)
            for v, (make, to) in variants.items()
        },
        **how,
    )


CASES = [
    call("SELECT 1, collected", select, Bar("SELECT 1 through the session, ratio", 1.10)),
    call("ctx.session_id()", session_id, Bar("ctx.session_id(), us added", 2.0, adds=True)),
    call("ctx.table_exist('t')", table_exist, Bar("ctx.table_exist('t'), us added", 2.0, adds=True)),
    call("df.schema()", schema, Bar("df.schema(), us added", 2.0, adds=True)),
    call("df.limit(1)", limit, Bar("df.limit(1), us added", 2.0, adds=True)),
    write("INSERT of 1 M rows", "ms", inserted, processes="each", bar=Bar("INSERT of 1 M rows, ratio", 1.05)),
    write("INSERT of 10 M rows, peak memory", "MB", peak, processes="new", rounds=0.05, create_data=create_source, bar=Bar("memory of an INSERT of 10 M rows, ratio", 1.1)),
]  # fmt: skip


# --- turns ---------------------------------------------------------------------------------------------


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def serve(case: str, variants: list[str], folder: Path, pipe: Connection) -> None:
    """Run the process of some variants: measure the requested variant, and send the result."""
    turns = {variant: named(case).variants[variant](folder) for variant in variants}
    while (variant := pipe.recv()) is not None:
        pipe.send(turns[variant]())
    pipe.close()
    os._exit(0)


class Worker:
    """A process that serves some variants of a case; a context manager."""

    def __init__(self, case: Case, variants: list[str], folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(case.name, variants, folder, theirs))
        self._process.start()
        theirs.close()

    def turn(self, variant: str) -> float:
        self._pipe.send(variant)
        return self._pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join()


def prepare(case: str, folder: Path) -> None:
    create_data = named(case).create_data
    if create_data is not None:
        create_data(folder)
    os._exit(0)


def run_case(case: Case, rounds: int, folder: Path) -> dict[str, list[float]]:
    if case.create_data is not None:
        process = multiprocessing.get_context("spawn").Process(
            target=prepare, args=(case.name, folder)
        )
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{case.name}: its source could not be created")
    names = list(case.variants)
    figures: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        if case.processes == "one":
            workers = dict.fromkeys(names, stack.enter_context(Worker(case, names, folder)))
        elif case.processes == "each":
            workers = {n: stack.enter_context(Worker(case, [n], folder)) for n in names}
        warm_up = WARM_UP_ROUNDS if workers else 0
        for number in range(rounds + warm_up):
            for name in random.sample(names, len(names)):
                if workers:
                    figure = workers[name].turn(name)
                else:
                    with Worker(case, [name], folder) as worker:
                        figure = worker.turn(name)
                if number >= warm_up:
                    figures[name].append(figure)
    return figures


# --- figures -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """The line of one variant in the table of results."""

    case: Case
    variant: str
    median: float
    added: float
    ratio_of_medians: float
    median_of_ratios: float

    def __str__(self) -> str:
        unit = self.case.unit
        return (
            f"| {self.case.name} | {self.variant} | {self.median:.2f} {unit} "
            f"| {self.added:+.2f} {unit} "
            f"| {self.ratio_of_medians:.3f} | {self.median_of_ratios:.3f} |"
        )


def lines_of(case: Case, figures: Mapping[str, list[float]]) -> list[Line]:
    base = figures["bare"]
    middle = statistics.median(base)
    return [
        Line(
            case=case,
            variant=variant,
            median=statistics.median(taken),
            added=statistics.median(taken) - middle,
            ratio_of_medians=statistics.median(taken) / middle,
            median_of_ratios=statistics.median(
                mine / theirs for mine, theirs in zip(taken, base, strict=True)
            ),
        )
        for variant, taken in figures.items()
    ]


def barred(line: Line) -> str:
    bar = line.case.bar
    seen = line.added if bar.adds else line.ratio_of_medians
    return f"| {bar.text} | {bar.limit} | {seen:.3f}{'' if seen <= bar.limit else ', missed'} |"


def machine() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "cpus": str(os.cpu_count()),
        **{name: version(name) for name in ("datafusion", "deltalake", "deltawitness")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200, help="rounds of the cheap cases")
    parser.add_argument("--case", help="only the cases whose name has this text in it")
    arguments = parser.parse_args()
    held: list[Line] = []
    print("| case | variant | median | added | ratio of medians | median of ratios |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        if arguments.case and arguments.case not in case.name:
            continue
        rounds = max(3, round(arguments.rounds * case.rounds))
        with tempfile.TemporaryDirectory() as folder:
            lines = lines_of(case, run_case(case, rounds, Path(folder)))
        print(*lines, sep="\n", flush=True)
        held += [line for line in lines if line.variant == case.bar.variant]
    print("\n| bar | limit | seen |\n|---|---|---|")
    print(*map(barred, held), sep="\n")
    print(f"\n{machine()}")


if __name__ == "__main__":
    sys.exit(main())
