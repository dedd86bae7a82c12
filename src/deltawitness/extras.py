"""Optional packages: whether they are installed, and which extra of deltawitness installs them."""

from __future__ import annotations

from importlib.util import find_spec

from deltawitness.exceptions import MissingExtraError

__all__ = ["is_installed", "require"]

_EXTRAS = {
    "datafusion": ("DataFusion", "datafusion"),
    "mcp": ("the MCP SDK", "mcp"),
    "openlineage.client": ("the OpenLineage client", "openlineage"),
    "sqlglot": ("sqlglot", "datafusion"),
    "typer": ("Typer", "cli"),
    "rich": ("Rich", "cli"),
    "textual": ("Textual", "ui"),
    "opentelemetry.sdk": ("the OpenTelemetry SDK", "otel"),
}
"""The title of each optional package, and the extra that installs it."""


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it.

    Args:
        package: the import name. For a subpackage, the outer package is imported.
    """
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # the outer package is missing, or it is not a package
        return False


def require(feature: str, *packages: str) -> None:
    """Check that a feature's packages are installed.

    Args:
        feature: what needs them, as the subject of the error message.
        *packages: import names of optional packages.

    Raises:
        MissingExtraError: a package is not installed.

    >>> require("ObservedSessionContext", "datafusion", "sqlglot")
    """
    for package in packages:
        if not is_installed(package):
            title, extra = _EXTRAS[package]
            msg = f"{feature} needs {title}: install deltawitness[{extra}]"
            raise MissingExtraError(msg, name=package)
