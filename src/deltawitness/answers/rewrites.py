"""Follow copies of a row from the file that holds it back to the commit that wrote it.

A file was added by a commit. If the commit also removed files, it may have copied the row from one of them:
then the row is followed there, one version earlier. Equal rows are counted, because a commit may have
copied some of them and written others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deltawitness.answers.commits import predicate_of
from deltawitness.answers.diff.versions import OpenVersion, open_version
from deltawitness.answers.lookup import NamedTable
from deltawitness.answers.table_queries import ALL_FILES, actions_of, error_text, log_of
from deltawitness.commit.log import read_commits
from deltawitness.commit.reader import parse_commit
from deltawitness.commit.restored import restored_version
from deltawitness.exceptions import QuestionError
from deltawitness.settings import Settings

if TYPE_CHECKING:
    from deltawitness.answers.equal_rows import VersionRows

__all__ = ["Origin", "Rewrites"]

_WRITING = ("WRITE", "CREATE", "REPLACE", "CONVERT", "CLONE", "STREAMING UPDATE", "COPY INTO")
"""Begin the operations that write rows and copy none, unless they replace only some rows."""


_COPYING = ("DELETE", "OPTIMIZE", "REORG")
"""Begin the operations that write no row that was not there before."""


_BATCH = 32
"""Number of commits that are read at the same time."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A commit that wrote copies of a row.

    Attributes:
        version: the version; None if it is older than the log, or than the files that are still there.
        rows: number of the copies.
        is_certain: False if it may have copied the row from a file that was deleted since.
        copied_by: later versions that copied the row, newest first.
    """

    version: int | None
    rows: int
    is_certain: bool
    copied_by: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Commit:
    """What a commit did.

    Attributes:
        version: the version.
        added: paths of the files that it added.
        removed: paths of the files that it removed.
        is_new: whether each row of the added files was written by it.
        only_copies: whether none of them was.
        replaces_all: whether no row of the version before is left.
        may_add_old_files: whether the added files may be those of an earlier version.
        restored: the version that it restored; None if it restored none, or the log does not say.
    """

    version: int
    added: frozenset[str]
    removed: frozenset[str]
    is_new: bool
    only_copies: bool
    replaces_all: bool
    may_add_old_files: bool
    restored: int | None


@dataclass(frozen=True, slots=True)
class _Copies:
    """Equal rows in one file at a version.

    Attributes:
        version: a version that has the file.
        path: path of the file.
        rows: number of the rows.
        copied_by: later versions that copied the rows.
    """

    version: int
    path: str
    rows: int
    copied_by: tuple[int, ...] = ()


@dataclass
class Rewrites:
    """The commits of a table and the rows of its versions, read as they are needed.

    Attributes:
        named: the table.
        settings: the storage options of a remote table.
        newest: the version at which rows are followed.
        notes: what could not be read.
    """

    named: NamedTable
    settings: Settings
    newest: OpenVersion
    notes: list[str] = field(default_factory=list)
    _commits: dict[int, _Commit | None] = field(default_factory=dict)
    _versions: dict[int, VersionRows] = field(default_factory=dict)

    def origins(self, row: Mapping[str, Any]) -> list[Origin]:
        """Return the commits that wrote a row of the newest version, newest first.

        Args:
            row: the values by column.

        Raises:
            QuestionError: the newest version cannot be read.
            OSError: the log cannot be read.
        """
        last = self.newest.table.version()
        try:
            counts = self._rows(last).count_equal(row)
        except Exception as error:
            msg = f"{self.newest.name} cannot be read: {error_text(error)}"
            raise QuestionError(msg) from error
        pending = [_Copies(last, path, count) for path, count in counts.items()]
        found: dict[tuple[int | None, bool, tuple[int, ...]], int] = {}
        while pending:
            copies = pending.pop()
            for step in self._step(copies, row):
                if isinstance(step, _Copies):
                    pending.append(step)
                else:
                    key = step.version, step.is_certain, step.copied_by
                    found[key] = found.get(key, 0) + step.rows
        origins = [Origin(version, rows, sure, by) for (version, sure, by), rows in found.items()]
        return sorted(origins, key=lambda each: -1 if each.version is None else each.version)[::-1]

    def _step(self, copies: _Copies, row: Mapping[str, Any]) -> Iterator[Origin | _Copies]:
        """Yield where rows of a file come from: commits that wrote them, or files of an earlier version."""
        commit = self._adding(copies)
        if commit is None:
            yield Origin(None, copies.rows, True, copies.copied_by)  # noqa: FBT003 - attributes in order
            return
        by = (*copies.copied_by, commit.version)
        if commit.may_add_old_files:
            earlier = self._version_with(copies.path, commit)
            if earlier is not None:
                yield replace(copies, version=earlier, copied_by=by)
                return
        before: dict[str, int] | None = {}
        is_all = copies.path == ALL_FILES
        if not (commit.replaces_all if is_all else commit.is_new) and commit.version > 0:
            before = self._counts(commit.version - 1, row, None if is_all else commit)
        left = copies.rows
        for path, count in (before or {}).items():
            used = min(left, count)
            if used:
                yield _Copies(commit.version - 1, path, used, by)
                left -= used
        if left and before is None and commit.only_copies:
            yield Origin(None, left, True, by)  # noqa: FBT003 - attributes in order
        elif left:
            yield Origin(commit.version, left, before is not None, copies.copied_by)

    # --- the log ---------------------------------------------------------------------------------------

    def _adding(self, copies: _Copies) -> _Commit | None:
        """Return the last commit up to a version that added a file; None if the log does not have it."""
        for version in range(copies.version, -1, -1):
            commit = self._commit(version)
            if commit is None:
                self.notes.append(f"the log does not have commit {version} and earlier ones")
                return None
            is_any = copies.path == ALL_FILES and (commit.added or commit.removed)
            if is_any or copies.path in commit.added:
                return commit
        return None

    def _version_with(self, path: str, commit: _Commit) -> int | None:
        """Return an earlier version with the same file, if a commit has added an old file again."""
        if commit.restored is not None:
            return commit.restored
        for version in range(commit.version - 1, -1, -1):
            before = self._commit(version)
            if before is None:
                return version  # the commit that added it is no longer in the log
            if path in before.added:
                return version
        return None

    def _commit(self, version: int) -> _Commit | None:
        if version not in self._commits:
            versions = range(max(version - _BATCH + 1, 0), version + 1)
            wanted = [each for each in versions if each not in self._commits]
            contents = read_commits(log_of(self.named, self.settings), wanted)
            for each, content in zip(wanted, contents, strict=True):
                self._commits[each] = None if content is None else _parse(each, content)
        return self._commits[version]

    # --- rows ------------------------------------------------------------------------------------------

    def _counts(
        self, version: int, row: Mapping[str, Any], commit: _Commit | None
    ) -> dict[str, int] | None:
        """Return the number of equal rows by file of a version; None if it cannot be read.

        Args:
            version: the version.
            row: the values by column.
            commit: only the files that it removed; all for None.
        """
        try:
            return self._rows(version).count_equal(row, None if commit is None else commit.removed)
        except Exception:  # noqa: BLE001 - the engines raise errors of many types
            self.notes.append(
                f"version {version} cannot be read: the rows that {version + 1} has copied are not known"
            )
            return None

    def _rows(self, version: int) -> VersionRows:
        from deltawitness.answers.equal_rows import VersionRows  # noqa: PLC0415 - heavy

        if version not in self._versions:
            opened = (
                self.newest
                if version == self.newest.table.version()
                else open_version(replace(self.named, version=version), self.settings)
            )
            self._versions[version] = VersionRows(opened)
        return self._versions[version]


def _parse(version: int, content: bytes) -> _Commit:
    commit = parse_commit(version, content)
    added: set[str] = set()
    removed: set[str] = set()
    has_changes = False
    for kind, action in actions_of(content):
        path = action.get("path")
        if kind in {"add", "remove"} and isinstance(path, str):
            (added if kind == "add" else removed).add(unquote(path))
            has_changes = has_changes or action.get("dataChange") is not False
    name = (commit.operation or "").upper()
    is_new = name.startswith(_WRITING) and not predicate_of(commit)
    is_append = str(commit.operation_parameters.get("mode", "")).lower() == "append"
    is_restore = name.startswith("RESTORE")
    return _Commit(
        version=version,
        added=frozenset(added),
        removed=frozenset(removed),
        is_new=is_new,
        only_copies=name.startswith(_COPYING),
        replaces_all=is_new and not is_append and name != "STREAMING UPDATE",
        may_add_old_files=is_restore or (not removed and not is_new and not has_changes),
        restored=restored_version(commit),
    )
