"""`DeltaCache`: stores results of a session as Delta tables, serves them while their inputs are unchanged."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.definitions import EntryDefinition, checked_name, define_view
from deltawitness.cache.entries.entry import PRUNED, DamagedEntryError, Entry, details_of_entry
from deltawitness.cache.entries.listing import SCOPES, CacheEntry, iter_entries
from deltawitness.cache.entries.policy import (
    DATASET_DELTA_STAGING,
    RUNTIME_ARTIFACT,
    VIEW_DELTA_STAGING,
    CachePolicy,
)
from deltawitness.cache.entries.prune import PruneResult, prune
from deltawitness.cache.entries.store import Entries
from deltawitness.cache.kinds.artifacts import define_artifact, load
from deltawitness.cache.kinds.datasets import define_dataset
from deltawitness.cache.kinds.snapshots import EVERYTHING, MetadataSnapshot, write_snapshots
from deltawitness.cache.read_through import Lookup, ReadThroughCache
from deltawitness.cache.verify.results import Verdict, VerifyResult
from deltawitness.cache.verify.verifier import Verifier
from deltawitness.exceptions import CacheError
from deltawitness.html_display import HtmlDisplay
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
from deltawitness.session.fingerprint.dependencies import dry_run, stale_names
from deltawitness.session.fingerprint.diff import Miss, MissReason
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
class Explanation(HtmlDisplay):
    """Whether an entry would be served now, and why not.

    Attributes:
        name: name of the entry.
        scope: view, dataset, artifact or metadata.
        result: `hit` or `miss`.
        reasons: why it is a miss; empty for a hit.
        version: the table version that holds the stored entry; None without one.
    """

    name: str
    scope: CacheScope
    result: CacheResult
    reasons: tuple[MissReason, ...]
    version: int | None

    def __str__(self) -> str:
        reasons = "; ".join(str(reason) for reason in self.reasons)
        return f"{self.name}: {self.result.value}" + (f" ({reasons})" if reasons else "")


class DeltaCache:
    """Stores results of a session as Delta tables, and serves them while their inputs are unchanged.

    Args:
        ctx: the session.
        root: path or URI of the cache root; None: the one in the settings, or else `.deltawitness`.
        storage_options: as for `DeltaTable`; None: those in the settings.
        settings: the settings; None: read them from the environment.

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
        resolved = Settings.or_from_env(settings)
        resolved = replace(
            resolved,
            cache_root=resolved.cache_root if root is None else str(root),
            storage_options=storage_options or resolved.storage_options,
        )
        self._ctx = ctx
        self._root = root_of(resolved)
        self._entries = Entries(self._root, resolved, has_own_sink=settings is not None)
        self._locks = lock_folder(resolved, self._root)
        self._read_through = ReadThroughCache(
            plain(ctx), self._entries, self._locks, keep_plans=resolved.keep_plans
        )
        self._definitions: dict[tuple[CacheScope, str], EntryDefinition] = {}

    # --- entries -------------------------------------------------------------------------------------

    def view(
        self,
        name: str,
        query: str | DataFrame,
        *,
        policy: CachePolicy = VIEW_DELTA_STAGING,
        functions: Mapping[str, str] | None = None,
        version: str | None = None,
    ) -> DataFrame:
        """Return the result of a query: the stored one while it is valid, otherwise compute and store it.

        The result is also registered in the session under the entry's name. The query reads Delta
        tables at their newest versions, except those registered at a fixed version. Values are stored
        with Delta's types: timestamps in microseconds, and no unsigned integers.

        Args:
            name: name of the entry.
            query: SQL text of a query, or a frame of the session.
            policy: how the entry is stored and how long it is served.
            functions: versions of the user-defined functions in the query, by name. A query that calls
                one without a version is computed on each call.
            version: a version that the caller gives to inputs whose changes cannot be detected.

        Raises:
            ConfigurationError: the name is invalid or taken, or the text is not a query.
            StatementError: the frame is the result of a statement.
        """
        return self._get(
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
        """Return an external source staged as a Delta table; it is staged again only when it has changed.

        Args:
            name: name of the entry, and of the table that the session gets.
            source: path of Parquet, CSV, JSON or Arrow data (a file or a directory); path or URI of a
                Delta table; an open Delta table; any object that exports an Arrow stream.
            policy: how the entry is stored and how long it is served.
            version: a version that the caller gives to a source whose changes cannot be detected.
            storage_options: options to open a Delta table at a URI.

        Raises:
            ConfigurationError: the name is invalid or taken, or the source is of another kind.
        """
        return self._get(
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
        """Store a value; nothing is written when the stored entry already holds the same value.

        Args:
            name: name of the entry.
            payload: an Arrow table or record batch, bytes, a mapping, or a JSON-serializable value.
            policy: how the entry is stored.

        Raises:
            ConfigurationError: the name is invalid, or the payload would not survive the round trip.
            CacheError: the entry could not be written.
        """
        self._get(define_artifact(name, payload, policy=policy))

    def load_artifact(self, name: str) -> Any:
        """Return a stored artifact with its original type.

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
            columns["reason"], details[CACHE_MISS_REASON] = str(absence), _reason_kinds(absence)
        msg = f"there is no artifact {name}"
        raise CacheError(msg)

    def snapshot(
        self, what: Sequence[str] = EVERYTHING, name: str = "session"
    ) -> builtins.list[MetadataSnapshot]:
        """Store the metadata of the session, each part as a Delta table under `cache_metadata`.

        `tables` and `columns` are those of its catalogs, `settings` its `datafusion.*` settings,
        `inputs` its registered Delta tables with the versions that it serves. A part whose content has
        not changed since the last snapshot is not written. Values of secret settings are masked.
        DataFusion's file caches are not included: Python cannot read them.

        Args:
            what: the parts to store.
            name: name of the snapshot; the table of a part is named `<name>_<part>`.

        Raises:
            ConfigurationError: a part does not exist, or the name is invalid.
            Exception: of the engine, when a part cannot be written.
        """
        return write_snapshots(plain(self._ctx), self._entries, self._locks, what, name)

    def _get(self, definition: EntryDefinition) -> DataFrame:
        frame = self._read_through.get(definition)
        if definition.is_registered:  # do not keep the payload of an artifact in memory
            self._definitions[definition.scope, definition.name] = definition
            ctx = plain(self._ctx)
            session = session_of(ctx)
            name = session.names.full_name(ctx, (definition.name,))
            session.cache_links.register_entry(name, partial(self._refresh_entry, definition))
        is_observed = isinstance(self._ctx, ObservedSessionContext)
        return ObservedDataFrame(plain(frame)) if is_observed else plain(frame)

    def _refresh_entry(self, definition: EntryDefinition) -> None:
        """Refresh an entry that another entry reads; in a dry run only record its name if it is stale."""
        stale = stale_names()
        if stale is None:
            self._read_through.get(definition)
        elif not self._read_through.lookup(definition).is_hit:
            stale.append(definition.name)

    # --- inspect and maintain ---------------------------------------------------------------------

    def explain(self, name: str) -> Explanation:
        """Return whether an entry would be served now, and why not. Computes nothing.

        Args:
            name: name of a view or dataset that was requested from this cache object before.

        Raises:
            CacheError: the name was not requested before, so that its definition is not available.
        """
        found = [each for each in self._definitions.values() if each.name == name]
        if not found:
            msg = f"{name}: call view() or dataset() on this cache first, so that it has the definition"
            raise CacheError(msg)
        with dry_run() as stale:
            lookup = self._read_through.lookup(found[-1])
        return _explanation_of(found[-1], lookup, stale)

    def list(self) -> list[CacheEntry]:
        """Return all entries, also those that cannot be served."""
        return list(iter_entries(self._entries))

    def invalidate(self, name: str) -> None:
        """Invalidate an entry, so that the next request recomputes it. Its data files stay.

        Raises:
            CacheError: there is no entry with this name.
        """
        found = [scope for scope in SCOPES if self._entry(scope, name) is not None]
        if not found:
            msg = f"there is no entry {name}"
            raise CacheError(msg)
        for scope in found:
            entry = self._entry(scope, name)
            if entry is not None:
                self._read_through.invalidate(scope, name, entry.policy)

    def prune(
        self,
        policy: CachePolicy | None = None,
        *,
        older_than: timedelta | None = None,
        set_aside: bool = False,
    ) -> PruneResult:
        """Delete the rows of entries past their retention, and vacuum replaced versions of the others.

        The age of an entry is the age of its rows. An entry past its retention loses its rows and is a
        miss on the next request. Of the other entries, files of versions that were replaced longer ago
        than the retention are deleted. Entries without a retention stay. Damaged entries are not
        touched.

        Args:
            policy: prune only entries stored under a policy with this name, by the retention of this
                object; None: all entries, each by the retention that it was stored with.
            older_than: use this instead of any retention.
            set_aside: also delete damaged entries that were quarantined longer ago than the retention.

        Raises:
            ConfigurationError: `older_than` is not positive.
            OSError: the storage cannot be listed.
        """
        return prune(
            self._entries, self._locks, policy=policy, older_than=older_than, set_aside=set_aside
        )

    def verify(self, name: str) -> VerifyResult:
        """Recompute an entry from the recorded versions of its inputs, and compare. Writes nothing.

        Args:
            name: name of a view or dataset. This cache object need not have its definition if the plan
                was stored with the entry.

        Raises:
            CacheError: there is no entry with this name.
        """
        verifier = Verifier(
            self._root, plain(self._ctx), self._definitions, settings=self._entries.settings
        )
        for scope in SCOPES:
            try:
                entry = self._entries.read(scope, checked_name(name))
            except DamagedEntryError as damage:
                self._entries.diagnose(DIAGNOSTIC_CACHE_DAMAGED, scope, name, reason=str(damage))
                return VerifyResult(name, scope, None, Verdict.CANNOT_TELL, f"damaged: {damage}")
            if entry is not None:
                return verifier.verify_version(
                    name, scope, entry.uri, entry.version, policy=entry.policy
                )
        msg = f"there is no entry {name}"
        raise CacheError(msg)

    def _entry(
        self, scope: CacheScope, name: str, details: dict[str, AttributeValue | None] | None = None
    ) -> Entry | None:
        """Read an entry, and add its span attributes to `details`.

        Raises:
            CacheError: it is damaged.
        """
        details = {} if details is None else details
        try:
            entry = self._entries.read(scope, checked_name(name))
        except DamagedEntryError as damage:
            details[CACHE_MISS_REASON] = [Miss.DAMAGED.value]
            self._entries.diagnose(DIAGNOSTIC_CACHE_DAMAGED, scope, name, reason=str(damage))
            msg = f"{name}: {damage}"
            raise CacheError(msg) from damage
        if entry is not None:
            details.update(details_of_entry(entry))
        return entry


def _absence_of(entry: Entry | None) -> MissReason | None:
    """Return why an entry has nothing to serve; None when it has."""
    if entry is None:
        return MissReason(Miss.ABSENT, "absent: nothing is stored under this name")
    if entry.fingerprint is None:
        return MissReason(Miss.INVALIDATED, PRUNED if PRUNED in entry.properties else "invalidated")
    return None


def _reason_kinds(reason: MissReason | None) -> list[str] | None:
    return None if reason is None else [reason.kind.value]


def _explanation_of(definition: EntryDefinition, found: Lookup, stale: list[str]) -> Explanation:
    upstream = tuple(
        MissReason(Miss.INPUT_CHANGED, f"input changed: {name} must be recomputed")
        for name in dict.fromkeys(stale)
    )
    reasons = found.reasons + upstream
    return Explanation(
        name=definition.name,
        scope=definition.scope,
        result=CacheResult.MISS if reasons else CacheResult.HIT,
        reasons=reasons,
        version=None if found.entry is None else found.entry.version,
    )
