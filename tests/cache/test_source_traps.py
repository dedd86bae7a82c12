"""Streams, datasets and other sources of a cached view: what a plan does not show of them counts."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltawitness import DeltaCache, ObservedSessionContext
from deltawitness.exceptions import ConfigurationError


@pytest.fixture
def ctx():
    return ObservedSessionContext()


@pytest.fixture
def cache(ctx, tmp_path):
    return DeltaCache(ctx, tmp_path / "cache")


def test_a_stream_is_read_once(ctx, cache):
    """A stream is read once and staged completely; equal rows are a hit; only the entry is registered."""
    table = pa.table({"k": [1, 2, 3]})
    for source in (table.to_reader(), table, table.to_reader(), table.to_batches()[0]):
        assert cache.dataset("staged", source).to_pydict() == {"k": [1, 2, 3]}
    assert [entry.version for entry in cache.list()] == [0]
    other = pa.table({"k": [1, 2, 4]})
    assert cache.dataset("staged", other).to_pydict() == {"k": [1, 2, 4]}
    assert ctx.catalog().schema().names() == {"staged"}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["parquet", "csv", "json", "arrow"])
def test_a_dataset_of_each_format_is_staged_and_served(ending, cache, tmp_path):
    """A file and a directory of each format are staged and served."""
    table = pa.table({"k": [1, 2]})
    folder = tmp_path / "source"
    folder.mkdir()

    def write(name):
        path = folder / f"{name}.{ending}"
        if ending == "parquet":
            pq.write_table(table, path)
        elif ending == "arrow":
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)
        elif ending == "csv":
            path.write_text("k\n1\n2\n")
        else:
            path.write_text('{"k": 1}\n{"k": 2}\n')
        return path

    path = write("one")
    assert cache.dataset("file", path).to_pydict() == {"k": [1, 2]}
    assert str(cache.explain("file")) == "file: hit"
    assert cache.dataset("folder", folder).count() == 2
    write("two")
    assert str(cache.explain("folder")) == f"folder: miss (input changed: file new: two.{ending})"
    assert cache.dataset("folder", folder).count() == 4
    assert str(cache.explain("folder")) == "folder: hit"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a[1]", "a?", "*", "a%201", "a#1"])
def test_a_dataset_path_is_not_a_glob(name, cache, tmp_path):
    """A path with glob characters means the file or directory with exactly that name."""
    for other, value in (("a1", 1), ("a 1", 1), (name, 2)):
        folder = tmp_path / "lake" / other
        folder.mkdir(parents=True)
        (folder / f"{other}.csv").write_text(f"k\n{value}\n")
    folder = tmp_path / "lake" / name
    for source in (folder, folder / f"{name}.csv"):
        assert cache.dataset("staged", source).to_pydict() == {"k": [2]}
        assert str(cache.explain("staged")) == "staged: hit"
    (folder / f"{name}.csv").write_text("k\n30\n")
    assert cache.dataset("staged", folder).to_pydict() == {"k": [30]}


def test_an_invalid_source_is_refused(cache, tmp_path):
    """A missing path, an unknown format and several formats are refused."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "a.csv").write_text("k\n1\n")
    (tmp_path / "both" / "b.json").write_text('{"k": 1}\n')
    (tmp_path / "a.xls").write_text("")
    for source in (tmp_path / "none", tmp_path / "empty", tmp_path / "both", tmp_path / "a.xls", 7):
        with pytest.raises(ConfigurationError, match="dataset"):
            cache.dataset("staged", source)
    assert cache.list() == []
