"""Verifies stored entries and writes: recompute them from the recorded versions of their inputs, and compare.

The stored plan runs over its Delta inputs at the recorded versions, and the content is compared with
the stored rows, column by column, in any row order.

The verdict is `cannot_tell` if an input cannot be reproduced: a user-defined function, a volatile
function, a changed file, a vacuumed version, a stream. A query with LIMIT and without ORDER BY may
differ, because any rows are a correct answer to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.definitions import EntryDefinition
from deltawitness.cache.entries.entry import DamagedEntryError, check_files
from deltawitness.cache.entries.plan_store import PLAN, read_plan, storable_plan
from deltawitness.cache.entries.policy import DATASET_DELTA_STAGING
from deltawitness.cache.kinds.datasets import define_dataset
from deltawitness.cache.verify.changes import changed_table
from deltawitness.cache.verify.compare import compare
from deltawitness.cache.verify.replay import NotReproducibleError, pinned_frame, pinned_table
from deltawitness.cache.verify.results import Verdict, VerifyResult, compare_rows, result_of
from deltawitness.cache.verify.writes import StoredWrite, stored_write, written_rows
from deltawitness.commit.log import open_log
from deltawitness.commit.reader import CommitMetadata, parse_commit
from deltawitness.exceptions import DeltaWitnessError
from deltawitness.ledger.tables.arrow import query
from deltawitness.ledger.tables.schema import INVENTORY, LedgerRoot
from deltawitness.ledger.tables.shards import open_parts
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.locations import table_id
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
from deltawitness.session.fingerprint.diff import differences
from deltawitness.session.fingerprint.model import Fingerprint, NotCacheable, TableInput
from deltawitness.session.fingerprint.stored_plan import StoredPlan
from deltawitness.settings import Settings
from deltawitness.telemetry.cache_spans import cache_span

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable
    from opentelemetry.util.types import AttributeValue

__all__ = ["Verifier"]


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """The entry in a table version, from its commit metadata; `plan` is the name of its plan's file."""

    name: str | None
    scope: CacheScope
    uri: str
    version: int
    fingerprint: Fingerprint
    plan: str


