"""A sink that sends finished writes over a network: from a bounded queue, on a separate thread."""

from __future__ import annotations

import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from deltawitness.delivery import Delivery, Step
from deltawitness.events import InputVersion, WriteEvent
from deltawitness.internal_errors import report
from deltawitness.locations import strip_credentials
from deltawitness.plurals import count_of, form_for

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite

__all__ = ["QueuedSink", "RefusedEventError", "SinkCounts", "located_event"]

_log = logging.getLogger("deltawitness")

PAUSE = 5.0
"""Seconds after a failure in which events are dropped without an attempt to send them."""

HANGING = 60.0
"""Seconds after which an attempt to send is abandoned."""


class RefusedEventError(Exception):
    """The receiver refuses this write, and may accept others: no pause follows."""


class SinkCounts:
    """How many writes a sink has received, sent and dropped."""

    __slots__ = ("_lock", "dropped", "received", "sent")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.received: int = 0
        self.sent: int = 0
        self.dropped: int = 0

    def add(self, *, received: int = 0, sent: int = 0, dropped: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            self.received += received
            self.sent += sent
            self.dropped += dropped

    @property
    def pending(self) -> int:
        """The number of writes that were neither sent nor dropped."""
        return max(0, self.received - self.sent - self.dropped)


class QueuedSink(ABC):
    """A :data:`deltawitness.events.WriteSink` that only queues each write; a thread sends it.

    A server that does not answer delays neither a write nor the other sinks. What does not fit into the
    queue, and what could not be sent, is counted by the metric of dropped events.

    Args:
        capacity: maximum number of queued writes.

    Attributes:
        component: name in the counts of errors and of dropped events.
        receives_locations: whether the events have locations, inputs with locations and the schema. All
            other parts are redacted in any case.
        on_drop: called with the component and a number of writes; the observer sets it.
        is_busy: returns whether a write is active, which delays sending; the observer sets it.
        counts: how many writes were received, sent and dropped.
    """

    component = "sink"
    receives_locations = False

    def __init__(self, *, capacity: int) -> None:
        self.counts: SinkCounts = SinkCounts()
        self.on_drop: Callable[[str, int], None] = lambda _component, _count: None
        self.is_busy: Callable[[], bool] = lambda: False
        self._pid = os.getpid()
        self._paused_until = 0.0
        self._is_closing = False
        self._delivery: Delivery[WriteEvent] = Delivery(
            [Step(self.component, self._send_or_drop)],
            interval=0.1,
            capacity=capacity,
            step_timeout=HANGING,
            is_busy=self._has_active_write,
            on_error=report,
            on_drop=lambda _component: self._drop(1),
        )

    @abstractmethod
    def send(self, event: WriteEvent) -> None:
        """Send a write.

        Raises:
            RefusedEventError: it was not sent, and others may be; it is counted as dropped.
            Exception: it was not sent; it is counted as dropped.
        """

    def __call__(self, event: WriteEvent) -> None:
        """Queue a write; takes a few microseconds and never raises."""
        if os.getpid() != self._pid:  # a forked child: its parent sends what was queued before
            self._pid = os.getpid()
            self.counts = SinkCounts()
            self.reset_after_fork()
        self._is_closing = False
        self.counts.add(received=1)
        self._delivery.submit(event)

    def reset_after_fork(self) -> None:  # noqa: B027 - a sink without connections has nothing to do
        """Discard what a forked child must not share with its parent, such as connections."""

    def flush(self, timeout: float | None) -> bool:
        """Wait until all queued writes are sent or dropped, for at most `timeout` seconds."""
        return self._delivery.flush(timeout) if self.counts.pending else True

    def close(self, timeout: float) -> None:
        """Send the queued writes for at most `timeout` seconds, and drop the others."""
        self.flush(timeout)
        self._is_closing = True
        if left := self.counts.pending:
            self._drop(left)
        if dropped := self.counts.dropped:
            _log.warning(
                "%s: %d of %s %s not sent",
                self.component,
                dropped,
                count_of(self.counts.received, "write"),
                form_for(dropped, "was", "were"),
            )
            self.counts = SinkCounts()

    def _has_active_write(self) -> bool:
        return self.is_busy()  # the observer sets it after the start

    def _send_or_drop(self, event: WriteEvent) -> None:
        if self._is_closing:
            return  # `close` has counted it
        if time.monotonic() < self._paused_until:
            self._drop(1)
            return
        counts = self.counts
        try:
            self.send(event)
        except RefusedEventError as error:
            self._drop(1)
            report(self.component, error)
        except Exception as error:  # noqa: BLE001 - telemetry never changes the program
            self._paused_until = time.monotonic() + PAUSE
            self._drop(1)
            report(self.component, error)
        else:
            counts.add(sent=1)

    def _drop(self, count: int) -> None:
        self.counts.add(dropped=count)
        self.on_drop(self.component, count)


def located_event(write: InFlightWrite) -> WriteEvent:
    """Return the redacted event of a write, with the locations of its tables and the written schema.

    The locations have no credentials.

    Raises:
        LookupError: the event could not be redacted.
    """
    event, redacted = write.event, write.redacted
    if event is None or redacted is None:
        msg = "the event could not be redacted, so it is not exported"
        raise LookupError(msg)
    intent = event.intent
    return replace(
        redacted,
        intent=replace(
            redacted.intent,
            table_uri=None if write.location is None else strip_credentials(write.location),
            inputs=tuple(map(_located, intent.inputs)),
            run_inputs=tuple(map(_located, intent.run_inputs)),
            schema=write.schema,
        ),
    )


def _located(read: InputVersion) -> InputVersion:
    return replace(read, uri=None if read.uri is None else strip_credentials(read.uri))
