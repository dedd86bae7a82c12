"""Print the patterns of `allowed_values` in the Collector's configurations: values that hold no secret.

    python tools/collector_patterns.py

The `redaction` processor does not compare a value that matches one of them with its list of blocked
patterns, which takes thirty times as long. So no value may match a pattern of both lists; a test checks it.
Go executes a pattern fast ("one pass") if it is anchored and each character decides how to continue. So the
patterns have no alternatives that begin alike: a word that may begin a secret is left out letter by letter.
"""

from __future__ import annotations

import string

WORD_CHARACTERS = string.digits + "_" + string.ascii_lowercase

TOKENS = ("dapi", "ghp", "gho", "ghu", "ghs", "ghr", "github_", "glpat", "sk", "xox")
"""How tokens begin, in small letters (`eyJ` is not a word here: after a small letter comes a capital one)."""

TEXT = (*TOKENS, "bear", "basi", "prev")
"""Also `bearer` and `basic`, which a secret may follow after a space, and `preview of invalid data`."""

BEFORE_COLON = ("error", "at", "failed", "exists", "found")
"""Words of errors that a colon follows; none ends as the name of a secret does.

Go executes a pattern in one pass only if it has fewer than 1,000 instructions, about 4,000 characters here.
"""

PLACEHOLDERS = r"\[(?:email|path|rows|secret|uri)\]|\?"
"""What the library writes for that which it redacts."""

PATH = (*TOKENS, "home")
"""Also the folder of users' homes."""


def ranges(characters: str) -> str:
    """Return a character class of the word characters that are in `characters`, as ranges.

    >>> ranges("abcdxz_")
    '[_a-dxz]'
    """
    kept = sorted(characters)
    parts, start = [], 0
    for end in range(1, len(kept) + 1):
        if end == len(kept) or ord(kept[end]) != ord(kept[end - 1]) + 1:
            first, last = kept[start], kept[end - 1]
            parts.append(first if first == last else f"{first}-{last}")
            start = end
    return f"[{''.join(parts)}]"


def words_without(beginnings: tuple[str, ...], before_colon: tuple[str, ...] = ()) -> str:
    """Return a pattern of lower-case words, as alternatives that differ in their first character.

    Args:
        beginnings: what no word begins with.
        before_colon: words that may end with a colon.
    """
    after: dict[str, tuple[list[str], list[str]]] = {}
    for number, texts in enumerate((beginnings, before_colon)):
        for text in texts:
            after.setdefault(text[0], ([], []))[number].append(text[1:])
    others = ranges("".join(set(WORD_CHARACTERS) - set(after)))
    alternatives = [f"{others}[0-9_a-z]*"]
    for first, (rests, words) in sorted(after.items()):
        if "" not in rests:
            next_ones = words_without(tuple(rests), tuple(word for word in words if word))
            colon = "|:" if "" in words else ""
            alternatives.append(f"{first}(?:{next_ones}{colon})?")
    return "|".join(alternatives)


# 19 characters at most: an AWS key id has 20, a Google key more.
NAME_IN_TEXT = "[AC-OQ-Z][0-9A-Z_a-z]{0,18}"
NAME_IN_PATH = "[A-TV-Z][0-9A-Z_a-z]{0,18}"

EXCEPTION = r"(?:A[0-9_a-z]+|[B-DF-Z][0-9_a-z]*)+E(?:rror|xception)"
"""A name that ends with Error or Exception, and has no other E: so it is executed in one pass."""

TRACEBACK = r"\ATraceback \(most recent call last\):\n"
REPEATED = r"\[Previous line repeated [0-9]+ more times\]"


def patterns() -> list[str]:
    """Return the patterns in the order in which they are tried."""
    word = f"(?:{words_without(TEXT, BEFORE_COLON)}|{NAME_IN_TEXT}|{PLACEHOLDERS})?"
    step = f"(?:{words_without(PATH)}|{NAME_IN_PATH})"
    item = r'"v?[0-9a-f][0-9a-f.-]*(?:@[0-9]+)?"'
    plain = f"(?:{words_without(TEXT)}|{NAME_IN_TEXT})?"
    function = f"(?:{words_without(TEXT)}|{NAME_IN_TEXT}|<[a-z]+>)"
    exception = rf"(?:(?:{words_without(TOKENS)})\.)*{EXCEPTION}"
    moment = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T_ ][0-9:.]+(?:Z|[+-][0-9:]+)?"
    return [
        # names, numbers, ids, hashes, and texts without quotes and slashes
        rf"\A{word}(?:[ .,;()\n-]{word})*\z",
        # relative paths; URLs without user, port and query
        rf"\A{step}(?:[./-]{step})*\z",
        rf"\Ahttps?://{step}(?:[./-]{step})*\z",
        # lists of versions and of tables at a version
        rf"\A\[(?:{item}(?:,{item})*)?\]\z",
        # times, also after a word, as schedulers name runs
        rf"\A(?:[a-z]{{1,20}}__)?{moment}\z",
        # frames of a stack trace, as `transform/stash` shortens them
        rf"{TRACEBACK}(?:  (?:line [0-9]+, in {function}|{REPEATED})\n)+\z",
        # the exception at its end
        rf"\A{exception}(?:: {plain}(?:[ .,;()\n-]{plain})*|\n)?\z",
    ]


if __name__ == "__main__":
    for each in patterns():
        print(f"      - '{each}'")  # as in the configurations
