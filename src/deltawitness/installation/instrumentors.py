"""The state of the instrumentors: whether they can observe this process, and do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

from deltawitness.activation import is_disabled
from deltawitness.instrumentation import DataFusionInstrumentor, DeltaLakeInstrumentor

if TYPE_CHECKING:
    from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]  # has no __all__ entry for typing
        BaseInstrumentor,
    )

__all__ = ["instrumentation_states"]

_INSTRUMENTORS: dict[str, Callable[[], BaseInstrumentor]] = {
    "deltalake": DeltaLakeInstrumentor,
    "datafusion": DataFusionInstrumentor,
}


def instrumentation_states() -> dict[str, str]:
    """Return for each instrumentor `active`, `available`, or why it is off."""
    return {name: _state(name, make()) for name, make in _INSTRUMENTORS.items()}


def _state(name: str, instrumentor: BaseInstrumentor) -> str:
    if instrumentor.is_instrumented_by_opentelemetry:
        return "active"
    if is_disabled(name):
        return "off: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
    conflict = get_dependency_conflicts(instrumentor.instrumentation_dependencies())
    if conflict is not None:
        found = f"found {conflict.found}" if conflict.found else "which is not installed"
        return f"off: needs {conflict.required}, {found}"
    return "available"
