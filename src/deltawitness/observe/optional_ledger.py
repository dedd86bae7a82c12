"""The ledger's sink of an observer; a null object while the ledger is disabled.

The modules of an enabled ledger are imported only if the settings enable it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deltawitness.forks import may_use_delta_rs
from deltawitness.ledger.tables.locations import is_enabled
from deltawitness.settings import Settings

if TYPE_CHECKING:
    from deltawitness.ledger.drain.recorder import Recorder
    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.run_context import RunContext

__all__ = ["NullLedgerSink", "ledger_sink_for", "reopen_nothing"]


class NullLedgerSink:
    """Receives writes and runs while the ledger is disabled, and does nothing.

    No method of a sink raises.

    Attributes:
        recorder: the recorder of this process; None when the ledger is disabled.
    """

    recorder: Recorder | None = None

    def begin(self) -> None:
        """Prepare for a write that is about to reach the engine."""

    def start_write(self, write: InFlightWrite, /) -> None:
        """Publish that a write enters the engine."""

    def append_provisional(self, write: InFlightWrite, /) -> None:
        """Append the provisional record of a write that has ended."""

    def append_row(self, write: InFlightWrite, /) -> None:
        """Append the complete row of a write."""

    def run_started(self, run: RunContext, /) -> None:
        """Record that a run is open."""

    def run_ended(self, run: RunContext, error: BaseException | None, /) -> None:
        """Record the end of a run."""

    def run_closed(self, run: RunContext, /) -> None:
        """Drain the rows of a run that has ended into the ledger."""

    def close(self, error: BaseException | None, /, *, timeout: float) -> None:
        """Drain every row into the ledger, for at most `timeout` seconds."""

    def close_before_exec(self, *, timeout: float) -> Callable[[], None]:  # noqa: ARG002 - there is no ledger
        """Drain every row before an exec; return a callable that resumes recording if the exec fails."""
        return reopen_nothing


def reopen_nothing() -> None:
    """Do nothing: the close before an exec closed nothing."""


def ledger_sink_for(
    settings: Settings, *, is_busy: Callable[[], bool], on_drop: Callable[[str], None]
) -> NullLedgerSink:
    """Return the sink for these settings.

    Args:
        settings: whether the ledger is enabled, and its location.
        is_busy: returns whether a write is in the engine.
        on_drop: called with the name of the component for each operation that could not be recorded.
    """
    if not is_enabled(settings):
        return NullLedgerSink()
    from deltawitness.ledger.drain.recorder import Recorder  # noqa: PLC0415 - heavy
    from deltawitness.observe.ledger_sink import LedgerSink  # noqa: PLC0415 - as above

    recorder = Recorder(settings, is_busy=is_busy, on_drop=on_drop, may_use_engine=may_use_delta_rs)
    return LedgerSink(recorder, settings)
