"""No literal leaves the process, whatever apostrophes and unpaired quotes a text has beside it."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.context import get_current

from deltawitness.events import Failed
from deltawitness.ledger.tables.write_rows import event_row
from deltawitness.locations import table_id
from deltawitness.openlineage.datasets import NamingOptions
from deltawitness.openlineage.run_events import EngineVersions, run_events
from deltawitness.quoted_text import quoted_spans
from deltawitness.redaction import message_for_ledger, redact, redact_text
from deltawitness.semconv import ErrorType
from deltawitness.settings import LedgerMessages, Settings
from deltawitness.telemetry.attributes import error_text
from deltawitness.telemetry.logs import LogSink
from deltawitness.telemetry.spans import WriteSpans
from deltawitness.testing import InMemoryTelemetry
from helpers.ledger_parts import event

CANARY = "Zqcanaryqx"

WORDS = ["the", "value", "of", "column", "was", "not", "found", "cast", "and", "where id ="]
POSSESSIVES = ["users'", "customers'", "Alex'", "the cats' paws"]
CONTRACTIONS = ["can't", "don't", "it's", "Ann's", "couldn't've", "I'm", "won't", "can''t"]
UNPAIRED = ["'", "word'", "'word", '"', "O'Brien", "O'Haras", "5'", '5"', "('", "rock 'n' roll"]
LITERALS = [
    "'{c}'",
    "'{c} x'",
    "'{c}s'",
    "' {c} '",
    "'%{c}%'",
    "'{c}.'",
    "('{c}')",
    "='{c}'",
    "LIKE'{c}'",
    "E'{c}'",
    "'{c}'::text",
    "['a', '{c}']",
    "'x'||'{c}'",
    "'line\n{c}'",
    # Doubled quotes.
    "'the users'' {c}'",
    "'{c}''s turn'",
    "'{c}'''",
    "'''{c}'",
    "'O''{c}'",
    # Apostrophes and quotes that are not doubled.
    "'it's {c}'",
    "'O'{c}'",
    "'the users' {c}'",
    "'say \"{c}'",
    r"'a\'{c}'",
    # Quoted identifiers.
    '"{c}"',
    '"a""{c}"',
    '"customer\'s {c}"',
    '"users\' {c}"',
    't."{c}"',
    r'"a \"{c}\" b"',
    # A literal of which another pattern matches a part.
    "values ['a]{c}', 'b']",
    "| it's | '{c}",
]
SECRETS = [
    "password='{c}'",
    "password='it''s {c}'",
    "token: 'O'{c}'",
    'secret = "the users\' {c}"',
    "cast value '{c} to x' to Int64",
    "cast string 'O'Brien {c}' to value of Int64 type",
]
"""Texts of which the ledger, too, shows nothing."""

ORDINARY = st.sampled_from(WORDS + POSSESSIVES + CONTRACTIONS)
BLANKS = st.sampled_from([" ", "\n", ", "])


@st.composite
def texts(draw, quoted, others=ORDINARY):
    """Return a text of words, with quoted texts that hold the canary among them."""
    held = [each.replace("{c}", CANARY) for each in draw(st.lists(quoted, min_size=1, max_size=3))]
    parts = draw(st.permutations([*held, *draw(st.lists(others, max_size=6))]))
    return parts[0] + "".join(draw(BLANKS) + part for part in parts[1:])


QUOTED = texts(st.sampled_from(LITERALS + SECRETS))


@settings(max_examples=settings().max_examples * 10)
@given(QUOTED)
@example(f"users' '{CANARY}' was not found")
@example(f"can't cast 'x' for the customers' id '{CANARY}'")
@example(f"'a''s' ' {CANARY} ', users'")
def test_no_literal_is_visible_beside_apostrophes(text):
    """Possessives and contractions before, between and in literals hide none of them from the redaction."""
    assert CANARY not in redact_text(text)


@settings(max_examples=settings().max_examples * 10)
@given(texts(st.sampled_from(LITERALS + SECRETS), ORDINARY | st.sampled_from(UNPAIRED)))
@example(f"' {CANARY}' is not 'here")
@example(f"{CANARY}k' was not found")
@example(f"no '{CANARY}")
def test_no_literal_is_visible_beside_unpaired_quotes(text):
    """A quote that nothing explains makes the text from the first doubtful quote on unreadable."""
    assert CANARY not in redact_text(text)


@given(texts(st.sampled_from(SECRETS)))
def test_no_secret_is_in_the_ledgers_text(text):
    """The ledger shows quoted names, but all of a secret's value is masked, and of a value that was cast."""
    assert CANARY not in message_for_ledger(text, LedgerMessages.SAFE)
    if "cast" not in text:
        assert CANARY not in message_for_ledger(text, LedgerMessages.FULL)


