"""OpenTelemetry instrumentors for delta-rs and DataFusion; `opentelemetry-instrument` loads them as well."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deltawitness.base_instrumentor import Instrumentor
from deltawitness.commit.engine_version import engine_version
from deltawitness.datafusion_pairs import are_supported, required_engines
from deltawitness.delta_rs.install import install, install_for_proxies, uninstall
from deltawitness.events_file import EventsFile
from deltawitness.exceptions import MissingExtraError
from deltawitness.extras import is_installed, require
from deltawitness.observe import Observer
from deltawitness.propagation import SESSIONS, Propagation
from deltawitness.run import adopt_run
from deltawitness.run_variables import run_from_environment
from deltawitness.semconv import Env
from deltawitness.settings import Settings
from deltawitness.telemetry.providers import loadable_providers

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from deltawitness.events import WriteSink
    from deltawitness.observe.observer import RequestHook, ResponseHook
    from deltawitness.session.patches import DataFusionPatches

_logger = logging.getLogger(__name__)

_DELTALAKE = "deltalake >= 1.0, < 2"
"""Supported releases. In one that lacks or has changed a function, calls of that function are not observed."""

_SUPPORTED = re.compile(r"1(\.\d+)+")
"""The final releases among them."""

__all__ = ["DataFusionInstrumentor", "DeltaLakeInstrumentor"]


class DeltaLakeInstrumentor(Instrumentor):
    """Observes every delta-rs write of the process, without changes to the program.

    >>> instrumentor = DeltaLakeInstrumentor()
    >>> instrumentor.instrument()
    >>> instrumentor.uninstrument()
    """

    _propagation: Propagation | None = None
    _inherited = False

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the engine versions that are observed."""
        return (_DELTALAKE,)

    def _check_dependency_conflicts(self) -> Any:
        """Return no conflict for a final release of the supported ones; let OpenTelemetry judge any other."""
        with suppress(ImportError):
            if _SUPPORTED.fullmatch(engine_version()):
                return None
        return super()._check_dependency_conflicts()

    def instrument(self, **kwargs: Any) -> None:
        """Observe every write from now on.

        Args:
            **kwargs: the arguments of :meth:`_instrument`.

        Raises:
            ConfigurationError: a setting in the environment is invalid; nothing was changed.
        """
        if self._inherited:
            # A spawned child has its parent's instrumentation; a call by its program replaces it.
            self.uninstrument()
        super().instrument(**kwargs)

    def uninstrument(self, **kwargs: Any) -> None:
        """Stop observing, also if only pipelines were observed."""
        super().uninstrument(**kwargs)
        uninstall()

    def mark_inherited(self) -> None:
        """Record that the parent's settings are in use, so that the next :meth:`instrument` replaces them."""
        self._inherited = True

    def _instrument(  # noqa: PLR0913 - what an instrumentor takes, by keyword
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        settings: Settings | None = None,
        sinks: Sequence[WriteSink] = (),
        request_hook: RequestHook | None = None,
        response_hook: ResponseHook | None = None,
        require: str | Iterable[str] | None = None,
        **others: Any,
    ) -> None:
        """Patch delta-rs, create the observer, and install propagation.

        Args:
            tracer_provider: provider for spans; the global provider when None.
            meter_provider: provider for metrics; the global provider when None.
            logger_provider: provider for log records; the global provider when None.
            settings: the settings; from the environment when None.
            sinks: called with every finished write, redacted, on the delivery thread.
            request_hook: called with `(span, instance, args, kwargs)` on the delivery thread.
            response_hook: called with `(span, instance, response)` on the delivery thread.
            require: what a write must have, of `run`, `job` and `message`: as
                :attr:`deltawitness.Settings.require`, which it replaces.
            **others: keywords of other instrumentors; a log line names them once.
        """
        if require is not None:
            words = require if isinstance(require, str) else tuple(require)
            settings = replace(Settings.or_from_env(settings), require=words)  # type: ignore[arg-type]  # parsed there
        _warn_of_unknown_keywords(others)
        providers = loadable_providers(tracer_provider, meter_provider, logger_provider)
        settings = Settings.or_from_env(settings)
        lineage_sinks = _lineage_sinks(settings)
        install(
            lambda: Observer(
                settings=settings,
                tracer_provider=providers[0],
                meter_provider=providers[1],
                logger_provider=providers[2],
                sinks=(*sinks, *lineage_sinks, *_sinks_of_environment()),
                request_hook=request_hook,
                response_hook=response_hook,
            )
        )
        self._propagation = Propagation()
        self._propagation.install()

    def _uninstrument(self, **_: Any) -> None:
        """Restore every original function and deliver the queued writes."""
        self._inherited = False
        if self._propagation is not None:
            self._propagation.uninstall()
            self._propagation = None
        uninstall()


