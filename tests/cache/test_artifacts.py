"""An artifact is loaded with its original type and content, and identical content is written once."""

from __future__ import annotations

import datetime as dt
import gc
import math
from array import array

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from deltawitness import CachePolicy, DeltaCache, ObservedSessionContext
from deltawitness.exceptions import CacheError, ConfigurationError

NESTED = pa.table(
    {
        "name": pa.array(["a", None, "ü\x00\U0001f600"]),
        "code": pa.array(["x", "y", "x"]).dictionary_encode(),
        "large": pa.array([1, 2, 2**64 - 1], pa.uint64()),
        "at": pa.array([1, None, 123456789], pa.timestamp("ns", "+02:00")),
        "took": pa.array([1, 2, None], pa.duration("ms")),
        "hour": pa.array([dt.time(1, 2, 3), None, dt.time(0)], pa.time64("us")),
        "half": pa.array([0.5, math.inf, None], pa.float16()),
        "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
        "point": pa.array([{"x": 1, "y": [1.5]}, None, {"x": None, "y": []}]),
        "pairs": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int8())),
        "nothing": pa.nulls(3),
        "fixed": pa.array([b"ab", b"cd", None], pa.binary(2)),
    },
    metadata={"made by": "a test"},
)


@pytest.fixture
def cache(tmp_path):
    return DeltaCache(ObservedSessionContext(), tmp_path)


def versions(tmp_path, name):
    return DeltaTable(tmp_path / "cache_artifacts" / name).version()


@pytest.mark.parametrize(
    "payload",
    [
        NESTED,
        NESTED.slice(1, 1),
        NESTED.schema.empty_table(),
        pa.table({}),
        NESTED.combine_chunks().to_batches()[0],
        pa.RecordBatch.from_pylist([], NESTED.schema),
        b"",
        b"\x00\xff" * 1000,
        {},
        {"deep": [{"a": [None, True, 1.5, -0.0, 10**30, "ü\x00", "\ud800"]}]},
        [],
        "text",
        0,
        None,
        True,
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_artifact_keeps_its_type_order_and_metadata(payload, cache, tmp_path):
    """An artifact keeps its types, row order and metadata, also when another session loads it."""
    cache.artifact("made", payload)
    for each in (cache, DeltaCache(ObservedSessionContext(), tmp_path)):
        back = each.load_artifact("made")
        assert type(back) is type(payload)
        if isinstance(payload, pa.Table | pa.RecordBatch):
            assert back.schema.equals(payload.schema, check_metadata=True)
        assert back == payload


@pytest.mark.slow
def test_large_bytes_are_loaded_in_order(cache):
    """Large bytes are stored in parts and loaded in order."""
    payload = array("I", range(10 << 20)).tobytes()
    assert len(payload) > 32 << 20
    cache.artifact("large", payload)
    assert cache.load_artifact("large") == payload


def test_bytes_like_payloads_are_loaded_as_bytes(cache):
    """A bytes-like payload is loaded as bytes, and a mapping as a dict."""
    for payload in (bytearray(b"ab"), memoryview(b"ab")):
        cache.artifact("made", payload)
        assert cache.load_artifact("made") == b"ab"


@pytest.mark.parametrize(
    "payload",
    [
        math.nan,
        {"a": math.inf},
        {1: "a"},
        {"a": (1, 2)},
        {1, 2},
        object(),
        dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    ],
    ids=("nan", "inf", "int key", "tuple", "set", "object", "datetime"),
)
def test_a_payload_that_would_change_in_json_is_refused(payload, cache, tmp_path):
    """A payload that would not survive the round trip is refused before anything is written."""
    with pytest.raises(ConfigurationError, match="an artifact"):
        cache.artifact("made", payload)
    assert not (tmp_path / "cache_artifacts").exists()


def test_a_payload_that_contains_itself_is_refused(cache):
    """A payload that contains itself is refused, like any other that is not JSON-serializable."""
    payload: list[object] = []
    payload.append(payload)
    with pytest.raises(ConfigurationError, match="an artifact"):
        cache.artifact("made", payload)


def test_an_equal_payload_is_written_once(cache, tmp_path):
    """The same table in other chunks writes no version; another table under the name writes one."""
    cache.artifact("made", pa.table({"a": [1, 2, 3]}))
    chunked = pa.concat_tables([pa.table({"a": [1]}), pa.table({"a": [2, 3]})])
    cache.artifact("made", chunked)
    assert versions(tmp_path, "made") == 0
    cache.artifact("made", pa.table({"a": [1, 2, 4]}))
    assert versions(tmp_path, "made") == 1
    assert cache.load_artifact("made") == pa.table({"a": [1, 2, 4]})


@pytest.mark.slow
def test_the_type_is_part_of_the_payload(cache):
    """`1`, `True`, `"1"` and `b"1"` are four different payloads."""
    for payload in (1, True, "1", b"1"):
        cache.artifact("made", payload)
        assert (cache.load_artifact("made"), type(cache.load_artifact("made"))) == (
            payload,
            type(payload),
        )


def test_an_artifact_is_not_registered_in_the_session(cache):
    """An artifact is not registered in the session, so a table can have the same name."""
    ctx = ObservedSessionContext()
    ctx.from_pydict({"a": [1]}, name="made")
    DeltaCache(ctx, cache._root.uri).artifact("made", {"a": 1})
    assert ctx.table("made").to_pydict() == {"a": [1]}


def test_loading_an_absent_artifact_is_an_error(cache):
    """Loading an artifact that was never stored, or is invalidated, is an error."""
    with pytest.raises(CacheError, match="there is no artifact made"):
        cache.load_artifact("made")
    cache.artifact("made", {"a": 1})
    cache.invalidate("made")
    with pytest.raises(CacheError, match="there is no artifact made"):
        cache.load_artifact("made")
    cache.artifact("made", {"a": 1})
    assert cache.load_artifact("made") == {"a": 1}


def test_an_artifact_that_cannot_be_written_is_an_error(tmp_path):
    """An artifact that cannot be written raises, because there is no computed result to return instead."""
    (tmp_path / "cache_artifacts").write_text("in the way")
    cache = DeltaCache(ObservedSessionContext(), tmp_path)
    with pytest.raises(CacheError, match="made could not be written"):
        cache.artifact("made", {"a": 1}, policy=CachePolicy("p"))


@pytest.mark.slow
def test_a_payload_is_not_held_in_memory(cache):
    """Neither the session nor the cache keeps a reference to the payload of an artifact."""
    for number in range(3):
        cache.artifact("rows", pa.table({"n": pa.array(range(number, 100_000))}))
    gc.collect()
    before = pa.total_allocated_bytes()
    for number in range(20):
        cache.artifact(f"rows_{number}", pa.table({"n": pa.array(range(number, 100_000))}))
    gc.collect()
    assert pa.total_allocated_bytes() - before < 1_000_000
