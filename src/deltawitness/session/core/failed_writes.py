"""Serve a table's newest version after a write that raised, because its commit may have landed.

Ctrl-C is the most likely case: Python raises `KeyboardInterrupt` when delta-rs returns, and by then
the commit is in the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deltawitness.exceptions import ExpectationError, RequirementError, StatementError
from deltawitness.internal_errors import report

if TYPE_CHECKING:
    from datafusion import SessionContext
    from deltalake import DeltaTable

    from deltawitness.session.core.state import Session

__all__ = ["publish_after_failure"]


@contextmanager
def publish_after_failure(
    session: Session, ctx: SessionContext, uri: str, storage_options: Mapping[str, str] | None
) -> Iterator[None]:
    """Serve the newest version of a table when the write inside the block raises.

    The exception is raised again unchanged. The table is not opened after a `StatementError` or
    a `RequirementError`: a refused statement has written nothing.

    Args:
        session: the state of the session that writes.
        ctx: a context of this session.
        uri: the table's path or URI.
        storage_options: options to open the table with.
    """
    try:
        yield
    except (StatementError, RequirementError, ExpectationError):
        raise
    except BaseException:
        _publish_newest(session, ctx, uri, storage_options)
        raise


def _publish_newest(
    session: Session, ctx: SessionContext, uri: str, storage_options: Mapping[str, str] | None
) -> None:
    # A new handle: after an exception the state of the existing one is undefined.
    table = _open_table(uri, None if storage_options is None else dict(storage_options))
    if table is None:
        return
    try:
        session.tables.publish_location(ctx, uri, table)
    except Exception as error:  # noqa: BLE001 - the write's own exception must reach the caller
        report("session", error)


def _open_table(uri: str, storage_options: dict[str, str] | None) -> DeltaTable | None:
    """Return the table; None if it cannot be opened, which may be why the write failed."""
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy, already loaded

    try:
        return DeltaTable(uri, storage_options=storage_options)
    except Exception:  # noqa: BLE001 - as above
        return None
