"""Classify SQL texts by their first words: which of them only read, write, or define names.

The engine that runs a text parses it, and alone decides whether it is valid. These functions answer
before that, so each says what it returns for a text that they cannot classify.

One reader skips white space, semicolons and comments and finds the words. Comments may be nested, as
in DataFusion and Spark. In the dialects of DataFusion without nested comments, `/* a /* b */` is a
complete comment; a text that has no word if comments are nested is read in this way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "DEFINITION_WORDS",
    "QUERY_WORDS",
    "SELECTS",
    "changes_table",
    "contains_word",
    "explained",
    "first_word",
    "is_plain_query",
    "makes_no_commit",
    "may_be_query",
]

QUERY_WORDS = frozenset({"SELECT", "WITH", "VALUES", "(", "SHOW"})
"""First words of the statements that a session runs as queries. DataFusion plans none of them that writes
a table: it refuses `WITH ... INSERT`, and `SELECT ... INTO` creates a table in memory."""

DEFINITION_WORDS = frozenset({"CREATE", "DROP", "SET", "RESET", "PREPARE", "DEALLOCATE"})
"""First words of the statements that DataFusion executes while it plans them."""

_CHANGING_WORDS = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE"})

_SPARK_READING_WORDS = frozenset(
    {
        *("SELECT", "VALUES", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "LIST"),
        *("USE", "SET", "RESET", "CACHE", "UNCACHE"),
    }
)

_EXPLAIN_OPTIONS = frozenset({"ANALYZE", "VERBOSE", "FORMAT"})


# --- the reader --------------------------------------------------------------------------------------

_SKIPPED = r"(?:[\s;]|--[^\n]*+|/\*(?:[^*/]++|\*(?!/)|/(?!\*))*+\*/)*+"
"""White space, semicolons, and comments without a comment in them. It never backtracks: a text of many
comments would take exponential time."""

_WORD = re.compile(_SKIPPED + r"(?:([A-Za-z]++)(?!\w)|(\())")
_BLANK = re.compile(_SKIPPED)
_COMMENT_MARK = re.compile(r"/\*|\*/")


def first_word(text: str) -> str:
    """Return the first word of a statement in capitals, or `(`; empty if there is neither.

    >>> (
    ...     first_word("/* nightly */ insert into t"),
    ...     first_word("((SELECT 1))"),
    ...     first_word('"select"'),
    ... )
    ('INSERT', '(', '')
    """
    found = _word_at(text, 0)
    return "" if found is None else (found[1] or found[2]).upper()


def _words(text: str) -> Iterator[tuple[str, int]]:
    """Yield the leading words of a text in capitals, each with the index after it.

    A parenthesis counts as a word. The words end before any other token, such as a quoted name, a
    number or a string.
    """
    found = _word_at(text, 0)
    while found is not None:
        yield (found[1] or found[2]).upper(), found.end()
        found = _word_at(text, found.end())


def _word_at(text: str, index: int) -> re.Match[str] | None:
    """Return the match of the next word, after comments; None if another token is next."""
    return (
        _WORD.match(text, index)
        or _WORD.match(text, _after_comments(text, index, nested=True))
        or _WORD.match(text, _after_comments(text, index, nested=False))
    )


def _after_comments(text: str, index: int, *, nested: bool) -> int:
    """Return the index of the next token; the length of the text if a comment is not closed."""
    while True:
        match = _BLANK.match(text, index)
        index = index if match is None else match.end()
        if not text.startswith("/*", index):
            return index
        index = _after_comment(text, index, nested=nested)


def _after_comment(text: str, index: int, *, nested: bool) -> int:
    depth = 0
    for mark in _COMMENT_MARK.finditer(text, index):
        if mark[0] == "*/":
            depth -= 1
        elif nested or depth == 0:
            depth += 1
        if depth == 0:
            return mark.end()
    return len(text)


# --- one function for each question ------------------------------------------------------------------

SELECTS = ("SELECT ", "select ")
"""How most queries begin: a test that needs less of the processor's caches than a regular expression."""

is_plain_query: Callable[[str], re.Match[str] | None] = re.compile(
    _SKIPPED + r"(?:\(|(?:SELECT|WITH|VALUES|SHOW)(?!\w))", re.IGNORECASE
).match
"""Quick test of `SessionContext.sql`, without a Python call: a match if the first word of a text is in
`QUERY_WORDS`. None for other texts, and for a query after a comment that has a comment in it."""


def changes_table(text: str) -> bool:
    """Return whether a statement changes the rows of a table, as one in a stored plan must.

    False for a text that cannot be classified: it is not run.

    >>> (
    ...     changes_table("/* nightly */ MERGE INTO t ..."),
    ...     changes_table("DROP TABLE t"),
    ...     changes_table(""),
    ... )
    (True, False, False)
    """
    return first_word(text) in _CHANGING_WORDS


def explained(text: str) -> str:
    """Return the statement that an EXPLAIN statement explains; empty if it has no word.

    >>> explained("EXPLAIN ANALYZE FORMAT tree /* why */ OPTIMIZE t")
    ' /* why */ OPTIMIZE t'
    """
    start, is_value = 0, False
    for place, (word, end) in enumerate(_words(text)):
        if place and not is_value and word not in _EXPLAIN_OPTIONS:
            return text[start:]
        is_value = word == "FORMAT" and not is_value
        start = end
    return ""


def may_be_query(text: str) -> bool:
    """Return whether a text is a query, or starts with one, rather than a condition on a row.

    Both `SELECT count(*) > 3 FROM t` and `(SELECT count(*) FROM t) > 3` start with a query. False for a
    text that cannot be classified.

    >>> may_be_query("(SELECT count(*) FROM t) > 3"), may_be_query("selected > 3")
    (True, False)
    """
    word = next((word for word, _ in _words(text) if word != "("), "")
    return word in {"SELECT", "WITH"}


def makes_no_commit(statement: object) -> bool:
    """Return whether a statement of Spark makes no commit, according to its first word.

    False for a text that cannot be classified, and for anything but a text: its commits are observed.

    >>> makes_no_commit(" select 1"), makes_no_commit("WITH a AS (SELECT 1) INSERT INTO t TABLE a")
    (True, False)
    """
    if not isinstance(statement, str):
        return False
    word, end = next(_words(statement), ("", 0))
    # In Spark a carriage return ends a comment, and after a backslash the next line belongs to it.
    is_unclear = any(mark in statement[:end].replace("\r\n", "\n") for mark in "\r\\")
    return word in _SPARK_READING_WORDS and not is_unclear


def contains_word(text: str, words: Iterable[str]) -> bool:
    """Return whether one of some words is anywhere in a text, also in strings, names and comments.

    >>> contains_word("SELECT 'Runs'", ["runs"]), contains_word("SELECT reruns", ["runs"])
    (True, False)
    """
    return re.search(rf"\b(?:{'|'.join(map(re.escape, words))})\b", text, re.IGNORECASE) is not None
