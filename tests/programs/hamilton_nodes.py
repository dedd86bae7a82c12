"""Nodes of a Hamilton graph that writes Delta tables, importable by the workers of a process pool."""

from __future__ import annotations

import pyarrow as pa
from deltalake import write_deltalake
from hamilton.htypes import Collect, Parallelizable


def shard(shards: int) -> Parallelizable[int]:
    """Yield the number of each shard."""
    yield from range(shards)


def kept_shard(shard: int, lake: str) -> int:
    """Write a shard, and return its number of rows."""
    write_deltalake(f"{lake}/shard{shard}", pa.table({"id": list(range(shard + 1))}))
    return shard + 1


def rows(kept_shard: Collect[int]) -> int:
    """Return the sum of the shards' rows."""
    return sum(kept_shard)
