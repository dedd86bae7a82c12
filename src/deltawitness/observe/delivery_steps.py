"""The steps that the delivery thread runs for each finished write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from opentelemetry import trace

from deltawitness.delivery import Step
from deltawitness.events import Committed, WriteEvent, WriteSink
from deltawitness.internal_errors import guarded_value, report
from deltawitness.observe.completion import (
    complete_event,
    may_read_log,
    minimal_event,
    minimal_redacted_event,
    with_phases,
)
from deltawitness.observe.queued_sink import QueuedSink, located_event
from deltawitness.redaction import redact

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from deltawitness.observe.exporters import Exporters
    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.observe.optional_ledger import NullLedgerSink
    from deltawitness.settings import Settings

__all__ = ["DeliverySteps", "RequestHook", "ResponseHook"]

RequestHook: TypeAlias = Callable[["Span", Any, tuple[Any, ...], dict[str, Any]], None]
"""`(span, instance, args, kwargs)`: may add attributes of the request to the span."""

ResponseHook: TypeAlias = Callable[["Span", Any, Any], None]
"""`(span, instance, response)`: may add attributes of the response to the span."""


class DeliverySteps:
    """Completes, redacts and exports finished writes, on the delivery thread.

    Args:
        settings: how events are redacted, and how far the log is searched.
        exporters: returns the exporters to use now.
        ledger: receives the row of each write.
        request_hook: called with the span and the request of each write.
        response_hook: called with the span and the response of each write that did not raise.

    Attributes:
        local_sinks: sinks in this process that get the event without redaction.
    """

    def __init__(
        self,
        settings: Settings,
        exporters: Callable[[], Exporters],
        ledger: NullLedgerSink,
        request_hook: RequestHook | None,
        response_hook: ResponseHook | None,
    ) -> None:
        self._settings = settings
        self._exporters = exporters
        self._ledger = ledger
        self._request_hook = request_hook
        self._response_hook = response_hook
        self.local_sinks: tuple[WriteSink, ...] = ()

    def steps(self, sinks: Sequence[WriteSink]) -> list[Step[InFlightWrite]]:
        """Return the steps in order.

        Args:
            sinks: further sinks; each gets the redacted event, in a separate step. A queued sink may get
                it with locations.
        """
        steps = [
            Step("commit", self._complete, vital=True),
            Step("redaction", self._redact, vital=True),
            Step("ledger", self._ledger.append_row, vital=True),
            Step("spans", self._start_deferred_span),
            Step("hooks", self._call_hooks),
            Step("spans", self._close_span),
            Step("metrics", self._record_metrics),
            Step("logs", self._emit_logs),
            Step("capture", self._call_local_sinks),
        ]
        if self._settings.keep_write_plans:
            steps.append(Step("plans", _store_plan))
        return steps + [Step("sink", _call_redacted(sink)) for sink in sinks]

    def _complete(self, write: InFlightWrite) -> None:
        if guarded_value("commit", lambda: may_read_log(write), True):  # noqa: FBT003 - as after an error
            write.event = minimal_event(write)  # first without I/O, for a read that hangs
        write.event = complete_event(write, self._settings.landed_tail)
        if self._settings.capture_phases:
            write.event = with_phases(write, write.event)
        if write.receipt is not None:
            write.receipt.complete(write, write.event)

    def _redact(self, write: InFlightWrite) -> None:
        if write.event is not None:
            event = write.event
            redacted = guarded_value("redaction", lambda: redact(event, self._settings), None)
            write.redacted = redacted or minimal_redacted_event(event, self._settings)

    def _start_deferred_span(self, write: InFlightWrite) -> None:
        template = write.template
        write.span = self._exporters().spans.start_deferred(
            write.span,
            template.span_name,
            template.attributes,
            write.parent,
            write.started_at,
        )

    def _call_hooks(self, write: InFlightWrite) -> None:
        if write.call is None:
            return
        instance, args, kwargs, ambient = write.call
        if self._request_hook is not None:
            ambient.run(self._request_hook, write.span, instance, args, kwargs)
        if self._response_hook is not None and write.failure is None:
            ambient.run(self._response_hook, write.span, instance, write.response)

    def _close_span(self, write: InFlightWrite) -> None:
        if write.redacted is None:
            write.span.end(write.started_at + write.duration_ns)
        else:
            exporters = self._exporters()
            exporters.spans.close(write.redacted, write.span)
            exporters.run_spans.write_ended(write.redacted)

    def _record_metrics(self, write: InFlightWrite) -> None:
        self._exporters().metrics(_redacted_event(write), _span_context(write))

    def _emit_logs(self, write: InFlightWrite) -> None:
        self._exporters().logs(_redacted_event(write), _span_context(write))

    def _call_local_sinks(self, write: InFlightWrite) -> None:
        if write.event is not None:
            for sink in self.local_sinks:
                try:
                    sink(write.event)
                except Exception as error:  # noqa: BLE001 - each of the others gets the event
                    report("capture", error)


def _store_plan(write: InFlightWrite) -> None:
    event, store = write.event, write.store_plan
    write.store_plan = None  # it holds the plan
    if store is not None and event is not None and isinstance(event.outcome, Committed):
        store(event.write_id)


def _span_context(write: InFlightWrite) -> Context:
    """Return the context in which the write's span is the current one."""
    return trace.set_span_in_context(write.span, write.parent)


def _redacted_event(write: InFlightWrite) -> WriteEvent:
    if write.redacted is None:
        msg = "the event could not be redacted, so it is not exported"
        raise LookupError(msg)
    return write.redacted


def _call_redacted(sink: WriteSink) -> Callable[[InFlightWrite], None]:
    if isinstance(sink, QueuedSink) and sink.receives_locations:
        return lambda write: sink(located_event(write))
    return lambda write: sink(_redacted_event(write))
