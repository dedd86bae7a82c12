"""Compare the cost of observing in the present sources with that of an earlier commit, and fail on a regression.

    python benchmarks/smoke.py [--base REVISION | --merge-base BRANCH] [--limit RATIO] [--cpu-limit RATIO]

The base is the parent of HEAD. Each case runs in a process with the sources of the base and in one with the
present sources. Three figures are exact, so that any load on the machine leaves them alone: the Python
instructions and the calls of C functions on the thread of a write, and the bytes of its commit. Work inside
one C function shows in the fourth only: the CPU time of that thread outside of the engine, in turns and in
random order, where the lower quartiles are compared.

It exits with 1 if a figure is above its limit, with 2 if nothing can be measured, and passes where there is
nothing to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from revisions import sources_of

REPOSITORY = Path(__file__).parents[1]
BASE = "base"
PARENT = "HEAD~1"
WORKER = Path(__file__).with_name("smoke_worker.py")

CASES = {
    "append by handle, no SDK": ("no SDK", "handle"),
    "append by handle, all signals": ("all signals", "handle"),
    "append by handle, ledger": ("ledger", "handle"),
    "append by URI, pipeline": ("pipeline", "uri"),
    "SELECT 1 in a session": ("query", "none"),
}
"""Each case: its variant, and how the table is given."""

LIMIT = 1.10
"""Ratio of an exact figure above which it is a regression."""

TRAILER = "Bench-limit"
"""Trailer of a commit message with the ratio that the commit accepts, for what it adds on purpose."""

CPU_LIMIT = 1.25
"""Ratio of CPU times above which it is a regression. It must be above the limit twice in a row."""

ROUNDS = 40
"""Measured calls per case and sources."""

SECONDS = 60.0
"""Time for all cases, shared equally; a case that has used up its share measures no further CPU times."""

END = 85.0
"""Seconds after which the processes are killed, and the remaining cases are not measured."""


@dataclass(frozen=True)
class Figure:
    """One figure of a case with the sources of the base and with the present ones."""

    case: str
    name: str
    base: float
    present: float
    limit: float

    @property
    def ratio(self) -> float:
        return self.present / self.base if self.base else 1.0

    @property
    def is_regression(self) -> bool:
        return self.ratio > self.limit


class WorkerError(Exception):
    """The process of a case could not do its work."""


class BaseError(WorkerError):
    """The sources of the base could not do the work of a case."""


class TimeUpError(Exception):
    """The process of a case was killed at the end of the time."""


@dataclass(frozen=True)
class Limits:
    """Ratios above which a figure is a regression, and times on the monotonic clock.

    `until` is when the share of a case ends, `end` when all processes are killed.
    """

    exact: float
    cpu: float
    until: float
    end: float


class Worker:
    """The process of a case with one set of sources, which is killed at `end`."""

    def __init__(self, process: subprocess.Popen[str], end: float, *, is_base: bool) -> None:
        self._process = process
        self._end = end
        self._is_base = is_base

    def ask(self, request: str) -> dict[str, Any]:
        """Send a line, and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has answered with an error, or is dead
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line and time.monotonic() >= self._end:
            raise TimeUpError
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process died"}
        if "error" in answer:
            error = BaseError if self._is_base else WorkerError
            raise error(answer["error"])
        return answer


@contextmanager
def worker(sources: Path, work: dict[str, str], end: float) -> Iterator[Worker]:
    """Run the process of a case for the block, at most until `end` on the monotonic clock."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DELTAWITNESS_", "OTEL_"))
    }
    environment |= {"PYTHONPATH": str(sources), "PYTHONHASHSEED": "0"}
    if work["variant"] != "ledger":
        environment["DELTAWITNESS_LEDGER"] = "false"
    process = subprocess.Popen(  # noqa: S603 - this interpreter, and a file of this folder
        [sys.executable, "-P", str(WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    killer = threading.Timer(max(0.0, end - time.monotonic()), process.kill)
    killer.start()
    running = Worker(process, end, is_base=sources.parent.name == BASE)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps({**work, "sources": str(sources)}) + "\n")
        yield running
    finally:
        killer.cancel()
        process.kill()
        with suppress(BrokenPipeError):
            process.communicate()


def lower_quartiles(
    workers: dict[str, Worker], rounds: int, until: float
) -> dict[str, float] | None:
    """Return the lower quartile of the CPU times by sources, in microseconds; None if time is up."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    for number in range(rounds + 3):
        if time.monotonic() > until:
            break
        for name in random.sample(list(workers), len(workers)):
            taken = workers[name].ask("time")["ns"] / 1e3
            if number >= 3:
                times[name].append(taken)
    if min(map(len, times.values())) < 10:
        return None
    return {name: statistics.quantiles(taken, n=4)[0] for name, taken in times.items()}


