"""What changes what a query gives, though its plan reads the same: settings, the engine's release."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from deltawitness.cache.fingerprint.model import SettingInput
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import SessionConfig, SessionContext

__all__ = ["TIME_ZONE", "engine_release", "setting_inputs"]

TIME_ZONE = "datafusion.execution.time_zone"

_COUNTING = (
    TIME_ZONE,
    "datafusion.execution.enable_ansi_mode",
    "datafusion.execution.listing_table_ignore_subdirectory",
    "datafusion.execution.parquet.binary_as_string",
    "datafusion.execution.parquet.coerce_int96",
    "datafusion.execution.parquet.skip_arrow_metadata",
    "datafusion.spark.",
    "datafusion.sql_parser.",
)
"""Settings by the beginnings of their names. Those of speed, memory and printing change no result."""


def setting_inputs(ctx: SessionContext, *, has_spark_functions: bool) -> tuple[SettingInput, ...]:
    """Return the settings of a session that count and are not the engine's own defaults.

    Args:
        ctx: the session.
        has_spark_functions: functions were put in the place of the engine's own.
    """
    usual = _defaults()
    told = _settings(unpatched(ctx, "copied_config")())
    if has_spark_functions:
        told["functions"] = "spark"
    return tuple(
        SettingInput(name, value)
        for name, value in sorted(told.items())
        if usual.get(name) != value
    )


@cache
def engine_release() -> str:
    """Return the releases of the engines: another one may compute, or read a Delta table, otherwise."""
    return f"datafusion {version('datafusion')}, deltalake {version('deltalake')}"


@cache
def _defaults() -> dict[str, str]:
    from datafusion import SessionConfig  # noqa: PLC0415 - heavy

    return _settings(SessionConfig())


def _settings(config: SessionConfig) -> dict[str, str]:
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    # A session's own settings can be asked for only where it has an information schema.
    ask = SessionContext(config.with_information_schema(enabled=True))
    rows = unpatched(ask, "sql")("SELECT name, value FROM information_schema.df_settings")
    found = dict(zip(*unpatched(rows, "to_pydict")().values(), strict=True))
    return {name: str(value) for name, value in found.items() if name.startswith(_COUNTING)}
