"""Register the tables of a release in a session."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from deltawitness.exceptions import ReleaseError
from deltawitness.ledger.tables.locations import root_of
from deltawitness.ledger.tables.releases import read_releases
from deltawitness.locations import local_path
from deltawitness.observe.observer import current_observer
from deltawitness.session.core.state import session_of
from deltawitness.settings import Settings

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
        root: the cache root of the ledger with the release; that of the settings when None.
        storage_options: as for `DeltaTable`, for tables on an object store.

    Returns:
        The names of the tables.

    Raises:
        ReleaseError: there is no such release, or a table was created again since.
        DeltaError: a version can no longer be read.
    """
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    observer = current_observer()
    settings = Settings.from_env() if observer is None else observer.settings
    given = settings if root is None else replace(settings, cache_root=os.fspath(root))
    found = read_releases(root_of(given), name)
    if not found:
        msg = f"there is no release {name}"
        raise ReleaseError(msg)
    session, opened = session_of(ctx), []
    for table in found[0].tables:
        is_local = local_path(table.uri) is not None
        given_options = None if storage_options is None else dict(storage_options)
        options = None if is_local else given_options or given.storage_options
        version = DeltaTable(
            local_path(table.uri) or table.uri, version=table.version, storage_options=options
        )
        if str(version.metadata().id) != table.metadata_id:
            msg = f"{table} of release {name}: the table was deleted and created again"
            raise ReleaseError(msg)
        opened.append((table.name, version))
    for each, version in opened:
        quoted = '"' + each.replace('"', '""') + '"'
        session.register(ctx, session.parsed_name(ctx, quoted), version, fixed=True)
    return tuple(each for each, _ in opened)
