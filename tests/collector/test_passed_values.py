"""The patterns of values that the Collector passes without a comparison accept no secret."""

from __future__ import annotations

import random
import re
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from helpers.collector_canaries import BENIGN, CANARIES, SECRETS
from helpers.collector_parts import CONFIGS, ROOT

sys.path.append(str(ROOT / "tools"))

import collector_patterns


def compiled(patterns):
    """Return patterns of RE2, written for Python's `re`: words are of ASCII, and the end has another letter."""
    made = []
    for pattern in patterns:
        flags, read = re.ASCII, pattern.replace(r"\z", r"\Z").replace("$$", "$")
        if read.startswith("(?i)"):
            flags, read = flags | re.IGNORECASE, read.removeprefix("(?i)")
        made.append(re.compile(read, flags))
    return made


PROCESSORS = yaml.safe_load((CONFIGS / "config.yaml").read_text())["processors"]
PASSED = compiled(PROCESSORS["redaction"]["allowed_values"])
BLOCKED = compiled(PROCESSORS["redaction"]["blocked_values"])
AT_BOUNDARY = compiled(
    rf"(?:\b|\\[nrt]){pattern}" if pattern.startswith(("eyJ", "g", "xox", "dapi")) else pattern
    for pattern in PROCESSORS["redaction"]["blocked_values"]
)
"""The list, with tokens only where a word begins: inside of a word it masks more than tokens."""
BLOCKED_KEYS = compiled(PROCESSORS["redaction/keys"]["blocked_key_patterns"])

WORDS = """
AKIA ASIA eyJ ghp_ gho_ github_pat_ glpat- xoxb- dapi AIza sk- Bearer bearer BASIC basic home Users root tmp mnt
var PREVIEW preview of invalid data in row rows BEGIN PRIVATE KEY token secret pwd sig s3 gs file https http date
like values 0123456789abcdef 0123456789ABCDEFGHIJ abcdefghijklmnopqrst
"""

PIECES = [
    *re.findall(r"[A-Za-z]+|[^A-Za-z]", " ".join(SECRETS)),
    *WORDS.split(),
    *"/.-_ ,;()\n:=@+~'\"\\[]{}|",
]
"""What secrets are made of."""


def is_passed(value):
    return any(pattern.search(value) for pattern in PASSED)


def blocked_by(value):
    return [pattern.pattern for pattern in AT_BOUNDARY if pattern.search(value)]


def test_the_configuration_has_the_patterns_that_the_tool_prints():
    assert PROCESSORS["redaction"]["allowed_values"] == collector_patterns.patterns()


@pytest.mark.parametrize("pattern", PASSED)
@given(data=st.data())
def test_no_text_of_a_passed_pattern_is_blocked(pattern, data):
    """Texts made from a pattern of passed values match no blocked pattern."""
    value = data.draw(st.from_regex(pattern, fullmatch=True))
    assert blocked_by(value) == []


@pytest.mark.slow
def test_no_text_made_of_pieces_of_secrets_is_passed_and_blocked(size):
    """Beginnings of tokens, words before secrets and separators, in any order."""
    draw = random.Random(7)
    passed = 0
    for _ in range(size(40_000, 2_000_000)):
        value = "".join(draw.choices(PIECES, k=draw.randint(1, 6)))
        if is_passed(value):
            passed += 1
            assert blocked_by(value) == [], value
    assert passed > 1000


def test_no_canary_is_passed():
    assert [value for value in CANARIES.values() if is_passed(value)] == []


def test_ordinary_values_are_passed():
    """Values that the library sets are not compared with the list."""
    for value in (
        "", "WRITE", "CREATE TABLE", "WRITE orders", "deltalake", "42", "-1", "1.5", "true",
        "0190a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b", "a" * 64, "jobs/load_orders.py", "load_orders",
        "manual__2026-11-25T08:00:00+00:00", '["0190a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b@3"]',
        "https://github.com/org/orders/actions/runs/1", BENIGN["cache.policy"],
    ):  # fmt: skip
        assert is_passed(value), value


def test_no_key_of_the_library_is_that_of_a_secret():
    """The keys that `redaction/keys` ignores would not be masked by it."""
    ignored = PROCESSORS["redaction/keys"]["ignored_keys"]
    assert [key for key in ignored if any(p.search(key) for p in BLOCKED_KEYS)] == []
