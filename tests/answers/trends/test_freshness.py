"""The gauges of tables have a bounded number of series, and survive a ledger that cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from deltawitness import watch_freshness
from deltawitness.settings import Settings, TableNames
from deltawitness.telemetry.freshness_metrics import FreshnessInstruments
from helpers.past_ledgers import PastLedger

HOUR = timedelta(hours=1)


@pytest.fixture
def root(tmp_path):
    """A ledger with hourly tables, of which the first has not changed for five hours."""
    ledger, now = PastLedger(), datetime.now(UTC)
    for table in range(4):
        for back in reversed(range(10)):
            ledger.run(f"t{table}", now - back * HOUR - (5 - table if table else 5) * HOUR / 5)
    for back in reversed(range(10)):
        ledger.run("late", now - (back + 5) * HOUR)
    return ledger.save(tmp_path / "ledger")


def collected(reader):
    """Return the values of each gauge by name of the table."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    return {
        metric.name: {
            point.attributes["db.collection.name"]: point.value for point in metric.data.data_points
        }
        for metric in metrics
        if metric.data.data_points
    }


@pytest.fixture
def watched(root):
    """Start gauges, and return their reader and the watch."""
    providers = []

    def start(*tables, **more):
        reader = InMemoryMetricReader()
        providers.append(MeterProvider([reader]))
        watch = watch_freshness(*tables, root=root, meter_provider=providers[-1], **more)
        return reader, watch

    yield start
    for provider in providers:
        provider.shutdown()


def test_the_age_of_each_table_and_whether_it_is_late(watched):
    reader, watch = watched()
    found = collected(reader)
    assert set(found) == {"delta.table.age", "delta.table.late"}
    assert found["delta.table.late"] == {"late": 1, "t0": 0, "t1": 0, "t2": 0, "t3": 0}
    assert found["delta.table.age"]["late"] == pytest.approx(5 * 3600, abs=600)
    watch.stop()
    assert collected(reader) == {}


def test_tables_beyond_the_limit_share_a_series(watched):
    """The last changed tables have a name; the age of the others is the highest one."""
    found = collected(watched(limit=2)[0])
    assert found["delta.table.late"] == {"t3": 0, "t2": 0, "_other": 1}
    assert found["delta.table.age"]["_other"] == pytest.approx(5 * 3600, abs=600)


def test_the_age_of_several_tables_in_one_series_is_the_highest():
    """Whatever their order is."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    tables = [("a", 1.0, False), ("b", 9.0, True), (None, 3.0, True)]
    FreshnessInstruments(provider, lambda: tables, 1)
    found = collected(reader)
    assert found["delta.table.age"] == {"a": 1.0, "_other": 9.0}
    assert found["delta.table.late"] == {"a": 0, "_other": 2}
    provider.shutdown()


def test_chosen_tables(watched):
    found = collected(watched("late", "id-t1")[0])
    assert set(found["delta.table.age"]) == {"late", "t1"}


def test_no_name_is_in_telemetry_if_names_must_not_be(watched):
    found = collected(watched(settings=Settings(table_names=TableNames.NONE))[0])
    assert set(found["delta.table.age"]) == {"_other"}


@pytest.mark.internal_errors
def test_a_ledger_that_is_not_there_has_no_data_points(watched, tmp_path):
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    watch_freshness("nope", root=tmp_path / "nothing", meter_provider=provider)
    assert collected(reader) == {}
    provider.shutdown()
