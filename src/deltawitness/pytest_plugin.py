"""A pytest plugin: the fixtures `captured_writes`, `fixed_ids` and `delta_telemetry`.

The fixtures import deltawitness when a test uses them: pytest loads this module in every environment
that deltawitness is installed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from deltawitness.testing import CapturedWrites, InMemoryTelemetry

__all__ = ["captured_writes", "delta_telemetry", "fixed_ids"]


@pytest.fixture
def captured_writes(request: pytest.FixtureRequest) -> Iterator[CapturedWrites]:
    """Collect every Delta write that the test makes."""
    if "delta_telemetry" in request.fixturenames:
        request.getfixturevalue(
            "delta_telemetry"
        )  # instruments with its own providers, so it is first
    from deltawitness.testing import capture_writes  # noqa: PLC0415 - see the module

    with capture_writes() as captured:
        yield captured


@pytest.fixture
def fixed_ids() -> Iterator[None]:
    """Make run ids and write ids count up from 1."""
    from deltawitness import testing  # noqa: PLC0415 - see the module

    with testing.fixed_ids():
        yield


@pytest.fixture
def delta_telemetry() -> Iterator[InMemoryTelemetry]:
    """Collect every span, metric and log record of the Delta writes that the test makes."""
    from deltawitness.testing import capture_telemetry  # noqa: PLC0415 - see the module

    with capture_telemetry() as memory:
        yield memory