class DataFusionInstrumentor(Instrumentor):
    """Adds observed Delta writes to every `datafusion.SessionContext` of the process.

    Patched sessions behave as :class:`deltawitness.ObservedSessionContext` does, without changes to the
    program. Delta writes of sessions are observed; other delta-rs writes of the program are observed
    only if :class:`DeltaLakeInstrumentor` is active as well.

    >>> import tempfile
    >>> from datafusion import SessionContext
    >>> instrumentor = DataFusionInstrumentor()
    >>> instrumentor.instrument()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ctx = SessionContext()
    ...     written = ctx.from_pydict({"id": [1, 2]}).write_delta(f"{folder}/t")
    ...     ctx.register_delta("t", f"{folder}/t")
    ...     ctx.sql("DELETE FROM t WHERE id = 1").to_pydict()
    {'count': [1]}
    >>> instrumentor.uninstrument()
    """

    _patches: DataFusionPatches | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the engine versions whose plans and patched methods are tested, and the SQL tokenizer."""
        return required_engines()

    def _check_dependency_conflicts(self) -> Any:
        """Return no conflict for final releases of a supported pair; let OpenTelemetry judge any other."""
        return None if are_supported() else super()._check_dependency_conflicts()

    def instrument(self, **kwargs: Any) -> None:
        """Patch the classes of DataFusion from now on.

        With a pair of DataFusion and deltalake that is not supported, nothing is patched and OpenTelemetry
        logs the requirement that is not met.

        Args:
            **kwargs: keywords of other instrumentors. Providers, settings and sinks are those of
                :class:`DeltaLakeInstrumentor`, or the global providers and the environment's settings.
                With `skip_dep_check`, which `opentelemetry-instrument` sets, a missing package is logged.
                The versions are checked nevertheless, because a session of an unsupported pair fails.

        Raises:
            MissingExtraError: DataFusion or sqlglot is not installed (extra `datafusion`).
        """
        is_loaded_by_opentelemetry = kwargs.pop("skip_dep_check", False)
        try:
            require("DataFusionInstrumentor", "datafusion", "sqlglot")
        except MissingExtraError as error:
            if not is_loaded_by_opentelemetry:
                raise
            level = logging.WARNING if is_installed("datafusion") else logging.DEBUG
            _logger.log(level, "sessions are not observed: %s", error)
            return
        super().instrument(**kwargs)

    def _instrument(self, **others: Any) -> None:
        """Patch the classes of DataFusion, after :meth:`instrument` has checked what is installed."""
        from deltawitness.session.patches import DataFusionPatches  # noqa: PLC0415 - heavy

        _warn_of_unknown_keywords(others.keys() - _DELTA_RS_KEYWORDS)

        install_for_proxies()
        self._patches = DataFusionPatches()
        self._patches.install()

    def _uninstrument(self, **_: Any) -> None:
        """Restore every original method; those of delta-rs only if its own instrumentor is off."""
        if self._patches is not None:
            self._patches.uninstall()
            self._patches = None
        if not DeltaLakeInstrumentor().is_instrumented_by_opentelemetry:
            uninstall()


_DELTA_RS_KEYWORDS = {
    *("tracer_provider", "meter_provider", "logger_provider", "settings", "sinks"),
    *("request_hook", "response_hook", "require"),
}
"""Keywords of :class:`DeltaLakeInstrumentor`, which a program may give to every instrumentor alike."""

_named: set[str] = set()
"""Unknown keywords that a log line of this process has named."""


def _warn_of_unknown_keywords(names: Iterable[str]) -> None:
    for name in sorted(set(names) - _named):
        _named.add(name)
        _logger.warning("instrument(): unknown keyword %r is ignored", name)


def _sinks_of_environment() -> tuple[WriteSink, ...]:
    """Return the sink for the events file of `deltawitness run`, if its variable is set."""
    path = os.environ.get(Env.EVENTS_FILE)
    return (EventsFile(path),) if path else ()


def _lineage_sinks(settings: Settings) -> tuple[WriteSink, ...]:
    """Return the sink for OpenLineage events, if the settings have a destination.

    Raises:
        MissingExtraError: the OpenLineage client is not installed (extra `openlineage`).
    """
    if settings.openlineage is None:
        return ()
    from deltawitness.openlineage.sink import OpenLineageSink  # noqa: PLC0415 - rarely needed

    return (OpenLineageSink.of(settings),)


def join_parent(variables: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Instrument a spawned child of `multiprocessing` as its parent, and join the parent's run.

    Args:
        variables: result of :func:`deltawitness.propagation.environment.child_environment` in the parent.
        settings: settings of the parent's observer by name; empty when the parent has none.
    """
    os.environ.update(variables)
    adopt_run(run_from_environment(os.environ))
    instrumentor = DeltaLakeInstrumentor()
    sessions = settings.get(SESSIONS, False)
    fields = {name: value for name, value in settings.items() if name != SESSIONS}
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument(settings=Settings(**fields) if fields else None)
        instrumentor.mark_inherited()
    if sessions and not DataFusionInstrumentor().is_instrumented_by_opentelemetry:
        DataFusionInstrumentor().instrument()
