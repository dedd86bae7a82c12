"""A receipt has the version and the rows of the write that it is for, also while others write to the table."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from deltawitness import (
    ObservedSessionContext,
    ObservedWritePipeline,
    WritePipeline,
    WriteRequest,
    suppressed,
)
from helpers.engine_versions import needs_deltalake

THREE = pa.table({"x": [1, 2, 3]})
NINE = pa.table({"x": list(range(9))})


def by_pipeline(uri, source=THREE, **options):
    return WritePipeline().write(WriteRequest(source=source, destination=uri, **options))


def by_observed_pipeline(uri, source=THREE, **options):
    pipeline = ObservedWritePipeline(WritePipeline(reuse_handles=False))
    return pipeline.write(WriteRequest(source=source, destination=uri, **options))


def by_frame(uri, source=THREE, **options):
    ctx = ObservedSessionContext()
    frame = ctx.from_arrow(source if isinstance(source, pa.Table) else source.read_all())
    return frame.write_delta(uri, **options)


def by_suppressed_frame(uri, source=THREE, **options):
    with suppressed():
        return by_frame(uri, source, **options)


WAYS = [by_pipeline, by_observed_pipeline, by_frame, by_suppressed_frame]


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "t")


@pytest.fixture
def overtaken(monkeypatch):
    """Append to a table from another writer, between a write to it and the end of the write's call."""
    write = deltalake.write_deltalake

    def written_and_overtaken(table_or_uri, data, **options):
        write(table_or_uri, data, **options)
        where = getattr(table_or_uri, "table_uri", table_or_uri)
        with suppressed():
            for _ in range(3):
                write(where, NINE, mode="append")

    monkeypatch.setattr(deltalake, "write_deltalake", written_and_overtaken)


def metadata_of(uri, version):
    lines = Path(uri, "_delta_log", f"{version:020d}.json").read_text().splitlines()
    return next(json.loads(line)["commitInfo"] for line in lines if "commitInfo" in line)


@pytest.mark.parametrize("write", WAYS)
@pytest.mark.parametrize("mode", ["error", "append", "overwrite", "ignore"])
def test_a_write_that_creates_a_table_and_is_overtaken(uri, overtaken, write, mode):
    """The receipt has version 0 and its rows, not those of a later commit."""
    result = write(uri, mode=mode)
    assert (result.version, result.rows, result.skipped) == (0, 3, False)
    assert DeltaTable(uri).version() == 3


@pytest.mark.parametrize("write", WAYS)
@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_write_to_a_table_that_is_overtaken(uri, overtaken, write, mode):
    """The receipt has the version of the open table's own commit."""
    with suppressed():
        write_deltalake(uri, THREE)
    result = write(uri, mode=mode)
    assert (result.version, result.rows) == (1, 3)


def suppressed_write(uri):
    with suppressed():
        write_deltalake(uri, NINE)


@needs_deltalake("1.4.0", "an append after a lost race to create the table")
@pytest.mark.parametrize("write", [by_pipeline, by_observed_pipeline])
def test_a_creation_that_loses_its_race_is_not_version_0(uri, write):
    """When another writer creates the table while the rows are read, the receipt has the later version."""

    def batches():
        # On a separate thread: the engine that reads the rows cannot be called from inside.
        other = threading.Thread(target=suppressed_write, args=(uri,))
        other.start()
        other.join()
        yield from THREE.to_batches()

    reader = pa.RecordBatchReader.from_batches(THREE.schema, batches())
    result = write(uri, reader, mode="append")
    assert (result.version, result.rows) == (1, 3)
    assert DeltaTable(uri).version() == 1


@pytest.mark.parametrize("write", WAYS)
def test_an_ignored_write_has_an_empty_receipt(uri, write):
    """Mode `ignore` on an existing table gives an empty receipt."""
    write_deltalake(uri, NINE)
    result = write(uri, mode="ignore")
    assert (result.version, result.rows, result.skipped) == (None, None, True)


@pytest.mark.parametrize("write", WAYS)
def test_the_callers_metadata_is_in_the_commit(uri, write):
    """A receipt id is added to the caller's metadata only where a table is created."""
    own = CommitProperties(custom_metadata={"who": "me"})
    write(uri, commit_properties=own)
    write(uri, mode="append", commit_properties=own)
    first, second = metadata_of(uri, 0), metadata_of(uri, 1)
    assert (first["who"], second["who"]) == ("me", "me")
    assert ("receipt_id" in first, "receipt_id" in second) == (True, False)
    assert own.custom_metadata == {"who": "me"}


@pytest.mark.internal_errors
@pytest.mark.parametrize("write", WAYS)
def test_a_log_that_cannot_be_read_leaves_the_receipt_empty(uri, write, monkeypatch):
    """The write has committed, and the receipt does not have the version of another commit."""

    def broken(*_):
        raise OSError

    monkeypatch.setattr("deltawitness.delta_rs.own_commits.find_commit", broken)
    result = write(uri)
    assert (result.version, result.rows) == (None, None)
    assert DeltaTable(uri).version() == 0
