"""Check whether each seam of the installed delta-rs exists and has the parameters that are used here.

Every version is accepted. A seam that a release lacks is absent, and one that it has changed is off;
writes through all other seams are observed.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import FunctionType
from typing import Any

from deltawitness.commit.engine_version import engine_version, has_release
from deltawitness.commit.seams import SEAMS, Seam
from deltawitness.forks import reset_in_child
from deltawitness.patching import unpatched

__all__ = [
    "SeamState",
    "SeamStatus",
    "log_unusable",
    "owner_of",
    "parameter_names",
    "position_of",
    "record_failed",
    "seam_states",
]

_logger = logging.getLogger("deltawitness")
_lock = threading.Lock()
reset_in_child("_lock", globals(), threading.Lock)
_logged: set[str] = set()
_failed: dict[str, str] = {}
"""Reasons of the seams that could not be replaced in this process, by path."""


class SeamState(StrEnum):
    """Whether calls of an engine's function are observed in the installed release.

    Attributes:
        ON: it is there, with what the library uses of it.
        OFF: it is there, but differs from what the library expects; calls are not observed.
        ABSENT: the release does not have it.
    """

    ON = "on"
    OFF = "off"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class SeamStatus:
    """The state of one seam: a function of delta-rs that the library replaces to observe writes.

    Attributes:
        name: dotted path of the function.
        state: whether calls of it are observed.
        reason: why it is not on; None when it is on.
        since: first release of `deltalake` that has it; None when every supported one has it.
    """

    name: str
    state: SeamState
    reason: str | None = None
    since: str | None = None

    @property
    def is_expected(self) -> bool:
        """Whether it is on, or the installed release is known to lack it."""
        if self.state is SeamState.ABSENT:
            return self.since is not None and not has_release(self.since)
        return self.state is SeamState.ON


def seam_states() -> tuple[SeamStatus, ...]:
    """Return the state of each seam of the installed `deltalake`, also while nothing is observed.

    The state says what `DeltaLakeInstrumentor().instrument()` observes in this release.

    Raises:
        ImportError: `deltalake` cannot be imported.

    >>> {status.state.value for status in seam_states()} <= {"on", "absent"}
    True
    """
    importlib.import_module("deltalake")
    found = {seam: _check(seam) for seam in SEAMS}
    # A merge is built and executed by two seams: one without the other is off, too.
    unusable = {seam.name for seam, status in found.items() if status.state is not SeamState.ON}
    return tuple(_with_needs(seam, status, unusable) for seam, status in found.items())


def _with_needs(seam: Seam, status: SeamStatus, unusable: set[str]) -> SeamStatus:
    missing = sorted(unusable.intersection(seam.needs))
    if status.state is not SeamState.ON or not missing:
        return status
    return SeamStatus(status.name, SeamState.OFF, f"needs {', '.join(missing)}, not on", seam.since)


def _check(seam: Seam) -> SeamStatus:
    if (reason := _failed.get(seam.path)) is not None:
        return SeamStatus(seam.path, SeamState.OFF, reason, seam.since)
    try:
        found = getattr(owner_of(seam), seam.name)
    except (ImportError, AttributeError):
        return SeamStatus(seam.path, SeamState.ABSENT, _reason_of_absence(seam), seam.since)
    reason = _difference(seam, unpatched(found))
    return SeamStatus(
        seam.path, SeamState.ON if reason is None else SeamState.OFF, reason, seam.since
    )


def _reason_of_absence(seam: Seam) -> str:
    since = "" if seam.since is None else f"; added in {seam.since}"
    return f"not in deltalake {engine_version()}{since}"


def _difference(seam: Seam, found: Any) -> str | None:
    """Return how a callable differs from what its replacement uses; None when it does not."""
    for member in seam.members:
        if not hasattr(found, member):
            return f"has no attribute {member}"
    if seam.is_plain_function and (
        not isinstance(found, FunctionType) or found.__closure__ is not None
    ):
        return "is not a plain function"
    if not seam.parameters:
        return None
    try:
        names = parameter_names(found)
    except (TypeError, ValueError):
        return "has no readable signature"
    missing = [name for name in seam.parameters if name not in names]
    return f"has no parameter {', '.join(missing)}" if missing else None


def owner_of(seam: Seam) -> Any:
    """Return the module or the class that has a seam's attribute.

    Raises:
        ImportError: the engine has no such module.
        AttributeError: the module has no such class.
    """
    module = importlib.import_module(seam.module)
    return getattr(module, seam.owner) if seam.owner else module


def record_failed(seam: Seam, reason: str) -> None:
    """Record that a seam could not be replaced in this process, so that its state is off.

    Args:
        seam: the seam.
        reason: why.
    """
    with _lock:
        _failed[seam.path] = reason


def log_unusable(statuses: Sequence[SeamStatus]) -> None:
    """Log each seam that is off, or unexpectedly absent: one line per seam and process.

    Args:
        statuses: the states of the seams.
    """
    for status in statuses:
        if status.is_expected:
            continue
        with _lock:
            if status.name in _logged:
                continue
            _logged.add(status.name)
        _logger.warning(
            "deltalake %s: calls of %s are not observed: %s",
            engine_version(),
            status.name,
            status.reason,
        )


def reset_seam_states() -> None:
    """Clear the records of seams that failed and were logged; for tests."""
    with _lock:
        _failed.clear()
        _logged.clear()


@lru_cache(maxsize=512)
def parameter_names(callable_: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the parameters of a function or method, `self` included.

    `inspect.signature` compiles the text signature of a built-in function, which for all seams
    together is a tenth of the time of `instrument()`; a plain list of names needs no compiler.
    The names are cached, because each seam asks for them several times.

    Raises:
        ValueError: a built-in function has no text signature.
        TypeError: it is not callable.
    """
    text = getattr(inspect.unwrap(callable_), "__text_signature__", None) or ""
    parts = text.removeprefix("(").removesuffix(")").split(", ")
    names = tuple(
        part.removeprefix("$").partition("=")[0] for part in parts if part not in {"/", "*"}
    )
    if all(name.isidentifier() for name in names):
        return names
    return tuple(inspect.signature(callable_).parameters)


def position_of(callable_: Callable[..., Any], name: str) -> int:
    """Return the position of a parameter in the signature, `self` included.

    Raises:
        ValueError: there is no such parameter.
    """
    return parameter_names(callable_).index(name)
