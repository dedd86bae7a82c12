"""The span of a workflow's task: a child of the run's span, and the parent of its writes' spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from deltawitness.error_types import classify
from deltawitness.redaction import redact_label
from deltawitness.semconv import (
    CICD_PIPELINE_NAME,
    CICD_PIPELINE_RUN_ID,
    CICD_PIPELINE_TASK_NAME,
    CICD_PIPELINE_TASK_RUN_ID,
    ERROR_TYPE,
    RUN_ID,
    SCHEMA_URL,
    SCOPE_NAME,
    WITNESS_VERSION,
)
from deltawitness.telemetry.attributes import error_text

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import TracerProvider

    from deltawitness.run_context import RunContext

__all__ = ["TaskSpans"]


class TaskSpans:
    """Opens and closes the spans of tasks.

    Args:
        tracer_provider: whose tracer to use; the global one when None.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(
            SCOPE_NAME, WITNESS_VERSION, tracer_provider, schema_url=SCHEMA_URL
        )

    def open(self, name: str, task_id: str | None, run: RunContext, parent: Context) -> Span:
        """Start the span of a task.

        Args:
            name: the task's name in the workflow.
            task_id: id of this execution, where the task may be executed several times.
            run: the run that it belongs to.
            parent: the context in which the run's span is the current one.
        """
        task = redact_label(name)
        attributes = {
            RUN_ID: run.run_id,
            CICD_PIPELINE_NAME: redact_label(run.job),
            CICD_PIPELINE_RUN_ID: run.run_id,
            CICD_PIPELINE_TASK_NAME: task,
        }
        if task_id is not None:
            attributes[CICD_PIPELINE_TASK_RUN_ID] = redact_label(task_id)
        return self._tracer.start_span(task, parent, SpanKind.INTERNAL, attributes)

    @staticmethod
    def close(span: Span, error: BaseException | None) -> None:
        """End the span of a task, with the error that ended the task, if one did."""
        if error is not None:
            span.set_attribute(ERROR_TYPE, classify(error).value)
            span.set_status(Status(StatusCode.ERROR, error_text(error)))
        span.end()
