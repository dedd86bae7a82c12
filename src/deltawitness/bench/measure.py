"""Measure the writes of several variants in one run: interleaved, with a control, as ratios of medians.

Each variant runs in a separate process, because instrumentation affects an entire process. The processes
alternate after each write, in random order, so that other load on the machine and the storage affects all
variants equally. A ratio compares writes of the same rounds.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltawitness.bench import worker
from deltawitness.distributions import installed_version
from deltawitness.exceptions import DeltaWitnessError
from deltawitness.redaction import redact_text
from deltawitness.semconv import Env

__all__ = ["CASES", "CONTROL", "BenchError", "BenchLine", "Case", "machine", "run_case", "summary"]

WARM_UP_ROUNDS = 3
"""Number of rounds at the start of a case that are not measured."""

BASE = "bare"
"""The variant that the others are compared with."""

SOURCES_SEPARATOR = " @ "
"""Separates a variant from the name of other sources: `all signals @ v0.1.0`."""

CONTROL = "bare again"
"""The control, identical to the base: the distance of its ratio from 1 is the noise of the run."""


class BenchError(DeltaWitnessError):
    """A variant could not write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of write, measured for several variants.

    Attributes:
        name: name in the table of results.
        rows: rows of each write.
        mode: `append` or `overwrite`.
        by: `uri`, or `handle` for an open `DeltaTable`.
        variants: names from :data:`deltawitness.bench.worker.VARIANTS`. A suffix ` @ NAME` runs the
            variant with the sources of that name.
        log: number of commits of the written table, if a template is created.
        sources: folders with other sources of deltawitness, by name.
    """

    name: str
    rows: int
    mode: str = "append"
    by: str
    variants: tuple[str, ...] = (BASE, CONTROL, "observed", "hand-written")
    log: int = 1
    sources: Mapping[str, Path] = field(default_factory=dict)


CASES = (
    Case(name="append 10 rows, by URI", rows=10, by="uri"),
    Case(name="append 10 rows, by handle", rows=10, by="handle"),
    Case(name="append 100,000 rows, by URI", rows=100_000, by="uri"),
)
"""The cases that `deltawitness bench` measures."""


@dataclass(frozen=True, slots=True)
class BenchLine:
    """Results of one variant of a case.

    Attributes:
        case: the case's name.
        variant: the variant's name.
        writes: number of measured writes.
        median_us: median of their durations, in microseconds.
        ratio_of_medians: the median divided by the base's median.
        median_of_ratios: the median of the ratios to the base in each round.
        ratio_of_means: the mean divided by the base's mean.
        added_us: the median minus the base's median, in microseconds.
    """

    case: str
    variant: str
    writes: int
    median_us: float
    ratio_of_medians: float
    median_of_ratios: float
    ratio_of_means: float
    added_us: float


def run_case(
    case: Case,
    rounds: int,
    place: str,
    *,
    storage_options: Mapping[str, str] | None = None,
    template: Path | None = None,
) -> dict[str, list[int]]:
    """Measure a case, and return the duration of each write in nanoseconds, by variant.

    Args:
        case: the case.
        rounds: number of measured writes of each variant.
        place: path or URI under which the tables are created. The caller removes them.
        storage_options: as for `DeltaTable`.
        template: a local table that is copied for each variant; the tables are created empty when
            None.

    Raises:
        BenchError: a variant could not write.
    """
    work = {
        "rows": case.rows,
        "mode": case.mode,
        "by": case.by,
        "storage_options": None if storage_options is None else dict(storage_options),
        "template": None if template is None else str(template),
    }
    times: dict[str, list[int]] = {variant: [] for variant in case.variants}
    with ExitStack() as stack:
        processes = {
            variant: stack.enter_context(
                _process({**work, "variant": variant, "place": f"{place}/{number}"}, case.sources)
            )
            for number, variant in enumerate(case.variants)
        }
        for number in range(rounds + WARM_UP_ROUNDS):
            for variant in random.sample(case.variants, len(case.variants)):
                taken = processes[variant].write()
                if number >= WARM_UP_ROUNDS:
                    times[variant].append(taken)
    return times


@dataclass(slots=True)
class _Process:
    process: subprocess.Popen[str]
    variant: str
    place: str = field(repr=False)

    def send(self, line: str) -> None:
        if self.process.stdin is None:
            raise BenchError(self.variant)
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return  # the process has answered with an error or is dead; the next read shows which

    def write(self) -> int:
        """Make the process write once, and return the duration in nanoseconds."""
        self.send("write")
        line = "" if self.process.stdout is None else self.process.stdout.readline()
        if not line:
            msg = f"bench: the process of the variant {self.variant!r} died"
            raise BenchError(msg)
        answer: dict[str, Any] = json.loads(line)
        if "ns" in answer:
            return int(answer["ns"])
        text = redact_text(str(answer["error"]), location=self.place)
        msg = f"bench: the variant {self.variant!r} cannot write: {text}"
        raise BenchError(msg)


@contextmanager
def _process(work: Mapping[str, Any], sources: Mapping[str, Path]) -> Iterator[_Process]:
    """Run the process of a variant for the block, and end it afterwards."""
    variant, _, name = work["variant"].partition(SOURCES_SEPARATOR)
    process = subprocess.Popen(  # noqa: S603 - this interpreter, and a file of this package
        [sys.executable, "-P", str(Path(worker.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(sources[name] if name else None),
    )
    running = _Process(process, work["variant"], work["place"])
    try:
        # By standard input: every user of the machine can read a command line.
        running.send(json.dumps({**work, "variant": variant}))
        yield running
    finally:
        _end(process)


END_TIMEOUT = 5.0
"""Seconds that a process may take to end after its input is closed, before it is killed."""


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


_REMOVED_VARIABLES = (
    Env.ACTIVATE,
    Env.EVENTS_FILE,
    Env.RUN_ID,
    Env.JOB,
    Env.REQUIRE,
    Env.TRACEPARENT,
)


def _environment(sources: Path | None = None) -> dict[str, str]:
    """Return the environment of a variant: this one without instrumentation, run and ledger."""
    removed = set(_REMOVED_VARIABLES)
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    if sources is not None:
        environment["PYTHONPATH"] = str(sources)
    return {**environment, Env.LEDGER.value: "false"}


def summary(case: Case, times: Mapping[str, Sequence[int]]) -> list[BenchLine]:
    """Return the results of a case, a line per variant.

    Args:
        case: the case.
        times: durations in nanoseconds by variant, from :func:`run_case`.
    """
    base = times[BASE]
    median, mean = statistics.median(base), statistics.fmean(base)
    return [
        BenchLine(
            case=case.name,
            variant=variant,
            writes=len(taken),
            median_us=statistics.median(taken) / 1e3,
            ratio_of_medians=statistics.median(taken) / median,
            median_of_ratios=statistics.median(
                mine / theirs for mine, theirs in zip(taken, base, strict=True)
            ),
            ratio_of_means=statistics.fmean(taken) / mean,
            added_us=(statistics.median(taken) - median) / 1e3,
        )
        for variant, taken in times.items()
    ]


def machine() -> dict[str, str]:
    """Return the environment of the measurement: number of CPUs, versions of Python and packages."""
    packages = ("deltalake", "opentelemetry-sdk", "deltawitness")
    return {
        "python": platform.python_version(),
        "cpus": str(os.cpu_count()),
        **{package: installed_version(package) or "not installed" for package in packages},
    }
