"""Read expectations from a TOML file, for programs that are observed without a change of their code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deltawitness.exceptions import ConfigurationError
from deltawitness.expectations.block import expect
from deltawitness.expectations.rules import within
from deltawitness.semconv import Env

__all__ = ["load_expectations"]

_TEXTS = ("schema", "on_failure", "quarantine", "table", "policy")
_RULES = ("rows_added", "nulls", "unique", "values")


def load_expectations(path: str | None) -> tuple[expect, ...]:
    """Return the expectations in a file; none without a file.

    Args:
        path: path of the TOML file, with a table `[[expect]]` for each expectation.

    Raises:
        ConfigurationError: the file cannot be read, or an expectation in it is invalid.
    """
    if path is None:
        return ()
    import tomllib  # noqa: PLC0415 - seldom needed

    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{Env.EXPECTATIONS}: the file cannot be read: {error}"
        raise ConfigurationError(msg) from error
    tables = content.pop("expect", None)
    if (
        content
        or not isinstance(tables, list)
        or not all(isinstance(each, dict) for each in tables)
    ):
        msg = f"{Env.EXPECTATIONS}: expected tables [[expect]] and nothing else"
        raise ConfigurationError(msg)
    return tuple(_expectation(number, each) for number, each in enumerate(tables, 1))


def _expectation(number: int, table: dict[str, Any]) -> expect:
    try:
        return expect(**_arguments(table))
    except ConfigurationError as error:
        msg = f"{Env.EXPECTATIONS}: [[expect]] number {number}: {error}"
        raise ConfigurationError(msg) from error


def _arguments(table: dict[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(table) - {*_TEXTS, *_RULES}):
        msg = f"unknown key {unknown[0]!r}; expected {', '.join((*_RULES, *_TEXTS))}"
        raise ConfigurationError(msg)
    for name in _TEXTS:
        if name in table and not isinstance(table[name], str):
            msg = f"`{name}` must be text"
            raise ConfigurationError(msg)
    arguments = dict(table)
    if "rows_added" in table:
        arguments["rows_added"] = _rows_added(table["rows_added"])
    if isinstance(values := table.get("values"), Mapping):
        arguments["values"] = {column: _range(allowed) for column, allowed in values.items()}
    return arguments


def _rows_added(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    if not set(given) <= {"within", "of", "min_commits"}:
        return _range(given)
    try:
        low, high = given["within"]
    except (KeyError, TypeError, ValueError):
        msg = "`rows_added`: `within` must be [low, high]"
        raise ConfigurationError(msg) from None
    options = {name: value for name, value in given.items() if name != "within"}
    return within(low, high, **options)


def _range(given: Any) -> Any:
    """Return the bounds of `{min = ..., max = ...}`; any other value is returned unchanged."""
    if isinstance(given, Mapping) and given and set(given) <= {"min", "max"}:
        return given.get("min"), given.get("max")
    return given