@pytest.mark.slow
@given(QUOTED)
def test_no_literal_leaves_the_process(text):
    """Span status, exception record, OpenLineage event and a query's span have no literal of an error's text."""
    failed = event(Failed(ErrorType.OTHER, "_internal.DeltaError", text))
    redacted = redact(failed, Settings())
    assert redact(redacted, Settings()) == redacted
    telemetry = InMemoryTelemetry.create()
    spans = WriteSpans(telemetry.tracer_provider)
    opened = spans.open("WRITE", {}, get_current(), 0)
    spans.close(redacted, spans.start_deferred(opened, "WRITE", {}, get_current(), 0))
    LogSink(telemetry.logger_provider)(redacted)
    (span,) = telemetry.spans()
    assert CANARY not in span.to_json()
    assert span.status.description == redacted.outcome.message
    records = telemetry.log_records()
    assert len(records) == 2
    assert not [record for record in records if CANARY in record.to_json()]
    _, end = run_events(redacted, NamingOptions(), EngineVersions())
    assert redacted.outcome.message in end["run"]["facets"]["errorMessage"]["message"]
    assert CANARY not in json.dumps(end)
    assert CANARY not in error_text(OSError(text))


@pytest.mark.slow
@given(texts(st.sampled_from(SECRETS)))
def test_no_secret_is_in_a_row_of_the_ledger(text):
    """A row has the text of the error for the ledger, and redacted texts in all other columns."""
    failed = event(Failed(ErrorType.OTHER, "_internal.DeltaError", text))
    row = event_row(failed, redact(failed, Settings()), "/data/t")
    assert row["error_message"] == message_for_ledger(text, LedgerMessages.SAFE)
    assert CANARY not in json.dumps(row, default=str)
    assert row["table_id"] in {None, table_id("/data/t")}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("users' 'Ann' was not found", "users^ ? was not found"),
        (
            "can't cast 'x' for the customers' id 'Ann'",
            "can^t cast ? for the customers^ id ?",
        ),
        ("the customers' orders are not here", "the customers^ orders are not here"),
        ("you don't own Ann's table, it couldn't've", "you don^t own Ann^s table, it couldn^t^ve"),
        ("a column 'users' of type 'box' and more", "a column ? of type ? and more"),
        ("expected ',' or '.' here", "expected ? or ? here"),
        ('no field t."A", only "a"."b"', "no field t.?, only ?.?"),
        ("x = 'it''s' AND y = ''", "x = ? AND y = ?"),
        ("name LIKE'%a%' OR d = DATE'2020-01-01'", "name LIKE? OR d = DATE?"),
        ("the 'users' list of cats' paws", "the ? paws"),
        ("can't find O'Brien in the list", "can^t find O?"),
        ("don't read 'x", "don^t read ?"),
        ("don't read x' here", "?"),
        (r"don't read 'a\' or 'b'", "don^t read ?"),
        ('{"a": "b", "c": ["d"]} failed', "{?: ?, ?: [?]} failed"),
    ],
)
def test_what_stays_readable(text, shown):
    """Words beside literals stay, also after contractions and plural possessives."""
    assert redact_text(text) == shown.replace("^", "\u2019")


@given(st.text("ab '\"\\n.", max_size=40))
def test_spans_are_in_order_and_hold_every_double_quote(text):
    """Spans do not overlap, and no double quote is outside of them."""
    spans = quoted_spans(text)
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges)
    assert all(start < end for start, end in spans)
    outside = [at for at in range(len(text)) if not any(start <= at < end for start, end in spans)]
    assert not [at for at in outside if text[at] == '"']


@pytest.mark.parametrize(
    "part", ["'", '"', "'\"", "a'", "' ", "s' 'a", "\\'", "password='x' ", "an't"]
)
def test_hostile_texts_take_linear_time(part):
    """Ten thousand quotes are read within a second."""
    started = time.process_time()
    quoted_spans(part * 10_000)
    assert time.process_time() - started < 1.0
