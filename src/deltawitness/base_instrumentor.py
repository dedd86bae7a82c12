"""The base class of the instrumentors, which behaves as OpenTelemetry's without importing it.

An import of OpenTelemetry's `BaseInstrumentor` takes as long as the rest of `instrument()`: it imports
wrapt, asyncio and packaging. So it is imported only when a requirement is not met. When a program
imports it, the classes of this base become its virtual subclasses: `isinstance` and `issubclass` are true.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar, Self

from deltawitness.import_hooks import when_imported

if TYPE_CHECKING:
    from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]  # has no __all__ entry for typing
        BaseInstrumentor as _Base,
    )
else:
    _Base = ABC

__all__ = ["Instrumentor"]

_logger = logging.getLogger("opentelemetry.instrumentation.instrumentor")
"""The logger of OpenTelemetry's class, for the same lines."""

_OPENTELEMETRY = "opentelemetry.instrumentation.instrumentor"


class Instrumentor(_Base):  # type: ignore[misc]  # opentelemetry-instrumentation is untyped
    """Has the methods and the flag of OpenTelemetry's `BaseInstrumentor`. One instance for each class."""

    _instance: ClassVar[Self | None] = None
    _is_instrumented_by_opentelemetry = False

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Return the instance of the class."""
        if cls._instance is None:
            cls._instance = object.__new__(cls)
        return cls._instance

    @property
    def is_instrumented_by_opentelemetry(self) -> bool:
        """Whether it instruments this process at present."""
        return self._is_instrumented_by_opentelemetry

    @abstractmethod
    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the requirements of packages that must be met."""

    @abstractmethod
    def _instrument(self, **kwargs: Any) -> None:
        """Instrument the process."""

    @abstractmethod
    def _uninstrument(self, **kwargs: Any) -> None:
        """Undo :meth:`_instrument`."""

    def instrument(self, **kwargs: Any) -> None:
        """Instrument the process, if the requirements are met.

        Args:
            **kwargs: arguments of :meth:`_instrument`; `skip_dep_check` skips the check of the
                requirements, and `raise_exception_on_conflict` raises what is logged otherwise.

        Raises:
            DependencyConflictError: of OpenTelemetry, with `raise_exception_on_conflict`.
        """
        if self._is_instrumented_by_opentelemetry:
            _logger.warning("Attempting to instrument while already instrumented")
            return
        is_checked = not kwargs.pop("skip_dep_check", False)
        is_raising = kwargs.pop("raise_exception_on_conflict", False)
        # Set before an engine is imported: its post-import hooks, such as those of `deltawitness run`,
        # check the flag so that they do not instrument a second time.
        self._is_instrumented_by_opentelemetry = True
        is_done = False
        try:
            conflict = self._check_dependency_conflicts() if is_checked else None
            if conflict is None:
                self._instrument(**kwargs)
                is_done = True
        finally:
            self._is_instrumented_by_opentelemetry = is_done
        if conflict is not None:
            self._report_conflict(conflict, is_raising=is_raising)

    def uninstrument(self, **kwargs: Any) -> None:
        """Undo :meth:`instrument`."""
        if not self._is_instrumented_by_opentelemetry:
            _logger.warning("Attempting to uninstrument while already uninstrumented")
            return
        self._uninstrument(**kwargs)
        self._is_instrumented_by_opentelemetry = False

    def _check_dependency_conflicts(self) -> Any:
        """Return OpenTelemetry's `DependencyConflict` if a requirement is not met, else None."""
        from opentelemetry.instrumentation.dependencies import get_dependency_conflicts  # noqa: PLC0415 - heavy

        return get_dependency_conflicts(self.instrumentation_dependencies())

    def _report_conflict(self, conflict: Any, *, is_raising: bool) -> None:
        from opentelemetry.instrumentation.dependencies import DependencyConflictError  # noqa: PLC0415 - heavy

        if is_raising:
            raise DependencyConflictError(conflict)
        # An older OpenTelemetry has no message with the name of the class.
        format_message = getattr(conflict, "_format_message", None)
        _logger.error(format_message(type(self).__name__) if format_message else conflict)


when_imported(_OPENTELEMETRY, lambda module: module.BaseInstrumentor.register(Instrumentor))
