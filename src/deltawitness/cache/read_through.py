"""The way of an entry: looked for, served if it is true, else computed once, written, served."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deltawitness.cache.entries.definitions import Candidate, EntryDefinition
from deltawitness.cache.entries.locks import entry_lock
from deltawitness.cache.entries.plan_store import storable_plan, store_plan
from deltawitness.cache.entries.policy import OnError
from deltawitness.cache.entries.store import PRUNED, DamagedEntryError, Entries, Entry
from deltawitness.cache.entries.writer import (
    check_columns,
    invalidate,
    is_error_of_query,
    is_race_lost,
    write_entry,
)
from deltawitness.cache.fingerprint.dependencies import computing
from deltawitness.cache.fingerprint.diff import Miss, Reason, differences
from deltawitness.cache.fingerprint.model import Fingerprint, NotCacheable
from deltawitness.cache.registration import check_name_is_free, register_entry, register_uncached
from deltawitness.exceptions import CacheError
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.redaction import key_hash, redact_label, redact_text
from deltawitness.run import cache_context
from deltawitness.semconv import (
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
from deltawitness.telemetry.cache_spans import SetResult, cache_span

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

__all__ = ["Lookup", "ReadThroughCache"]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What looking for an entry has found.

    Attributes:
        made: the result as it could be computed now.
        entry: the entry, whether or not it is to be served.
        reasons: why it is not to be served; none for a hit.
    """

    made: Candidate
    entry: Entry | None
    reasons: tuple[Reason, ...]

    @property
    def is_hit(self) -> bool:
        """Whether the entry is to be served."""
        return self.entry is not None and not self.reasons

    @property
    def text(self) -> str:
        """The reasons in one line."""
        return "; ".join(str(reason) for reason in self.reasons)


