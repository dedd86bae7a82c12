"""An error inside deltawitness, its sinks or its hooks leaves the write alone."""

from __future__ import annotations

import deltalake
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings
from deltawitness.commit import read_commit_metadata
from deltawitness.events import Committed
from deltawitness.observe.observer import current_observer
from helpers.delta_rs_writes import rows


@pytest.mark.internal_errors
def test_sinks_and_hooks_that_raise_leave_the_write_alone(table):
    """The write succeeds, the other sinks get the event, and the other hook adds to the span."""
    seen, hooked = [], []

    def bad(*_):
        raise RuntimeError

    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(
        sinks=[bad, seen.append],
        request_hook=lambda span, instance, args, kwargs: hooked.append(kwargs["mode"]),
        response_hook=bad,
    )
    write_deltalake(table, rows(4), mode="append")
    instrumentor.uninstrument()
    assert [type(event.outcome) for event in seen] == [Committed]
    assert hooked == ["append"]


@pytest.mark.internal_errors
def test_only_the_value_of_a_redactor_that_raises_is_lost(table, monkeypatch, delta_telemetry):
    """Events are exported without the text that cannot be redacted; the error is counted and logged once."""
    from deltawitness import internal_errors
    from deltawitness.observe import current_observer

    def broken(*_):
        raise RuntimeError("canary")

    monkeypatch.setattr("deltawitness.observe.delivery_steps.redact", broken)
    write_deltalake(table, rows(4), mode="append")
    write_deltalake(table, rows(5), mode="append")
    assert current_observer().flush()
    spans, records = delta_telemetry.spans(), delta_telemetry.log_records()
    assert [span.name for span in spans] == ["WRITE flights", "WRITE flights"]
    assert "canary" not in "".join(span.to_json() for span in spans)
    assert [record.log_record.event_name for record in records] == ["deltawitness.write"] * 2
    assert "canary" not in "".join(record.to_json() for record in records)
    assert internal_errors.error_counts()[("redaction", "RuntimeError")] == 2
    counted = delta_telemetry.metric_points()["deltawitness.internal.errors"]
    components = {point.attributes["deltawitness.component"]: point.value for point in counted}
    assert components == {"redaction": 2}


@pytest.mark.internal_errors
def test_an_observer_that_breaks_before_the_write_leaves_it_alone(table, monkeypatch):
    """When the observer raises, every kind of seam calls the engine unobserved."""
    from deltawitness import internal_errors
    from deltawitness.observe import Observer

    def broken(*_, **__):
        raise RuntimeError

    DeltaLakeInstrumentor().instrument()
    monkeypatch.setattr(Observer, "open", broken)
    monkeypatch.setattr(Observer, "begin", broken)
    write_deltalake(table, rows(4), mode="append")
    write_deltalake(f"{table}-new", rows(4))
    merger = DeltaTable(table).merge(rows(9), "s.id = t.id", source_alias="s", target_alias="t")
    assert merger.when_not_matched_insert_all().execute()["num_target_rows_inserted"] == 1
    with pytest.raises(ValueError, match="table_or_uri must be"):
        write_deltalake(7, rows(4))
    assert internal_errors.error_counts() == {("seam", "RuntimeError"): 4}
    assert read_commit_metadata(table).metadata == {}


@pytest.mark.internal_errors
def test_an_observer_that_breaks_after_the_write_returns_its_result(table, monkeypatch):
    """When the observer raises after the call, the program gets the engine's result or exception."""
    from deltawitness.observe import Observer

    def broken(*_, **__):
        raise RuntimeError

    DeltaLakeInstrumentor().instrument()
    monkeypatch.setattr(Observer, "finish", broken)
    monkeypatch.setattr(Observer, "fail", broken)
    assert DeltaTable(table).delete("id = 1")["num_deleted_rows"] == 1
    write_deltalake(f"{table}-new", rows(4))
    with pytest.raises(deltalake.exceptions.DeltaError, match="already exists"):
        write_deltalake(table, rows(1))
    with pytest.raises(Exception, match="duplicate qualified"):
        DeltaTable(table).merge(rows(1), "nope(").when_matched_delete().execute()


@pytest.mark.slow
@pytest.mark.internal_errors
def test_a_sink_that_hangs_leaves_the_write_alone(table):
    """A sink that hangs is given up after its timeout; the next sink gets the event."""
    import threading

    seen, release = [], threading.Event()
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(
        sinks=[lambda _: release.wait(60), seen.append], settings=Settings(sink_timeout=0.5)
    )
    write_deltalake(table, rows(4), mode="append")
    write_deltalake(table, rows(5), mode="append")
    instrumentor.uninstrument()
    release.set()
    assert [event.outcome.versions for event in seen] == [(1,), (2,)]


@pytest.mark.internal_errors
def test_an_internal_error_after_the_write_loses_no_event(table, captured_writes, monkeypatch):
    """When the commit cannot be read on the caller's thread, the delivery thread finds it in the log."""

    def broken(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("deltawitness.observe.call_observer.record_commit", broken)
    write_deltalake(table, rows(7), mode="append")
    assert captured_writes.last.outcome.versions == (DeltaTable(table).version(),)
    assert not current_observer()._under_way
