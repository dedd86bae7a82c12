"""Observe the delta-rs calls of a session with the attributes of the write: plan, schema, inputs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deltawitness.delta_rs.install import install_for_proxies
from deltawitness.delta_rs.unreached import UnreachedWrite
from deltawitness.internal_errors import report
from deltawitness.observe.write_context import WriteAttributes, write_context
from deltawitness.observe.write_watch import watch_writes
from deltawitness.run import is_suppressed
from deltawitness.semconv import Operation

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["observe_write", "report_if_unreached"]


@contextmanager
def observe_write(attributes: WriteAttributes) -> Iterator[None]:
    """Observe the delta-rs calls inside the block with these attributes."""
    try:
        if not is_suppressed():
            install_for_proxies()
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("session", error)
    with write_context(attributes):
        yield


@contextmanager
def report_if_unreached(
    location: object,
    mode: str | None,
    table: DeltaTable | None = None,
    operation: Operation = Operation.WRITE,
) -> Iterator[None]:
    """Record a write that fails inside the block before it reaches delta-rs.

    A write without what the settings require raises before the block is entered.

    Such a failure passes no instrumented call of delta-rs: the table cannot be opened, a statement
    is refused, or a frame cannot be planned.

    Args:
        location: path or URI of the table.
        mode: save mode.
        table: the table, if it is open.
        operation: the operation of the write.

    Raises:
        RequirementError: the settings refuse the write.
    """
    clock = time.perf_counter_ns()
    with watch_writes() as writes:
        try:
            _require()
            yield
        except BaseException as error:
            if not writes:
                _record(UnreachedWrite.of(operation, location, table, mode, clock), error)
            raise


def _require() -> None:
    if is_suppressed():
        return
    try:
        observer = install_for_proxies()
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("session", error)
        return
    observer.require()


def _record(write: UnreachedWrite, error: BaseException) -> None:
    if is_suppressed():
        return
    try:
        observer = install_for_proxies()
        if observer.is_on():
            write.record_failure(observer, error)
    except Exception as problem:  # noqa: BLE001 - telemetry never changes the write
        report("session", problem)
