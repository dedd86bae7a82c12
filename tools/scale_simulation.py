"""Simulate many writers with one ledger, from measured commits; print the tables of `docs/scale.md`.

    python tools/scale_simulation.py [--write]

The input is `tools/scale_measurements.json`, recorded by `benchmarks/commit_rates.py`. `--write` replaces the
tables between the markers of the page and the plots beside it.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/scale.md"
PLOTS = ROOT / "docs/assets"

# --- inputs that are not measured ------------------------------------------------------------------------

WRITERS = (100, 1_000, 10_000)
WRITERS_PER_HOST = 10
WRITES_PER_SECOND = 0.1
"""Writes of one writer per second."""
INTERVAL = 5.0
"""Seconds between two drains: the default of `DELTAWITNESS_DRAIN_INTERVAL`."""
SHARDS = 16
SECONDS = 160.0
"""Simulated time; the first half is not counted."""
PRICES = {"PUT": 5e-6, "LIST": 5e-6, "POST": 5e-6, "GET": 4e-7, "HEAD": 4e-7, "DELETE": 0.0}
"""US dollars per request: S3 Standard, us-east-1, list price, 2026-11."""
LAG_LIMIT = 60.0
"""Seconds of lag (95th percentile) beyond which a mode is over its knee."""

# --- constants of the drain, as in `deltawitness.ledger.drain` -------------------------------------------

ATTEMPTS, INNER_RETRIES = 12, 3
FIRST_WAIT, LONGEST_WAIT = 0.02, 5.0
MAX_CONFLICTS, LONGEST_PAUSE = 2, 60.0


@dataclass
class Outcome:
    """What a simulation has counted after its first half."""

    commits: int = 0
    conflicts: int = 0
    given_up: int = 0
    lags: list[float] = field(default_factory=list)

    def lag(self, share: float) -> float:
        """Return a quantile of the seconds from a write until its row is visible."""
        found = sorted(self.lags)
        return found[min(len(found) - 1, int(share * len(found)))] if found else math.inf


@dataclass
class Drainer:
    """One process that drains a host, or itself."""

    table: int
    pause: float
    drained: float = 0.0
    began: float = 0.0
    seen: int = 0
    attempt: int = 0
    inner: int = 0
    conflicts: int = 0


@cache
def simulate(  # noqa: PLR0913 - keyword-only inputs
    *,
    drainers: int,
    tables: int,
    commit: float,
    retry: float,
    interval: float = INTERVAL,
    seconds: float = SECONDS,
    seed: int = 1,
) -> Outcome:
    """Simulate drains that commit optimistically to a few tables.

    Args:
        drainers: processes that drain.
        tables: tables, over which they are spread.
        commit: seconds of an undisturbed commit.
        retry: seconds of a retry inside the engine, as a share of `commit`.
        interval: seconds between two drains; 0 commits again at once.
        seconds: simulated time.
        seed: of the random numbers.
    """
    chance = random.Random(seed)  # noqa: S311 - a simulation
    versions, outcome = [0] * tables, Outcome()
    everyone = [Drainer(n % tables, interval) for n in range(drainers)]
    events: list[tuple[float, int, str]] = [
        (chance.uniform(0, max(interval, commit)), n, "start") for n in range(drainers)
    ]
    heapq.heapify(events)
    while events:
        now, number, kind = heapq.heappop(events)
        if now > seconds:
            break
        one, is_counted = everyone[number], now > seconds / 2
        if kind == "start":
            if one.attempt == 0:
                one.began, one.conflicts = now, 0
            one.seen, one.inner = versions[one.table], 0
            heapq.heappush(events, (now + commit * chance.uniform(0.8, 1.2), number, "end"))
            continue
        if versions[one.table] == one.seen:
            versions[one.table] += 1
            if is_counted:
                outcome.commits += 1
                outcome.lags += [now - one.drained - (one.began - one.drained) * s for s in _SHARES]
            one.drained = one.began
            wait = _pause(one, interval, chance, is_done=True)
        elif one.inner < INNER_RETRIES:
            one.inner += 1
            one.seen = versions[one.table]
            heapq.heappush(events, (now + commit * retry * chance.uniform(0.8, 1.2), number, "end"))
            continue
        else:
            one.attempt += 1
            one.conflicts += 1
            outcome.conflicts += is_counted
            if one.attempt < ATTEMPTS:
                wait = chance.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2**one.attempt))
                heapq.heappush(events, (now + wait, number, "start"))
                continue
            outcome.given_up += is_counted
            wait = _pause(one, interval, chance, is_done=False)
        one.attempt = 0
        heapq.heappush(events, (now + wait, number, "start"))
    return outcome


_SHARES = (0.05, 0.35, 0.65, 0.95)
"""Writes of a batch whose lag is counted, by their place between two drains."""


def _pause(one: Drainer, interval: float, chance: random.Random, *, is_done: bool) -> float:
    factor = 2.0 if one.conflicts > MAX_CONFLICTS or not is_done else 0.5
    one.pause = (
        min(max(LONGEST_PAUSE, interval), max(interval, factor * one.pause)) if interval else 0
    )
    return one.pause * chance.uniform(0.5, 1.0)


def calibrate(measured: list[dict[str, Any]]) -> tuple[float, float, list[float]]:
    """Return the seconds of a commit, the share of a retry that fits best, and the modelled rates.

    Args:
        measured: rates of writers that commit to one table without pauses.
    """
    commit = 1 / measured[0]["commits_per_s"]

    def rates(retry: float) -> list[float]:
        span = 2000 * commit
        return [
            2
            * simulate(
                drainers=each["writers"],
                tables=1,
                commit=commit,
                retry=retry,
                interval=0,
                seconds=span,
            ).commits
            / span
            for each in measured
        ]

    def distance(retry: float) -> float:
        pairs = zip(rates(retry), measured, strict=True)
        return sum(math.log(rate / each["commits_per_s"]) ** 2 for rate, each in pairs)

    best = min((share / 20 for share in range(2, 21)), key=distance)
    return commit, best, rates(best)


# --- the cases -------------------------------------------------------------------------------------------

MODES = {
    "each process": lambda writers: (writers, 1),
    "direct, forward": lambda writers: (writers // WRITERS_PER_HOST, 1),
    "shard": lambda writers: (writers // WRITERS_PER_HOST, SHARDS),
}
"""Drainers and tables by the number of writers. `each process` drains without the lock of the host."""


def cases(recorded: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the simulated cases, by storage, mode and number of writers."""
    found = []
    for storage, measured in recorded["storages"].items():
        commit, retry, _ = calibrate(measured["shared"])
        requests = measured["shared"][0].get("requests_per_commit", {})
        for mode, spread in MODES.items():
            for writers in WRITERS:
                drainers, tables = spread(writers)
                done = simulate(drainers=drainers, tables=tables, commit=commit, retry=retry)
                rows = writers * WRITES_PER_SECOND
                commits = done.commits / (SECONDS / 2)
                attempts = (done.commits + done.conflicts) / (SECONDS / 2)
                per_million = 1e6 * attempts / rows
                found.append(
                    {
                        "storage": storage,
                        "mode": mode,
                        "writers": writers,
                        "rows_per_s": rows,
                        "commits_per_s": commits,
                        "lag_p50": done.lag(0.5),
                        "lag_p95": done.lag(0.95),
                        "conflicts": done.conflicts / max(1, done.commits),
                        "requests": per_million * sum(requests.values()),
                        "dollars": per_million
                        * sum(PRICES.get(name, 0) * count for name, count in requests.items()),
                    }
                )
    return found


