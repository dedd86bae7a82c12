"""Events are emitted with each supported version of the OpenTelemetry API, or not at all."""

from __future__ import annotations

import pytest
from opentelemetry._logs import NoOpLogger, SeverityNumber

from deltawitness.telemetry import events_api
from deltawitness.telemetry.events_api import emit_event


class Emitted(NoOpLogger):
    """A logger that stores the fields of its records."""

    def __init__(self):
        super().__init__("test")
        self.records = []

    def emit(self, *records, **fields):
        """Store the fields."""
        self.records.append(fields)


class WithoutEnabled(Emitted):
    """A logger of an API before 1.45."""

    enabled = None


class Off(Emitted):
    """A logger that drops everything."""

    def enabled(self, **fields):
        """Return False."""
        return False


def attributes_of(logger):
    """Emit an event and return the attributes of the records."""
    emit_event(logger, "an.event", SeverityNumber.INFO, lambda: {"a": 1}, timestamp=7)
    return [(fields["event_name"], fields["attributes"]) for fields in logger.records]


@pytest.fixture(autouse=True)
def forgotten():
    events_api._emits_events.cache_clear()
    yield
    events_api._emits_events.cache_clear()


def test_a_logger_without_a_method_for_its_state_gets_every_event():
    assert attributes_of(WithoutEnabled()) == [("an.event", {"a": 1})]


def test_a_logger_that_is_off_gets_nothing():
    assert attributes_of(Off()) == []


def test_an_api_without_events_gets_nothing(monkeypatch):
    """Before 1.38 a logger takes only a record of the SDK."""

    class Logger:
        def emit(self, record):
            raise AssertionError

    monkeypatch.setattr(events_api, "Logger", Logger)
    assert attributes_of(Emitted()) == []
