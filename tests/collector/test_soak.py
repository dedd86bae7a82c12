"""A load for a while loses nothing, and memory and queue stay within their limits."""

from __future__ import annotations

import os

import pytest

from helpers.collector_parts import Collector
from helpers.soak import ALL, MIB, CountingBackend, soak

LIMIT_MIB = 384


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_load_loses_nothing_and_memory_is_bounded(tmp_path, size, say):
    """Every span arrives; memory stays under the limit of the Collector, and the queue empties.

    2 minutes in CI, 30 minutes at full size; SOAK_SECONDS and SOAK_RATE (spans per second) choose others.
    """
    seconds = float(os.environ.get("SOAK_SECONDS", size(120, 1800, 8)))
    rate = float(os.environ.get("SOAK_RATE", size(200, 2000, 100)))
    backend = CountingBackend().up()
    one = Collector(
        "config.yaml",
        tmp_path / "collector",
        {
            "BACKEND_ENDPOINT": f"127.0.0.1:{backend.port}",
            **ALL,
            "DECISION_WAIT": "12s",
            "DECISION_WAIT_AFTER_ROOT": "1s",
            "MEMORY_LIMIT_MIB": str(LIMIT_MIB),
            "MEMORY_SPIKE_MIB": "96",
        },
    ).start()
    try:
        load = soak(one, backend, rate, seconds)
    finally:
        one.stop()
        backend.down()
    say(f"soak: {load.line()}")
    assert load.sent >= 100
    # A span may arrive twice, when the backend answers too late.
    assert load.lost == 0
    # The limit is of the Go heap; code and stacks are beside it.
    assert load.peak < (LIMIT_MIB + 128) * MIB
