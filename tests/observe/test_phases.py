"""With the setting `capture_phases`, a write has a child span for each phase that the engine's metrics name."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings
from deltawitness.observe.phases import phases_of
from deltawitness.testing import InMemoryTelemetry

MS = 1_000_000


@pytest.mark.parametrize(
    ("duration", "execution", "metrics", "expected"),
    [
        (9, None, {}, []),
        (9, 0, {}, [("commit", 0, 9)]),
        (9, 6, {}, [("execute", 0, 6), ("commit", 6, 3)]),
        (9, 6, {"scan_time_ms": 6}, [("scan", 0, 6), ("commit", 6, 3)]),
        (9, 6, {"scan_time_ms": 1, "rewrite_time_ms": 2}, [("scan", 0, 1), ("rewrite", 1, 2), ("execute", 3, 3), ("commit", 6, 3)]),
        # A scan and a rewrite that overlap, and an execution that was measured longer than the call.
        (9, 6, {"scan_time_ms": 5, "rewrite_time_ms": 4}, [("scan", 0, 5), ("rewrite", 5, 1), ("commit", 6, 3)]),
        (4, 6, {"scan_time_ms": "x", "rewrite_time_ms": -1}, [("execute", 0, 4)]),
    ],
    ids=["unknown", "instant", "write", "scan", "both", "overlap", "damaged"],
)  # fmt: skip
def test_phases_follow_one_another_and_end_with_the_call(duration, execution, metrics, expected):
    """No phase begins before the end of the one before it, or ends after the call."""
    found = phases_of(duration * MS, execution, metrics)
    spans = [(each.name, each.start_ns // MS, each.duration_ns // MS) for each in found]
    assert spans == expected


def spans_of(uri, *, captures):
    telemetry = InMemoryTelemetry.create()
    settings = Settings(capture_phases=captures)
    DeltaLakeInstrumentor().instrument(settings=settings, **telemetry.providers())
    write_deltalake(uri, pa.table({"x": list(range(1000))}))
    DeltaTable(uri).delete("x % 2 = 0")
    with pytest.raises(Exception, match="no_such_column"):
        DeltaTable(uri).delete("no_such_column = 1")
    found = telemetry.spans()
    DeltaLakeInstrumentor().uninstrument()
    return found


def test_the_phases_of_a_write_are_child_spans(tmp_path):
    """Child spans lie within the span of their write, in order, and have its operation; a failed write has none."""
    found = spans_of(str(tmp_path / "t"), captures=True)
    writes = [span for span in found if span.parent is None]
    assert [span.name for span in writes] == ["WRITE t", "DELETE t", "DELETE t"]
    for write in writes:
        phases = [
            span for span in found if span.parent and span.parent.span_id == write.context.span_id
        ]
        assert [span.name for span in phases][-1:] == ([] if write is writes[-1] else ["commit"])
        names = [span.name for span in phases]
        assert names == [name for name in ("scan", "rewrite", "execute", "commit") if name in names]
        assert all(write.start_time <= span.start_time for span in phases)
        assert all(span.end_time <= write.end_time for span in phases)
        for span in phases:
            assert dict(span.attributes) == {
                "db.system.name": "deltalake",
                "db.operation.name": write.name.split()[0],
                "deltawitness.write.phase": span.name,
            }
    assert sum(span.name == "commit" for span in found) == 2


def test_phases_are_off_by_default(tmp_path):
    """Without the setting a write has one span."""
    assert len(spans_of(str(tmp_path / "t"), captures=False)) == 3
    assert Settings().capture_phases is False
