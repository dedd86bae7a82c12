"""Fixtures of the tests that run real Collector processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.collector_parts import OTELCOL, Backend, Collector

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the tests of this folder; skip them if there is no Collector and none can be built."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.collector)
    if OTELCOL is not None:
        return
    missing = pytest.mark.skip(
        reason="needs a Collector: set OTELCOL_BIN, or run `make collector` (needs Go)"
    )
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(missing)


@pytest.fixture
def backend():
    """A running backend."""
    one = Backend().up()
    yield one
    one.down()


@pytest.fixture
def collector(tmp_path):
    """A function that starts Collectors; they are stopped at the end of the test."""
    started = []

    def start(config, name="collector", **settings):
        overlays = settings.pop("overlays", ())
        one = Collector(config, tmp_path / name, settings, overlays).start()
        started.append(one)
        return one

    yield start
    for one in started:
        one.stop()
