"""Inputs to the fingerprint that the plan text omits: session settings and engine versions."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.fingerprint.model import SettingInput

if TYPE_CHECKING:
    from datafusion import SessionConfig, SessionContext

__all__ = ["TIME_ZONE", "engine_release", "setting_inputs"]

TIME_ZONE = "datafusion.execution.time_zone"

_RESULT_SETTINGS = (
    TIME_ZONE,
    "datafusion.execution.enable_ansi_mode",
    "datafusion.execution.listing_table_ignore_subdirectory",
    "datafusion.execution.parquet.binary_as_string",
    "datafusion.execution.parquet.coerce_int96",
    "datafusion.execution.parquet.skip_arrow_metadata",
    "datafusion.spark.",
    "datafusion.sql_parser.",
)
"""Prefixes of the settings that change results; those of speed, memory and printing do not."""


_read: WeakKeyDictionary[SessionConfig, dict[str, str]] = WeakKeyDictionary()
"""Settings that were read from a configuration, which takes some milliseconds."""


def setting_inputs(
    ctx: SessionContext, *, has_spark_functions: bool, config: SessionConfig | None = None
) -> tuple[SettingInput, ...]:
    """Return the settings of a session that change results and differ from the engine's defaults.

    Args:
        ctx: the session.
        has_spark_functions: Spark functions replace functions of the engine.
        config: the current settings of the session, if the caller has them: they are read once for each
            such object. None reads them from the session.
    """
    defaults = _defaults()
    if config is None:
        settings = _settings(unpatched(ctx, "copied_config")())
    else:
        if config not in _read:
            _read[config] = _settings(config)
        settings = dict(_read[config])
    if has_spark_functions:
        settings["functions"] = "spark"
    return tuple(
        SettingInput(name, value)
        for name, value in sorted(settings.items())
        if defaults.get(name) != value
    )


@cache
def engine_release() -> str:
    """Return the releases of the engines: another release may compute or read tables differently."""
    return f"datafusion {version('datafusion')}, deltalake {version('deltalake')}"


@cache
def _defaults() -> dict[str, str]:
    from datafusion import SessionConfig  # noqa: PLC0415 - heavy

    return _settings(SessionConfig())


def _settings(config: SessionConfig) -> dict[str, str]:
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    # The settings can be queried only with an information schema.
    reader = SessionContext(config.with_information_schema(enabled=True))
    rows = unpatched(reader, "sql")("SELECT name, value FROM information_schema.df_settings")
    found = dict(zip(*unpatched(rows, "to_pydict")().values(), strict=True))
    return {name: str(value) for name, value in found.items() if name.startswith(_RESULT_SETTINGS)}
