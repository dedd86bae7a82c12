"""No exported text contains a path, a credential, a row or a SQL literal."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import get_current

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, cache_context, run
from deltawitness.events import Failed, InputVersion, WriteEvent, WriteIntent
from deltawitness.observe import current_observer
from deltawitness.redaction import (
    message_for_ledger,
    redact,
    redact_label,
    redact_text,
    redact_value,
    table_name_for,
)
from deltawitness.run_context import RunContext
from deltawitness.semconv import CacheOperation, ErrorType, Operation
from deltawitness.settings import LedgerMessages, TableNames
from helpers.collector_canaries import CANARIES

CANARY = st.text("abcdefghijkmnpqrstuvwxyz", min_size=8, max_size=12).map(lambda s: "Zq" + s + "Qz")

TEMPLATES = [
    "cannot read /home/{c}/lake/part-0.parquet",
    "cannot read /data/{c}/_delta_log/00000000000000000003.json: denied",
    "path '~/{c}/x' is gone",
    "C:\\Users\\{c}\\lake is not there",
    "\\\\server\\{c}\\share",
    "lake/{c}/part-1.parquet not found",
    "s3://{c}:secret@bucket/t and more",
    "GET https://acc.blob.core.windows.net/c/t?sv=1&sig={c}%3D failed",
    "abfss://c@acc.dfs.core.windows.net/{c}",
    "file:///home/{c}/t/",
    "AWS_SECRET_ACCESS_KEY={c}",
    "password: '{c}' was refused",
    "token = {c}, retry",
    "Authorization: Bearer {c}abcdefgh",
    "eyJhbGciOi.{c}.sig",
    "-----BEGIN PRIVATE KEY-----\n{c}\n-----END PRIVATE KEY-----",
    "mail {c}@example.com bounced",
    "predicate name = '{c}' failed",
    'column "{c}" is not here',
    "it''s '{c}''s turn'",
    "1 rows failed validation check.\nPreview of invalid data:\n\n+----+\n| id |\n+----+\n| {c} |\n+----+",
    "+------+\n| name |\n+------+\n| {c} |\n+------+",
    "| {c} | 3 |",
]


@pytest.mark.slow
@given(st.sampled_from(TEMPLATES), CANARY)
def test_no_canary_survives_in_free_text(template, canary):
    """A secret is removed at every position of a text."""
    assert canary not in redact_text(template.format(c=canary))


@pytest.mark.slow
@given(st.text())
def test_any_text_is_reduced_to_one_short_line(text):
    """Redaction never raises and is idempotent."""
    message = redact_text(text)
    assert len(message) <= 300
    assert "\n" not in message


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["'" * 100_000, "/" * 100_000, "a@" * 50_000, "x=" * 50_000, "+-" * 50_000, "(" * 10**6]
)
def test_long_hostile_text_is_cut_before_it_is_looked_at(text):
    """The patterns process a bounded number of characters, whatever the input."""
    assert len(redact_text(text)) <= 300


@pytest.mark.parametrize(
    "text",
    [
        "Field idx not found in schema",
        "Commit failed: a concurrent transaction deleted data this operation read.",
        "Generic error: A table already exists at: [uri]",
        "This transaction\u2019s query must be rerun. If you don\u2019t care, the isolation level can be set.",
    ],
)
def test_an_error_text_without_user_data_stays_readable(text):
    """An error text without user data still describes the error."""
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "label",
    [
        "nightly-load",
        "view_delta_staging",
        "load flights daily",
        "v1.2.3",
        "shard 7b",
        "load 2024-03-01 part_2",
        "3",
    ],
)
def test_plain_labels_stay(label):
    """Plain names of jobs and policies are unchanged."""
    assert redact_label(label) == label


def test_an_apostrophe_of_a_word_begins_no_literal():
    """The text of a conflict stays readable, and a literal after such a word is redacted."""
    assert redact_text("This transaction's query; you don't care") == (
        "This transaction\u2019s query; you don\u2019t care"
    )
    assert redact_text("x isn't 'secret'; it's 'hidden'") == "x isn\u2019t ?; it\u2019s ?"
    assert redact_text("x = 's' and y = 't'") == "x = ? and y = ?"


def test_long_numbers_in_labels_are_redacted():
    """A number of a card or a phone is not a part of a name."""
    assert redact_label("card 4111 1111 1111 1111") == "card ? ? ? ?"
    assert redact_label("call +49 170 1234567") == "call ? ? ?"


@given(
    CANARY,
    st.sampled_from(["/home/{c}", "s3://b/{c}", "{c}@example.com", "x = '{c}'", "token={c}"]),
)
def test_labels_that_hold_more_are_redacted(canary, template):
    """A job that is named after a path does not reveal the path."""
    assert canary not in redact_label(template.format(c=canary))


def event(canary):
    """Return an event with a canary in every field that a program can set."""
    return WriteEvent(
        write_id="w",
        run=RunContext(
            "r",
            f"/home/{canary}/job.py",
            attributes={"path": f"/home/{canary}", "password": canary, "note": f"'{canary}'"},
        ),
        intent=WriteIntent(
            Operation.WRITE,
            CacheOperation.WRITE,
            table_uri=f"s3://{canary}/t",
            table_name="flights",
            policy=f"/data/{canary}",
            cache_key=canary,
            inputs=(InputVersion("t", 1, f"/home/{canary}/t"),),
        ),
        outcome=Failed(ErrorType.OTHER, "builtins.OSError", f"no such file: /home/{canary}/t"),
        started_at=0,
        duration_ns=1,
        table_id="t",
        thread=f"/home/{canary}",
    )


@pytest.mark.slow
@given(CANARY)
def test_no_canary_survives_in_an_event(canary):
    """No field has a canary, with and without a table id key, and redaction is idempotent."""
    for settings in (Settings(), Settings(table_id_key=b"k")):
        message = redact(event(canary), settings)
        assert canary not in repr(message)
        assert redact(message, settings) == message


def test_a_key_keys_the_table_ids():
    """The key applies to the id of the table and to the ids of its inputs."""
    plain, keyed = (
        redact(event("c"), settings) for settings in (Settings(), Settings(table_id_key=b"k"))
    )
    assert plain.table_id == "t"
    assert keyed.table_id != "t"
    assert keyed.intent.inputs[0].table_id != "t"


@pytest.mark.parametrize(
    ("uri", "name", "mode", "expected"),
    [
        ("s3://b/lake/flights_2013/", None, TableNames.PATH, "flights_2013"),
        ("/data/a%20b", None, TableNames.PATH, None),
        ("/data/flights", "named", TableNames.PATH, "named"),
        ("/data/flights", None, TableNames.METADATA, None),
        ("/data/flights", "named", TableNames.METADATA, "named"),
        ("/data/flights", "named", TableNames.NONE, None),
        ("/home/ann", None, TableNames.PATH, None),
        ("/Users/ann/", None, TableNames.PATH, None),
        ("/root", None, TableNames.PATH, None),
        ("C:\\Users\\ann", None, TableNames.PATH, None),
        ("/data/ann@example.com", None, TableNames.PATH, None),
        ("/data/secret_token", None, TableNames.PATH, None),
        ("/data/" + "a" * 40, None, TableNames.PATH, None),
        ("s3://bucket", None, TableNames.PATH, None),
        (None, None, TableNames.PATH, None),
        ("/data/t", "a name with spaces", TableNames.PATH, None),
    ],
)
def test_a_plain_table_name_is_exported(uri, name, mode, expected):
    """The last segment of a location is the name, unless it reveals a person or a secret."""
    assert table_name_for(uri, name, mode) == expected


def test_payloads_keep_their_shape():
    """Depth and width are bounded, secrets are masked by key, and other objects become their class name."""
    deep = {"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}}
    assert redact_value({"n": 1.5, "ok": True, "no": None}) == {"n": 1.5, "ok": True, "no": None}
    assert redact_value({"api_key": "x", "token_count": 7}) == {
        "api_key": "[secret]",
        "token_count": 7,
    }
    assert redact_value(object()) == "[object]"
    assert len(redact_value(list(range(100)))) == 64
    assert "[dict]" in json.dumps(redact_value(deep))
    assert redact_value("x" * 1000).endswith("…")


@given(CANARY)
@pytest.mark.slow
def test_no_canary_reaches_any_signal_or_the_commit(tmp_path_factory, canary):
    """Spans, metrics, log records and commit keys of the real pipeline have no canary."""
    from deltawitness import DeltaLakeInstrumentor
    from deltawitness.testing import InMemoryTelemetry

    place = tmp_path_factory.mktemp("home") / canary
    telemetry = InMemoryTelemetry.create()
    DeltaLakeInstrumentor().instrument(**telemetry.providers())
    try:
        with (
            run(f"/home/{canary}/job", attributes={"path": f"/home/{canary}"}),
            cache_context(policy=f"s3://{canary}/p", key=canary),
        ):
            data = pa.table({"id": [1]})
            write_deltalake(place / "flights", data)
            with pytest.raises(Exception):  # noqa: B017 - the class depends on the engine
                write_deltalake(place / "flights", pa.table({"id": [canary]}), mode="append")
        message = [span.to_json() for span in telemetry.spans()]
        message += [record.to_json() for record in telemetry.log_records()]
        message += [repr(points) for points in telemetry.metric_points().values()]
    finally:
        DeltaLakeInstrumentor().uninstrument()
    assert len(message) > 5
    assert not [text for text in message if canary in text]
    commit = (place / "flights" / "_delta_log" / f"{0:020d}.json").read_text()
    assert canary not in commit


PLACE = "/data/Patient John Doe records/t"


@pytest.mark.parametrize(
    "message",
    [
        "Object at location data/Patient John Doe records/t/part-0.parquet not found",
        "Object at location data/Patient%20John%20Doe%20records/t/part-0.parquet not found",
        "Failed to list /data/Patient John Doe records: denied",
        "Generic error: file:///data/Patient%20John%20Doe%20records/t",
    ],
)
def test_a_location_with_blanks_is_found_in_every_spelling(message):
    """A pattern cannot find the end of such a path, but the event has the location."""
    text = redact_text(message, location=PLACE)
    assert not any(word in text for word in ("Patient", "John", "Doe", "records"))
    assert text.split()[0] == message.split()[0]


@pytest.mark.parametrize(
    "message",
    [
        "violated by value in row: [Alice, 7, 123-45-6789]",
        "Cannot cast value Alice Smith to Int64",
        "Cannot cast string Alice Smith to value of Int64 type",
        "Cannot cast string to Alice Smith to value of Int64 type",
        "regex parse error:\n    (Alice Smith\n    ^\nerror: unclosed group",
        "Regular expression did not compile: Alice( Smith",
        "password is Alice",
        "pwd=Alice",
        "near $$Alice Smith$$",
        "near $tag$Alice Smith$tag$",
        "cannot open C:\\Users\\Alice Smith\\t",
    ],
)
def test_literals_without_quotes_are_reduced_too(message):
    """Literals are masked in the form in which the engines write them."""
    text = redact_text(message)
    assert not any(word in text for word in ("Alice", "Smith", "6789"))
    assert text


def test_payloads_named_as_data_are_masked():
    """A member that is named as data is masked, but a number of rows is not."""
    payload = {
        "rows": [["Alice", 42]],
        "predicate": "alice",
        "rows_added": 3,
        "row": {"n": "Alice"},
    }
    assert redact_value(payload) == {
        "rows": "[rows]",
        "predicate": "[rows]",
        "rows_added": 3,
        "row": "[rows]",
    }


def test_a_real_error_does_not_reveal_the_tables_location(tmp_path, delta_telemetry):
    """The error of a missing data file in a folder with blanks in its name does not reveal the path."""
    table = tmp_path / "Patient John Doe records" / "t"
    write_deltalake(table, pa.table({"i": [1, 2]}))
    for file in table.glob("*.parquet"):
        file.unlink()
    with pytest.raises(Exception, match="not found"):
        DeltaTable(table).delete("i = 1")
    message = str([record.log_record for record in delta_telemetry.log_records()])
    message += "".join(span.to_json() for span in delta_telemetry.spans())
    assert "not found" in message
    assert not any(word in message for word in ("Patient", "John", "Doe"))


def test_a_location_of_one_word_leaves_the_words_of_a_message_alone():
    """The name of a table may be a letter or a word that also occurs in the message."""
    message = "the request is forbidden"
    assert redact_text(message, location="s3://bucket/t") == message
    assert redact_text(message, location="/request") == message


@pytest.mark.parametrize(("known", "secret"), CANARIES.items(), ids=CANARIES)
def test_the_library_masks_every_secret_that_the_collector_masks(known, secret):
    """The library masks every secret that the reference Collector masks."""
    assert known in secret
    assert known not in redact_text(secret)


WORDS_OF_A_SOURCE = {
    "unquoted": "cannot parse record of Zqann from Zqvienna",
    "line": "bad line: Zqann;Zqsmith;1979",
    "mapping": "bad record {'name': 'Zqann'}",
    "assignment": "bad record name=Zqann",
    "lines": "1 validation error\nZqage\n  Input is Zqann\nZqError: Zqann",
    "an error's name": "x\nValueError: Zqann",
}


class SourceError(ValueError):
    """An exception class of the program."""


@pytest.mark.parametrize("kind", [ValueError, SourceError])
@pytest.mark.parametrize("what", WORDS_OF_A_SOURCE)
def test_the_words_of_a_source_that_raises_leave_only_as_its_type(
    what, kind, tmp_path, delta_telemetry
):
    """Spans, log records and metrics have the type of the exception and not its text."""

    def batches():
        yield pa.record_batch({"a": [1]})
        raise kind(WORDS_OF_A_SOURCE[what])

    source = pa.RecordBatchReader.from_batches(pa.schema([("a", pa.int64())]), batches())
    with pytest.raises(Exception, match="Zq"):
        write_deltalake(tmp_path / "t", source)
    signals = [span.to_json() for span in delta_telemetry.spans()]
    signals += [record.to_json() for record in delta_telemetry.log_records()]
    assert len(signals) == 3
    assert not any("Zq" in signal for signal in signals)
    messages = [
        record.log_record.attributes["exception.message"]
        for record in delta_telemetry.log_records()
        if "exception.message" in record.log_record.attributes
    ]
    assert [message.partition("the source")[2] for message in messages] == [
        f" of the rows failed with {kind.__name__}"
    ]


def test_a_task_that_raises_is_a_span_without_its_words(delta_telemetry):
    """The span has the error's type as an attribute, and not its text, which may be data."""

    def task():
        raise LookupError("no row for Zqann")

    steps = current_observer().steps
    span = steps.open("load", None, RunContext("r", "job"), get_current())
    with pytest.raises(LookupError) as raised:
        task()
    steps.close(span, raised.value)
    (span,) = delta_telemetry.spans()
    assert not span.status.is_ok
    assert "Zqann" not in span.to_json()


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("expected 1 column, got 2", "expected 1 column, got 2"),
        (
            "can't open '/data/a b/t': it isn't there (os error 2)",
            "can't open '/data/a b/t': it isn't there (os error 2)",
        ),
        (
            'No field named "nope". Valid fields are id.',
            'No field named "nope". Valid fields are id.',
        ),
        ("at s3://key:secret@bucket/t?sig=x status 403", "at s3://bucket/t status 403"),
        ("at s3://[broken/t", "at [uri]"),
        (
            "1 rows failed validation check.\nPreview of invalid data:\n\n+--+\n| Ann |\n+--+",
            "1 rows failed validation check. [rows]",
        ),
        (
            "Cast error: Cannot cast string 'Ann' to value of Int64 type",
            "Cast error: Cannot cast value ? to value of Int64 type",
        ),
        ("token=hunter2, retry in 3 s", "[secret], retry in 3 s"),
        ("Authorization: Bearer abcdefgh", "Authorization: [secret]"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("NUL \0, BEL \a and ESC \x1b in a\tline\n", "NUL , BEL and ESC in a line"),
    ],
)
def test_the_ledger_keeps_what_helps(text, stored):
    """The ledger's text has numbers, errno, paths and apostrophes, but no previews of rows and no secrets."""
    assert message_for_ledger(text, LedgerMessages.SAFE) == stored
    assert message_for_ledger(stored, LedgerMessages.SAFE) == stored


