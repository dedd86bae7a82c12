"""Find out from a table's log which version an undo of a run has to restore.

A commit of the run gives the content of the table an effect of the run; a RESTORE gives the table the content
of an earlier version, with or without that effect. So an undo is recognized by its RESTORE, whoever made it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from deltawitness.answers.logged_files import actions_in
from deltawitness.commit.reader import CommitMetadata
from deltawitness.commit.restored import restored_version
from deltawitness.semconv import UNDONE_RUN

__all__ = ["LogCommit", "RunEffect", "effect_of", "log_commit"]


@dataclass(frozen=True, slots=True)
class LogCommit:
    """What an undo needs to know of one commit.

    Attributes:
        version: the version.
        metadata: its `commitInfo`.
        is_own: whether the run that is to be undone, or a child run, made it.
        is_change: whether it changes rows, the schema or properties; OPTIMIZE and VACUUM do not.
        restored: the version that a RESTORE has restored; None for other commits.
        has_deletion_vectors: whether it adds or removes a file with a deletion vector.
        has_transaction: whether it has an application transaction, such as that of an exactly-once write.
    """

    version: int
    metadata: CommitMetadata
    is_own: bool
    is_change: bool
    restored: int | None = None
    has_deletion_vectors: bool = False
    has_transaction: bool = False


@dataclass(frozen=True, slots=True)
class RunEffect:
    """How the content of a version depends on a run.

    Attributes:
        before: the version before the first commit of the run that has an effect on the content; -1 if
            this commit created the table; None if the content does not depend on the run.
        others: later versions of others, whose changes are in the content.
        removed_at: the version of the RESTORE that removed the effect; None if there was none.
    """

    before: int | None = None
    others: tuple[int, ...] = ()
    removed_at: int | None = None


_NONE = RunEffect()


def log_commit(
    metadata: CommitMetadata, raw: bytes, family: Collection[str], *, is_in_ledger: bool
) -> LogCommit:
    """Return what an undo needs to know of a commit.

    Args:
        metadata: its parsed `commitInfo`.
        raw: the content of the commit file.
        family: ids of the run and its child runs.
        is_in_ledger: whether the ledger has a row of the run for this commit.
    """
    # The undo of a run may be called inside that run: its commits are no work of the run.
    is_undo = metadata.metadata.get(UNDONE_RUN) in family
    actions = list(actions_in(raw))
    return LogCommit(
        metadata.version,
        metadata,
        is_own=not is_undo and (is_in_ledger or metadata.run_id in family),
        is_change=any(_is_change(name, action) for name, action in actions),
        restored=restored_version(metadata),
        has_deletion_vectors=any(action.get("deletionVector") for _, action in actions),
        has_transaction=any(name == "txn" for name, _ in actions),
    )


def _is_change(name: str, action: dict[str, Any]) -> bool:
    if name in {"add", "remove"}:
        return action.get("dataChange") is not False
    return name not in {"commitInfo", "txn"}


def effect_of(commits: Sequence[LogCommit]) -> RunEffect:
    """Return how the content of the last of some commits depends on the run.

    Args:
        commits: consecutive commits of a table to its last version; the run has made none before them.
    """
    effect = _NONE
    effects: dict[int, RunEffect] = {}
    for commit in commits:
        effect = _after(commit, effect, effects)
        effects[commit.version] = effect
    return effect


def _after(commit: LogCommit, effect: RunEffect, effects: dict[int, RunEffect]) -> RunEffect:
    has_effect = effect.before is not None
    if commit.is_own:
        first = RunEffect(commit.version - 1) if commit.is_change else effect
        return effect if has_effect else first
    if commit.restored is not None:
        target = effects.get(commit.restored, _NONE)
        if target.before is not None:
            return RunEffect(target.before, (*target.others, commit.version))
        return RunEffect(removed_at=commit.version if has_effect else effect.removed_at)
    if has_effect and commit.is_change:
        return RunEffect(effect.before, (*effect.others, commit.version))
    return effect
