"""Measure what observing a write costs, add the result to the history, and draw the history.

    python benchmarks/record.py [--rounds N] [--at REVISION] [--plot]

`benchmarks/history.jsonl` has a line per measurement: date, commit, machine and versions, what a write costs
more than a bare one of the same run, and exact counts (those of `benchmarks/smoke.py`). `--at` measures the sources of a
revision. `--plot` measures nothing: it only draws `docs/assets/overhead-history.svg` from the history.
"""

from __future__ import annotations

import argparse
import json
import operator
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
HISTORY = Path(__file__).with_name("history.jsonl")
PLOT = REPOSITORY / "docs/assets/overhead-history.svg"

HANDLE = "append by handle"
CASES = {
    HANDLE: (
        "handle",
        ("bare", "bare again", "minimum", "no SDK", "all signals", "ledger", "hand-written"),
    ),
    "append by URI": ("uri", ("bare", "bare again", "all signals", "pipeline")),
}
"""Measured variants by case. The first is what the others are compared with, the second is the control."""

WARM_UP = 5

BLOCKS = 5
"""Sets of processes that share the rounds."""

TIME_LIMIT = 600.0
"""Seconds after which the processes are killed."""

NOISE_US = 15.0
"""Microseconds by which the control may differ from the bare write in a measurement that is recorded."""


# --- measuring ----------------------------------------------------------------------------------------


