"""After a write that raised: the session serves what is in the table by then.

An error can follow a commit that has landed. The surest way to one is Ctrl-C: Python raises
`KeyboardInterrupt` when delta-rs returns, and by then the commit is in the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deltawitness.exceptions import StatementError
from deltawitness.internal_errors import report

if TYPE_CHECKING:
    from datafusion import SessionContext
    from deltalake import DeltaTable

    from deltawitness.session.core.state import Session

__all__ = ["publishing_after_failure"]


@contextmanager
def publishing_after_failure(
    session: Session, ctx: SessionContext, uri: str, storage_options: Mapping[str, str] | None
) -> Iterator[None]:
    """Serve the newest version of a table when the write inside the block raises.

    The exception leaves as it is. A statement that is refused has written nothing, and the table is
    not opened for it.

    Args:
        session: the state of the session that writes.
        ctx: a context of this session.
        uri: where the table lies.
        storage_options: how it is opened.
    """
    try:
        yield
    except StatementError:
        raise
    except BaseException:
        _publish_newest(session, ctx, uri, storage_options)
        raise


def _publish_newest(
    session: Session, ctx: SessionContext, uri: str, storage_options: Mapping[str, str] | None
) -> None:
    # Opened anew: nobody knows what an open table has seen after an exception.
    table = _opened(uri, None if storage_options is None else dict(storage_options))
    if table is None:
        return
    try:
        session.publish_location(ctx, uri, table)
    except Exception as error:  # noqa: BLE001 - the write's own exception is to leave
        report("session", error)


def _opened(uri: str, storage_options: dict[str, str] | None) -> DeltaTable | None:
    """Return the table; None where it cannot be opened, which may be why the write has failed."""
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy, and there already

    try:
        return DeltaTable(uri, storage_options=storage_options)
    except Exception:  # noqa: BLE001 - as above
        return None
