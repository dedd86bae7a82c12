"""Versions of the package, its requirements and its extras, and the platform."""

from __future__ import annotations

import locale
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points, requires

from packaging.requirements import Requirement

from deltawitness.distributions import installed_version
from deltawitness.semconv import WITNESS_VERSION, OtelEnv

__all__ = ["engine_versions", "exporters", "extras", "platform_details", "versions"]

DISTRIBUTION = "deltawitness"

ENGINES = ("deltalake", "datafusion", "opentelemetry-api", "opentelemetry-sdk", "pyarrow")
"""Packages whose versions decide what is observed and exported."""

_SIGNALS = {
    "traces": ("opentelemetry_traces_exporter", OtelEnv.TRACES_EXPORTER),
    "metrics": ("opentelemetry_metrics_exporter", OtelEnv.METRICS_EXPORTER),
    "logs": ("opentelemetry_logs_exporter", OtelEnv.LOGS_EXPORTER),
}
"""For each signal, the group of entry points of its exporters, and the variable that chooses one."""


def engine_versions() -> dict[str, str | None]:
    """Return the versions of the engines, of OpenTelemetry and of Python."""
    found = {name: installed_version(name) for name in ENGINES}
    return {**found, "Python": platform.python_version()}


def versions() -> dict[str, str | None]:
    """Return the versions of deltawitness, of Python, and of all requirements with those of extras."""
    names = {requirement.name for _, requirement in _requirements()}
    return {
        DISTRIBUTION: WITNESS_VERSION,
        **engine_versions(),
        **{name: installed_version(name) for name in sorted(names - set(ENGINES))},
    }


def extras() -> dict[str, dict[str, str | None]]:
    """Return the packages of each extra with their versions; None for one that is not installed."""
    found: dict[str, dict[str, str | None]] = {}
    for extra, requirement in _requirements():
        if extra:
            found.setdefault(extra, {})[requirement.name] = installed_version(requirement.name)
    return found


def _requirements() -> Iterator[tuple[str, Requirement]]:
    """Yield the requirements of the installed package, each with its extra; empty for none."""
    for text in requires(DISTRIBUTION) or ():
        requirement = Requirement(text)
        if requirement.name == DISTRIBUTION:
            continue  # an extra that combines others
        extra = str(requirement.marker).partition("extra == ")[2].strip("\"'")
        yield extra, requirement


def platform_details() -> dict[str, str]:
    """Return details of the interpreter and the operating system, without names and paths."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "threads": "free-threaded" if not _has_gil() else "GIL",
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "processors": str(os.cpu_count() or "unknown"),
        "encoding": f"{sys.getfilesystemencoding()}, {locale.getpreferredencoding(do_setlocale=False)}",
        "time zone": "UTC" if _is_utc() else "other than UTC",
    }


def _has_gil() -> bool:
    is_enabled = getattr(sys, "_is_gil_enabled", None)  # since Python 3.13
    return is_enabled is None or bool(is_enabled())


def _is_utc() -> bool:
    import time  # noqa: PLC0415 - only here

    return time.timezone == 0 and not time.daylight


def exporters() -> dict[str, dict[str, str]]:
    """Return for each signal its exporters: `installed`, `chosen` (and installed) or `missing`.

    The name of a chosen exporter that is not installed may be any text, so it is redacted.
    """
    from deltawitness.redaction import redact_label  # noqa: PLC0415 - `--version` does not need it

    found: dict[str, dict[str, str]] = {}
    for signal, (group, variable) in _SIGNALS.items():
        installed = {each.name for each in entry_points(group=group)}
        chosen = {word.strip() for word in os.environ.get(variable, "").split(",")} - {"", "none"}
        found[signal] = {
            **{name: "chosen" if name in chosen else "installed" for name in sorted(installed)},
            **{redact_label(name): "missing" for name in sorted(chosen - installed)},
        }
    return found