class ReadThroughCache:
    """Keeps entries of a session's results.

    Args:
        ctx: the plain context.
        entries: where they are kept.
        locks: a local folder for the locks of those who compute.
        keep_plans: whether the plan of an entry is kept with it.
    """

    def __init__(
        self, ctx: SessionContext, entries: Entries, locks: Path, *, keep_plans: bool = True
    ) -> None:
        self._ctx = ctx
        self._entries = entries
        self._locks = locks
        self._keeps_plans = keep_plans

    def keep(self, recipe: EntryDefinition) -> DataFrame:
        """Return the result of a recipe: the kept one while it is true, else computed and kept.

        Raises:
            ConfigurationError: the session knows something else under the entry's name.
            Exception: the engine's, when the result cannot be computed; that of the cache's
                storage, when the policy says so.
        """
        uri = self._entries.uri_of(recipe.scope, recipe.name)
        if recipe.is_shown:
            check_name_is_free(self._ctx, recipe.name, uri)
        with computing(session_of(self._ctx).full_name(self._ctx, (recipe.name,))):
            found = self._read(recipe)
            if found.is_hit:
                return self._serve(recipe, found)
            if isinstance(found.made.fingerprint, NotCacheable):
                return self._show(recipe, found.made.frame)
            check_columns(recipe.policy, found.made.frame.schema().names)
            with entry_lock(self._locks, f"{recipe.scope.value}.{recipe.name}"):
                return self._make(recipe, found, uri)

    def _make(self, recipe: EntryDefinition, found: Lookup, uri: str) -> DataFrame:
        """Make an entry, unless whoever held its lock before us has."""
        if self._has_been_written(recipe, found.entry):
            found = self.look(recipe)
        if found.is_hit:
            with self._write_span(recipe, _found_details(found)) as (_, set_result):
                set_result(CacheResult.NOOP)
            return self._serve(recipe, found)
        if isinstance(found.made.fingerprint, NotCacheable):
            return self._show(recipe, found.made.frame)
        return self._write(recipe, found, uri)

    def _has_been_written(self, recipe: EntryDefinition, before: Entry | None) -> bool:
        """Tell whether an entry is another one than it was: to look at its inputs again takes longer."""
        try:
            now = self._entries.read(recipe.scope, recipe.name)
        except DamagedEntryError:
            return True
        if now is None or before is None:
            return now is not before
        return _identity(now) != _identity(before)

    def _read(self, recipe: EntryDefinition) -> Lookup:
        told = self._entries.columns_of(recipe.scope, recipe.name)
        details = self._entries.details_of(recipe.scope, recipe.name)
        with (
            cache_context(policy=recipe.policy.name, scope=recipe.scope),
            cache_span(
                SPAN_CACHE_READ,
                cache_policy=recipe.policy.name,
                cache_scope=recipe.scope,
                operation=CacheOperation.READ,
                columns=told,
                details=details,
            ) as (_, set_result),
        ):
            found = self.look(recipe, is_telling=True)
            set_result(CacheResult.HIT if found.is_hit else CacheResult.MISS)
            told["reason"] = found.text or None
            details.update(_found_details(found))
            if isinstance(found.made.fingerprint, Fingerprint):
                told["key"] = found.made.fingerprint.key
            if found.entry is not None:
                told["version"] = found.entry.version
            if found.is_hit and found.entry is not None:
                told["rows_served"] = found.entry.rows
        return found

    def look(self, recipe: EntryDefinition, *, is_telling: bool = False) -> Lookup:
        """Return what there is of an entry, and whether it is still true.

        Args:
            recipe: how it is made.
            is_telling: report what is damaged.

        Raises:
            CacheError: it is damaged, and the policy is not to compute in its place.
        """
        made = recipe.make()
        fingerprint = made.fingerprint
        if isinstance(fingerprint, NotCacheable):
            if is_telling:
                self._diagnose(DIAGNOSTIC_CACHE_UNCACHEABLE, recipe, fingerprint.reason)
            return Lookup(made, None, (Reason(Miss.UNCACHEABLE, fingerprint.reason),))
        try:
            entry = self._entries.read(recipe.scope, recipe.name)
        except DamagedEntryError as damage:
            if is_telling:
                report("cache", damage)
                self._diagnose(DIAGNOSTIC_CACHE_DAMAGED, recipe, str(damage))
            if recipe.policy.on_error is OnError.RAISE:
                msg = f"{recipe.name}: {damage}"
                raise CacheError(msg) from damage
            return Lookup(made, None, (Reason(Miss.DAMAGED, f"damaged: {damage}"),))
        return Lookup(made, entry, _why_not(entry, fingerprint, recipe))

    def _serve(self, recipe: EntryDefinition, found: Lookup) -> DataFrame:
        assert found.entry is not None
        if not recipe.is_shown:
            return found.made.frame
        return register_entry(self._ctx, recipe.name, found.entry.table)

    def _show(self, recipe: EntryDefinition, frame: DataFrame) -> DataFrame:
        return register_uncached(self._ctx, recipe.name, frame) if recipe.is_shown else frame

    def _write(self, recipe: EntryDefinition, found: Lookup, uri: str) -> DataFrame:
        frame, fingerprint = found.made.frame, found.made.fingerprint
        assert isinstance(fingerprint, Fingerprint)
        context = cache_context(policy=recipe.policy.name, scope=recipe.scope, key=fingerprint.key)
        details = {**_found_details(found), DELTA_TABLE_VERSION: None}
        try:
            with context, self._write_span(recipe, details):
                if any(reason.kind is Miss.DAMAGED for reason in found.reasons):
                    self._entries.set_aside(recipe.scope, recipe.name)
                version = write_entry(
                    frame,
                    uri,
                    recipe,
                    fingerprint,
                    self._entries.storage_options,
                    kept=found.entry,
                )
                details[DELTA_TABLE_VERSION] = version
        except Exception as error:  # noqa: BLE001 - raised again where the policy says so
            again = self._made_elsewhere(recipe)
            if again is not None:
                return self._serve(recipe, again)
            if is_race_lost(error) or is_error_of_query(error):
                if is_race_lost(error):
                    self._tell_fallback(recipe, error)
                return self._show(recipe, frame)
            return self._unkept(recipe, frame, error)
        self._keep_plan(recipe, found, uri, fingerprint.key)
        return self._serve_written(recipe, frame, fingerprint, version)

    def _keep_plan(self, recipe: EntryDefinition, found: Lookup, uri: str, key: str) -> None:
        if not self._keeps_plans or recipe.scope is CacheScope.ARTIFACT:
            return
        try:
            plan = storable_plan(self._ctx, recipe, found.made.frame)
            store_plan(uri, key, plan, self._entries.storage_options)
        except Exception as error:  # noqa: BLE001 - the entry is as true without
            report("cache", error)

    def _write_span(
        self, recipe: EntryDefinition, details: dict[str, AttributeValue | None]
    ) -> AbstractContextManager[tuple[Span, SetResult]]:
        details.update(self._entries.details_of(recipe.scope, recipe.name))
        return cache_span(
            SPAN_CACHE_WRITE,
            cache_policy=recipe.policy.name,
            cache_scope=recipe.scope,
            operation=CacheOperation.WRITE,
            details=details,
        )

    def _diagnose(self, event: str, recipe: EntryDefinition, reason: str) -> None:
        policy = redact_label(recipe.policy.name)
        self._entries.diagnose(event, recipe.scope, recipe.name, policy=policy, reason=reason)

    def _tell_fallback(self, recipe: EntryDefinition, error: Exception) -> None:
        text = redact_text(str(error)) or type(error).__name__
        self._diagnose(DIAGNOSTIC_CACHE_FALLBACK, recipe, text)

    def _made_elsewhere(self, recipe: EntryDefinition) -> Lookup | None:
        """Return what another machine has kept at the same moment, if it has."""
        try:
            found = self.look(recipe)
        except Exception:  # noqa: BLE001 - what was raised before is told
            return None
        return found if found.is_hit else None

    def _unkept(self, recipe: EntryDefinition, frame: DataFrame, error: Exception) -> DataFrame:
        """Return what was computed where it could not be kept, and say so."""
        if recipe.policy.on_error is OnError.RAISE:
            raise error
        if not recipe.is_shown:
            msg = f"{recipe.name} could not be kept"
            raise CacheError(msg) from error
        report("cache", error)
        self._tell_fallback(recipe, error)
        return self._show(recipe, frame)

    def _serve_written(
        self, recipe: EntryDefinition, frame: DataFrame, fingerprint: Fingerprint, version: int
    ) -> DataFrame:
        try:
            if fingerprint.files and _has_changed(fingerprint, recipe.make().fingerprint):
                # A file pins no version: what was read may be the one, the other, or half of each.
                self.invalidate(recipe.scope, recipe.name, recipe.policy.name)
                return self._show(recipe, frame)
            entry = self._entries.read(recipe.scope, recipe.name, version)
            if entry is None or entry.fingerprint != fingerprint:
                # Another machine has written it at the same moment, perhaps from older inputs.
                return self._show(recipe, frame)
        except Exception as error:  # noqa: BLE001 - raised again where the policy says so
            return self._unkept(recipe, frame, error)
        return register_entry(self._ctx, recipe.name, entry.table) if recipe.is_shown else frame

    def invalidate(self, scope: CacheScope, name: str, policy: str) -> None:
        """Have an entry not be served any more; what it holds stays.

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
    """Return what spans and log records say of what was found of an entry."""
    fingerprint, entry = found.made.fingerprint, found.entry
    key = fingerprint.key if isinstance(fingerprint, Fingerprint) else None
    return {
        CACHE_KEY: None if key is None else key_hash(key),
        CACHE_MISS_REASON: list(dict.fromkeys(reason.kind.value for reason in found.reasons))
        or None,
        DELTA_TABLE_VERSION: None if entry is None else entry.version,
    }


def _identity(entry: Entry) -> tuple[object, ...]:
    return entry.version, entry.made_at, entry.fingerprint


def _why_not(entry: Entry | None, now: Fingerprint, recipe: EntryDefinition) -> tuple[Reason, ...]:
    if entry is None:
        return (Reason(Miss.ABSENT, "absent: it was never kept"),)
    if entry.fingerprint is None:
        return (Reason(Miss.INVALIDATED, PRUNED if PRUNED in entry.facts else "invalidated"),)
    changed = differences(entry.fingerprint, now)
    limit = recipe.policy.max_age
    age = now_ns() / 1e9 - entry.made_at / 1000
    if limit is not None and abs(age) > limit.total_seconds():
        text = f"policy expired: {age:.0f} s old, at most {limit.total_seconds():.0f} s"
        return (*changed, Reason(Miss.EXPIRED, text))
    return changed


def _has_changed(kept: Fingerprint, now: Fingerprint | NotCacheable) -> bool:
    return isinstance(now, NotCacheable) or (kept.files, kept.ways) != (now.files, now.ways)
