"""A table for the tests of delta-rs."""

from __future__ import annotations

import pytest
from deltalake import write_deltalake

from deltawitness import suppressed
from helpers.delta_rs_writes import rows


@pytest.fixture
def table(tmp_path):
    """A table of three rows, written before the instrumentation."""
    uri = tmp_path / "flights"
    with suppressed():
        write_deltalake(uri, rows(1, 2, 3))
    return uri
