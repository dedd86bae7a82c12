"""Settings and environment variables, without secrets and paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import Field, fields
from typing import Any
from urllib.parse import urlsplit

from deltawitness.exceptions import ConfigurationError
from deltawitness.installation.model import SettingInfo, SettingSource
from deltawitness.locations import local_path, strip_credentials
from deltawitness.observe.observer import current_observer
from deltawitness.redaction import redact_label
from deltawitness.semconv import OTEL_PREFIX, Env
from deltawitness.settings import Settings

__all__ = ["kind_of_location", "setting_states", "usable_settings", "variables"]

SECRET = "[secret]"  # noqa: S105 - the mask, not a secret
SET = "[set]"
"""Shown in place of a value that may be any text."""

_OTLP_PATH = re.compile(r"(?:/otlp)?(?:/v1(?:/(?:traces|metrics|logs))?)?/?")
_LOCATIONS = {Env.CACHE_ROOT, Env.SPOOL_DIR}
_SHOWN = re.compile(
    r"OTEL_\w*(?:EXPORTER|PROTOCOL|SAMPLER|SAMPLER_ARG|DISABLED|INTERVAL|DELAY|TIMEOUT|LIMIT|SIZE|INSECURE"
    r"|PROPAGATORS|COMPRESSION|PREFERENCE|AGGREGATION|INSTRUMENTATIONS|DISTRO|CONFIGURATOR|ENABLED|FILTER)"
)
"""Variables of OpenTelemetry whose values are words and numbers."""


# --- settings ----------------------------------------------------------------------------------------


def setting_states(*, paths: bool) -> tuple[SettingInfo, ...]:
    """Return each setting with its value and source; an invalid one has its problem.

    The settings are those of the process's observer; without one those of the environment.

    Args:
        paths: whether to show locations, without credentials.
    """
    observer = current_observer()
    used = None if observer is None else observer.settings
    return tuple(_state(setting, used, paths=paths) for setting in fields(Settings))


def usable_settings() -> Settings:
    """Return the settings of the process's observer, or those of the environment that are valid."""
    observer = current_observer()
    if observer is not None:
        return observer.settings
    values: dict[str, Any] = {}
    for setting in fields(Settings):
        with suppress(ConfigurationError):
            values[setting.name] = _from_environment(setting)
    return Settings(**values)


def _state(setting: Field[Any], used: Settings | None, *, paths: bool) -> SettingInfo:
    variable = setting.metadata["variable"]
    is_set = any(os.environ.get(name) for name in _names_of(variable))
    source = SettingSource.ENVIRONMENT if is_set else SettingSource.DEFAULT
    problem = None
    try:
        value = _from_environment(setting)
    except ConfigurationError as error:
        value, problem = None, str(error)
    if used is not None and (problem or getattr(used, setting.name) != value):
        value, source, problem = getattr(used, setting.name), SettingSource.CODE, None
    return SettingInfo(variable.value, _shown(variable, value, paths=paths), source, problem)


def _from_environment(setting: Field[Any]) -> Any:
    """Return the value of one setting, whether or not the others are valid.

    Raises:
        ConfigurationError: the value is invalid.
    """
    names = _names_of(setting.metadata["variable"])
    if Env.ROOT in names:
        names = (*names, Env.CHOSEN_ROOT)
    given = {name.value: os.environ.get(name, "") for name in names}
    return getattr(Settings.from_env(given), setting.name)


def _names_of(variable: Env) -> tuple[Env, ...]:
    return (Env.ROOT, variable) if variable is Env.CACHE_ROOT else (variable,)


def _shown(variable: Env, value: object, *, paths: bool) -> str | None:
    """Return a setting's value in a form without secrets and without the name of a person."""
    match value:
        case None:
            return None
        case bytes():
            return SECRET
        case Mapping():
            return ", ".join(f"{redact_label(str(name))}={SECRET}" for name in value)
        case str() if variable in _LOCATIONS:
            return strip_credentials(value) if paths else f"[{kind_of_location(value)}]"
        case bool():
            return str(value).lower()
        case _:
            return SET if variable is Env.AUTHOR else str(value)


def kind_of_location(location: str) -> str:
    """Return `local` for a location on a local disk, else the scheme of its URI.

    >>> kind_of_location("cache"), kind_of_location("s3a://bucket/cache")
    ('local', 's3a')
    """
    return "local" if local_path(location) is not None else urlsplit(location).scheme.lower()


# --- other variables ---------------------------------------------------------------------------------


def variables() -> dict[str, str]:
    """Return the variables of OpenTelemetry, and those of deltawitness that are no settings, if they are set.

    Only the name is shown of a variable whose value may be any text, and of an unknown variable with the
    prefix of deltawitness, whose name may be misspelt.
    """
    names = {setting.metadata["variable"].value for setting in fields(Settings)} | {Env.ROOT.value}
    return {
        redact_label(name): _value_shown(name, value)
        for name, value in sorted(os.environ.items())
        if value
        and name not in names
        and (name.startswith((OTEL_PREFIX, "DELTAWITNESS_")) or name == Env.TRACEPARENT)
    }


def _value_shown(name: str, value: str) -> str:
    if name.startswith(OTEL_PREFIX) and name.endswith("_ENDPOINT"):
        return endpoint_shown(value)
    if name.endswith(("_HEADERS", "_RESOURCE_ATTRIBUTES")):
        return ", ".join(_names_shown(value))
    if _SHOWN.fullmatch(name):
        return ",".join(redact_label(word.strip()) for word in value.split(","))
    return SET


def _names_shown(pairs: str) -> Iterator[str]:
    """Yield the names of a list `name=value,...` with masked values."""
    for pair in pairs.split(","):
        name, separator, _ = pair.partition("=")
        yield f"{redact_label(name.strip())}={SECRET}" if separator else SECRET


def endpoint_shown(endpoint: str) -> str:
    """Return the address of a backend without credentials and query.

    The path may contain a token, so it is shown only if it is one of OTLP.

    >>> endpoint_shown("https://user:key@otel.example:4318/v1/traces?token=x")
    'https://otel.example:4318/v1/traces'
    >>> endpoint_shown("https://otel.example/t0ken/v1/traces")
    'https://otel.example/[path]'
    """
    try:
        parts = urlsplit(strip_credentials(endpoint if "://" in endpoint else f"//{endpoint}"))
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return SECRET
    path = parts.path if _OTLP_PATH.fullmatch(parts.path) else "/[path]"
    return f"{parts.scheme}://{host}{path}" if parts.scheme else f"{host}{path}"
