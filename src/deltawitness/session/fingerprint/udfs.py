"""Functions that a plan calls: built-in, volatile and user-defined ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.fingerprint.model import UdfInput

if TYPE_CHECKING:
    from datafusion import SessionContext

__all__ = ["UnversionedUdfError", "changeable_call_in", "udf_inputs"]


class UnversionedUdfError(Exception):
    """A call whose result cannot be cached: an unversioned user-defined function or a volatile one."""


_CALL = re.compile(r"([^\s(),\[\]{}]+)\(")
"""The text before an opening parenthesis. Literals are searched too: the plan text does not show
where one ends, and a call that is missed would make a stale result a hit.
"""

_PLAN_WORDS = re.compile(
    r"(?:TRY_)?CAST|EXISTS|IN|AND|OR|NOT|AS|Filter:|List|LargeList|FixedSizeList|Struct|Map|Dictionary"
    r"|FixedSizeBinary|Time(?:32|64)\w*|Timestamp\w*|Duration\w*|Decimal(?:32|64|128|256)|Interval\w*"
    r"|Some|outer_ref|UNNEST|unnest|depth|Rollup|ROLLUP|CUBE|__unnest_placeholder|Expr|.*:"
)
_LITERAL = re.compile(
    r"(?<!\w)(?:Utf8|LargeUtf8|Utf8View|U?Int(?:8|16|32|64)|Float(?:16|32|64)|Boolean|Binary|LargeBinary"
    r"|BinaryView|Date(?:32|64))\((?=[-\d\"]|NULL|true|false|inf|NaN)"
)
"""The begin of a typed literal: a function with such a name would be called with other arguments."""
_SIGNS = "-+*/%=<>!|&^~#@?$\"':;."


def udf_inputs(
    ctx: SessionContext | None,
    text: str,
    versions: Mapping[str, str],
    *,
    replaced: frozenset[str] = frozenset(),
    has_max_age: bool,
) -> Iterator[UdfInput]:
    """Yield the user-defined functions that a plan calls, with their versions.

    Args:
        ctx: the session; None when it is not known.
        text: text of the plan.
        versions: versions of user-defined functions, by name.
        replaced: names under which the program registered functions.
        has_max_age: the result expires, so that it may depend on volatile functions.

    Raises:
        UnversionedUdfError: a user-defined function has no version, or a function is volatile and
            the result does not expire.
    """
    built_in, volatile = _built_in()
    user_defined = (_registered(ctx) - built_in) | replaced
    called = {token.lstrip(_SIGNS) for token in _CALL.findall(_LITERAL.sub(" ", text))}
    called |= {name for name in user_defined if f"{name}(" in text}
    for name in sorted(called):
        if not name or (_PLAN_WORDS.fullmatch(name) and name not in user_defined):
            continue
        if name in versions:
            yield UdfInput(name, versions[name])
        elif name in user_defined:
            msg = f"{name}() is a user-defined function: pass its version in functions="
            raise UnversionedUdfError(msg)
        elif name in volatile:
            if not has_max_age:
                msg = f"{name}() is volatile: set max_age in the cache policy"
                raise UnversionedUdfError(msg)
        elif name not in built_in:
            # The name may be part of a literal, so the message does not show it.
            msg = "it may call a user-defined function: pass its version in functions="
            raise UnversionedUdfError(msg)


def changeable_call_in(
    ctx: SessionContext, text: str, *, replaced: frozenset[str] = frozenset()
) -> str | None:
    """Return why the text of a statement may have another result later; None if no call is a reason.

    Args:
        ctx: the session.
        text: the statement.
        replaced: names under which the program registered functions.
    """
    built_in, volatile = _built_in()
    user_defined = (_registered(ctx) - built_in) | replaced
    called = {name.lower() for name in _NAME_OF_CALL.findall(text)}
    for name in sorted(user_defined):
        if name.lower() in called:
            return f"{name}() is a user-defined function"
    for name in sorted(volatile & called):
        return f"{name}() is volatile"
    return None


_NAME_OF_CALL = re.compile(r"(\w+)\"?\s*\(")


def _registered(ctx: SessionContext | None) -> frozenset[str]:
    if ctx is None:
        return frozenset()
    return frozenset((*ctx.udfs(), *ctx.udafs(), *ctx.udwfs()))


@cache
def _built_in() -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the engine's functions, and of the volatile ones among them."""
    from datafusion import SessionConfig, SessionContext  # noqa: PLC0415 - heavy

    bare = SessionContext(SessionConfig().with_information_schema(enabled=True))
    rows = unpatched(bare, "sql")(
        "SELECT routine_name AS name, bool_and(is_deterministic) AS sure"
        " FROM information_schema.routines GROUP BY routine_name"
    )
    found = dict(zip(*unpatched(rows, "to_pydict")().values(), strict=True))
    # A series is deterministic; its bounds are an input (`series_digest`).
    series = {"generate_series", "range"}
    names = frozenset(found) | _registered(bare) | series
    return names, frozenset(name for name, is_stable in found.items() if not is_stable) - series
