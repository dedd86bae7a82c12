"""Operator metrics of the plan that fed a write, left behind as one diagnostics artifact.

The engine fills them only where it runs a frame itself, so the frame is run as a stream that the
write reads: the plan runs once, as it would without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deltawitness.internal_errors import report
from deltawitness.observe import Observer, current_observer
from deltawitness.observe.write_context import current_write_context
from deltawitness.semconv import ARTIFACT_PLAN_METRICS, CommitKey
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.background_reader import read_in_background

if TYPE_CHECKING:
    from datafusion import DataFrame

__all__ = ["operator_metrics", "record_operators", "with_operator_metrics"]


@contextmanager
def with_operator_metrics(frame: DataFrame) -> Iterator[Any]:
    """Yield what a write is to read of the frame: the frame itself, or a stream of its rows.

    It is a stream where its plan is measured, and where it reads Delta tables: see `pumping`.

    Args:
        frame: the source of a write.
    """
    observer = current_observer()
    if observer is None or not observer.settings.capture_plan_metrics or not observer.is_on():
        enclosure = current_write_context()
        if enclosure is None or not enclosure.facts.inputs:
            yield frame
            return
        with read_in_background(frame) as rows:
            yield rows
        return
    with read_in_background(frame) as rows:
        yield rows
    try:
        enclosure = current_write_context()
        # The plan's hash finds the write.
        plan_hash = None if enclosure is None else enclosure.facts.plan_hash
        record_operators(observer, operator_metrics(frame), plan_hash)
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("plan_metrics", error)


def record_operators(
    observer: Observer, operators: list[dict[str, Any]], plan_hash: str | None
) -> None:
    """Record the operator metrics of the source of a write as a diagnostics artifact.

    Args:
        observer: has the sink for diagnostics.
        operators: as :func:`operator_metrics` returns them.
        plan_hash: of the source's plan, by which the write is found; None leaves it out.
    """
    payload: dict[str, object] = {"operators": operators}
    if plan_hash is not None:
        payload[CommitKey.PLAN_HASH.value] = plan_hash
    observer.diagnostics.record_artifact(ARTIFACT_PLAN_METRICS, payload)


def operator_metrics(frame: DataFrame) -> list[dict[str, Any]]:
    """Return what each operator of a frame's plan did, outermost first.

    Args:
        frame: a frame that has been run.

    Returns:
        For each operator its name, without its parameters, which hold literals and paths, and the
        sums over its partitions: rows, elapsed nanoseconds of compute, spills and spilled bytes.
    """
    operators = []
    for description, metrics in unpatched(frame, "execution_plan")().collect_metrics():
        sums = {
            "output_rows": metrics.output_rows,
            "elapsed_compute_ns": metrics.elapsed_compute,
            "spill_count": metrics.spill_count,
            "spilled_bytes": metrics.spilled_bytes,
            "spilled_rows": metrics.spilled_rows,
        }
        known = {name: value for name, value in sums.items() if value is not None}
        operators.append({"operator": description.partition(":")[0].strip(), **known})
    return operators
