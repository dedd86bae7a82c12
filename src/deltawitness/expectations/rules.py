"""The rules of an expectation: what the rows of a write must be like. Their values are validated here."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from deltawitness.exceptions import ConfigurationError
from deltawitness.semconv import ExpectationAction

__all__ = ["Bounds", "Rules", "SchemaRule", "Within", "parse_rules", "within"]

Bounds: TypeAlias = tuple[Any, Any]
"""A lower and an upper bound, both inclusive; None for no bound."""

_LAST = re.compile(r"last ([1-9]\d{0,3})")


@dataclass(frozen=True, slots=True)
class Within:
    """Bounds for the number of rows, relative to earlier commits of the table; made by :func:`within`.

    Attributes:
        low: the lower bound as a multiple of the median.
        high: the upper bound as a multiple of the median.
        commits: number of earlier commits, of which the median is taken.
        min_commits: the rule is not checked while the log has fewer such commits.
    """

    low: float
    high: float
    commits: int = 20
    min_commits: int = 1


def within(low: float, high: float, of: str = "last 20", *, min_commits: int = 1) -> Within:
    """Return bounds relative to the median of what earlier commits of the table have added.

    Args:
        low: the lower bound as a multiple of the median, such as 0.5.
        high: the upper bound as a multiple of the median, such as 2.0.
        of: `last N`: the newest N commits of the table that are writes with the same save mode, `append`
            or `overwrite`, from its Delta log.
        min_commits: the rule is not checked while the log has fewer such commits.

    Raises:
        ConfigurationError: an argument is invalid.

    >>> within(0.5, 2.0, of="last 20")
    Within(low=0.5, high=2.0, commits=20, min_commits=1)
    """
    last = _LAST.fullmatch(of) if isinstance(of, str) else None
    if last is None:
        msg = f"within: `of` must be `last N` with N from 1 to 9999, not {of!r}"
        raise ConfigurationError(msg)
    if not (_is_number(low) and _is_number(high) and 0 <= low <= high):
        msg = f"within: expected 0 <= low <= high, not {low!r} and {high!r}"
        raise ConfigurationError(msg)
    commits = int(last[1])
    if not _is_count(min_commits) or not 1 <= min_commits <= commits:
        msg = f"within: min_commits must be from 1 to {commits}, not {min_commits!r}"
        raise ConfigurationError(msg)
    return Within(float(low), float(high), commits, min_commits)


UNCHANGED = "unchanged"
COMPATIBLE = "compatible"

SchemaRule: TypeAlias = str
"""`unchanged` or `compatible`."""

UniqueKey: TypeAlias = tuple[str, ...]
"""Names of columns that together identify a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of one expectation, parsed.

    Attributes:
        rows_added: bounds for the number of written rows; None for no rule.
        schema: `unchanged` or `compatible`; None for no rule.
        nulls: for each column, the maximum number of nulls, or their maximum fraction of the rows if it is
            a float.
        unique: each of these keys occurs at most once in the written rows.
        values: for each column, bounds or the allowed values.
        on_failure: what happens to a write whose rows do not meet the rules.
        quarantine: path or URI of the table for such rows; None for the written table's path with
            `_quarantine` at the end.
        storage_options: storage options of the quarantine; None for those of the write.
    """

    rows_added: Bounds | Within | None = None
    schema: SchemaRule | None = None
    nulls: Mapping[str, int | float] = field(default_factory=dict)
    unique: tuple[UniqueKey, ...] = ()
    values: Mapping[str, Bounds | frozenset[Any]] = field(default_factory=dict)
    on_failure: ExpectationAction = ExpectationAction.FAIL
    quarantine: str | None = None
    storage_options: Mapping[str, str] | None = None

    @property
    def has_row_rules(self) -> bool:
        """Whether a rule is about the rows, so that they must be read to check it."""
        return bool(self.rows_added is not None or self.nulls or self.unique or self.values)


def parse_rules(  # noqa: PLR0913 - the keyword arguments of `expect`
    *,
    rows_added: object = None,
    schema: object = None,
    nulls: object = None,
    unique: object = None,
    values: object = None,
    on_failure: object = ExpectationAction.FAIL,
    quarantine: str | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Rules:
    """Return the rules for the arguments of :func:`deltawitness.expect`.

    Raises:
        ConfigurationError: an argument is invalid, or there is no rule.
    """
    try:
        action = ExpectationAction(str(on_failure))
    except ValueError:
        raise _error(
            argument="on_failure",
            expected=f"one of {', '.join(ExpectationAction)}",
            given=on_failure,
        ) from None
    for name, value in (("quarantine", quarantine), ("storage_options", storage_options)):
        if value is not None and action is not ExpectationAction.QUARANTINE:
            msg = f"expect: `{name}` is only possible with on_failure='quarantine'"
            raise ConfigurationError(msg)
    rules = Rules(
        rows_added=_rows_added(rows_added),
        schema=_schema(schema),
        nulls=_nulls(nulls),
        unique=_unique(unique),
        values=_values(values),
        on_failure=action,
        quarantine=quarantine,
        storage_options=storage_options,
    )
    if rules.schema is None and not rules.has_row_rules:
        msg = "expect: give at least one of rows_added, schema, nulls, unique and values"
        raise ConfigurationError(msg)
    return rules


def _error(*, argument: str, expected: str, given: object) -> ConfigurationError:
    return ConfigurationError(f"expect: `{argument}` must be {expected}, not {given!r}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]  # checked in this line


def _rows_added(given: object) -> Bounds | Within | None:
    if given is None or isinstance(given, Within):
        return given
    if _is_count(given):
        return given, given
    if isinstance(given, tuple | list) and len(given) == 2:  # noqa: PLR2004 - low and high
        low, high = given
        if all(each is None or _is_count(each) for each in (low, high)) and _is_ordered(low, high):
            return low, high
    raise _error(
        argument="rows_added", expected="a count, a pair (min, max) or within(...)", given=given
    )


def _is_ordered(low: Any, high: Any) -> bool:
    if low is None or high is None:
        return low is not high  # one bound at least
    try:
        return bool(low <= high)
    except TypeError:
        return False


def _schema(given: object) -> SchemaRule | None:
    if given is None or (isinstance(given, str) and given in {UNCHANGED, COMPATIBLE}):
        return given
    raise _error(argument="schema", expected=f"`{UNCHANGED}` or `{COMPATIBLE}`", given=given)


def _nulls(given: object) -> dict[str, int | float]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise _error(
            argument="nulls", expected="a mapping of columns to a count or a fraction", given=given
        )
    for column, most in given.items():
        is_fraction = isinstance(most, float) and 0 <= most <= 1
        if not isinstance(column, str) or not (_is_count(most) or is_fraction):
            expected = "a count (int) or a fraction (float from 0 to 1) for each column"
            raise _error(argument="nulls", expected=expected, given=given)
    return dict(given)


def _unique(given: object) -> tuple[UniqueKey, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        return ((given,),)
    expected = "a column, a list of the columns of a key, or a list of such lists"
    if not isinstance(given, Iterable):
        raise _error(argument="unique", expected=expected, given=given)
    names = list(given)
    keys = [names] if all(isinstance(each, str) for each in names) else names
    if not all(isinstance(key, Iterable) for key in keys):
        raise _error(argument="unique", expected=expected, given=given)
    parsed = tuple((key,) if isinstance(key, str) else tuple(key) for key in keys)
    if not parsed or not all(key and all(isinstance(name, str) for name in key) for key in parsed):
        raise _error(argument="unique", expected=expected, given=given)
    return parsed


def _values(given: object) -> dict[str, Bounds | frozenset[Any]]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(column, str) for column in given):
        raise _error(
            argument="values",
            expected="a mapping of columns to a range or a set of values",
            given=given,
        )
    return {column: _allowed(allowed) for column, allowed in given.items()}


def _allowed(given: object) -> Bounds | frozenset[Any]:
    if isinstance(given, set | frozenset | list):
        if given and all(isinstance(each, Hashable) and each is not None for each in given):
            return frozenset(given)
    elif isinstance(given, tuple) and len(given) == 2 and _is_ordered(*given):  # noqa: PLR2004 - low and high
        return given
    expected = "a pair (min, max), or a list or set of values without None, for each column"
    raise _error(argument="values", expected=expected, given=given)
