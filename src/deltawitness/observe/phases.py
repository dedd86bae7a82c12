"""The phases of the engine's call, from the durations that the engine reports.

The engine reports durations and no start times. Its execution includes a scan and a rewrite, where it names
them, and ends before the commit. So the phases are put one after the other: scan, rewrite, the rest of the
execution, commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deltawitness.events import WritePhase

__all__ = ["phases_of"]

_NS = 1_000_000
"""Nanoseconds of a millisecond."""

_STEPS = {"scan": ("scan_time_ms", "scanTimeMs"), "rewrite": ("rewrite_time_ms", "rewriteTimeMs")}


def phases_of(
    duration_ns: int, execution_ms: int | None, metrics: Mapping[str, Any]
) -> tuple[WritePhase, ...]:
    """Return the phases of a call, those without a duration left out; empty if the engine reports none.

    Args:
        duration_ns: duration of the call in nanoseconds.
        execution_ms: milliseconds of the execution; None if it is not known.
        metrics: the metrics that the engine returned, under its names.

    >>> [(each.name, each.duration_ns) for each in phases_of(9_000_000, 6, {"scan_time_ms": 4})]
    [('scan', 4000000), ('execute', 2000000), ('commit', 3000000)]
    """
    if execution_ms is None:
        return ()
    execution = min(execution_ms * _NS, duration_ns)
    return tuple(each for each in _phases(duration_ns, execution, metrics) if each.duration_ns > 0)


def _phases(duration_ns: int, execution: int, metrics: Mapping[str, Any]) -> Iterator[WritePhase]:
    start = 0
    for name, keys in _STEPS.items():
        # A scan and a rewrite may overlap: both end before the execution does.
        length = min(_milliseconds(metrics, keys) * _NS, execution - start)
        yield WritePhase(name, start, length)
        start += length
    yield WritePhase("execute", start, execution - start)
    yield WritePhase("commit", execution, duration_ns - execution)


def _milliseconds(metrics: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    found = (metrics[key] for key in keys if isinstance(metrics.get(key), int))
    return max(0, next(found, 0))
