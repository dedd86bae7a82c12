"""The library emits no attributes of links and exemplars, which no stock processor can redact."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import deltawitness
from deltawitness.instrumentation import DeltaLakeInstrumentor


def test_links_and_exemplars_carry_no_attributes(tmp_path):
    """The run has writes of several kinds, one of them failing, and an exemplar for each measurement."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    meters = MeterProvider(
        [reader], views=deltawitness.metric_views(), exemplar_filter=AlwaysOnExemplarFilter()
    )
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    DeltaLakeInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)
    table = str(tmp_path / "orders")
    with deltawitness.run("nightly"):
        write_deltalake(table, pa.table({"x": [1, 2]}))
        DeltaTable(table).delete("x = 1")
        with pytest.raises(Exception, match="already exists"):
            write_deltalake(table, pa.table({"x": [1]}), mode="error")
    tracers.force_flush()
    finished = spans.get_finished_spans()
    assert len(finished) == 4
    assert [
        dict(link.attributes or {}) for span in finished for link in span.links if link.attributes
    ] == []
    exemplars = [
        exemplar
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        for exemplar in point.exemplars
    ]
    assert exemplars
    assert [
        exemplar.filtered_attributes for exemplar in exemplars if exemplar.filtered_attributes
    ] == []
