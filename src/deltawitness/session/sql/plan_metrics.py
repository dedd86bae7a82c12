"""Record the operator metrics of a write's source plan as one diagnostics artifact.

The engine fills the metrics only when it runs the frame itself. So the frame runs as a stream that the
write reads; the plan still runs only once.
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
    """Yield the source for a write of the frame's rows: the frame itself, or a stream of its rows.

    It is a stream if the setting `capture_plan_metrics` is on, or if the frame reads Delta tables: see
    `read_in_background` for the deadlock that this avoids.

    Args:
        frame: the source of a write.
    """
    observer = current_observer()
    if observer is None or not observer.settings.capture_plan_metrics or not observer.is_on():
        context = current_write_context()
        if context is None or not context.attributes.inputs:
            yield frame
            return
        with read_in_background(frame) as rows:
            yield rows
        return
    with read_in_background(frame) as rows:
        yield rows
    try:
        context = current_write_context()
        # The plan's hash identifies the write.
        plan_hash = None if context is None else context.attributes.plan_hash
        record_operators(observer, operator_metrics(frame), plan_hash)
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("plan_metrics", error)


def record_operators(
    observer: Observer, operators: list[dict[str, Any]], plan_hash: str | None
) -> None:
    """Record the operator metrics of the source of a write as a diagnostics artifact.

    Args:
        observer: records the artifact.
        operators: as :func:`operator_metrics` returns them.
        plan_hash: hash of the source's plan, which identifies the write; left out when None.
    """
    payload: dict[str, object] = {"operators": operators}
    if plan_hash is not None:
        payload[CommitKey.PLAN_HASH.value] = plan_hash
    observer.diagnostics.record_artifact(ARTIFACT_PLAN_METRICS, payload)


def operator_metrics(frame: DataFrame) -> list[dict[str, Any]]:
    """Return the metrics of each operator of a frame's plan, outermost first.

    Args:
        frame: a frame that has been run.

    Returns:
        For each operator its name, without the parameters, because they contain literals and paths; and
        sums over its partitions: output rows, compute time in nanoseconds, spills, spilled bytes and
        spilled rows. Metrics that the operator does not have are left out.
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
        present = {name: value for name, value in sums.items() if value is not None}
        operators.append({"operator": description.partition(":")[0].strip(), **present})
    return operators
