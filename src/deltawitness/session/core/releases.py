"""Register the tables of a release in a session."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from deltawitness.exceptions import ReleaseError
from deltawitness.ledger.tables.locations import chosen_settings, root_of
from deltawitness.ledger.tables.releases import read_releases
from deltawitness.locations import local_path
from deltawitness.session.core.state import session_of
from deltawitness.sql_quoting import quote_identifier

if TYPE_CHECKING:
    from datafusion import SessionContext

__all__ = ["register_release"]


def register_release(
    ctx: SessionContext,
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Register each table of a release at its version, under its name.

    Args:
        ctx: the session.
        name: name of the release.
        root: the cache root of the ledger with the release; as for :func:`show`.
        storage_options: as for `DeltaTable`, for a ledger and tables on an object store; those of the
            settings when None.

    Returns:
        The names of the tables.

    Raises:
        ReleaseError: there is no such release, or a table was created again since.
        DeltaError: a version can no longer be read.
    """
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    given = chosen_settings(root, None, None)
    options = given.storage_options if storage_options is None else dict(storage_options)
    given = replace(given, storage_options=options)
    found = read_releases(root_of(given), name)
    if not found:
        msg = f"there is no release {name}"
        raise ReleaseError(msg)
    session, opened = session_of(ctx), []
    for table in found[0].tables:
        local = local_path(table.uri)
        version = DeltaTable(
            local or table.uri,
            version=table.version,
            storage_options=options if local is None else None,
        )
        if str(version.metadata().id) != table.metadata_id:
            msg = f"{table} of release {name}: the table was deleted and created again"
            raise ReleaseError(msg)
        opened.append((table.name, version))
    for each, version in opened:
        parsed = session.names.parsed_name(ctx, quote_identifier(each))
        session.tables.register(ctx, parsed, version, fixed=True)
    return tuple(each for each, _ in opened)