def measure(case: str, sources: dict[str, Path], place: Path, limits: Limits) -> list[Figure]:
    """Return the figures of a case."""
    variant, by = CASES[case]
    with ExitStack() as stack:
        workers = {}
        for name, folder in sources.items():
            work = {"variant": variant, "by": by, "place": str(place / name)}
            workers[name] = stack.enter_context(worker(folder, work, limits.end))
        cpu = lower_quartiles(workers, ROUNDS, limits.until)
        if cpu is not None and cpu["present"] > limits.cpu * cpu["base"]:
            cpu = lower_quartiles(workers, 2 * ROUNDS, limits.end)
        counts = {name: each.ask("count") for name, each in workers.items()}
    figures = [
        Figure(case, name, counts["base"][name], counts["present"][name], limits.exact)
        for name in counts["base"]
        if counts["base"][name]
    ]
    if cpu is not None:
        figures.append(Figure(case, "us of CPU", cpu["base"], cpu["present"], limits.cpu))
    return figures


def commit_of(git: str, *arguments: str) -> str | None:
    """Return the commit that a command of git prints; None if it fails."""
    found = subprocess.run(  # noqa: S603 - arguments of this developer's command
        [git, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return None if found.returncode else found.stdout.strip()


def fail(reason: str) -> NoReturn:
    """End the program with 2, because nothing can be measured."""
    print(f"bench-smoke: {reason}", file=sys.stderr)
    sys.exit(2)


def accepted_limit() -> float:
    """Return the limit of the exact figures: that of the trailer of HEAD, if it has one."""
    git = shutil.which("git")
    wanted = f"--format=%(trailers:key={TRAILER},valueonly)"
    text = git and commit_of(git, "log", "-1", "--no-show-signature", wanted)
    try:
        return float(text) if text else LIMIT
    except ValueError:
        fail(f"the trailer {TRAILER} of HEAD is not a number: {text!r}")


def base_revision(base: str, branch: str | None, *, always: bool) -> str | None:
    """Return the commit to compare with; None, after a line that says why, where there is none."""
    git = shutil.which("git")
    if git is None:
        print("bench-smoke: git is not installed: nothing to compare with")
        return None
    if branch is None:
        revision = commit_of(git, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}")
    else:
        revision = commit_of(git, "merge-base", "HEAD", branch)
    if revision is None:
        if branch is None and base != PARENT:
            fail(f"--base: no commit {base}")
        name = base if branch is None else f"merge base with {branch}"
        print(
            f"bench-smoke: no {name} here (a shallow clone, or the first commit): nothing to compare with"
        )
        return None
    is_same = commit_of(git, "diff", "--quiet", revision, "--", "src/deltawitness") is not None
    if is_same and not always:
        print(f"bench-smoke: the sources are those of {revision[:12]}: nothing to compare")
        return None
    return revision


def compared(revision: str, limits: tuple[float, float], wanted: str) -> list[Figure]:
    """Measure and print the cases whose name contains a text."""
    began = time.monotonic()
    figures: list[Figure] = []
    print(
        "| case | figure | base | present | ratio | limit |\n|---|---|---|---|---|---|", flush=True
    )
    cases = [case for case in CASES if wanted in case]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        sources = {BASE: sources_of(revision, place / BASE), "present": REPOSITORY / "src"}
        for number, case in enumerate(cases):
            share = (began + SECONDS - time.monotonic()) / (len(cases) - number)
            until = time.monotonic() + share
            try:
                found = measure(
                    case, sources, place / str(number), Limits(*limits, until, began + END)
                )
            except BaseError as error:
                print(f"bench-smoke: {case}: the base cannot be measured: {error}")
                continue
            except TimeUpError:
                print(f"bench-smoke: {END:.0f} s are over: not measured from here: {case}")
                break
            for each in found:
                print(
                    f"| {each.case} | {each.name} | {each.base:.0f} | {each.present:.0f} "
                    f"| {each.ratio:.3f} | {each.limit:.2f} |",
                    flush=True,
                )
            figures += found
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--base", default=PARENT, help=f"revision to compare with (default: {PARENT})"
    )
    parser.add_argument(
        "--merge-base", metavar="BRANCH", help="compare with the merge base of HEAD and a branch"
    )
    parser.add_argument(
        "--limit",
        type=float,
        help=f"limit of the exact figures, as a ratio (default: the trailer {TRAILER} of HEAD, else {LIMIT})",
    )
    parser.add_argument(
        "--cpu-limit", type=float, default=CPU_LIMIT, help="limit of the CPU time, as a ratio"
    )
    parser.add_argument(
        "--always", action="store_true", help="measure equal sources too (an A/A run)"
    )
    parser.add_argument("--case", default="", help="only the cases whose name has this text in it")
    arguments = parser.parse_args()
    if not any(arguments.case in case for case in CASES):
        parser.error(f"--case: no case has {arguments.case!r} in its name")
    revision = base_revision(arguments.base, arguments.merge_base, always=arguments.always)
    if revision is None:
        return 0
    try:
        limit = arguments.limit or accepted_limit()
        figures = compared(revision, (limit, arguments.cpu_limit), arguments.case)
    except WorkerError as error:
        fail(f"cannot be measured: {error}")
    failed = [each for each in figures if each.is_regression]
    for each in failed:
        print(
            f"bench-smoke: regression: {each.case}: {each.name}: {each.base:.0f} at {revision[:12]},"
            f" {each.present:.0f} now: {each.ratio:.2f} is above {each.limit:.2f}",
            file=sys.stderr,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
