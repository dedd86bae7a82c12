"""The public function `restore_release`: restore the tables of a release to its versions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from deltawitness.answers.questions import settings_with
from deltawitness.answers.releases.lookup import find_release, place_of
from deltawitness.answers.releases.values import ReleaseRestore
from deltawitness.answers.run_effect import LogCommit, log_commit
from deltawitness.answers.storage import error_reason
from deltawitness.answers.table_restore import (
    TablePlace,
    commit_restore,
    difference,
    obstacle,
)
from deltawitness.answers.undo import drain_ledger, observed
from deltawitness.answers.undo_plan import LaterCommit, UndoState, UndoTable
from deltawitness.answers.undo_table import later_commit
from deltawitness.commit.log import open_log, read_commits
from deltawitness.commit.reader import parse_commit
from deltawitness.forks import mark_delta_rs_used
from deltawitness.ledger.tables.releases import ReleasedTable
from deltawitness.run import run as open_run
from deltawitness.semconv import RELEASE_JOB, RESTORED_RELEASE
from deltawitness.settings import Settings

__all__ = ["restore_release"]


def restore_release(
    name: str,
    *,
    apply: bool = False,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> ReleaseRestore:
    """Plan to restore the tables of a release to its versions, and restore them with `apply`.

    Each table is restored by one RESTORE commit: rows, schema and properties. All later commits are
    discarded; the plan lists them. A commit that is made after the plan of this call is never discarded.
    Several tables are not restored at the same time; if the process dies in between, the same call
    restores the rest. A table is refused if files of its version were deleted, or if it was recreated.

    The restores are a run of the job `release`. If the process is not instrumented, it is for this time,
    with the ledger of `root`.

    Args:
        name: name of the release, or an unambiguous prefix of it.
        apply: restore the tables; else the plan is returned and nothing is written.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no such release, or there are several.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.
    """
    mark_delta_rs_used()
    chosen = settings_with(root, storage_options, settings)
    release = find_release(chosen, name)
    planned = tuple(_planned(table, place_of(table, chosen)) for table in release.tables)
    plan = ReleaseRestore(name=release.name, tables=planned, is_applied=apply)
    if not apply or not plan.in_state(UndoState.RESTORE):
        return plan
    return _applied(plan, chosen)


class _IncompleteRestoreError(Exception):
    """Ends the run of a restore that has not restored all tables."""


def _applied(plan: ReleaseRestore, settings: Settings) -> ReleaseRestore:
    done: list[UndoTable] = []
    opened = open_run(RELEASE_JOB, message=f"restore of release {plan.name}")
    with observed(settings), suppress(_IncompleteRestoreError), opened as restoring:
        for table in plan.tables:
            place = TablePlace(table.uri or "", settings.storage_options)
            done.append(_restored(table, place, plan.name))
        if any(each.state in {UndoState.REFUSED, UndoState.FAILED} for each in done):
            raise _IncompleteRestoreError
    with suppress(Exception):  # the tables are restored; the rows stay in the spool
        drain_ledger(settings)
    return replace(plan, tables=tuple(done), run_id=restoring.run_id)


def _planned(table: ReleasedTable, place: TablePlace) -> UndoTable:
    planned = UndoTable(
        name=table.name,
        uri=table.uri,
        table_id=table.table_id,
        state=UndoState.REFUSED,
        before=table.version,
    )
    try:
        return _plan_of(planned, table, place)
    except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
        return replace(planned, reason=f"it cannot be read: {error_reason(error)}")


def _plan_of(planned: UndoTable, table: ReleasedTable, place: TablePlace) -> UndoTable:
    last = place.open(None)
    current = last.version()
    planned = replace(planned, current=current)
    if str(last.metadata().id) != table.metadata_id:
        return replace(planned, reason="the table was deleted and created again")
    if current < table.version:
        return replace(planned, reason=f"its last version is {current}")
    if _has_content(place, table.version, current):
        return replace(planned, state=UndoState.UNCHANGED)
    commits = _commits(place, table.version + 1, current)
    planned = replace(planned, later=_later(commits))
    reason = obstacle(place, table.version, current)
    if reason is None and any(each.has_deletion_vectors for each in commits):
        reason = "it has deletion vectors, which delta-rs does not restore"
    return replace(planned, state=UndoState.REFUSED if reason else UndoState.RESTORE, reason=reason)


def _has_content(place: TablePlace, version: int, current: int) -> bool:
    """Return whether the last version has the files, the schema and the properties of an earlier one."""
    if version == current:
        return True
    try:
        a, b = place.open(version), place.open(current)
        return (
            sorted(a.file_uris()) == sorted(b.file_uris())
            and a.schema() == b.schema()
            and a.metadata().configuration == b.metadata().configuration
        )
    except Exception:  # noqa: BLE001 - the plan says why the version cannot be read
        return False


def _commits(place: TablePlace, first: int, last: int) -> list[LogCommit]:
    """Return the commits that the log has."""
    versions = range(first, last + 1)
    raws = read_commits(open_log(place.uri, place.options), versions)
    return [
        log_commit(parse_commit(version, raw), raw, (), is_in_ledger=False)
        for version, raw in zip(versions, raws, strict=True)
        if raw is not None
    ]


def _later(commits: Sequence[LogCommit]) -> tuple[LaterCommit, ...]:
    return tuple(later_commit(each) for each in commits if each.is_change)


def _restored(planned: UndoTable, place: TablePlace, release: str) -> UndoTable:
    """Restore a table as planned; the commit is the version after the planned last one, or fails."""
    if planned.state is not UndoState.RESTORE:
        return planned
    assert planned.before is not None
    assert planned.current is not None
    error = commit_restore(place, planned.before, planned.current, {RESTORED_RELEASE: release})
    at = planned.current + 1
    raw = open_log(place.uri, place.options).read(at)
    is_own = raw is not None and parse_commit(at, raw).metadata.get(RESTORED_RELEASE) == release
    if not is_own:
        lost = f"others committed after the plan: version {at}; restore again"
        why = (error or "the engine made no commit") if raw is None else lost
        return replace(planned, state=UndoState.FAILED, reason=why)
    reason = difference(place, planned.before, at)
    state = UndoState.RESTORED if reason is None else UndoState.FAILED
    return replace(planned, state=state, reason=reason, restored_version=at)
