"""Whether what is kept can be made again: recomputed over the versions that it was made from, and compared.

The rows of an entry are made once more by its plan, over its Delta inputs at their pinned versions,
and their content is held against what is kept, column by column, in any order of rows.

That nobody can tell is an answer of its own: a function of the program's own, a call that gives
another result each time, a file that has changed, a version that was vacuumed, a stream. A query
with a LIMIT and no order may differ because any rows are an answer to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.definitions import EntryDefinition
from deltawitness.cache.entries.plan_store import StoredPlan, read_plan, storable_plan
from deltawitness.cache.entries.policy import DATASET_DELTA_STAGING
from deltawitness.cache.entries.store import DamagedEntryError, check_files
from deltawitness.cache.fingerprint.diff import differences
from deltawitness.cache.fingerprint.model import Fingerprint, NotCacheable, TableInput
from deltawitness.cache.fingerprint.plan import fingerprint_of
from deltawitness.cache.kinds.datasets import define_dataset
from deltawitness.cache.verify.compare import compare
from deltawitness.cache.verify.replay import NotReproducibleError, pinned_frame, pinned_table
from deltawitness.commit.log import open_log
from deltawitness.commit.reader import parse_commit
from deltawitness.exceptions import DeltaWitnessError
from deltawitness.hashing import table_id
from deltawitness.ledger.tables.arrow import query
from deltawitness.ledger.tables.schema import INVENTORY, LedgerRoot
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.redaction import redact_text, table_name_for
from deltawitness.semconv import (
    CACHE_ENTRY,
    CACHE_NAME,
    CACHE_VERDICT,
    DELTA_TABLE_ID,
    DELTA_TABLE_VERSION,
    POLICY_UNMANAGED,
    SPAN_CACHE_VERIFY,
    CacheOperation,
    CacheResult,
    CacheScope,
)
from deltawitness.session.core.state import session_of
from deltawitness.session.core.table_providers import provider_of
from deltawitness.session.core.unpatched import unpatched
from deltawitness.settings import Settings
from deltawitness.telemetry.cache_spans import cache_span

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable
    from opentelemetry.util.types import AttributeValue

__all__ = ["Verdict", "Verifier", "VerifyResult"]


class Verdict(StrEnum):
    """What came out."""

    REPRODUCIBLE = "reproducible"
    """The same rows are made again."""
    DIFFERS = "differs"
    """Other rows are made from the same inputs."""
    CANNOT_TELL = "cannot_tell"
    """They cannot be made again as they were."""


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """Whether what is kept can be made again.

    Attributes:
        name: of the entry, or of the table that was written.
        scope: what kind of thing it is.
        version: the version that holds it.
        verdict: what came out.
        reason: why nobody can tell.
        rows_kept: rows that are kept.
        rows_now: rows that were made now.
        columns: those whose content differs; with none named although the results differ, the
            values stand beside each other in another way.
        rounded: columns of floats that differ by no more than the order in which they were summed.
        write_id: of the write, where writes are verified.
    """

    name: str | None
    scope: CacheScope
    version: int | None
    verdict: Verdict
    reason: str | None = None
    rows_kept: int | None = None
    rows_now: int | None = None
    columns: tuple[str, ...] = ()
    rounded: tuple[str, ...] = ()
    write_id: str | None = None

    def __str__(self) -> str:
        told = f"{self.name} {self.version}: {self.verdict.value.replace('_', ' ')}"
        if self.reason is not None:
            return f"{told} ({self.reason})"
        if self.verdict is Verdict.REPRODUCIBLE:
            more = f", rounded: {', '.join(self.rounded)}" if self.rounded else ""
            return f"{told} ({self.rows_kept} rows{more})"
        where = ", ".join(self.columns) or "the same values in other rows"
        return f"{told} ({where}; {self.rows_kept} rows kept, {self.rows_now} now)"


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """What a version of a table holds, as its commit says."""

    name: str | None
    scope: CacheScope
    uri: str
    version: int
    fingerprint: Fingerprint


class Verifier:
    """Makes again what was kept, and compares.

    Args:
        root: the cache root; its ledger may know where inputs lie.
        ctx: the plain context of a session that may know more than Delta tables; a session without
            any when None.
        recipes: how entries are made in that session.
        settings: which names telemetry may tell; the defaults when None.
    """

    def __init__(
        self,
        root: LedgerRoot,
        ctx: SessionContext | None = None,
        recipes: Mapping[tuple[CacheScope, str], EntryDefinition] | None = None,
        *,
        settings: Settings | None = None,
    ) -> None:
        self._settings = settings or Settings()
        self._root = root
        self._ctx = ctx
        self._recipes = recipes or {}

    def writes(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[VerifyResult]:
        """Verify writes as the ledger's inventory tells them, one after the other.

        Args:
            rows: rows of the inventory.
        """
        for row in rows:
            known = self.version(
                row["table_name"],
                CacheScope(row["scope"]),
                row["table_uri"],
                row["version"],
            )
            yield replace(known, write_id=row["write_id"])

    def version(
        self,
        name: str | None,
        scope: CacheScope,
        uri: str | None,
        version: int | None,
        *,
        policy: str = POLICY_UNMANAGED,
    ) -> VerifyResult:
        """Verify what a version of a table holds; whatever keeps that from being told is the answer.

        Args:
            name: of the entry or the table.
            scope: what kind of thing it is.
            uri: where it lies.
            version: which version.
            policy: that it was kept under.
        """
        where = None if uri is None else ledger_uri(uri)
        columns: dict[str, Any] = {"table_name": name, "table_uri": where, "version": version}
        columns["table_id"] = None if where is None else table_id(where)
        details: dict[str, AttributeValue | None] = {DELTA_TABLE_VERSION: version}
        if uri is not None:
            details[CACHE_NAME] = table_name_for(uri, name, self._settings.table_names)
            details[DELTA_TABLE_ID] = table_id(uri, key=self._settings.table_id_key)
        with cache_span(
            SPAN_CACHE_VERIFY,
            cache_policy=policy,
            cache_scope=scope,
            operation=CacheOperation.VERIFY,
            columns=columns,
            details=details,
        ) as (_, set_result):
            told = self._verified(name, scope, uri, version)
            # Nothing is served: a run's hits and misses are those of its reads.
            set_result(CacheResult.NOOP)
            details[CACHE_VERDICT] = told.verdict.value
            columns["reason"] = told.verdict.value if told.reason is None else told.reason
        return told

    def _verified(
        self, name: str | None, scope: CacheScope, uri: str | None, version: int | None
    ) -> VerifyResult:
        try:
            kept = self._kept(name, scope, uri, version)
            with_rows = self._opened(kept)
            frame = self._made_again(kept)
            return self._compared(kept, with_rows, frame)
        except NotReproducibleError as reason:
            text = str(reason)
        except Exception as error:  # noqa: BLE001 - the engines raise whatever they like
            text = f"it cannot be made again: {redact_text(str(error)) or type(error).__name__}"
        return VerifyResult(name, scope, version, Verdict.CANNOT_TELL, text)

    # --- what is kept ---------------------------------------------------------------------------------

    def _kept(
        self, name: str | None, scope: CacheScope, uri: str | None, version: int | None
    ) -> StoredEntry:
        if uri is None or version is None:
            msg = "nobody knows where it lies"
            raise NotReproducibleError(msg)
        raw = open_log(uri, self._root.storage_options).read(version)
        if raw is None:
            msg = "its commit is not in the log any more"
            raise NotReproducibleError(msg)
        said = parse_commit(version, raw).metadata.get(CACHE_ENTRY)
        if said is None:
            msg = "its plan was not kept"
            raise NotReproducibleError(msg)
        known = json.loads(said)["fingerprint"]
        if known is None:
            msg = "it was invalidated"
            raise NotReproducibleError(msg)
        return StoredEntry(name, scope, uri, version, Fingerprint.from_json(known))

    def _opened(self, kept: StoredEntry) -> DeltaTable:
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy

        options = self._root.storage_options
        table = DeltaTable(kept.uri, version=kept.version, storage_options=options)
        try:
            check_files(table)
        except DamagedEntryError:
            msg = "version vacuumed: what it held is not there any more, or damaged"
            raise NotReproducibleError(msg) from None
        return table

    # --- making it again --------------------------------------------------------------------------------

    def _made_again(self, kept: StoredEntry) -> DataFrame:
        """Return the frame that makes the rows of an entry, over what it was made from.

        Raises:
            Unpinned: it cannot be made as it was.
        """
        if kept.scope is CacheScope.ARTIFACT:
            msg = "an artifact is made by its program alone"
            raise NotReproducibleError(msg)
        if kept.scope is CacheScope.METADATA:
            msg = "a session's metadata is made by the session alone"
            raise NotReproducibleError(msg)
        recipe = None if kept.name is None else self._recipes.get((kept.scope, kept.name))
        made = None if recipe is None else recipe.make()
        if made is not None and made.fingerprint == kept.fingerprint:
            return made.frame
        functions = {}
        if made is not None and isinstance(made.fingerprint, Fingerprint):
            functions = {mark.name: mark.version for mark in made.fingerprint.functions}
        plan = self._plan(kept, recipe)
        if kept.scope is CacheScope.DATASET and plan.path is None and plan.table is None:
            msg = "its source was a stream, or a table in memory"
            raise NotReproducibleError(msg)
        if plan.path is not None:
            return _staged(plan.path, kept)
        return pinned_frame(
            kept.fingerprint, plan, partial(self._input, plan), live=self._ctx, functions=functions
        )

    def _plan(self, kept: StoredEntry, recipe: EntryDefinition | None) -> StoredPlan:
        try:
            plan = read_plan(kept.uri, kept.fingerprint.key, self._root.storage_options)
        except (OSError, ValueError) as error:
            msg = "its plan cannot be read"
            raise NotReproducibleError(msg) from error
        if plan is not None:
            return plan
        if recipe is not None and self._ctx is not None:
            made = recipe.make()
            now = made.fingerprint
            if isinstance(now, Fingerprint) and now.plan_hash == kept.fingerprint.plan_hash:
                return storable_plan(self._ctx, recipe, made.frame)
        msg = "its plan was not kept"
        raise NotReproducibleError(msg)

    # --- inputs -------------------------------------------------------------------------------------------

    def _input(self, plan: StoredPlan, mark: TableInput) -> DeltaTable:
        if self._ctx is not None:
            for entry in session_of(self._ctx).snapshot:
                if entry.table_id == mark.table_id:
                    return pinned_table(mark, entry.uri, entry.storage_options)
        told = {table.table_id: table.uri for table in plan.tables}
        if plan.table is not None:
            told[table_id(plan.table)] = plan.table
        uri = told.get(mark.table_id) or self._places.get(mark.table_id)
        if uri is None:
            msg = f"input gone: nobody knows where {mark.name} lies"
            raise NotReproducibleError(msg)
        return pinned_table(mark, uri, self._root.storage_options)

    @cached_property
    def _places(self) -> dict[str, str]:
        """Where tables lie, as the ledger knows it, by the id of their location."""
        inventory = self._root.open_table(INVENTORY)
        if inventory is None:
            return {}
        found = query(
            inventory,
            "SELECT DISTINCT table_uri AS uri FROM ledger UNION SELECT DISTINCT input['uri']"
            " FROM (SELECT unnest(inputs) AS input FROM ledger)",
        )
        return {table_id(uri): uri for uri in found["uri"].to_pylist() if uri is not None}

    # --- comparing ------------------------------------------------------------------------------------------

    @staticmethod
    def _compared(kept: StoredEntry, table: DeltaTable, frame: DataFrame) -> VerifyResult:
        from datafusion import SessionContext  # noqa: PLC0415 - heavy

        reader = SessionContext()  # held, as what it reads does not hold it
        found = compare(unpatched(reader, "read_table")(provider_of(table)), frame)
        told = VerifyResult(
            kept.name,
            kept.scope,
            kept.version,
            Verdict.REPRODUCIBLE if found.is_same else Verdict.DIFFERS,
            rows_kept=found.kept,
            rows_now=found.now,
            columns=found.differing,
            rounded=found.rounded,
        )
        reason = None if found.is_same else _restless(frame, kept.fingerprint)
        if reason is None:
            return told
        return replace(told, verdict=Verdict.CANNOT_TELL, reason=reason)


def _restless(frame: DataFrame, kept: Fingerprint) -> str | None:
    """Return why a frame may give another result each time."""
    versions = {mark.name: mark.version for mark in kept.functions}
    now = fingerprint_of(frame, functions=versions, version=kept.version)
    return now.reason.partition(":")[0] if isinstance(now, NotCacheable) else None


def _staged(path: str, kept: StoredEntry) -> DataFrame:
    """Return the frame of a dataset's files, if they are what they were.

    Raises:
        Unpinned: they are not.
    """
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    try:
        made = define_dataset(
            SessionContext(),
            kept.name or "",
            path,
            policy=DATASET_DELTA_STAGING,
            version=kept.fingerprint.version,
            storage_options=None,
        ).make()
    except DeltaWitnessError:
        msg = "input gone: its files are not where they were"
        raise NotReproducibleError(msg) from None
    if isinstance(made.fingerprint, NotCacheable):
        raise NotReproducibleError(made.fingerprint.reason)
    if changed := differences(kept.fingerprint, made.fingerprint):
        raise NotReproducibleError("; ".join(map(str, changed)))
    return made.frame
