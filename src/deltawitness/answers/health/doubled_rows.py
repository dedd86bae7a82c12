"""Find rows that are in a table twice, because two compactions have rewritten the same files.

delta-rs 1.6.6 commits both of two compactions that start from the same version. Both commits remove the same
files without a change of data, and each adds their rows again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from deltawitness.answers.health.checks import Checkup, versions_text
from deltawitness.answers.health.table_state import TableState, error_text, read_snapshot
from deltawitness.answers.health.values import HealthCheck, HealthFinding, Severity
from deltawitness.answers.logged_files import LoggedCommit
from deltawitness.plurals import count_of
from deltawitness.semconv import Operation

__all__ = ["check_doubled_rows"]

_REWRITES = frozenset({Operation.OPTIMIZE, Operation.UPDATE, Operation.DELETE, Operation.MERGE})
"""Operations that copy rows of the files that they remove. A MERGE may also have removed the copies."""


@dataclass(slots=True)
class _Doubling:
    """Two commits that have rewritten the same files.

    Attributes:
        first: version of the first one.
        second: version of the second one.
        files: number of files that both have removed.
        is_removal: whether the first one removed rows: the second one has added them again.
        copies: paths of the files with the rows of the second one.
        rewritten: later versions that have rewritten these rows and may have removed copies.
    """

    first: int
    second: int
    files: int
    is_removal: bool
    copies: set[str]
    rewritten: list[int] = field(default_factory=list)


def check_doubled_rows(checkup: Checkup) -> Iterator[HealthFinding]:
    """Yield a finding for each pair of compactions that have rewritten the same files."""
    state = checkup.state
    active = None if state.snapshot is None else state.snapshot.paths
    for found in _doublings(state.commits):
        evidence: dict[str, Any] = {
            "first": found.first,
            "second": found.second,
            "files": found.files,
            "restore_version": found.second - 1,
        }
        what = "rows that it had removed" if found.is_removal else "their rows"
        files = count_of(found.files, "file")
        text = f"version {found.second} rewrote {files} that version {found.first} had removed"
        if active is not None and not found.copies & active:
            text = f"{text}: {what} were in the table twice, and no longer are"
            yield checkup.finding(HealthCheck.DOUBLED_ROWS, Severity.INFO, text, **evidence)
            continue
        later = _later_changes(state.commits, found.second)
        obstacle = _obstacle(state, found.second - 1)
        text = f"{text}: {what} are in the table {'again' if found.is_removal else 'twice'}"
        if found.rewritten:
            text += f", unless a later write removed them ({versions_text(found.rewritten)})"
        if obstacle is None:
            text += f". Restore version {found.second - 1}"
        else:
            text += f". Version {found.second - 1} cannot be restored: {obstacle}"
        if later:
            text += f"; the changes of {versions_text(later)} would be lost and must be repeated"
        command = checkup.repairs.write(f"restore({found.second - 1})")
        yield checkup.finding(
            HealthCheck.DOUBLED_ROWS,
            Severity.WARNING if found.rewritten else Severity.ERROR,
            text,
            command=command if obstacle is None else None,
            **evidence,
            later_changes=later,
        )


def _doublings(commits: Sequence[LoggedCommit]) -> list[_Doubling]:
    found: list[_Doubling] = []
    removed: dict[str, LoggedCommit] = {}
    for commit in commits:
        operation = commit.metadata.operation
        for each in found if operation in _REWRITES else ():
            if not each.copies.isdisjoint(commit.removed):
                each.copies |= commit.added.keys()
                if commit.changes_data:
                    each.rewritten.append(commit.version)
        twice: dict[int, list[str]] = {}
        for path, file in commit.removed.items():
            if not file.changes_data and path in removed:
                twice.setdefault(removed[path].version, []).append(path)
            removed[path] = commit
        for path in commit.added:
            removed.pop(path, None)
        for first, paths in twice.items():
            # The entry of the path is this commit's by now.
            is_removal = _changed_data(commits, first, paths[0])
            found.append(
                _Doubling(first, commit.version, len(paths), is_removal, set(commit.added))
            )
    return found


def _changed_data(commits: Sequence[LoggedCommit], version: int, path: str) -> bool:
    commit = next(each for each in commits if each.version == version)
    return commit.removed[path].changes_data


def _later_changes(commits: Sequence[LoggedCommit], version: int) -> list[int]:
    return [each.version for each in commits if each.version > version and each.changes_data]


def _obstacle(state: TableState, version: int) -> str | None:
    """Return why a version cannot be restored; None if all its files are there."""
    try:
        files = read_snapshot(state, version).paths
    except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
        return error_text(error)
    if state.stored is None:
        return None
    missing = sorted(path for path in files if "://" not in path and path not in state.stored)
    if not missing:
        return None
    return f"files of it were deleted, such as {missing[0]} ({len(missing):,} in all)"
