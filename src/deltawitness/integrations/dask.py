"""Dask: the workers of a cluster observe writes as the client does.

A `LocalCluster` that an observed program starts needs nothing of this module. Needs `distributed`, which is
no dependency of deltawitness.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import WorkerPlugin
from opentelemetry import trace
from opentelemetry.trace import ProxyTracerProvider

from deltawitness.activation import asks_for_export
from deltawitness.events_file import EventsFile
from deltawitness.instrumentation import DataFusionInstrumentor, DeltaLakeInstrumentor
from deltawitness.integrations._workers import drop_events_file, export_variables, worker_variables
from deltawitness.internal_errors import guard
from deltawitness.processes import process_key
from deltawitness.semconv import Env
from deltawitness.session.core.unpatched import REPLACED
from deltawitness.settings import Settings
from deltawitness.telemetry.sdk import configure_sdk

if TYPE_CHECKING:
    from distributed import Worker

__all__ = ["DeltaWitnessPlugin"]


class DeltaWitnessPlugin(WorkerPlugin):
    """A worker plugin that makes the workers of a cluster observe writes as this process does.

    Register it once per client: `client.register_plugin(DeltaWitnessPlugin())`. Workers that exist and
    workers that start later get the settings of this process and the exporters of OpenTelemetry's
    variables. Each task has the run, the cache context and the trace of the client that submitted it, in
    this and in later runs. A worker that is observed already does not change.

    A cluster has one such plugin: that of the client that registered it last. Clients with different ledgers
    need separate clusters. deltawitness must be installed on the workers.

    Raises:
        ConfigurationError: a setting is invalid, or has no form as a variable.
    """

    name = "deltawitness"

    def __init__(self) -> None:
        self._variables = worker_variables()
        self._has_sessions = bool(REPLACED)
        self._sender = process_key()
        self._is_active = False

    def setup(self, worker: Worker) -> None:  # noqa: ARG002 - Dask's interface
        """Observe the writes of the worker's process."""
        with guard("activation"):
            instrumentor = DeltaLakeInstrumentor()
            if self._sender == process_key() or instrumentor.is_instrumented_by_opentelemetry:
                return
            drop_events_file(self._variables)
            if asks_for_export(self._variables) and _has_no_provider():
                with _variables_set(export_variables(self._variables)):
                    configure_sdk()
            known = {setting.metadata["variable"].value for setting in fields(Settings)}
            settings = Settings.from_env(
                {name: value for name, value in self._variables.items() if name in known}
            )
            events = self._variables.get(Env.EVENTS_FILE)
            instrumentor.instrument(
                settings=settings, sinks=(EventsFile(events),) if events else ()
            )
            self._is_active = True
            if self._has_sessions:
                DataFusionInstrumentor().instrument(skip_dep_check=True)

    async def teardown(self, worker: Worker) -> None:  # noqa: ARG002 - Dask's interface
        """Record what the worker has written, and stop observing it."""
        if self._is_active:
            self._is_active = False
            await asyncio.to_thread(_stop)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without what only this process knows."""
        return {**vars(self), "_is_active": False}


def _stop() -> None:
    with guard("activation"):
        if DataFusionInstrumentor().is_instrumented_by_opentelemetry:
            DataFusionInstrumentor().uninstrument()
        DeltaLakeInstrumentor().uninstrument()


def _has_no_provider() -> bool:
    return isinstance(trace.get_tracer_provider(), ProxyTracerProvider)


@contextmanager
def _variables_set(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block, and restore the environment at its end."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
