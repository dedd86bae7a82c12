"""Writes of random histories whose rows come from a query plan, so that their inputs are exact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from deltalake import write_deltalake

from deltawitness import ObservedSessionContext

__all__ = ["insert_select", "overwrite_with_frame"]


def insert_select(lake: Path, table: str, added: Mapping[str, int]) -> None:
    """Append the rows of tables to a table, with SQL.

    Args:
        lake: folder of the tables.
        table: name of the written table.
        added: names of the read tables, with what the query adds to their ids.
    """
    ctx = _session(lake, {table, *added})
    ctx.sql(f"INSERT INTO {table} (id, value) {_query(added)}").collect()


def overwrite_with_frame(lake: Path, table: str, added: Mapping[str, int]) -> None:
    """Replace the rows of a table by those of a frame, with delta-rs; arguments as for `insert_select`."""
    frame = _session(lake, added).sql(_query(added))
    write_deltalake(str(lake / table), frame, mode="overwrite")


def _session(lake: Path, names: Iterable[str]) -> ObservedSessionContext:
    ctx = ObservedSessionContext()
    for name in names:
        ctx.register_delta(name, str(lake / name))
    return ctx


def _query(added: Mapping[str, int]) -> str:
    return " UNION ALL ".join(
        f"SELECT id + {more} AS id, value FROM {name}" for name, more in added.items()
    )
