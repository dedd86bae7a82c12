"""A kept result as a frame of the session, under its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltawitness.exceptions import ConfigurationError
from deltawitness.hashing import table_id
from deltawitness.proxies.originals import original
from deltawitness.proxies.state import session_of

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable

__all__ = ["check_name_is_free", "served"]


def check_name_is_free(ctx: SessionContext, name: str, uri: str) -> None:
    """See that an entry can be registered under its name.

    Args:
        ctx: the plain context.
        name: the entry's name.
        uri: where the entry lies.

    Raises:
        ConfigurationError: the session knows something else under this name.
    """
    session = session_of(ctx)
    full = session.full_name(ctx, (name,))
    known = session.snapshot.get(full)
    is_ours = known is not None and known.table_id == table_id(uri)
    if not is_ours and original(ctx, "table_exist")(full.sql()):
        msg = f"the session knows another table under the name {name}: choose another name"
        raise ConfigurationError(msg)


def served(ctx: SessionContext, name: str, table: DeltaTable) -> DataFrame:
    """Register an entry's table under its name, and return it as a frame.

    Args:
        ctx: the plain context.
        name: the entry's name.
        table: its table, at the version to serve.
    """
    session = session_of(ctx)
    full = session.full_name(ctx, (name,))
    known = session.snapshot.get(full)
    if known is None:
        session.register(ctx, full, table)
    else:
        session.publish(ctx, known, table)
    frame: DataFrame = ctx.table(full.sql())
    return frame
