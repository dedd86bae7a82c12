"""`DeltaCache`: what a session has computed, kept as Delta tables and served while it is true."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.definitions import EntryDefinition, checked_name, define_view
from deltawitness.cache.entries.policy import (
    DATASET_DELTA_STAGING,
    RUNTIME_ARTIFACT,
    VIEW_DELTA_STAGING,
    CachePolicy,
)
from deltawitness.cache.entries.prune import PruneResult, prune
from deltawitness.cache.entries.store import (
    PRUNED,
    DamagedEntryError,
    Entries,
    Entry,
    details_of_entry,
)
from deltawitness.cache.fingerprint.dependencies import dry_run, stale_names
from deltawitness.cache.fingerprint.diff import Miss, Reason
from deltawitness.cache.kinds.artifacts import define_artifact, load
from deltawitness.cache.kinds.datasets import define_dataset
from deltawitness.cache.kinds.snapshots import EVERYTHING, MetadataSnapshot, write_snapshots
from deltawitness.cache.read_through import Lookup, ReadThroughCache
from deltawitness.cache.verify.verifier import Verdict, Verifier, VerifyResult
from deltawitness.exceptions import CacheError
from deltawitness.ledger.tables.locations import lock_folder, root_of
from deltawitness.semconv import (
    CACHE_MISS_REASON,
    DIAGNOSTIC_CACHE_DAMAGED,
    SPAN_CACHE_READ,
    CacheOperation,
    CacheResult,
    CacheScope,
)
from deltawitness.session.core.state import session_of
from deltawitness.session.proxies import ObservedDataFrame, ObservedSessionContext, plain
from deltawitness.settings import Settings
from deltawitness.telemetry.cache_spans import cache_span

if TYPE_CHECKING:
    import os
    from datetime import timedelta

    from datafusion import DataFrame
    from opentelemetry.util.types import AttributeValue

__all__ = ["CacheEntry", "DeltaCache", "Explanation"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether an entry would be served now, and why not.

    Attributes:
        name: its name.
        scope: what kind of thing it is.
        result: `hit` or `miss`.
        reasons: why it is a miss.
        version: the version that is kept, if there is one.
    """

    name: str
    scope: CacheScope
    result: CacheResult
    reasons: tuple[Reason, ...]
    version: int | None

    def __str__(self) -> str:
        told = "; ".join(str(reason) for reason in self.reasons)
        return f"{self.name}: {self.result.value}" + (f" ({told})" if told else "")


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An entry of the cache as :meth:`DeltaCache.list` tells it.

    Attributes:
        scope: what kind of thing it is.
        name: its name.
        policy: name of its policy.
        version: the version that holds it.
        made_at: when it was kept, in milliseconds since the Unix epoch.
        problem: why it cannot be served, if it cannot.
    """

    scope: CacheScope
    name: str
    policy: str | None
    version: int | None
    made_at: int | None
    problem: str | None = None


class DeltaCache:
    """Keeps what a session computes as Delta tables, and serves it for as long as it is true.

    Args:
        ctx: the session.
        root: the cache root; that of the settings when None, else `.deltawitness`.
        storage_options: as for `DeltaTable`; those of the settings when None.
        settings: how to behave; from the environment when None.

    >>> import tempfile
    >>> from deltawitness import DeltaCache, ObservedSessionContext
    >>> ctx = ObservedSessionContext()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = DeltaCache(ctx, folder)
    ...     first = cache.view("answers", "SELECT 6 * 7 AS answer").to_pydict()
    ...     again = cache.explain("answers")
    >>> first, again.result.value
    ({'answer': [42]}, 'hit')
    """

    def __init__(
        self,
        ctx: ObservedSessionContext,
        root: str | os.PathLike[str] | None = None,
        storage_options: dict[str, str] | None = None,
        *,
        settings: Settings | None = None,
    ) -> None:
        known = settings or Settings.from_env()
        known = replace(
            known,
            cache_root=known.cache_root if root is None else str(root),
            storage_options=storage_options or known.storage_options,
        )
        self._ctx = ctx
        self._root = root_of(known)
        self._entries = Entries(self._root, known, has_own_sink=settings is not None)
        self._locks = lock_folder(known, self._root)
        self._keeper = ReadThroughCache(
            plain(ctx), self._entries, self._locks, keep_plans=known.keep_plans
        )
        self._recipes: dict[tuple[CacheScope, str], EntryDefinition] = {}

    # --- keeping -------------------------------------------------------------------------------------

    def view(
        self,
        name: str,
        query: str | DataFrame,
        *,
        policy: CachePolicy = VIEW_DELTA_STAGING,
        functions: Mapping[str, str] | None = None,
        version: str | None = None,
    ) -> DataFrame:
        """Return the result of a query: the kept one while it is true, else computed and kept.

        It is also registered in the session under its name. The Delta tables that the query reads
        are read at their newest versions, unless they were registered at a fixed one. Values are
        kept as Delta has them: times to the microsecond, and no unsigned numbers.

        Args:
            name: the entry's name.
            query: SQL text of a query, or a frame of the session.
            policy: how it is kept.
            functions: versions of the program's own functions in the query, by name; without one
                the result is computed each time.
            version: what the program says of sources that cannot be seen to have changed.

        Raises:
            ConfigurationError: the name is none, or taken; the text is no query.
            StatementError: the frame is that of a statement.
        """
        return self._keep(
            define_view(
                self._ctx,
                name,
                query,
                policy=policy,
                functions=functions or {},
                version=version,
            )
        )

    def dataset(
        self,
        name: str,
        source: Any,
        *,
        policy: CachePolicy = DATASET_DELTA_STAGING,
        version: str | None = None,
        storage_options: dict[str, str] | None = None,
    ) -> DataFrame:
        """Return a source from outside, staged as Delta; staged again only when it has changed.

        Args:
            name: the entry's name; the session knows it under this name afterwards.
            source: a path of Parquet, CSV, JSON or Arrow, a file or a directory; a path or URI of
                a Delta table; an open Delta table; anything that exports an Arrow stream.
            policy: how it is kept.
            version: what the program says of a source that cannot be seen to have changed.
            storage_options: how a Delta table at a URI is opened.

        Raises:
            ConfigurationError: the name is none, or taken; the source is none of these.
        """
        return self._keep(
            define_dataset(
                self._ctx,
                name,
                source,
                policy=policy,
                version=version,
                storage_options=storage_options,
            )
        )

    def artifact(self, name: str, payload: Any, *, policy: CachePolicy = RUNTIME_ARTIFACT) -> None:
        """Keep what a program has made; nothing is written when the same is kept already.

        Args:
            name: the entry's name.
            payload: an Arrow table or record batch, bytes, a mapping, or what JSON can hold.
            policy: how it is kept.

        Raises:
            ConfigurationError: the name is none, or it would not come back as what it is.
            CacheError: it could not be kept.
        """
        recipe = define_artifact(name, payload, policy=policy)
        self._keep(recipe)

    def load_artifact(self, name: str) -> Any:
        """Return a kept artifact as what it was.

        Raises:
            CacheError: there is none, or it cannot be read.
        """
        details = self._entries.details_of(CacheScope.ARTIFACT, checked_name(name))
        columns = self._entries.columns_of(CacheScope.ARTIFACT, name)
        with cache_span(
            SPAN_CACHE_READ,
            cache_policy=RUNTIME_ARTIFACT.name,
            cache_scope=CacheScope.ARTIFACT,
            operation=CacheOperation.READ,
            columns=columns,
            details=details,
        ) as (_, set_result):
            entry = self._entry(CacheScope.ARTIFACT, name, details)
            absence = _absence_of(entry)
            if entry is not None:
                columns["version"] = entry.version
            if entry is not None and absence is None:
                columns["key"] = None if entry.fingerprint is None else entry.fingerprint.key
                return load(entry)
            set_result(CacheResult.MISS)
            columns["reason"], details[CACHE_MISS_REASON] = str(absence), _kinds(absence)
        msg = f"there is no artifact {name}"
        raise CacheError(msg)

    def snapshot(
        self, what: Sequence[str] = EVERYTHING, name: str = "session"
    ) -> builtins.list[MetadataSnapshot]:
        """Keep what the session knows of itself, each part as a Delta table under `cache_metadata`.

        `tables` and `columns` are those of its catalogs, `settings` its `datafusion.*` settings,
        `inputs` the Delta tables that it has registered, with the versions that it serves. Nothing
        is written where the content is what it was the last time. Values of settings that are
        secrets are masked. What DataFusion caches of files it does not show to Python.

        Args:
            what: the parts.
            name: of the snapshot; the table of a part is called `<name>_<part>`.

        Raises:
            ConfigurationError: there is no such part, or the name is none.
            Exception: the engine's, when a part cannot be written.
        """
        return write_snapshots(plain(self._ctx), self._entries, self._locks, what, name)

    def _keep(self, recipe: EntryDefinition) -> DataFrame:
        kept = self._keeper.keep(recipe)
        if recipe.is_shown:  # what an artifact holds is not held here as well
            self._recipes[recipe.scope, recipe.name] = recipe
            ctx = plain(self._ctx)
            session = session_of(ctx)
            name = session.full_name(ctx, (recipe.name,))
            session.cached_names[name] = partial(self._bring_up, recipe)
        is_observed = isinstance(self._ctx, ObservedSessionContext)
        return ObservedDataFrame(plain(kept)) if is_observed else plain(kept)

    def _bring_up(self, recipe: EntryDefinition) -> None:
        """Bring an entry up to date that another one reads; or only look whether it is."""
        noted = stale_names()
        if noted is None:
            self._keeper.keep(recipe)
        elif not self._keeper.look(recipe).is_hit:
            noted.append(recipe.name)

    # --- asking --------------------------------------------------------------------------------------

    def explain(self, name: str) -> Explanation:
        """Return whether the entry would be served now, and why not; nothing is computed.

        Args:
            name: of a view or dataset that this cache was asked for before.

        Raises:
            CacheError: it was not.
        """
        found = [recipe for (_, known), recipe in self._recipes.items() if known == name]
        if not found:
            msg = f"{name}: this cache was not asked for it yet, and so cannot tell how it is made"
            raise CacheError(msg)
        with dry_run() as stale:
            lookup = self._keeper.look(found[-1])
        return _explained(found[-1], lookup, stale)

    def list(self) -> list[CacheEntry]:
        """Return every entry, whatever state it is in."""
        return list(self._listed())

    def _listed(self) -> Iterator[CacheEntry]:
        for scope in _SCOPES:
            for name in self._entries.names(scope):
                try:
                    entry = self._entries.read(scope, name)
                except DamagedEntryError as damage:
                    yield CacheEntry(scope, name, None, None, None, f"damaged: {damage}")
                    continue
                if entry is not None:
                    gone = PRUNED if PRUNED in entry.facts else "invalidated"
                    problem = None if entry.fingerprint is not None else gone
                    yield CacheEntry(
                        scope, name, entry.policy, entry.version, entry.made_at, problem
                    )

    def invalidate(self, name: str) -> None:
        """Have an entry computed anew when it is asked for next; what it holds stays.

        Raises:
            CacheError: there is none of that name.
        """
        found = [scope for scope in _SCOPES if self._entry(scope, name) is not None]
        if not found:
            msg = f"there is no entry {name}"
            raise CacheError(msg)
        for scope in found:
            entry = self._entry(scope, name)
            if entry is not None:
                self._keeper.invalidate(scope, name, entry.policy)

    def prune(
        self,
        policy: CachePolicy | None = None,
        *,
        older_than: timedelta | None = None,
        set_aside: bool = False,
    ) -> PruneResult:
        """Let go of the rows of entries that are older than their retention, and of old versions.

        An entry is as old as its rows. One that is too old loses them and is a miss the next time;
        of the others the files of versions that were replaced longer ago are deleted. Entries
        without a retention stay. What is damaged is never touched.

        Args:
            policy: only entries that were kept under a policy of this name, by its retention; when
                None all of them, each by the retention that it was kept with.
            older_than: in place of any retention.
            set_aside: delete as well the damaged entries that were set aside longer ago.

        Raises:
            ConfigurationError: `older_than` is not positive.
            OSError: the storage cannot be listed.
        """
        return prune(
            self._entries, self._locks, policy=policy, older_than=older_than, set_aside=set_aside
        )

    def verify(self, name: str) -> VerifyResult:
        """Compute an entry anew from the versions that it was made from, and compare; nothing is written.

        Args:
            name: of a view or dataset; this cache need not have been asked for it, where its plan
                was kept with it.

        Raises:
            CacheError: there is none of that name.
        """
        verifier = Verifier(
            self._root, plain(self._ctx), self._recipes, settings=self._entries.settings
        )
        for scope in _SCOPES:
            try:
                entry = self._entries.read(scope, checked_name(name))
            except DamagedEntryError as damage:
                self._entries.diagnose(DIAGNOSTIC_CACHE_DAMAGED, scope, name, reason=str(damage))
                return VerifyResult(name, scope, None, Verdict.CANNOT_TELL, f"damaged: {damage}")
            if entry is not None:
                return verifier.version(name, scope, entry.uri, entry.version, policy=entry.policy)
        msg = f"there is no entry {name}"
        raise CacheError(msg)

    def _entry(
        self, scope: CacheScope, name: str, details: dict[str, AttributeValue | None] | None = None
    ) -> Entry | None:
        """Return an entry; what a span says of it is added to the details.

        Raises:
            CacheError: it is damaged.
        """
        told = {} if details is None else details
        try:
            entry = self._entries.read(scope, checked_name(name))
        except DamagedEntryError as damage:
            told[CACHE_MISS_REASON] = [Miss.DAMAGED.value]
            self._entries.diagnose(DIAGNOSTIC_CACHE_DAMAGED, scope, name, reason=str(damage))
            msg = f"{name}: {damage}"
            raise CacheError(msg) from damage
        if entry is not None:
            told.update(details_of_entry(entry))
        return entry


def _absence_of(entry: Entry | None) -> Reason | None:
    """Return why an entry holds nothing to be served; None where it does."""
    if entry is None:
        return Reason(Miss.ABSENT, "absent: it was never kept")
    if entry.fingerprint is None:
        return Reason(Miss.INVALIDATED, PRUNED if PRUNED in entry.facts else "invalidated")
    return None


def _kinds(reason: Reason | None) -> list[str] | None:
    return None if reason is None else [reason.kind.value]


_SCOPES = (CacheScope.VIEW, CacheScope.DATASET, CacheScope.ARTIFACT, CacheScope.METADATA)


def _explained(recipe: EntryDefinition, found: Lookup, stale: list[str]) -> Explanation:
    above = tuple(
        Reason(Miss.INPUT_CHANGED, f"input changed: {name} is to be made anew")
        for name in dict.fromkeys(stale)
    )
    reasons = found.reasons + above
    return Explanation(
        name=recipe.name,
        scope=recipe.scope,
        result=CacheResult.MISS if reasons else CacheResult.HIT,
        reasons=reasons,
        version=None if found.entry is None else found.entry.version,
    )