class Verifier:
    """Recomputes stored entries and compares the rows.

    Args:
        root: the cache root; its ledger may have the locations of inputs.
        ctx: the plain context of a session with further tables and functions; None: without one.
        definitions: definitions of entries in that session.
        settings: the redaction of table names; None: the defaults.
    """

    def __init__(
        self,
        root: LedgerRoot,
        ctx: SessionContext | None = None,
        definitions: Mapping[tuple[CacheScope, str], EntryDefinition] | None = None,
        *,
        settings: Settings | None = None,
    ) -> None:
        self._settings = settings or Settings()
        self._root = root
        self._ctx = ctx
        self._definitions = definitions or {}

    def verify_writes(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[VerifyResult]:
        """Verify writes of the ledger's inventory one after the other.

        Args:
            rows: rows of the inventory.
        """
        for row in rows:
            result = self.verify_version(
                row["table_name"],
                CacheScope(row["scope"]),
                row["table_uri"],
                row["version"],
                write_id=row["write_id"],
            )
            yield replace(result, write_id=row["write_id"])

    def verify_version(  # noqa: PLR0913 - the location of the rows, by keyword where it may be missing
        self,
        name: str | None,
        scope: CacheScope,
        uri: str | None,
        version: int | None,
        *,
        policy: str = POLICY_UNMANAGED,
        write_id: str | None = None,
    ) -> VerifyResult:
        """Verify the rows in a table version. Never raises: what prevents it is the reason in the result.

        Args:
            name: name of the entry or the table.
            scope: view, dataset, artifact or metadata.
            uri: location of the table.
            version: version of the table.
            policy: name of the policy that it was stored under.
            write_id: id of the write that committed the version; that in its commit when None.
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
            result = self._verdict_on(name, scope, uri, version, write_id)
            # NOOP: hits and misses of a run count its reads only.
            set_result(CacheResult.NOOP)
            details[CACHE_VERDICT] = result.verdict.value
            columns["reason"] = result.verdict.value if result.reason is None else result.reason
        return result

    def _verdict_on(
        self,
        name: str | None,
        scope: CacheScope,
        uri: str | None,
        version: int | None,
        write_id: str | None,
    ) -> VerifyResult:
        from datafusion import SessionContext  # noqa: PLC0415 - heavy

        reader = SessionContext()  # keep a reference: the frame does not keep its session alive
        unverified = VerifyResult(name, scope, version, Verdict.CANNOT_TELL)
        try:
            uri, raw, commit = self._read_commit(uri, version)
            if CACHE_ENTRY in commit.metadata:
                entry = _stored_entry(name, scope, uri, commit)
                table = self._open_table(uri, commit.version)
                frame = self._recompute(entry)
                rows = unpatched(reader, "read_table")(provider_of(table))
                return compare_rows(unverified, entry.fingerprint, rows, frame)
            write = stored_write(self._root, uri, commit, raw, write_id)
            table = self._open_table(uri, commit.version)
            return self._verify_write(unverified, write, table)
        except NotReproducibleError as reason:
            text = str(reason)
        except Exception as error:  # noqa: BLE001 - the engines raise exceptions of any type
            text = f"cannot be recomputed: {redact_text(str(error)) or type(error).__name__}"
        return replace(unverified, reason=text)

    def _verify_write(
        self, unverified: VerifyResult, write: StoredWrite, table: DeltaTable
    ) -> VerifyResult:
        if not write.is_of_rows:
            return self._verify_change(unverified, write, table)
        try:
            return self._verify_rows(unverified, write, table)
        except Exception:  # Substrait has no UNNEST, and DataFusion reads not all of it
            if write.statement is None:
                raise
            return self._verify_change(unverified, write, table)

    def _verify_rows(
        self, unverified: VerifyResult, write: StoredWrite, table: DeltaTable
    ) -> VerifyResult:
        from datafusion import SessionContext  # noqa: PLC0415 - heavy

        reader = SessionContext()  # as above
        frame = pinned_frame(
            write.fingerprint,
            write.plan,
            partial(self._open_input, write.plan),
            needs_exact_text=False,
        )
        rows = written_rows(reader, write, table, frame.schema().names)
        return compare_rows(unverified, write.fingerprint, rows, frame, needs_exact_text=False)

    def _verify_change(
        self, unverified: VerifyResult, write: StoredWrite, table: DeltaTable
    ) -> VerifyResult:
        from datafusion import SessionContext  # noqa: PLC0415 - heavy

        reader = SessionContext()  # as above
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            changed = changed_table(
                write,
                partial(self._open_table, write.uri, write.version - 1),
                partial(self._open_input, write.plan),
                folder,
            )
            stored, computed = (
                unpatched(reader, "read_table")(provider_of(each)) for each in (table, changed)
            )
            return result_of(unverified, compare(stored, computed))

    # --- stored rows ------------------------------------------------------------------------------------

    def _read_commit(
        self, uri: str | None, version: int | None
    ) -> tuple[str, bytes, CommitMetadata]:
        if uri is None or version is None:
            msg = "its location or version is unknown"
            raise NotReproducibleError(msg)
        raw = open_log(uri, self._root.storage_options).read(version)
        if raw is None:
            msg = "its commit is no longer in the log"
            raise NotReproducibleError(msg)
        return uri, raw, parse_commit(version, raw)

    def _open_table(self, uri: str, version: int) -> DeltaTable:
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy

        table = DeltaTable(uri, version=version, storage_options=self._root.storage_options)
        try:
            check_files(table)
        except DamagedEntryError:
            msg = "version vacuumed: its data files are missing or damaged"
            raise NotReproducibleError(msg) from None
        return table

    # --- recompute --------------------------------------------------------------------------------------

    def _recompute(self, stored: StoredEntry) -> DataFrame:
        """Return the frame that computes an entry, over the recorded versions of its inputs.

        Raises:
            NotReproducibleError: the inputs or the plan are not available.
        """
        if stored.scope is CacheScope.ARTIFACT:
            msg = "an artifact has no plan to run again"
            raise NotReproducibleError(msg)
        if stored.scope is CacheScope.METADATA:
            msg = "a metadata snapshot has no plan to run again"
            raise NotReproducibleError(msg)
        definition = (
            None if stored.name is None else self._definitions.get((stored.scope, stored.name))
        )
        candidate = None if definition is None else definition.make()
        if candidate is not None and candidate.fingerprint == stored.fingerprint:
            return candidate.frame
        functions = {}
        if candidate is not None and isinstance(candidate.fingerprint, Fingerprint):
            functions = {each.name: each.version for each in candidate.fingerprint.functions}
        plan = self._plan(stored, definition)
        if stored.scope is CacheScope.DATASET and plan.path is None and plan.table is None:
            msg = "its source was a stream or an in-memory table"
            raise NotReproducibleError(msg)
        if plan.path is not None:
            return _dataset_frame(plan.path, stored)
        return pinned_frame(
            stored.fingerprint,
            plan,
            partial(self._open_input, plan),
            source_ctx=self._ctx,
            functions=functions,
        )

    def _plan(self, stored: StoredEntry, definition: EntryDefinition | None) -> StoredPlan:
        try:
            plan = read_plan(stored.uri, stored.plan, self._root.storage_options)
        except (OSError, ValueError) as error:
            msg = "its plan cannot be read"
            raise NotReproducibleError(msg) from error
        if plan is not None:
            return plan
        if definition is not None and self._ctx is not None:
            candidate = definition.make()
            now = candidate.fingerprint
            if isinstance(now, Fingerprint) and now.plan_hash == stored.fingerprint.plan_hash:
                return storable_plan(self._ctx, definition, candidate.frame)
        msg = "no plan was stored"
        raise NotReproducibleError(msg)

    # --- inputs -------------------------------------------------------------------------------------------

    def _open_input(self, plan: StoredPlan, table_input: TableInput) -> DeltaTable:
        if self._ctx is not None:
            for entry in session_of(self._ctx).names.snapshot:
                if entry.table_id == table_input.table_id:
                    return pinned_table(table_input, entry.uri, entry.storage_options)
        uris = {table.table_id: table.uri for table in plan.tables}
        if plan.table is not None:
            uris[table_id(plan.table)] = plan.table
        uri = uris.get(table_input.table_id) or self._ledger_uris.get(table_input.table_id)
        if uri is None:
            msg = f"input gone: the location of {table_input.name} is unknown"
            raise NotReproducibleError(msg)
        return pinned_table(table_input, uri, self._root.storage_options)

    @cached_property
    def _ledger_uris(self) -> dict[str, str]:
        """Locations of tables in the ledger, by the id of the location."""
        inventory = open_parts(self._root, [INVENTORY])[INVENTORY]
        if not inventory.exists:
            return {}
        found = query(
            inventory,
            "SELECT DISTINCT table_uri AS uri FROM ledger UNION SELECT DISTINCT input['uri']"
            " FROM (SELECT unnest(inputs) AS input FROM ledger)",
        )
        return {table_id(uri): uri for uri in found["uri"].to_pylist() if uri is not None}


def _stored_entry(
    name: str | None, scope: CacheScope, uri: str, commit: CommitMetadata
) -> StoredEntry:
    parsed = json.loads(commit.metadata[CACHE_ENTRY])
    if parsed["fingerprint"] is None:
        msg = "it was invalidated"
        raise NotReproducibleError(msg)
    fingerprint = Fingerprint.from_json(parsed["fingerprint"])
    plan = parsed.get("facts", {}).get(PLAN) or fingerprint.key
    return StoredEntry(name, scope, uri, commit.version, fingerprint, plan)


def _dataset_frame(path: str, stored: StoredEntry) -> DataFrame:
    """Return the frame over a dataset's files, if they have not changed.

    Raises:
        NotReproducibleError: they have changed or are missing.
    """
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    try:
        candidate = define_dataset(
            SessionContext(),
            stored.name or "",
            path,
            policy=DATASET_DELTA_STAGING,
            version=stored.fingerprint.version,
            storage_options=None,
        ).make()
    except DeltaWitnessError:
        msg = "input gone: its source files are missing or of another format"
        raise NotReproducibleError(msg) from None
    if isinstance(candidate.fingerprint, NotCacheable):
        raise NotReproducibleError(candidate.fingerprint.reason)
    if changed := differences(stored.fingerprint, candidate.fingerprint):
        raise NotReproducibleError("; ".join(map(str, changed)))
    return candidate.frame
