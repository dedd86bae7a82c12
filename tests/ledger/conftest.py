"""Locations of tests of the ledger, and the recorder of this process."""

from __future__ import annotations

import pytest

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings
from deltawitness.observe import current_observer


@pytest.fixture
def table(tmp_path):
    return str(tmp_path / "t")


@pytest.fixture
def observed(tmp_path):
    """Instrument with a ledger, and return the recorder of this process."""

    def start(providers=None, **settings):
        known = {"cache_root": str(tmp_path / "cache"), "drain_interval": 3600, **settings}
        DeltaLakeInstrumentor().instrument(settings=Settings(**known), **(providers or {}))
        return current_observer().recorder

    return start


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "cache")


@pytest.fixture
def ledger(cache):
    return Ledger(cache)
