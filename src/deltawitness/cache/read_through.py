"""Read-through: serve an entry that is valid; otherwise compute it under the entry lock, store it, serve it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deltawitness.cache.entries.definitions import Candidate, EntryDefinition
from deltawitness.cache.entries.entry import PRUNED, DamagedEntryError, Entry
from deltawitness.cache.entries.locks import entry_lock, last_write, record_write
from deltawitness.cache.entries.plan_store import PLAN, storable_plan, store_plan
from deltawitness.cache.entries.policy import OnError
from deltawitness.cache.entries.store import Entries
from deltawitness.cache.entries.writer import (
    check_columns,
    invalidate,
    is_error_of_query,
    is_race_lost,
    write_entry,
)
from deltawitness.cache.registration import (
    check_name_is_free,
    record_written,
    register_entry,
    register_uncached,
    served_now,
)
from deltawitness.commit.early_reads import early_reads, forget_early_reads
from deltawitness.commit.log import reuse_reads
from deltawitness.exceptions import CacheError
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.locations import local_path
from deltawitness.redaction import key_hash, redact_label, redact_text
from deltawitness.run import cache_context
from deltawitness.semconv import (
    CACHE_HIT_SOURCE,
    CACHE_KEY,
    CACHE_MISS_REASON,
    DELTA_TABLE_VERSION,
    DIAGNOSTIC_CACHE_DAMAGED,
    DIAGNOSTIC_CACHE_FALLBACK,
    DIAGNOSTIC_CACHE_UNCACHEABLE,
    SPAN_CACHE_INVALIDATE,
    SPAN_CACHE_READ,
    SPAN_CACHE_WRITE,
    CacheOperation,
    CacheResult,
    CacheScope,
)
from deltawitness.session.core.state import session_of
from deltawitness.session.fingerprint.dependencies import computing
from deltawitness.session.fingerprint.diff import Miss, MissReason, differences
from deltawitness.session.fingerprint.model import Fingerprint, NotCacheable
from deltawitness.session.fingerprint.stored_plan import StoredPlan
from deltawitness.telemetry.cache_spans import SetResult, cache_span

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from deltawitness.session.core.snapshot import Registered

__all__ = ["Lookup", "ReadThroughCache"]


@dataclass(frozen=True, slots=True)
class Lookup:
    """The result of a lookup.

    Attributes:
        candidate: the frame that would compute the result now, with its fingerprint.
        entry: the stored entry, valid or not; None without one.
        reasons: why the entry cannot be served; empty for a hit.
    """

    candidate: Candidate
    entry: Entry | None
    reasons: tuple[MissReason, ...]

    @property
    def is_hit(self) -> bool:
        """Whether the entry can be served."""
        return self.entry is not None and not self.reasons

    @property
    def text(self) -> str:
        """The reasons in one line."""
        return "; ".join(str(reason) for reason in self.reasons)


class ReadThroughCache:
    """Looks up, computes, stores and serves the entries of one session.

    Args:
        ctx: the plain context.
        entries: the entry store.
        locks: local folder for the lock files.
        keep_plans: store the plan of an entry with it.
    """

    def __init__(
        self, ctx: SessionContext, entries: Entries, locks: Path, *, keep_plans: bool = True
    ) -> None:
        self._ctx = ctx
        self._entries = entries
        self._locks = locks
        self._keep_plans = keep_plans
        self._stored_plans: set[tuple[str, str]] = set()

    def get(self, definition: EntryDefinition) -> DataFrame:
        """Return the result of a definition: the stored one while it is valid, otherwise compute and store it.

        Raises:
            ConfigurationError: the session has another table with the entry's name.
            Exception: of the engine, when the result cannot be computed; of the cache's storage, when
                the policy has `on_error="raise"`.
        """
        uri = self._entries.uri_of(definition.scope, definition.name)
        if definition.is_registered:
            check_name_is_free(self._ctx, definition.name, uri)
        lock = f"{definition.scope.value}.{definition.name}"
        with computing(session_of(self._ctx).names.full_name(self._ctx, (definition.name,))):
            is_remote = local_path(uri) is None
            written = last_write(self._locks, lock) if is_remote else b""
            found = self._read(definition)
            if found.is_hit:
                return self._serve(definition, found)
            if isinstance(found.candidate.fingerprint, NotCacheable):
                return self._register_uncached(definition, found.candidate.frame)
            check_columns(definition.policy, found.candidate.frame.schema().names)
            with entry_lock(self._locks, lock) as is_locked:
                is_known = is_remote and is_locked and last_write(self._locks, lock) == written
                try:
                    return self._compute_locked(definition, found, uri, is_current=is_known)
                finally:
                    if is_remote and is_locked:
                        record_write(self._locks, lock)

    def _compute_locked(
        self, definition: EntryDefinition, found: Lookup, uri: str, *, is_current: bool
    ) -> DataFrame:
        """Compute and store an entry under its lock, unless the previous holder of the lock has done so.

        Args:
            definition: the definition.
            found: the result of the lookup before the lock was acquired.
            uri: location of the entry's table.
            is_current: no process of this machine has written the entry since the lookup, so the table
                is not requested again. Another machine may have: then the write replaces its entry.
        """
        forget_early_reads()
        if not is_current and self._has_been_written(definition, found.entry):
            found = self.lookup(definition)
        if found.is_hit:
            with self._write_span(definition, _found_details(found)) as (_, set_result):
                set_result(CacheResult.NOOP)
            return self._serve(definition, found)
        if isinstance(found.candidate.fingerprint, NotCacheable):
            return self._register_uncached(definition, found.candidate.frame)
        with reuse_reads():
            return self._write(definition, found, uri)

    def _has_been_written(self, definition: EntryDefinition, before: Entry | None) -> bool:
        """Return whether the entry was written since `before` was read; faster than another full lookup."""
        scope, name = definition.scope, definition.name
        if local_path(self._entries.uri_of(scope, name)) is None:
            try:
                return self._entries.has_changed(scope, name, before)
            except OSError:
                return False  # the write fails in the same way, and reports it
        try:
            now = self._entries.read(scope, name)
        except DamagedEntryError:
            return True
        if now is None or before is None:
            return now is not before
        return _identity(now) != _identity(before)

    def _read(self, definition: EntryDefinition) -> Lookup:
        columns = self._entries.columns_of(definition.scope, definition.name)
        details = self._entries.details_of(definition.scope, definition.name)
        with (
            cache_context(policy=definition.policy.name, scope=definition.scope),
            cache_span(
                SPAN_CACHE_READ,
                cache_policy=definition.policy.name,
                cache_scope=definition.scope,
                operation=CacheOperation.READ,
                columns=columns,
                details=details,
            ) as (_, set_result),
        ):
            found = self._with_copy(definition, self.lookup(definition, diagnose=True))
            set_result(CacheResult.HIT if found.is_hit else CacheResult.MISS)
            columns["reason"] = found.text or None
            details.update(_found_details(found))
            if isinstance(found.candidate.fingerprint, Fingerprint):
                columns["key"] = found.candidate.fingerprint.key
            if found.entry is not None:
                columns["version"] = found.entry.version
            if found.is_hit and found.entry is not None:
                columns["rows_served"] = found.entry.rows
                if self._entries.has_copies:
                    is_copy = found.entry.copy is not None
                    details[CACHE_HIT_SOURCE] = "copy" if is_copy else "table"
        return found

    def _with_copy(self, definition: EntryDefinition, found: Lookup) -> Lookup:
        """Return a hit with the local copy from which it is served, if copies are on."""
        if found.entry is None or not found.is_hit or not definition.is_registered:
            return found
        return replace(found, entry=self._entries.with_copy(found.entry))

    def lookup(self, definition: EntryDefinition, *, diagnose: bool = False) -> Lookup:
        """Plan an entry, and compare its fingerprint with the stored one.

        Args:
            definition: what computes the entry.
            diagnose: record diagnostic events for damaged and uncacheable entries.

        Raises:
            CacheError: the entry is damaged, and the policy has `on_error="raise"`.
        """
        with reuse_reads(), early_reads():
            self._entries.start_check(definition.scope, definition.name)
            return self._lookup(definition, diagnose=diagnose)

    def _lookup(self, definition: EntryDefinition, *, diagnose: bool) -> Lookup:
        candidate = definition.make()
        fingerprint = candidate.fingerprint
        if isinstance(fingerprint, NotCacheable):
            if diagnose:
                self._diagnose(DIAGNOSTIC_CACHE_UNCACHEABLE, definition, fingerprint.reason)
            return Lookup(candidate, None, (MissReason(Miss.UNCACHEABLE, fingerprint.reason),))
        try:
            entry = self._entries.read(definition.scope, definition.name)
        except DamagedEntryError as damage:
            if diagnose:
                report("cache", damage)
                self._diagnose(DIAGNOSTIC_CACHE_DAMAGED, definition, str(damage))
            if definition.policy.on_error is OnError.RAISE:
                msg = f"{definition.name}: {damage}"
                raise CacheError(msg) from damage
            return Lookup(candidate, None, (MissReason(Miss.DAMAGED, f"damaged: {damage}"),))
        return Lookup(candidate, entry, _miss_reasons(entry, fingerprint, definition))

    def _serve(self, definition: EntryDefinition, found: Lookup) -> DataFrame:
        assert found.entry is not None
        if not definition.is_registered:
            return found.candidate.frame
        return register_entry(self._ctx, definition.name, found.entry)

    def _register_uncached(self, definition: EntryDefinition, frame: DataFrame) -> DataFrame:
        return (
            register_uncached(self._ctx, definition.name, frame)
            if definition.is_registered
            else frame
        )

    def _write(self, definition: EntryDefinition, found: Lookup, uri: str) -> DataFrame:
        frame, fingerprint = found.candidate.frame, found.candidate.fingerprint
        assert isinstance(fingerprint, Fingerprint)
        context = cache_context(
            policy=definition.policy.name, scope=definition.scope, key=fingerprint.key
        )
        details = {**_found_details(found), DELTA_TABLE_VERSION: None}
        before = served_now(self._ctx, definition.name)
        plan = self._plan_to_store(definition, found)
        if plan is not None and local_path(uri) is None:
            properties = {**definition.properties, PLAN: plan.name}
            definition = replace(definition, properties=properties)
            if found.entry is None:  # its folder may have been deleted, with its plans
                self._stored_plans.discard((uri, plan.name))
        try:
            with context, self._write_span(definition, details):
                is_damaged = any(reason.kind is Miss.DAMAGED for reason in found.reasons)
                if is_damaged:
                    self._entries.quarantine(definition.scope, definition.name)
                version = write_entry(
                    frame,
                    uri,
                    definition,
                    fingerprint,
                    self._entries.storage_options,
                    existing=found.entry,
                    is_new=found.entry is None and not is_damaged,
                )
                details[DELTA_TABLE_VERSION] = version
        except Exception as error:  # noqa: BLE001 - raised again with `on_error="raise"`
            other = self._find_concurrent_write(definition)
            if other is not None:
                return self._serve(definition, other)
            if is_race_lost(error) or is_error_of_query(error):
                if is_race_lost(error):
                    self._diagnose_fallback(definition, error)
                return self._register_uncached(definition, frame)
            return self._fall_back(definition, frame, error)
        self._store_plan(plan, uri, fingerprint.key)
        return self._serve_after_write(definition, found.candidate, version, before)

    def _plan_to_store(self, definition: EntryDefinition, found: Lookup) -> StoredPlan | None:
        if not self._keep_plans or definition.scope is CacheScope.ARTIFACT:
            return None
        try:
            return storable_plan(self._ctx, definition, found.candidate.frame)
        except Exception as error:  # noqa: BLE001 - the entry is valid without it
            report("cache", error)
            return None

    def _store_plan(self, plan: StoredPlan | None, uri: str, key: str) -> None:
        """Store the plan of an entry, unless this cache has stored it on an object store already."""
        if plan is None:
            return
        is_local = local_path(uri) is not None
        name = key if is_local else plan.name
        if (uri, name) in self._stored_plans:
            return
        try:
            store_plan(uri, name, plan, self._entries.storage_options)
        except Exception as error:  # noqa: BLE001 - the entry is valid without it
            report("cache", error)
            return
        if not is_local:
            self._stored_plans.add((uri, name))

    def _write_span(
        self, definition: EntryDefinition, details: dict[str, AttributeValue | None]
    ) -> AbstractContextManager[tuple[Span, SetResult]]:
        details.update(self._entries.details_of(definition.scope, definition.name))
        return cache_span(
            SPAN_CACHE_WRITE,
            cache_policy=definition.policy.name,
            cache_scope=definition.scope,
            operation=CacheOperation.WRITE,
            details=details,
        )

    def _diagnose(self, event: str, definition: EntryDefinition, reason: str) -> None:
        policy = redact_label(definition.policy.name)
        self._entries.diagnose(
            event, definition.scope, definition.name, policy=policy, reason=reason
        )

    def _diagnose_fallback(self, definition: EntryDefinition, error: Exception) -> None:
        text = redact_text(str(error)) or type(error).__name__
        self._diagnose(DIAGNOSTIC_CACHE_FALLBACK, definition, text)

    def _find_concurrent_write(self, definition: EntryDefinition) -> Lookup | None:
        """Return a hit if another machine stored a valid entry while our write failed."""
        try:
            found = self.lookup(definition)
        except Exception:  # noqa: BLE001 - the first error is reported
            return None
        return found if found.is_hit else None

    def _fall_back(
        self, definition: EntryDefinition, frame: DataFrame, error: Exception
    ) -> DataFrame:
        """Return the computed result after its write failed, and report the failure."""
        if definition.policy.on_error is OnError.RAISE:
            raise error
        if not definition.is_registered:
            msg = f"{definition.name} could not be written"
            raise CacheError(msg) from error
        report("cache", error)
        self._diagnose_fallback(definition, error)
        return self._register_uncached(definition, frame)

    def _serve_after_write(
        self,
        definition: EntryDefinition,
        candidate: Candidate,
        version: int,
        before: Registered | None,
    ) -> DataFrame:
        frame, fingerprint = candidate.frame, candidate.fingerprint
        assert isinstance(fingerprint, Fingerprint)
        try:
            if fingerprint.files and _have_files_changed(
                fingerprint, definition.make().fingerprint
            ):
                # Files have no versions: the write may have read old content, new content, or both.
                self.invalidate(definition.scope, definition.name, definition.policy.name)
                return self._register_uncached(definition, frame)
            entry = self._entries.read_written(
                definition.scope, definition.name, version, definition.policy.partition_by
            )
            if entry is None or entry.fingerprint != fingerprint:
                # Another machine wrote the entry concurrently, perhaps from older inputs.
                return self._register_uncached(definition, frame)
        except Exception as error:  # noqa: BLE001 - raised again with `on_error="raise"`
            return self._fall_back(definition, frame, error)
        record_written(self._ctx, definition.name, entry, before)
        return (
            register_entry(self._ctx, definition.name, entry) if definition.is_registered else frame
        )

    def invalidate(self, scope: CacheScope, name: str, policy: str) -> None:
        """Invalidate an entry, so that it is not served. Its data files stay.

        Raises:
            LookupError: there is no such entry.
        """
        details = self._entries.details_of(scope, name)
        with (
            cache_context(policy=policy, scope=scope),
            cache_span(
                SPAN_CACHE_INVALIDATE,
                cache_policy=policy,
                cache_scope=scope,
                operation=CacheOperation.INVALIDATE,
                details=details,
            ),
        ):
            uri, options = self._entries.uri_of(scope, name), self._entries.storage_options
            details[DELTA_TABLE_VERSION] = invalidate(uri, policy, options)


def _found_details(found: Lookup) -> dict[str, AttributeValue | None]:
    """Return the attributes of a lookup for spans and log records."""
    fingerprint, entry = found.candidate.fingerprint, found.entry
    key = fingerprint.key if isinstance(fingerprint, Fingerprint) else None
    return {
        CACHE_KEY: None if key is None else key_hash(key),
        CACHE_MISS_REASON: list(dict.fromkeys(reason.kind.value for reason in found.reasons))
        or None,
        DELTA_TABLE_VERSION: None if entry is None else entry.version,
    }


def _identity(entry: Entry) -> tuple[object, ...]:
    return entry.version, entry.made_at, entry.fingerprint


def _miss_reasons(
    entry: Entry | None, now: Fingerprint, definition: EntryDefinition
) -> tuple[MissReason, ...]:
    if entry is None:
        return (MissReason(Miss.ABSENT, "absent: nothing is stored under this name"),)
    if entry.fingerprint is None:
        return (
            MissReason(Miss.INVALIDATED, PRUNED if PRUNED in entry.properties else "invalidated"),
        )
    changed = differences(entry.fingerprint, now)
    limit = definition.policy.max_age
    age = now_ns() / 1e9 - entry.made_at / 1000
    if limit is not None and abs(age) > limit.total_seconds():
        text = f"policy expired: {age:.0f} s old, at most {limit.total_seconds():.0f} s"
        return (*changed, MissReason(Miss.EXPIRED, text))
    return changed


def _have_files_changed(before: Fingerprint, now: Fingerprint | NotCacheable) -> bool:
    return isinstance(now, NotCacheable) or (before.files, before.ways) != (now.files, now.ways)
