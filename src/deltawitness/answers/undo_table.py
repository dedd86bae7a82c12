"""Plan the undo of one table, and restore it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from deltawitness.answers.commits import time_of
from deltawitness.answers.rows import WriteRow
from deltawitness.answers.run_effect import LogCommit, effect_of, log_commit
from deltawitness.answers.storage import error_reason
from deltawitness.answers.table_restore import (
    FILES_SHOWN,
    TablePlace,
    commit_restore,
    difference,
    obstacle,
)
from deltawitness.answers.undo_plan import LaterCommit, UndoState, UndoTable
from deltawitness.commit.log import CommitLog, open_log, read_commits
from deltawitness.commit.reader import CommitMetadata, parse_commit
from deltawitness.ledger.tables.schema import Source
from deltawitness.plurals import form_for
from deltawitness.semconv import CACHE_ENTRY, UNDONE_RUN

__all__ = ["WrittenTable", "later_commit"]

ATTEMPTS = 5
"""Maximum number of restores of a table, each after a commit of another writer that changes nothing."""


_RECONSTRUCTED = frozenset({Source.RECONCILED, Source.RECONSTRUCTED})


class _RefusedError(Exception):
    """The table cannot be restored; the message says why."""


@dataclass(frozen=True, slots=True)
class WrittenTable:
    """A table that a run wrote.

    Attributes:
        name: its name.
        uri: its location; None if the ledger does not have it.
        table_id: its id.
        rows: the ledger's rows of the run's commits to it.
        run_id: id of the run.
        family: ids of the run and its child runs.
        start: when the run started; None if it is not known.
        storage_options: as for `DeltaTable`, for a table on an object store.
    """

    name: str
    uri: str | None
    table_id: str | None
    rows: Sequence[WriteRow]
    run_id: str
    family: Collection[str]
    start: dt.datetime | None
    storage_options: dict[str, str] | None

    # --- plan ----------------------------------------------------------------------------------------

    def plan(self, *, discard_later: bool, known: int | None = None) -> UndoTable:
        """Return what an undo does with the table; what cannot be read is a reason to refuse it.

        Args:
            discard_later: whether commits of others may be discarded.
            known: the last version that the caller has seen; commits after it are never discarded.
        """
        versions = {version for row in self.rows for version in row.versions}
        table = UndoTable(
            name=self.name,
            uri=self.uri,
            table_id=self.table_id,
            state=UndoState.REFUSED,
            versions=tuple(sorted(versions)),
        )
        try:
            return self._planned(table, discard_later=discard_later, known=known)
        except _RefusedError as error:
            return replace(table, reason=str(error))
        except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
            return replace(table, reason=f"it cannot be read: {error_reason(error)}")

    def _planned(self, table: UndoTable, *, discard_later: bool, known: int | None) -> UndoTable:
        commits = self._commits(table.versions)
        own = [commit for commit in commits if commit.is_own]
        effect, current = effect_of(commits), commits[-1].version
        table = replace(
            table,
            current=current,
            versions=tuple(each.version for each in own),
            has_transactions=any(each.has_transaction for each in own),
        )
        if any(CACHE_ENTRY in each.metadata.metadata for each in own):
            why = "it is a cache entry, which is computed again when its inputs change"
            return replace(table, state=UndoState.UNCHANGED, reason=why)
        if effect.before is None:
            is_restored = effect.removed_at is not None
            state = UndoState.RESTORED if is_restored else UndoState.UNCHANGED
            return replace(table, state=state, restored_version=effect.removed_at)
        if effect.before < 0:
            return replace(table, state=UndoState.CREATED)
        later = tuple(later_commit(each) for each in commits if each.version in effect.others)
        table = replace(table, before=effect.before, later=later)
        reason = _why_not(later, commits, discard_later=discard_later, known=known)
        if reason is None:
            reason = obstacle(self._place, effect.before, current)
        state = UndoState.RESTORE if reason is None else UndoState.REFUSED
        return replace(table, state=state, reason=reason)

    def _commits(self, versions: Sequence[int]) -> list[LogCommit]:
        """Return the commits from the run's first one to the last one of the log.

        Raises:
            _RefusedError: some of them are not in the log, or are those of another table.
        """
        log = self._log()
        found = log.versions()
        if not found:
            msg = "there is no log at its location: the table was deleted or moved"
            raise _RefusedError(msg)
        first = self._first(log, versions[0])
        wanted = [version for version in found if version >= first]
        is_gap = any(after != before + 1 for before, after in pairwise(wanted))
        if not wanted or wanted[0] != first or is_gap:
            msg = f"its log does not have all commits since version {first}"
            raise _RefusedError(msg)
        commits = []
        for version, raw in zip(wanted, read_commits(log, wanted), strict=True):
            if raw is None:
                msg = f"its log no longer has version {version}"
                raise _RefusedError(msg)
            metadata = parse_commit(version, raw)
            in_ledger = self._has_row(metadata)
            commits.append(log_commit(metadata, raw, self.family, is_in_ledger=in_ledger))
            is_undo = metadata.metadata.get(UNDONE_RUN) in self.family
            if version in versions and not (commits[-1].is_own or is_undo):
                msg = f"version {version} in its log is of another write: the table was recreated"
                raise _RefusedError(msg)
        return commits

    def _first(self, log: CommitLog, version: int) -> int:
        """Return the run's first commit since its start: the ledger may lack rows of earlier commits."""
        first = version
        while version > 0:
            version -= 1
            raw = log.read(version)
            if raw is None:
                break
            commit = parse_commit(version, raw)
            if commit.run_id in self.family:
                first = version
            elif self.start is None or (time_of(commit) or _EARLIEST) < self.start:
                break
        return first

    def _has_row(self, commit: CommitMetadata) -> bool:
        rows = [row for row in self.rows if commit.version in row.versions]
        if commit.write_ids:
            return any(row.write_id in commit.write_ids for row in rows)
        return any(row.source in _RECONSTRUCTED for row in rows)

    def _log(self) -> CommitLog:
        return open_log(self._place.uri, self._place.options)

    @property
    def _place(self) -> TablePlace:
        if self.uri is None:
            msg = "the ledger does not have its location"
            raise _RefusedError(msg)
        return TablePlace(self.uri, self.storage_options)

    # --- restore -------------------------------------------------------------------------------------

    def restore(self, planned: UndoTable, *, discard_later: bool) -> UndoTable:
        """Restore the table as planned, and return what became of it.

        The restore commits the version after the planned one, or fails: a commit that another writer
        makes after the plan is never discarded.

        Args:
            planned: the plan; nothing is done if it is not to restore.
            discard_later: whether commits of others that the plan lists may be discarded.
        """
        known = planned.current
        for _ in range(ATTEMPTS):
            if planned.state is not UndoState.RESTORE:
                return planned
            error = self._restored(planned)
            after = self.plan(discard_later=discard_later, known=known)
            if error is None or after.state is UndoState.RESTORED:
                return self._checked(after, planned)
            if after.state is UndoState.RESTORE and after.current == planned.current:
                return replace(planned, state=UndoState.FAILED, reason=error)
            planned = after
        reason = "other writers commit too often; run the undo again"
        return replace(planned, state=UndoState.FAILED, reason=reason)

    def _restored(self, planned: UndoTable) -> str | None:
        """Commit the restore; return its error, after which the commit may be in the log."""
        assert planned.current is not None
        assert planned.before is not None
        keys = {UNDONE_RUN: self.run_id}
        return commit_restore(self._place, planned.before, planned.current, keys)

    def _checked(self, after: UndoTable, planned: UndoTable) -> UndoTable:
        """Return the state after a restore; it has failed if the files are not those of the planned version."""
        if after.state is not UndoState.RESTORED or after.restored_version is None:
            return after
        assert planned.before is not None
        reason = difference(self._place, planned.before, after.restored_version)
        if reason is not None:
            return replace(after, state=UndoState.FAILED, reason=reason)
        return replace(after, before=planned.before, later=planned.later)


def _why_not(
    later: Sequence[LaterCommit],
    commits: Sequence[LogCommit],
    *,
    discard_later: bool,
    known: int | None,
) -> str | None:
    if later and not discard_later:
        return f"later commits of others would be discarded: {_numbers(later)}"
    new = [each for each in later if known is not None and each.version > known]
    if new:
        return f"others committed after the plan: {_numbers(new)}; run the undo again"
    if any(each.has_deletion_vectors for each in commits):
        return "it has deletion vectors, which delta-rs does not restore"
    return None


def _numbers(later: Sequence[LaterCommit]) -> str:
    more = ", ..." if len(later) > FILES_SHOWN else ""
    versions = ", ".join(str(each.version) for each in later[:FILES_SHOWN])
    return f"{form_for(len(later), 'version')} {versions}{more}"


def later_commit(commit: LogCommit) -> LaterCommit:
    """Return a commit that a restore discards."""
    found = commit.metadata
    return LaterCommit(commit.version, found.operation, found.run_id, time_of(found))


_EARLIEST = dt.datetime.fromtimestamp(0, tz=dt.UTC)
