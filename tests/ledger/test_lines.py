"""Records of a spool: a damaged one is skipped and does not affect the others."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltawitness.ledger.spool.records import Record, RecordKind, Records, decode, encode

KINDS = st.sampled_from(RecordKind)
KEYS = st.text("abcdef0123456789-", min_size=1, max_size=36)
BODIES = st.dictionaries(st.text(max_size=8), st.text(max_size=30) | st.integers() | st.none()).map(
    json.dumps
)
RECORDS = st.lists(st.tuples(KINDS, KEYS, BODIES), max_size=12)


def as_line(kind, key, body):
    return Record(kind.value, key, body.encode())


@pytest.mark.slow
@given(RECORDS)
def test_encoded_records_are_decoded_unchanged(records):
    """Encoded records are decoded unchanged, in order."""
    content = b"".join(encode(*line) for line in records)
    assert decode(content) == Records(tuple(as_line(*line) for line in records))


@pytest.mark.slow
@given(RECORDS, st.data())
def test_a_truncation_loses_only_its_line(records, data):
    """Truncation at any byte keeps all earlier records, and counts none as damaged."""
    lines = [encode(*line) for line in records]
    content = b"".join(lines)
    cut = data.draw(st.integers(0, len(content)))
    complete, length = 0, 0
    while complete < len(lines) and length + len(lines[complete]) <= cut:
        length += len(lines[complete])
        complete += 1
    expected = Records(tuple(as_line(*line) for line in records[:complete]), 0, torn=cut > length)
    assert decode(content[:cut]) == expected


@pytest.mark.slow
@given(st.lists(st.tuples(KINDS, KEYS, BODIES), min_size=1, max_size=12), st.data())
def test_a_damaged_byte_loses_at_most_two_lines(records, data):
    """A changed byte damages its record, and the next one if it was the line break between them."""
    lines = [encode(*line) for line in records]
    content = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
    found = decode(bytes(content))
    expected_records = [as_line(*line) for line in records]
    hit = next(n for n in range(len(lines)) if sum(map(len, lines[: n + 1])) > at)
    untouched = expected_records[:hit] + expected_records[hit + 2 :]
    assert [line for line in untouched if line not in found.valid] == []
    assert [line for line in found.valid if line not in expected_records] == []


def test_a_malformed_line_with_a_valid_checksum_is_damaged():
    """A line with a valid checksum but without a kind, an id or ASCII text is damaged."""
    from zlib import crc32

    contents = [b"onlykind", b"N key", "ä k {}".encode(), b"N \xff {}"]
    text = b"".join(b"%08x %b\n" % (crc32(content), content) for content in contents)
    assert decode(text) == Records((), damaged=4)


def test_empty_lines_are_nothing():
    """Empty lines are ignored."""
    assert decode(b"") == decode(b"\n\n") == Records(())
