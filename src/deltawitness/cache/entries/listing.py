"""The entries of a cache with their state, read from their tables' metadata without an engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deltawitness.cache.entries.entry import PRUNED, DamagedEntryError
from deltawitness.cache.entries.store import Entries
from deltawitness.semconv import CacheScope

__all__ = ["SCOPES", "CacheEntry", "iter_entries"]

SCOPES = (CacheScope.VIEW, CacheScope.DATASET, CacheScope.ARTIFACT, CacheScope.METADATA)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An entry of the cache, as :meth:`DeltaCache.list` returns it.

    Attributes:
        scope: view, dataset, artifact or metadata.
        name: its name.
        policy: name of its policy.
        version: version of its table that holds the rows.
        made_at: time of the write, in milliseconds since the Unix epoch.
        problem: why it cannot be served; None when it can.
    """

    scope: CacheScope
    name: str
    policy: str | None
    version: int | None
    made_at: int | None
    problem: str | None = None


def iter_entries(entries: Entries) -> Iterator[CacheEntry]:
    """Yield every entry, in any state."""
    for scope in SCOPES:
        for name in entries.names(scope):
            try:
                entry = entries.read(scope, name)
            except DamagedEntryError as damage:
                yield CacheEntry(scope, name, None, None, None, f"damaged: {damage}")
                continue
            if entry is not None:
                gone = PRUNED if PRUNED in entry.properties else "invalidated"
                problem = None if entry.fingerprint is not None else gone
                yield CacheEntry(scope, name, entry.policy, entry.version, entry.made_at, problem)
