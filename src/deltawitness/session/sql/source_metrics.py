"""Operator metrics of a frame that a program itself passes to delta-rs as the source of a write.

delta-rs reads such a frame as an Arrow C stream, and DataFusion does not expose the metrics of a plan
that runs as a C stream. Therefore the exported C stream reads a copy of the frame. The copy runs by the
method that the engine's own export uses, and its metrics can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from deltawitness.delta_rs.sources import current_source_metrics
from deltawitness.internal_errors import report
from deltawitness.observe.row_counter import RowCounter
from deltawitness.session.core.filter_fallback import call_frame
from deltawitness.session.core.frames import state_of
from deltawitness.session.sql.coercion import coerce
from deltawitness.session.sql.plan_metrics import operator_metrics, record_operators

if TYPE_CHECKING:
    from datafusion import DataFrame

    from deltawitness.observe import Observer

__all__ = ["FrameMetrics", "stream_call"]

Operators = list[dict[str, Any]]


class FrameMetrics:
    """The operator metrics of one source of one write.

    Args:
        plan_hash: the hash of the source's plan, which identifies the write.
        operators: the metrics of a source that has run already; None for one that runs when read.

    Attributes:
        rows: counts the rows that the engine has read.
    """

    def __init__(self, plan_hash: str | None, operators: Operators | None = None) -> None:
        self._plan_hash = plan_hash
        self._operators = operators
        self._frame: DataFrame | None = None
        self._is_read = False
        self.rows: RowCounter = RowCounter()

    def export(self, frame: DataFrame, call: Callable[..., Any]) -> Any:
        """Return a frame as an Arrow C stream whose operator metrics are available after reading.

        Args:
            frame: the frame.
            call: the engine's own export, used if the stream cannot be measured; it raises the
                engine's error for an invalid frame.
        """
        try:
            state = state_of(frame)
            is_first = self._frame is None
            copy = coerce(state.ctx, frame) if state is not None and is_first else None
            # delta-rs must get the types that the frame declares.
            if copy is None or copy.schema() != frame.schema():
                return call()
            partitions = call_frame(copy, "execute_stream_partitioned")
        except Exception:  # noqa: BLE001 - the engine's own export raises its error
            return call()
        import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

        self._frame = copy
        batches = self._batches(partitions)
        return pa.RecordBatchReader.from_batches(copy.schema(), batches).__arrow_c_stream__()

    def _batches(self, partitions: list[Any]) -> Iterator[Any]:
        for partition in partitions:
            for batch in partition:
                rows = batch.to_pyarrow()
                self.rows.add(rows.num_rows)
                yield rows
        self._is_read = True

    def record(self, observer: Observer) -> None:
        """Record the metrics as a diagnostics artifact, if the source was read to its end; never raises.

        Args:
            observer: the observer with the sink for diagnostics.
        """
        try:
            operators = self._operators
            if self._is_read and self._frame is not None:
                operators = operator_metrics(self._frame)
            if operators:
                record_operators(observer, operators, self._plan_hash)
        except Exception as error:  # noqa: BLE001 - telemetry never changes the write
            report("plan_metrics", error)


def stream_call(
    frame: DataFrame, call: Callable[..., Any], requested_schema: object | None
) -> Callable[..., Any]:
    """Return the function that exports a frame as an Arrow C stream: measured if possible.

    Args:
        frame: the frame.
        call: the engine's own export.
        requested_schema: the schema that the consumer requests; only the engine's export supports one.
    """
    metrics = current_source_metrics()
    if not isinstance(metrics, FrameMetrics) or requested_schema is not None:
        return call
    return lambda *_args, **_kwargs: metrics.export(frame, call)
