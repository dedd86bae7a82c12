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


def words_without(beginnings: tuple[str, ...]) -> str:
    """Return a pattern of lower-case words, as alternatives that differ in their first character.

    Args:
        beginnings: what no word begins with.
    """
    after: dict[str, list[str]] = {}
    for beginning in beginnings:
        after.setdefault(beginning[0], []).append(beginning[1:])
    others = ranges("".join(set(WORD_CHARACTERS) - set(after)))
    alternatives = [f"{others}[0-9_a-z]*"]
    for first, rests in sorted(after.items()):
        if "" not in rests:
            alternatives.append(f"{first}(?:{words_without(tuple(rests))})?")
    return "|".join(alternatives)


# 19 characters at most: an AWS key id has 20, a Google key more.
NAME_IN_TEXT = "[AC-OQ-Z][0-9A-Z_a-z]{0,18}"
NAME_IN_PATH = "[A-TV-Z][0-9A-Z_a-z]{0,18}"


def patterns() -> list[str]:
    """Return the patterns in the order in which they are tried."""
    word = f"(?:{words_without(TEXT)}|{NAME_IN_TEXT})?"
    step = f"(?:{words_without(PATH)}|{NAME_IN_PATH})"
    item = r'"v?[0-9a-f][0-9a-f.-]*(?:@[0-9]+)?"'
    moment = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T_ ][0-9:.]+(?:Z|[+-][0-9:]+)?"
    return [
        # names, numbers, ids, hashes, and texts without quotes, colons and slashes
        rf"\A{word}(?:[ .,;()\n-]{word})*\z",
        # relative paths; URLs without user, port and query
        rf"\A{step}(?:[./-]{step})*\z",
        rf"\Ahttps?://{step}(?:[./-]{step})*\z",
        # lists of versions and of tables at a version
        rf"\A\[(?:{item}(?:,{item})*)?\]\z",
        # times, also after a word, as schedulers name runs
        rf"\A(?:[a-z]{{1,20}}__)?{moment}\z",
    ]


if __name__ == "__main__":
    for each in patterns():
        print(f"      - '{each}'")  # as in the configurations