def costs(rounds: int, sources: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return by case and variant what a write costs more than a bare one.

    `added_us` is CPU time on the thread of the write, outside of the engine, in microseconds: the only one of
    the three that other load on the machine hardly changes. `cpu` is the ratio of the CPU times of all
    threads, `wall` that of the times.

    The variants take turns in random order, and lower quartiles are compared. Two equal processes may differ
    by some percent, so each block of rounds has new processes, and the result is the median of the blocks.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for case, (by, variants) in CASES.items():
        blocks = [block(rounds // BLOCKS, by, variants, sources) for _ in range(BLOCKS)]
        found[case] = {variant: cost(blocks, variant, variants[0]) for variant in variants[1:]}
    return found


def cost(
    blocks: list[dict[str, list[dict[str, float]]]], variant: str, base: str
) -> dict[str, float]:
    """Return the median costs of a variant over those of the base."""

    def median_of(kind: str, compare: Callable[[float, float], float]) -> float:
        return statistics.median(
            compare(quartile(times[variant], kind), quartile(times[base], kind)) for times in blocks
        )

    return {
        "added_us": round(median_of("ns", operator.sub) / 1e3, 1),
        "cpu": round(median_of("cpu", operator.truediv), 3),
        "wall": round(median_of("wall", operator.truediv), 3),
    }


def block(
    rounds: int, by: str, variants: tuple[str, ...], sources: Path
) -> dict[str, list[dict[str, float]]]:
    """Return the times of some rounds by variant, each in a new process."""
    from smoke import worker

    times: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    end = time.monotonic() + TIME_LIMIT
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        workers = {}
        for variant in variants:
            work = {"variant": variant, "by": by, "place": f"{folder}/{variant}"}
            workers[variant] = stack.enter_context(worker(sources, work, end))
        for number in range(rounds + WARM_UP):
            for variant in random.sample(variants, len(variants)):
                answer = workers[variant].ask("time")
                if number >= WARM_UP:
                    times[variant].append(answer)
    return times


def quartile(times: list[dict[str, float]], kind: str) -> float:
    """Return the lower quartile of one kind of time."""
    return statistics.quantiles([each[kind] for each in times], n=4)[0]


def counts(sources: Path) -> dict[str, dict[str, int]]:
    """Return the exact figures of each case of `benchmarks/smoke.py`."""
    from smoke import CASES as SMOKE_CASES
    from smoke import worker

    found = {}
    end = time.monotonic() + TIME_LIMIT
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for number, (case, (variant, by)) in enumerate(SMOKE_CASES.items()):
            work = {"variant": variant, "by": by, "place": f"{folder}/{number}"}
            with worker(sources, work, end) as running:
                for _ in range(WARM_UP):
                    running.ask("time")
                found[case] = running.ask("count")
    return found


def commit_name(revision: str) -> str:
    """Return the short name of a commit, with a `+` where the sources have uncommitted changes."""
    from smoke import commit_of

    git = shutil.which("git") or sys.exit("git is needed to name the commit")
    name = commit_of(git, "rev-parse", "--short=10", revision) or "unknown"
    is_changed = commit_of(git, "diff", "--quiet", revision, "--", "src") is None
    return name + ("+" if revision == "HEAD" and is_changed else "")


def cpu_model() -> str:
    """Return the name of the processor, as far as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), ""
    )


def record(rounds: int, at: str | None) -> dict[str, Any]:
    """Measure, and return a line of the history."""
    from revisions import sources_of

    from deltawitness.bench.measure import machine

    opened = nullcontext() if at is None else tempfile.TemporaryDirectory()
    with opened as folder:
        sources = REPOSITORY / "src"
        if at is not None and folder is not None:
            sources = sources_of(at, Path(folder))
        return {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit_name(at or "HEAD"),
            "machine": {**machine(), "cpu": cpu_model()},
            "rounds": rounds,
            "costs": costs(rounds, sources),
            "counts": counts(sources),
        }


# --- drawing ------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 260, 60, 220, 40, 44
COLORS = ("#888888", "#0072b2", "#d55e00", "#009e73", "#cc79a7")


def history() -> list[dict[str, Any]]:
    """Return the lines of the history, oldest first."""
    return [json.loads(line) for line in HISTORY.read_text(encoding="utf-8").splitlines() if line]


def panels(lines: list[dict[str, Any]]) -> list[tuple[str, dict[str, list[float]]]]:
    """Return the title and the series of each panel."""
    return [
        (
            "CPU time added on the thread of a write by handle, us",
            {
                variant: [line["costs"][HANDLE][variant]["added_us"] for line in lines]
                for variant in lines[0]["costs"][HANDLE]  # a later variant is in the history alone
            },
        ),
        (
            "Python instructions on the thread of a write, thousands",
            {
                case: [line["counts"][case]["instructions"] / 1000 for line in lines]
                for case in lines[0]["counts"]
                if case.startswith("append")
            },
        ),
    ]


def panel(title: str, series: dict[str, list[float]], labels: list[str], offset: int) -> list[str]:
    """Return the SVG elements of one panel.

    Args:
        title: its title.
        series: values by name, one for each label.
        labels: what is below the values.
        offset: distance from the top.
    """
    values = [value for line in series.values() for value in line]
    low, high = min(values), max(values)
    margin = (high - low) * 0.1 or 0.05
    low, high = low - margin, high + margin

    def x(index: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (index + 0.5) / len(labels)

    def y(value: float) -> float:
        return offset + TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [f'<text x="{LEFT}" y="{offset + 22}" font-weight="bold">{title}</text>']
    for step in range(5):
        value = low + (high - low) * step / 4
        parts += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#dddddd"/>',
            f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.4g}</text>',
        ]
    for index, label in enumerate(labels):
        for row, text in enumerate(label.split()):
            parts.append(
                f'<text x="{x(index):.1f}" y="{offset + HEIGHT - BOTTOM + 16 + 13 * row}" text-anchor="middle">{text}</text>'
            )
    order = sorted(series, key=lambda name: series[name][-1], reverse=True)
    below = 0.0
    for name, color in zip(series, COLORS, strict=False):
        points = " ".join(
            f"{x(index):.1f},{y(value):.1f}" for index, value in enumerate(series[name])
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{point.split(",")[0]}" cy="{point.split(",")[1]}" r="3" fill="{color}"/>'
            for point in points.split()
        ]
    colors = dict(zip(series, COLORS, strict=False))
    for name in order:  # names beside their last values, apart from each other
        below = max(below + 14, y(series[name][-1]) + 4)
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{below:.1f}" fill="{colors[name]}">{name} {series[name][-1]:.4g}</text>'
        )
    return parts


def plot(lines: list[dict[str, Any]]) -> str:
    """Return the history as SVG."""
    found = panels(lines)
    labels = [f"{line['date']} {line['commit']}" for line in lines]
    height = HEIGHT * len(found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        '<g font-family="sans-serif" font-size="11">',
        "<title>What observing a write costs, by commit</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (title, series) in enumerate(found):
        parts += panel(title, series, labels, number * HEIGHT)
    return "\n".join([*parts, "</g>", "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200, help="rounds per case")
    parser.add_argument("--at", metavar="REVISION", help="measure the sources of a revision")
    parser.add_argument(
        "--noisy", action="store_true", help="record a measurement with a noisy control too"
    )
    parser.add_argument("--plot", action="store_true", help="only draw the history")
    arguments = parser.parse_args()
    if not arguments.plot:
        line = record(arguments.rounds, arguments.at)
        noise = abs(line["costs"][HANDLE]["bare again"]["added_us"])
        if noise > NOISE_US and not arguments.noisy:
            print(json.dumps(line, indent=2))
            sys.exit(
                f"bench-record: not recorded: the control differs by {noise:.0f} us (at most {NOISE_US:.0f})"
            )
        with HISTORY.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line, indent=2))
    PLOT.write_text(plot(history()), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
