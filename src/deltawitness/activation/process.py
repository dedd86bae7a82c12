"""Set up an activated process: the OpenTelemetry SDK, the instrumentors, and the run of the process."""

from __future__ import annotations

import atexit
import logging
import os

from deltawitness.activation import is_disabled, report_not_exported
from deltawitness.exceptions import MissingExtraError
from deltawitness.import_hooks import when_imported
from deltawitness.instrumentation import DataFusionInstrumentor, DeltaLakeInstrumentor
from deltawitness.internal_errors import report
from deltawitness.propagation.environment import child_environment
from deltawitness.run import adopt_run, current_run, run, unhandled_error
from deltawitness.semconv import ACTIVATE_CHILD, Env
from deltawitness.settings import Settings
from deltawitness.telemetry.providers import print_setup_error, setup_reason
from deltawitness.telemetry.run_span_file import accept_offer
from deltawitness.telemetry.sdk import configure_sdk

__all__ = ["observe_process"]

_logger = logging.getLogger(__name__)


def observe_process(settings: Settings, *, is_top: bool, is_exporting: bool) -> None:
    """Observe this process from now on.

    Args:
        settings: the settings of the observer.
        is_top: whether `deltawitness run` started this process. If so, a run is opened around it.
        is_exporting: whether to configure the OpenTelemetry SDK from the environment.
    """
    if is_exporting:
        if is_top:
            accept_offer(os.environ)
        _configure_sdk()
    instrumentor = DeltaLakeInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument(settings=settings)
    if not is_disabled("datafusion"):
        # Sessions exist only after DataFusion is imported.
        when_imported("datafusion", lambda _: _observe_sessions())
    if is_top:
        _open_run()


def _observe_sessions() -> None:
    instrumentor = DataFusionInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        return
    try:
        instrumentor.instrument()
    except MissingExtraError as error:  # a program with DataFusion, but without the extra
        _logger.warning("sessions are not observed: %s", error)
    except Exception as error:  # noqa: BLE001 - an internal error must not stop the program
        report("activation", error)


def _open_run() -> None:
    """Open a run around the entire process. Writes of the process and of its children are in its span."""
    process = current_run()
    scope = run(process.job, run_id=process.run_id)
    context = scope.__enter__()
    adopt_run(context)
    os.environ.update(child_environment(), **{Env.ACTIVATE.value: ACTIVATE_CHILD})
    atexit.register(lambda: scope.__exit__(None, unhandled_error(), None))


def _configure_sdk() -> None:
    """Configure the SDK. With a setting that OpenTelemetry rejects, warn and continue without the SDK."""
    try:
        configure_sdk()
    except Exception as error:  # noqa: BLE001 - a distribution or an exporter may raise anything
        report_not_exported(setup_reason(error))
        print_setup_error(error)