STORAGE_NAMES = {"local": "local disk", "s3_loopback": "S3 on loopback", "s3_30ms": "S3, 30 ms"}


_CASE_COLUMNS = (
    *("storage", "commits by", "writers", "rows/s", "commits/s", "lag p50", "lag p95"),
    *("conflicts per commit", "requests per million writes", "dollars"),
)


def cases_table(found: list[dict[str, Any]]) -> str:
    """Return the table of the simulated cases."""
    lines = [
        f"| {' | '.join(_CASE_COLUMNS)} |",
        "|---" * len(_CASE_COLUMNS) + "|",
    ]
    for case in found:
        is_over = case["lag_p95"] > LAG_LIMIT
        lag = "over the knee" if is_over else f"{case['lag_p95']:.0f} s"
        is_remote = case["requests"] > 0
        requests = f"{case['requests'] / 1e6:.1f} M" if is_remote else ""
        dollars = f"{case['dollars']:.2f}" if is_remote else ""
        lines.append(
            f"| {STORAGE_NAMES[case['storage']]} | {case['mode']} | {case['writers']:,}"
            f" | {case['rows_per_s']:,.0f}"
            f" | {case['commits_per_s']:.1f} | {_seconds(case['lag_p50'])} | {lag}"
            f" | {case['conflicts']:.2f} | {requests} | {dollars} |"
        )
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return "" if math.isinf(value) else f"{value:.0f} s"


def measured_table(recorded: dict[str, Any]) -> str:
    """Return the table of the measurements, beside the calibrated model."""
    lines = [
        "| storage | writers | one table, commits/s | model | conflicts per commit | a table each, commits/s |",
        "|---|---|---|---|---|---|",
    ]
    for storage, measured in recorded["storages"].items():
        _, _, rates = calibrate(measured["shared"])
        own = {each["writers"]: each["commits_per_s"] for each in measured["own"]}
        for each, rate in zip(measured["shared"], rates, strict=True):
            lines.append(
                f"| {STORAGE_NAMES[storage]} | {each['writers']} | {each['commits_per_s']:.1f} | {rate:.1f}"
                f" | {each['conflicts_per_commit']:.2f} | {own.get(each['writers'], '')} |"
            )
    return "\n".join(lines)


