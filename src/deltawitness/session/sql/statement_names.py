"""Find the tables, views and functions of a session that the text of a statement may name.

The text is not parsed: every word is a candidate, also in strings and comments. Names that the statement
does not use do no harm, and no dialect hides a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from deltawitness.session.core.snapshot import TableName
from deltawitness.session.core.tokens import folded
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import SessionContext

    from deltawitness.session.core.state import Session

__all__ = ["functions_in", "names_in", "words_in"]

_WORD = re.compile(r"[\w$#@]+(?:-[\w$#@]+)*")
_PART_OF_WORD = re.compile(r"[\w$#@]+")
_QUOTED = re.compile(r"""(?=("(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\[\]]*\]))""")
"""Every possible quoted name, including those inside strings and comments, which are not recognized."""


def words_in(text: str) -> set[str]:
    """Return every word of a text that may be a name, also inside strings and comments.

    Unquoted words are returned both unchanged and folded, for any setting of the session. Names that
    the statement does not use do no harm.
    """
    words = {*_WORD.findall(text), *_PART_OF_WORD.findall(text)}
    words |= {folded(word) for word in words}
    for found in _QUOTED.findall(text):
        inside, quote = found[1:-1], found[0]
        words.add(inside if quote == "[" else inside.replace(quote * 2, quote))
    return words


def names_in(
    text: str, session: Session, ctx: SessionContext, default: tuple[str, str]
) -> Iterator[TableName]:
    """Yield every table and view of the session that a text may name."""
    words, lower = words_in(text), text.lower()
    recorded = {
        *session.names.snapshot.entries,
        *session.names.view_records,
        *session.cache_links.names,
    }
    # Recorded names are searched as substrings, so that no spelling of a name hides them.
    yield from (name for name in recorded if any(each in lower for each in _spellings(name.table)))
    exists = unpatched(ctx, "table_exist")
    for catalog, schema in _schemas_in(text, words, ctx, default):
        for word in words:
            name = TableName(catalog, schema, word)
            if name not in recorded and exists(name.sql()):
                yield name


def _spellings(name: str) -> set[str]:
    """Return the possible spellings of a name in a text, in lower case; a quote in it is doubled."""
    lower = name.lower()
    return {lower, lower.replace('"', '""'), lower.replace("`", "``"), lower.replace("]", "]]")}


def _schemas_in(
    text: str, words: set[str], ctx: SessionContext, default: tuple[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the default schema and every other schema that a text may name."""
    yield default
    if "." not in text:
        return
    for catalog in unpatched(ctx, "catalog_names")():
        if catalog == default[0] or catalog in words:
            for schema in unpatched(ctx, "catalog")(catalog).schema_names():
                if schema in words and (catalog, schema) != default:
                    yield catalog, schema


_KINDS = (("udfs", "udf"), ("udafs", "udaf"), ("udwfs", "udwf"))
"""The methods of a context that list and return each kind of function; `register_` plus the second
registers one."""


@cache
def _engine_functions() -> Mapping[str, frozenset[str]]:
    """Return the names of DataFusion's built-in functions, by kind."""
    from datafusion import SessionContext  # noqa: PLC0415 - heavy, already loaded

    plain = SessionContext()
    return {kind: frozenset(getattr(plain, listed)()) for listed, kind in _KINDS}


def functions_in(text: str, session: Session, ctx: SessionContext) -> Iterator[tuple[str, Any]]:
    """Yield every user-defined function that a text may call, with the method that registers it.

    Args:
        text: the statement.
        session: the state of the session.
        ctx: a context of the session.
    """
    called = words_in(text)
    if session.earlier_functions is None:
        listed = {name for listing, _ in _KINDS for name in getattr(ctx, listing)()}
        session.earlier_functions = listed.difference(*_engine_functions().values())
    user_defined = called & (session.functions | session.earlier_functions)
    for _, kind in _KINDS:
        for name in (called & _engine_functions()[kind]) | user_defined:
            try:
                function = getattr(ctx, kind)(name)
            except KeyError:
                continue  # a function of another kind
            yield f"register_{kind}", function
    for function in session.table_functions:
        yield "register_udtf", function
