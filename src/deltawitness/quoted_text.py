"""Find what may be quoted in a text that mixes literals of SQL, quoted identifiers and apostrophes.

Where a literal begins and ends cannot be known for certain: `the customers' id 'Ann'` has a plural possessive
before a literal, and `'the customers' id'` is one literal with an apostrophe in it. So every reading of the
text is followed in which each quote begins a literal, ends it, belongs to it, or is an apostrophe, as the
characters beside it allow. A character counts as quoted if it is quoted in any of these readings. If no
reading explains every quote, all of the text from its first doubtful quote on counts as quoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

__all__ = ["quoted_spans"]

_QUOTE = re.compile(r"['\"]")

_CONTRACTION = re.compile(
    r"(?i)(?<!\w)(?:\w+n(?=''?t\b)|i|\w{2,})(?:''?(?:t|s|re|ve|ll|d|m)(?!\w))+(?!')"
)
"""A word with a contracted verb or a possessive: `don't`, `Ann's`, `couldn't've`; in SQL also `don''t`."""

_BEFORE_LITERAL = re.compile(
    r"(?i)(?<!\w)(?:[benrux]|and|as|between|else|ilike|in|is|like|not|or|then|when)\Z"
)
"""Words and prefixes of SQL that may stand before a literal without a blank."""

_LONGEST_BEFORE_LITERAL = len("between")

_PLURAL = re.compile(r"\w[sxz]$", re.IGNORECASE)
"""The end of a word whose possessive has a bare apostrophe: `customers'`, `Alex'`."""

_BEFORE_OPENING = frozenset("([{<>=,:;|+-*/!~&^#'\"`")
_PUNCTUATION = frozenset(")]};:,.?!")
_AFTER_CLOSING = frozenset(")]}<>=,:;|+-*/!~&^#'\"`.?\\%\u2026")


class _State(Enum):
    """Where a reading is: outside of quotes, in one of the two kinds of them, or after an unknown end."""

    OUTSIDE = ""
    SINGLE = "'"
    DOUBLE = '"'
    REST = "rest"


class _Reading(NamedTuple):
    """A state, and whether every quote before it is explained by its neighbours beyond doubt."""

    state: _State
    is_sure: bool


class _Step(NamedTuple):
    """A transition of a reading over the quote at `at`, to the quote at `following`."""

    at: int
    following: int
    before: _Reading
    after: _Reading


def quoted_spans(text: str) -> list[tuple[int, int]]:
    """Return the parts of a text that may be quoted, quotes included, as pairs of start and end.

    Args:
        text: any text; the time is linear in its length.

    >>> text = "can't cast 'x' for the customers' id 'Ann'"
    >>> [text[start:end] for start, end in quoted_spans(text)]
    ["'x'", "'Ann'"]
    >>> text = "the 'Ann's name"
    >>> [text[start:end] for start, end in quoted_spans(text)]
    ["'Ann's name"]
    """
    quotes = [found.start() for found in _QUOTE.finditer(text)]
    if not quotes:
        return []
    contracted = _contracted(text)
    steps = _explained_steps(text, quotes, contracted)
    if steps is None:
        return _doubtful_part(text, quotes, contracted)
    return _merged(_spans(text, quotes, steps))


def _contracted(text: str) -> frozenset[int]:
    """Return where the text has apostrophes of contractions."""
    return frozenset(
        at
        for found in _CONTRACTION.finditer(text)
        if not _BEFORE_LITERAL.search(found[0].partition("'")[0])
        for at in range(found.start(), found.end())
        if text[at] == "'"
    )


def _explained_steps(
    text: str, quotes: list[int], contracted: frozenset[int]
) -> list[_Step] | None:
    """Return the steps of all readings that explain every quote; None if none does so beyond doubt."""
    begin = _Reading(_State.OUTSIDE, is_sure=True)
    reached: list[set[_Reading]] = [set() for _ in range(len(quotes) + 1)]
    reached[0].add(begin)
    steps: list[list[_Step]] = []
    for index in range(len(quotes)):
        of_quote = [
            _Step(index, following, before, after)
            for before in reached[index]
            for following, after in _steps_from(text, quotes, index, before, contracted)
        ]
        for step in of_quote:
            reached[step.following].add(step.after)
        steps.append(of_quote)
    ends = {each for each in reached[-1] if each.state in {_State.OUTSIDE, _State.REST}}
    if not any(each.is_sure for each in ends):
        return None
    # Backwards: only the steps that lead to an end.
    leading: list[set[_Reading]] = [set() for _ in quotes] + [ends]
    explained: list[_Step] = []
    for of_quote in reversed(steps):
        for step in of_quote:
            if step.after in leading[step.following]:
                leading[step.at].add(step.before)
                explained.append(step)
    return explained


def _steps_from(
    text: str, quotes: list[int], index: int, before: _Reading, contracted: frozenset[int]
) -> Iterator[tuple[int, _Reading]]:
    """Yield the next quote and the reading after each meaning that a quote may have."""
    at, following = quotes[index], index + 1
    quote, state = text[at], before.state
    if state is _State.OUTSIDE:
        for after in _readings_outside(text, at, before, contracted):
            yield following, after
    elif state.value != quote:
        yield following, before  # a quote of the other kind is a character like others
    else:
        if text[at + 1 : at + 2] == quote and not _is_escaped(text, at):
            yield following + 1, before  # a doubled quote
        for after in _readings_inside(text, at, before, contracted):
            yield following, after


def _readings_outside(
    text: str, at: int, before: _Reading, contracted: frozenset[int]
) -> Iterator[_Reading]:
    """Yield the readings after a quote that is outside of quotes."""
    quote = text[at]
    if at in contracted or (quote == "'" and _is_possessive(text, at)):
        yield before
    elif quote == "'" and _is_in_word(text, at):
        yield _Reading(_State.OUTSIDE, is_sure=False)
    if at not in contracted:
        yield _Reading(_State(quote), before.is_sure and _is_opening(text, at))


def _readings_inside(
    text: str, at: int, before: _Reading, contracted: frozenset[int]
) -> Iterator[_Reading]:
    """Yield the readings after a quote of the kind in which the reading is, without that of a doubled quote."""
    is_escaped = _is_escaped(text, at)
    if text[at] == '"':
        if is_escaped:
            yield before
    elif is_escaped:
        # A backslash before a quote ends the literal in some dialects and not in others.
        yield _Reading(_State.REST, before.is_sure)
        return
    elif at in contracted or _is_in_word(text, at) or _is_possessive(text, at):
        yield before
    if at not in contracted and _is_closing(text, at):
        yield _Reading(_State.OUTSIDE, before.is_sure)


# --- what the characters beside a quote allow ----------------------------------------------------------


def _beside(text: str, at: int) -> tuple[str, str]:
    """Return the characters before and after a quote; a blank for none, and for white space."""
    before = text[at - 1] if at else " "
    after = text[at + 1] if at + 1 < len(text) else " "
    return (" " if before.isspace() else before), (" " if after.isspace() else after)


def _is_of_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _is_in_word(text: str, at: int) -> bool:
    return all(map(_is_of_word, _beside(text, at)))


def _is_possessive(text: str, at: int) -> bool:
    """Return whether a quote may be the apostrophe of a plural possessive."""
    _, after = _beside(text, at)
    return (
        not _is_of_word(after)
        and after not in "'\"\\"
        and _PLURAL.search(text[max(0, at - 2) : at]) is not None
    )


def _is_opening(text: str, at: int) -> bool:
    """Return whether a quote stands where a literal begins."""
    before, after = _beside(text, at)
    if _is_of_word(after):
        # No literal ends there. After a word, as in LIKE'x', it may also be an apostrophe.
        return before != "\\"
    if after == " ":
        return False
    if _is_of_word(before):
        beginning = max(0, at - 1 - _LONGEST_BEFORE_LITERAL)
        return _BEFORE_LITERAL.search(text[beginning:at]) is not None
    if after in _PUNCTUATION and text[at + 2 : at + 3] != text[at]:
        return False  # `' x ',` ends there; `','` does not
    return before == " " or before in _BEFORE_OPENING


def _is_closing(text: str, at: int) -> bool:
    """Return whether a quote stands where a literal may end."""
    before, after = _beside(text, at)
    return after == " " or after in "'\"" or (before != " " and after in _AFTER_CLOSING)


def _is_escaped(text: str, at: int) -> bool:
    """Return whether an odd number of backslashes precedes a quote."""
    first = at
    while first and text[first - 1] == "\\":
        first -= 1
    return (at - first) % 2 == 1


# --- the quoted parts ------------------------------------------------------------------------------------


def _spans(text: str, quotes: list[int], steps: list[_Step]) -> Iterator[tuple[int, int]]:
    places = [*quotes, len(text)]
    for step in steps:
        if step.after.state is not _State.OUTSIDE:
            yield places[step.at], places[step.following]
        elif step.before.state is not _State.OUTSIDE:
            yield places[step.at], places[step.at] + 1


def _merged(spans: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _doubtful_part(
    text: str, quotes: list[int], contracted: frozenset[int]
) -> list[tuple[int, int]]:
    """Return the part from the first quote on that is not surely an apostrophe.

    It is all of the text if a literal may end at that quote, such as in a text that was cut.
    """
    first = next(at for at in quotes if at not in contracted)
    before, after = _beside(text, first)
    may_end = before != " " and not _is_of_word(after) and before not in _BEFORE_OPENING
    return [(0 if may_end and not _is_possessive(text, first) else first, len(text))]