def knees_table(recorded: dict[str, Any]) -> str:
    """Return for each storage and mode the writers up to which the lag stays within the limit."""
    lines = ["| storage | " + " | ".join(MODES) + " |", "|---" * (len(MODES) + 1) + "|"]
    for storage, measured in recorded["storages"].items():
        commit, retry, _ = calibrate(measured["shared"])
        cells = [_knee(spread, commit, retry) for spread in MODES.values()]
        lines.append(f"| {STORAGE_NAMES[storage]} | {' | '.join(cells)} |")
    return "\n".join(lines)


STEPS = (30, 100, 300, 1_000, 3_000, 10_000)


def _knee(spread: Any, commit: float, retry: float) -> str:
    last = 0
    for writers in STEPS:
        drainers, tables = spread(writers)
        done = simulate(drainers=drainers, tables=tables, commit=commit, retry=retry)
        if done.lag(0.95) > LAG_LIMIT:
            return f"{last:,}" if last else f"below {STEPS[0]}"
        last = writers
    return f"{last:,} and more"


# --- plots -----------------------------------------------------------------------------------------------

WIDTH, HEIGHT, MARGIN = 640, 320, 56
COLOURS = {"each process": "#b3261e", "direct, forward": "#1f6feb", "shard": "#1a7f37"}


def plot(found: list[dict[str, Any]], storage: str, value: str, title: str) -> str:
    """Return a plot of a value by the number of writers as SVG, both axes logarithmic.

    Args:
        found: the simulated cases.
        storage: name of the storage.
        value: key of the value in a case.
        title: of the plot.
    """
    here = [case for case in found if case["storage"] == storage]
    low, high = 0.1, 1000.0

    def x(writers: float) -> float:
        share = math.log10(writers / WRITERS[0]) / math.log10(WRITERS[-1] / WRITERS[0])
        return MARGIN + share * (WIDTH - 2 * MARGIN)

    def y(number: float) -> float:
        share = math.log10(min(high, max(low, number)) / low) / math.log10(high / low)
        return HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN)

    text = 'font-family="sans-serif" font-size="12" fill="#57606a"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="24" {text}>{title}</text>',
    ]
    for tick in (0.1, 1, 10, 100, 1000):
        line = f'x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"'
        parts.append(f'<line {line} stroke="#d0d7de"/>')
        parts.append(
            f'<text x="{MARGIN - 8}" y="{y(tick) + 4:.1f}" text-anchor="end" {text}>{tick:g}</text>'
        )
    for writers in WRITERS:
        place = f'x="{x(writers):.1f}" y="{HEIGHT - MARGIN + 20}" text-anchor="middle"'
        parts.append(f"<text {place} {text}>{writers:,} writers</text>")
    for row, (mode, colour) in enumerate(COLOURS.items()):
        points = [(case["writers"], case[value]) for case in here if case["mode"] == mode]
        path = " ".join(f"{x(at):.1f},{y(number):.1f}" for at, number in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x(a):.1f}" cy="{y(n):.1f}" r="3" fill="{colour}"/>' for a, n in points
        ]
        top = MARGIN + 4 + 16 * row
        parts.append(
            f'<text x="{MARGIN + 12}" y="{top}" font-family="sans-serif" font-size="12"'
            f' fill="{colour}">{mode}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


# --- the page --------------------------------------------------------------------------------------------


def outputs() -> tuple[dict[str, str], dict[str, str]]:
    """Return the tables of the page by marker, and the plots by file name."""
    recorded = json.loads((ROOT / "tools/scale_measurements.json").read_text())
    found = cases(recorded)
    tables = {
        "measured": measured_table(recorded),
        "cases": cases_table(found),
        "knees": knees_table(recorded),
    }
    last = list(recorded["storages"])[-1]
    plots = {
        "scale-lag.svg": plot(
            found,
            last,
            "lag_p95",
            f"lag until a row is visible, p95, seconds ({STORAGE_NAMES[last]})",
        ),
        "scale-conflicts.svg": plot(
            found, last, "conflicts", f"conflicts per commit ({STORAGE_NAMES[last]})"
        ),
    }
    return tables, plots


def with_tables(page: str, tables: dict[str, str]) -> str:
    """Return the page with the tables between its markers."""
    for name, table in tables.items():
        head, _, rest = page.partition(f"<!-- {name}: begin -->\n")
        _, _, tail = rest.partition(f"\n<!-- {name}: end -->")
        page = f"{head}<!-- {name}: begin -->\n{table}\n<!-- {name}: end -->{tail}"
    return page


def main() -> int:
    """Print the tables, or write the page and the plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    tables, plots = outputs()
    if parser.parse_args().write:
        PAGE.write_text(with_tables(PAGE.read_text(), tables))
        PLOTS.mkdir(exist_ok=True)
        for name, content in plots.items():
            (PLOTS / name).write_text(content)
    else:
        print("\n\n".join(tables.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
