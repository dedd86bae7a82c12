"""The files of an entry follow its policy, also after the policy has changed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from deltawitness import CachePolicy, DeltaCache, ObservedSessionContext
from deltawitness.exceptions import ConfigurationError

QUERY = (
    "SELECT value % 4 AS part, value AS id, value * 7919 % 1000 AS x FROM generate_series(1, 1000)"
)


@pytest.fixture
def cache(tmp_path):
    return DeltaCache(ObservedSessionContext(), tmp_path)


def table(tmp_path):
    return DeltaTable(tmp_path / "cache_views" / "seen")


def files(tmp_path):
    folder = tmp_path / "cache_views" / "seen"
    return [
        folder / path for path in table(tmp_path).get_add_actions(flatten=True)["path"].to_pylist()
    ]


def rows(frame):
    return sorted(map(tuple, (row.values() for row in frame.to_pylist())))


@pytest.mark.slow
def test_partitions_follow_the_policy(cache, tmp_path):
    """A valid entry is served with its partitions; recomputed, it gets those of the current policy."""
    query = QUERY.replace("1000)", "60)")  # few values of `x`, because each is a partition
    expected = rows(cache.view("seen", query))
    assert len(expected) == 60
    for columns in (("part",), ("part", "x"), (), ("x",)):
        policy = CachePolicy("laid_out", partition_by=columns)
        cache.invalidate("seen")
        frame = cache.view("seen", query, policy=policy)
        assert table(tmp_path).metadata().partition_columns == list(columns)
        assert frame.schema().names == ["part", "id", "x"]
        assert rows(frame) == rows(cache.view("seen", query, policy=policy)) == expected
    assert list((tmp_path / "cache_views").glob(".*")) == []


@pytest.mark.parametrize(
    "value",
    [
        "TIMESTAMP '2024-05-06 07:08:09.123456'",
        "'two words'",
        "'a/b=c:d%20e'",
        "'grün'",
        "'..'",
        "-0.5",
    ],
)
def test_escaped_partition_values_are_served(value, cache, tmp_path):
    """Partition values that are escaped in folder names, and again in the log, do not damage an entry."""
    query = f"SELECT {value} AS part, 7 AS id"
    policy = CachePolicy("laid_out", partition_by="part")
    expected = cache.view("plain", query).to_pydict()
    assert cache.view("seen", query, policy=policy).to_pydict() == expected
    assert str(cache.explain("seen")) == "seen: hit"
    assert table(tmp_path).version() == 0


def test_zorder_by_sorts_the_files(cache, tmp_path):
    """`zorder_by` sorts the files in a second commit, and the entry stays a hit."""
    policy = CachePolicy("ordered", zorder_by=("x",))
    expected = rows(cache.view("other", QUERY))
    assert rows(cache.view("seen", QUERY, policy=policy)) == expected
    assert [c["operation"] for c in table(tmp_path).history()] == ["OPTIMIZE", "WRITE"]
    (file,) = files(tmp_path)
    ordered = pq.read_table(file)["x"].to_pylist()
    assert ordered == sorted(ordered)
    assert rows(cache.view("seen", QUERY, policy=policy)) == expected
    assert str(cache.explain("seen")) == "seen: hit"
    assert table(tmp_path).version() == 1


@pytest.mark.slow
def test_files_have_the_target_size(cache, tmp_path):
    """`target_file_size` decides how many files a large result gets."""
    query = QUERY.replace("1000)", "300000)")
    cache.view("seen", query, policy=CachePolicy("small", target_file_size=200_000))
    assert len(files(tmp_path)) > 1
    cache.invalidate("seen")
    cache.view("seen", query, policy=CachePolicy("large"))
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, "ZSTD"),
        ("zstd", "ZSTD"),
        ("snappy", "SNAPPY"),
        ("lz4", "LZ4"),
        ("gzip", "GZIP"),
        ("uncompressed", "UNCOMPRESSED"),
    ],
)
def test_files_have_the_compression_of_the_policy(given, found, cache, tmp_path):
    """The compression in the Parquet metadata is that of the policy."""
    more = {} if given is None else {"compress": given}
    cache.view("seen", QUERY, policy=CachePolicy("packed", **more))
    (file,) = files(tmp_path)
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == found


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"partition_by": "nowhere"}, "partition_by names columns that the result does not have"),
        ({"zorder_by": ("id", "nowhere")}, "zorder_by names columns that the result does not have"),
        ({"partition_by": ("part", "id", "x")}, "must leave at least one column"),
        ({"partition_by": "part", "zorder_by": "part"}, "a column cannot be in both zorder_by and"),
    ],
)
def test_a_policy_that_does_not_fit_the_result_is_refused(policy, message, cache, tmp_path):
    """A policy with columns that the result lacks is refused before anything is written."""
    with pytest.raises(ConfigurationError, match=message):
        cache.view("seen", QUERY, policy=CachePolicy("wrong", **policy))
    assert not (tmp_path / "cache_views").exists()


@pytest.mark.slow
def test_columns_keep_their_order(cache, tmp_path):
    """A result that differs only in column order is stored in its order, and nothing is quarantined."""
    for names in ("part, id, x", "x, id, part", "id, x, part"):
        query = f"SELECT {names} FROM ({QUERY})"
        for _ in range(2):
            assert ", ".join(cache.view("seen", query).schema().names) == names
    assert list((tmp_path / "cache_views").glob(".*")) == []


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1], pa.time64("us")),
        pa.array([1], pa.duration("ms")),
        pa.array(np.array([0.5], np.float16)),
        pa.array([[1]], pa.list_(pa.uint8())),
        pa.array([{"a": pa.MonthDayNano([1, 2, 3])}]),
    ],
    ids=lambda column: str(column.type),
)
def test_types_that_delta_lacks_are_computed_on_each_request(column, tmp_path):
    """A result with a type that Delta lacks is computed on each request, without an error."""
    ctx = ObservedSessionContext()
    ctx.from_arrow(pa.table({"a": column}), name="m")
    cache = DeltaCache(ctx, tmp_path)
    for _ in range(2):
        assert cache.view("seen", "SELECT * FROM m").to_pydict() == {"a": column.to_pylist()}
    assert "Delta has no column type for " in str(cache.explain("seen"))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**63 - 1, None], pa.int64()),
        pa.array([1, 255], pa.uint8()),
        pa.array([1, 2**32 - 1], pa.uint32()),
        pa.array([1, 2**63 - 1], pa.uint64()),
        pa.array(["a", "ü\x00"], pa.large_string()),
        pa.array([b"\x00", None], pa.binary()),
        pa.array([[1, None], None]),
        pa.array([{"b": 1, "a": "x"}, None]),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array([1, 2], pa.timestamp("us", "UTC")),
        pa.array([1, 2], pa.date32()),
        pa.array([True, None]),
    ],
    ids=lambda column: str(column.type),
)
def test_values_are_unchanged(column, tmp_path):
    """The stored result has the same values as the computed one."""
    ctx = ObservedSessionContext()
    ctx.from_arrow(pa.table({"a": column}), name="m")
    cache = DeltaCache(ctx, tmp_path)
    for _ in range(2):
        assert cache.view("seen", "SELECT * FROM m").to_pydict() == {"a": column.to_pylist()}
    assert str(cache.explain("seen")) == "seen: hit"
