"""A table that the caller has just seen not to exist is not opened by `write_deltalake`."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from deltawitness import DeltaLakeInstrumentor
from deltawitness.delta_rs.absent_tables import absent_table, take_absent

DATA = pa.table({"x": [1]})


def test_it_is_taken_once_and_only_under_its_location():
    with absent_table("s3://lake/t"):
        taken = [take_absent(each) for each in ("s3://lake/u", "s3://lake/t", "s3://lake/t")]
    assert (taken, take_absent("s3://lake/t")) == ([False, True, False], False)


@pytest.fixture
def observed():
    """Replace the seams of delta-rs for the test."""
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument()
    yield
    instrumentor.uninstrument()


@pytest.mark.usefixtures("observed")
@pytest.mark.parametrize("mode", ["append", "overwrite", "error"])
def test_a_table_that_another_writer_has_created_meanwhile_is_safe(tmp_path, mode):
    """The engine checks for itself: the mode has its meaning, and no row is lost."""
    uri = str(tmp_path / "t")
    write_deltalake(uri, DATA)
    with absent_table(uri):
        if mode == "error":
            with pytest.raises(DeltaError, match="exists"):
                write_deltalake(uri, DATA, mode=mode)
        else:
            write_deltalake(uri, DATA, mode=mode)
    rows = {"append": 2}.get(mode, 1)
    assert DeltaTable(uri).to_pyarrow_table().num_rows == rows
