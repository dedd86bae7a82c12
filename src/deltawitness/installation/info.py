"""Gather the description of this installation; a part that cannot be read does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from deltawitness.installation.model import InfoResult
from deltawitness.redaction import redact_text

__all__ = ["info"]

T = TypeVar("T")


def info(*, root: str | None = None, paths: bool = False) -> InfoResult:
    """Describe this installation for a bug report.

    The result has no secrets: credentials are removed from URIs, and values of headers and of storage
    options are masked. Object stores and telemetry backends are not contacted. The function raises
    nothing: a part that cannot be read is empty, and `problems` has the reason.

    Args:
        root: path or URI of the ledger; by default the ledger of the settings.
        paths: whether to show locations.

    >>> info().versions["deltawitness"] == __import__("deltawitness").__version__
    True
    """
    problems: dict[str, str] = {}

    def part(name: str, read: Callable[[], T], default: T) -> T:
        try:
            return read()
        except Exception as error:  # noqa: BLE001 - a part may raise anything, and must not hide the others
            problems[name] = f"{type(error).__name__}: {redact_text(str(error))}"
            return default

    parts: dict[str, Any] = {
        name: part(name, read, default) for name, read, default in _parts(root, paths=paths)
    }
    return InfoResult(**parts, problems=problems)


def _parts(root: str | None, *, paths: bool) -> tuple[tuple[str, Callable[[], Any], Any], ...]:
    """Return for each part its name, the function that reads it, and its value if that fails.

    Each function imports what it needs, so that an import that fails is a problem of its part.
    """

    def packages() -> Any:
        from deltawitness.installation import packages  # noqa: PLC0415 - see the docstring

        return packages

    def environment() -> Any:
        from deltawitness.installation import environment  # noqa: PLC0415 - as above

        return environment

    def instrumentors() -> Any:
        from deltawitness.installation import instrumentors  # noqa: PLC0415 - as above

        return instrumentors

    def seams() -> Any:
        from deltawitness.delta_rs import seam_states  # noqa: PLC0415 - as above

        return seam_states

    return (
        ("versions", lambda: packages().versions(), {}),
        ("platform", lambda: packages().platform_details(), {}),
        ("instrumentation", lambda: instrumentors().instrumentation_states(), {}),
        ("seams", lambda: seams().seam_states(), ()),
        ("settings", lambda: environment().setting_states(paths=paths), ()),
        ("variables", lambda: environment().variables(), {}),
        ("exporters", lambda: packages().exporters(), {}),
        ("extras", lambda: packages().extras(), {}),
        ("ledger", lambda: _ledger(root, paths=paths), None),
    )


def _ledger(root: str | None, *, paths: bool) -> Any:
    from deltawitness.installation.environment import usable_settings  # noqa: PLC0415 - as above
    from deltawitness.installation.ledger import ledger_state  # noqa: PLC0415 - as above

    settings = usable_settings()
    return ledger_state(
        settings if root is None else replace(settings, cache_root=root), paths=paths
    )
