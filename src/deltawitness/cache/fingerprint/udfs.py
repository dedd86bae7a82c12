"""The functions that a plan calls: the engine's own, those that never repeat themselves, the program's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from deltawitness.cache.fingerprint.model import UdfInput
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import SessionContext

__all__ = ["UnversionedUdfError", "udf_inputs"]


class UnversionedUdfError(Exception):
    """A call whose result may be another one next time."""


_CALL = re.compile(r"([^\s(),\[\]{}]+)\(")
"""What stands before a bracket. Literals are looked at as well: where one ends cannot be told from
the text of a plan, and a call that is not seen would be a result that is not true."""

_WORDS_OF_PLANS = re.compile(
    r"(?:TRY_)?CAST|EXISTS|IN|AND|OR|NOT|AS|Filter:|List|LargeList|FixedSizeList|Struct|Map|Dictionary"
    r"|FixedSizeBinary|Time(?:32|64)\w*|Timestamp\w*|Duration\w*|Decimal(?:32|64|128|256)|Interval\w*"
    r"|outer_ref|UNNEST|unnest|depth|Rollup|ROLLUP|CUBE|__unnest_placeholder|Expr|.*:"
)
_LITERAL = re.compile(
    r"(?<!\w)(?:Utf8|LargeUtf8|Utf8View|U?Int(?:8|16|32|64)|Float(?:16|32|64)|Boolean|Binary|LargeBinary"
    r"|BinaryView|Date(?:32|64))\((?=[-\d\"]|NULL|true|false|inf|NaN)"
)
"""How a literal begins: a function of such a name would be called with something else."""
_SIGNS = "-+*/%=<>!|&^~#@?$\"':;."


def udf_inputs(
    ctx: SessionContext | None,
    text: str,
    versions: Mapping[str, str],
    *,
    replaced: frozenset[str] = frozenset(),
    is_aging: bool,
) -> Iterator[UdfInput]:
    """Yield the program's own functions that a plan calls, with the versions that it gave them.

    Args:
        ctx: the session, if it is known.
        text: the plan's text.
        versions: versions of the program's own functions, by name.
        replaced: names that the program has registered functions under.
        is_aging: the result is served for a time only, so that it may depend on the time.

    Raises:
        Unversioned: one has no version, or gives another result each time.
    """
    built_in, volatile = _built_in()
    own = (_registered(ctx) - built_in) | replaced
    called = {token.lstrip(_SIGNS) for token in _CALL.findall(_LITERAL.sub(" ", text))}
    called |= {name for name in own if f"{name}(" in text}
    for name in sorted(called):
        if not name or (_WORDS_OF_PLANS.fullmatch(name) and name not in own):
            continue
        if name in versions:
            yield UdfInput(name, versions[name])
        elif name in own:
            msg = (
                f"{name}() is a user-defined function; pass its version in functions= to cache"
                " queries that call it"
            )
            raise UnversionedUdfError(msg)
        elif name in volatile:
            if not is_aging:
                msg = f"{name}() gives another result each time: give the policy a max_age"
                raise UnversionedUdfError(msg)
        elif name not in built_in:
            # It may be what a literal holds, and so it is not told.
            msg = "it may call a user-defined function; pass its version in functions= to cache it"
            raise UnversionedUdfError(msg)


def _registered(ctx: SessionContext | None) -> frozenset[str]:
    if ctx is None:
        return frozenset()
    return frozenset((*ctx.udfs(), *ctx.udafs(), *ctx.udwfs()))


@cache
def _built_in() -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the engine's own functions, and of those that do not repeat themselves."""
    from datafusion import SessionConfig, SessionContext  # noqa: PLC0415 - heavy

    bare = SessionContext(SessionConfig().with_information_schema(enabled=True))
    rows = unpatched(bare, "sql")(
        "SELECT routine_name AS name, bool_and(is_deterministic) AS sure"
        " FROM information_schema.routines GROUP BY routine_name"
    )
    found = dict(zip(*unpatched(rows, "to_pydict")().values(), strict=True))
    # A series is always the same; what it runs over is looked at as a source.
    series = {"generate_series", "range"}
    names = frozenset(found) | _registered(bare) | series
    return names, frozenset(n for n, sure in found.items() if not sure) - series
