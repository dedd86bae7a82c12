"""Commit keys of a caller that break readers of the log are warned about once each, or refused."""

from __future__ import annotations

import datetime as dt
import warnings

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from deltawitness import (
    CacheCommitMetadataRequest,
    DeltaLakeInstrumentor,
    Settings,
    cache_commit_metadata,
    read_commit_metadata,
)
from deltawitness.events import Failed, Landed
from deltawitness.exceptions import CommitKeyWarning, ConfigurationError, MetadataKeyError
from deltawitness.semconv import BREAKING_COMMIT_KEYS, RESERVED_COMMIT_KEYS, ErrorType
from deltawitness.testing import InMemoryTelemetry

DATA = pa.table({"id": [1, 2]})


def write(table, keys, mode="append"):
    write_deltalake(table, DATA, mode=mode, commit_properties=CommitProperties(keys))


@pytest.fixture
def table(tmp_path):
    write_deltalake(tmp_path / "t", DATA)
    return str(tmp_path / "t")


def test_a_key_that_breaks_readers_is_warned_of_once(table, captured_writes):
    """The warning names the program's line, and the write commits what the caller passed."""
    with warnings.catch_warnings(record=True, action="always") as given:
        write(table, {"tags": "a", "team": "ops"})
        write(table, {"tags": "b"})
    (warning,) = given
    assert (warning.category, warning.filename) == (CommitKeyWarning, __file__)
    assert read_commit_metadata(table).metadata["tags"] == "b"
    assert len(captured_writes.events) == 2


def test_each_key_has_a_warning_of_its_own(table, captured_writes):
    with warnings.catch_warnings(record=True, action="always") as given:
        write(table, {"tags": "a", "txnId": "b"})
        write(table, {"txnId": "b", "notebook": "c"})
    keys = [str(warning.message).split("'")[1] for warning in given]
    assert keys == ["tags", "txnId", "notebook"]


def test_the_warning_comes_from_methods_of_a_table_too(table, captured_writes):
    open_table = DeltaTable(table)
    properties = CommitProperties({"tags": "a"})
    with pytest.warns(CommitKeyWarning) as given:
        open_table.delete("id = 1", commit_properties=properties)
    assert [warning.filename for warning in given] == [__file__]


def test_other_keys_of_the_caller_are_not_warned_of(table, captured_writes):
    """Other keys, and `userMetadata`, which is for a caller's text, give no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(table, {"team": "ops", "userMetadata": "mine", "userName": "ann"})
    assert len(captured_writes.events) == 1


def test_an_unobserved_write_causes_no_warning(table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(table, {"tags": "a"})


@pytest.mark.parametrize("by", ["uri", "handle"])
def test_a_filter_that_makes_it_an_error_prevents_the_write(table, captured_writes, by):
    """The warning is raised at each write, as a refused write has not issued it."""
    target = table if by == "uri" else DeltaTable(table)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error", CommitKeyWarning)
            with pytest.raises(CommitKeyWarning):
                write(target, {"tags": "a"})
    assert DeltaTable(table).version() == 0
    assert [event.outcome.landed for event in captured_writes.events] == [Landed.NO] * 2


@pytest.fixture
def memory():
    return InMemoryTelemetry.create()


@pytest.fixture
def refusing(memory):
    """The events of writes under settings that refuse such keys."""
    events = []
    DeltaLakeInstrumentor().instrument(
        settings=Settings(reserved_keys="refuse"), sinks=[events.append], **memory.providers()
    )
    return events


@pytest.mark.parametrize("key", sorted(BREAKING_COMMIT_KEYS))
def test_a_setting_refuses_the_write(table, refusing, memory, key):
    """A refused write is one event: a failure that did not land."""
    with pytest.raises(MetadataKeyError, match=f"'{key}' breaks readers"):
        write(table, {key: "a"})
    (span,) = memory.spans()
    assert DeltaTable(table).version() == 0
    (event,) = refusing
    assert isinstance(event.outcome, Failed)
    assert (event.outcome.error_type, event.outcome.landed) == (
        ErrorType.METADATA_REJECTED,
        Landed.NO,
    )
    assert span.attributes["error.type"] == "metadata_rejected"


def test_a_new_table_and_a_merge_are_refused_too(tmp_path, table, refusing):
    with pytest.raises(MetadataKeyError):
        write(tmp_path / "new", {"tags": "a"}, mode="error")
    assert not (tmp_path / "new" / "_delta_log").exists()
    with pytest.raises(MetadataKeyError):
        DeltaTable(table).merge(
            DATA, "s.id = t.id", "s", "t", commit_properties=CommitProperties({"tags": "a"})
        ).when_matched_delete().execute()
    assert DeltaTable(table).version() == 0


def test_a_setting_ignores_the_key(table):
    DeltaLakeInstrumentor().instrument(settings=Settings(reserved_keys="ignore"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(table, {"tags": "a"})
    assert DeltaTable(table).version() == 1


def test_another_choice_is_an_error_that_names_the_variable():
    with pytest.raises(ConfigurationError, match="DELTAWITNESS_RESERVED_KEYS"):
        Settings.from_env({"DELTAWITNESS_RESERVED_KEYS": "maybe"})


def test_keys_that_break_readers_are_reserved():
    assert BREAKING_COMMIT_KEYS < RESERVED_COMMIT_KEYS


def extra(**keys):
    return cache_commit_metadata(CacheCommitMetadataRequest(operation="write", extra=keys))


def test_extra_values_are_bounded_and_secrets_are_masked():
    """Extras of the public helper are redacted, as many readers read a log."""
    told = extra(
        team="ops",
        password="canary",
        source="read /home/ann/canary.parquet",
        more={"api_key": "canary", "rows": 3},
        text="long " * 10_000,
        wide=["word" * 50] * 64,
        token="canary" * 200,
        when=dt.date(2024, 2, 29),
    )
    assert "canary" not in str(told)
    assert (told["team"], told["password"]) == ("ops", "[secret]")
    assert told["more"] == '{"api_key": "[secret]", "rows": 3}'
    assert told["when"] == "2024-02-29"
    assert told["wide"] == "[list]"
    assert max(map(len, told.values())) <= 4096
