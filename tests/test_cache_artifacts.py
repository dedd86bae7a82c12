"""An artifact comes back as what it was, and is written once."""

from __future__ import annotations

import datetime as dt
import gc
import math

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
    """A cache in a session."""
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
def test_it_comes_back_as_what_it_was(payload, cache, tmp_path):
    """With its types, its order and its metadata; in another session as well."""
    cache.artifact("made", payload)
    for each in (cache, DeltaCache(ObservedSessionContext(), tmp_path)):
        back = each.load_artifact("made")
        assert type(back) is type(payload)
        if isinstance(payload, pa.Table | pa.RecordBatch):
            assert back.schema.equals(payload.schema, check_metadata=True)
        assert back == payload


@pytest.mark.slow
def test_bytes_that_are_large_come_back_in_order(cache):
    """They are cut in parts."""
    payload = b"".join(number.to_bytes(4, "big") for number in range(10 << 20))
    assert len(payload) > 32 << 20
    cache.artifact("large", payload)
    assert cache.load_artifact("large") == payload


def test_what_is_like_bytes_comes_back_as_bytes(cache):
    """And a mapping as a dict."""
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
def test_what_would_not_come_back_is_refused(payload, cache, tmp_path):
    """Before anything is written."""
    with pytest.raises(ConfigurationError, match="an artifact"):
        cache.artifact("made", payload)
    assert not (tmp_path / "cache_artifacts").exists()


def test_what_holds_itself_is_refused(cache):
    """As anything else that JSON cannot hold."""
    payload: list[object] = []
    payload.append(payload)
    with pytest.raises(ConfigurationError, match="an artifact"):
        cache.artifact("made", payload)


def test_the_same_is_written_once(cache, tmp_path):
    """However its rows are cut in chunks; another one of that name is another version."""
    cache.artifact("made", pa.table({"a": [1, 2, 3]}))
    chunked = pa.concat_tables([pa.table({"a": [1]}), pa.table({"a": [2, 3]})])
    cache.artifact("made", chunked)
    assert versions(tmp_path, "made") == 0
    cache.artifact("made", pa.table({"a": [1, 2, 4]}))
    assert versions(tmp_path, "made") == 1
    assert cache.load_artifact("made") == pa.table({"a": [1, 2, 4]})


def test_the_type_is_part_of_it(cache):
    """`1`, `True`, `"1"` and `b"1"` are four."""
    for payload in (1, True, "1", b"1"):
        cache.artifact("made", payload)
        assert (cache.load_artifact("made"), type(cache.load_artifact("made"))) == (
            payload,
            type(payload),
        )


def test_the_session_knows_no_artifact(cache):
    """Neither does its name take the name of a table, nor the other way round."""
    ctx = ObservedSessionContext()
    ctx.from_pydict({"a": [1]}, name="made")
    DeltaCache(ctx, cache._root.uri).artifact("made", {"a": 1})
    assert ctx.table("made").to_pydict() == {"a": [1]}


def test_what_is_not_there_is_no_artifact(cache):
    """Never kept, or invalidated."""
    with pytest.raises(CacheError, match="there is no artifact made"):
        cache.load_artifact("made")
    cache.artifact("made", {"a": 1})
    cache.invalidate("made")
    with pytest.raises(CacheError, match="there is no artifact made"):
        cache.load_artifact("made")
    cache.artifact("made", {"a": 1})
    assert cache.load_artifact("made") == {"a": 1}


def test_one_that_cannot_be_kept_is_an_error(tmp_path):
    """There is no computed result to return in its place."""
    (tmp_path / "cache_artifacts").write_text("in the way")
    cache = DeltaCache(ObservedSessionContext(), tmp_path)
    with pytest.raises(CacheError, match="made could not be kept"):
        cache.artifact("made", {"a": 1}, policy=CachePolicy("p"))


@pytest.mark.slow
def test_what_was_kept_is_not_held_in_memory(cache):
    """Neither by the session, which would know it as a table for ever, nor by the cache."""
    for number in range(3):
        cache.artifact("rows", pa.table({"n": pa.array(range(number, 100_000))}))
    gc.collect()
    before = pa.total_allocated_bytes()
    for number in range(20):
        cache.artifact(f"rows_{number}", pa.table({"n": pa.array(range(number, 100_000))}))
    gc.collect()
    assert pa.total_allocated_bytes() - before < 1_000_000