def test_the_ledgers_error_messages_follow_the_setting():
    """`full` removes only secrets, and `type` removes everything."""
    text = "1 rows failed validation check.\nPreview of invalid data:\n| Ann | token=hunter2 |"
    full = message_for_ledger(text, LedgerMessages.FULL)
    assert "| Ann |" in full
    assert "hunter2" not in full
    assert message_for_ledger(text, LedgerMessages.TYPE) is None
    assert Settings(ledger_messages="full").ledger_messages is LedgerMessages.FULL


@given(st.text())
def test_a_message_for_the_ledger_is_one_line_in_every_mode(text):
    """The function never raises, and the text is never longer than the limit."""
    for mode in (LedgerMessages.FULL, LedgerMessages.SAFE):
        stored = message_for_ledger(text, mode)
        assert len(stored) <= 1000
        assert "\n" not in stored


@pytest.mark.parametrize(
    "text",
    ["'" * 100_000, "/" * 100_000, "a@" * 50_000, "x=" * 50_000, "+-" * 50_000, "a://" * 50_000],
)
def test_long_hostile_text_is_cut_before_the_ledger_looks_at_it(text):
    """The patterns process a bounded number of characters."""
    assert len(message_for_ledger(text, LedgerMessages.SAFE)) <= 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "expected"), [("safe", "[rows]"), ("full", "Zqann"), ("type", None)]
)
def test_a_failed_write_has_its_error_type_in_every_mode(mode, expected, tmp_path):
    """The row has the error's type in every mode."""
    uri = str(tmp_path / "t")
    write_deltalake(uri, pa.table({"id": [1], "name": ["a"]}))
    DeltaTable(uri).alter.add_constraint({"small": "id < 100"})
    settings = Settings(cache_root=str(tmp_path / "cache"), ledger_messages=mode)
    DeltaLakeInstrumentor().instrument(settings=settings)
    with pytest.raises(Exception, match="Zqann"):
        write_deltalake(uri, pa.table({"id": [500], "name": ["Zqann"]}), mode="append")
    (row,) = (
        Ledger(tmp_path / "cache").inventory().select("error_type", "error_message").to_pylist()
    )
    assert row["error_type"] == "constraint_violation"
    assert (row["error_message"] is None) is (expected is None)
    if expected is not None:
        assert expected in row["error_message"]
        assert ("Zqann" in row["error_message"]) is (mode == "full")
