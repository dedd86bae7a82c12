"""The state of the instrumentors, and of the seams in delta-rs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

from deltawitness.activation import is_disabled
from deltawitness.commit.private_api import (
    CONVERT_OPEN_SEAM,
    FUNCTION_SEAMS,
    MERGE_BUILD,
    MERGE_EXECUTE,
    METHOD_SEAMS,
    OPEN_SEAM,
    QUERY_SEAM,
    READ_SEAMS,
)
from deltawitness.installation.model import SeamInfo
from deltawitness.installation.packages import installed_version
from deltawitness.instrumentation import DataFusionInstrumentor, DeltaLakeInstrumentor

if TYPE_CHECKING:
    from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]  # has no __all__ entry for typing
        BaseInstrumentor,
    )

__all__ = ["instrumentation_states", "seam_states"]

_RAW_TABLE = ("deltalake._internal", "RawDeltaTable")

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
        found = conflict.found or "not installed"
        return f"off: needs {conflict.required}, found {found}"
    return "available"


def seam_states() -> tuple[SeamInfo, ...]:
    """Return each seam in delta-rs, and whether the installed version has it."""
    return tuple(_seam(address) for address in _addresses())


def _addresses() -> Iterator[tuple[str, ...]]:
    """Yield the address of each seam: its module, then the names of attributes."""
    for seam in FUNCTION_SEAMS:
        yield seam.module, seam.name
    yield from (OPEN_SEAM, CONVERT_OPEN_SEAM, QUERY_SEAM)
    methods = (*(seam.name for seam in METHOD_SEAMS), MERGE_BUILD, MERGE_EXECUTE.name, *READ_SEAMS)
    for name in methods:
        yield *_RAW_TABLE, name


def _seam(address: tuple[str, ...]) -> SeamInfo:
    name = ".".join(address)
    try:
        owner: Any = importlib.import_module(address[0])
        for attribute in address[1:]:
            owner = getattr(owner, attribute)
    except (ImportError, AttributeError):
        release = installed_version("deltalake")
        reason = (
            "deltalake is not installed" if release is None else f"deltalake {release} lacks it"
        )
        return SeamInfo(name, is_on=False, reason=reason)
    return SeamInfo(name, is_on=True)
