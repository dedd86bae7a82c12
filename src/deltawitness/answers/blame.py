"""The public function `blame`: the commits that wrote the rows of a table as they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from deltawitness.answers.blame_values import BlamedRow, BlamedWrite, BlameResult
from deltawitness.answers.commits import read_commit
from deltawitness.answers.diff.versions import OpenVersion, open_version
from deltawitness.answers.lookup import NamedTable, find_table
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.rewrites import Rewrites
from deltawitness.answers.shown_commit import ShownCommit
from deltawitness.answers.table_queries import TABLE, condition, error_text, query
from deltawitness.exceptions import DiffError, LedgerLookupError, QuestionError
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.settings import Settings

if TYPE_CHECKING:
    from deltawitness.answers.rewrites import Origin

__all__ = ["LIMIT", "answer_blame", "blame"]

LIMIT = 10
"""Number of different rows unless the caller says otherwise."""


def blame(  # noqa: PLR0913 - keyword-only options
    table: str,
    where: str,
    *,
    limit: int = LIMIT,
    show_rows: bool = False,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> BlameResult:
    """Return the commits and runs that wrote the rows of a table as they are.

    A commit that copied a row without a change did not write it: OPTIMIZE, a RESTORE, and UPDATE, DELETE,
    MERGE or an overwrite of other rows, which copy the other rows of the files that they replace. A complete
    overwrite writes all rows, also those that were equal before.

    Args:
        table: the table, optionally with `@VERSION`, as for :func:`show`.
        where: SQL condition of the rows, such as `id = 42`; in queries in it the table is `t`.
        limit: maximum number of different rows.
        show_rows: whether the result has the values of the rows.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        QuestionError: the SQL is invalid, or the version cannot be read.
        LedgerLookupError: there is no such table or version, or several.
        ValueError: the limit is not positive.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the log or the ledger cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import DeltaTable, write_deltalake
    >>> from deltawitness import blame
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_deltalake(f"{folder}/t", pa.table({"id": [1, 2], "x": [5, 6]}))
    ...     _ = DeltaTable(f"{folder}/t").update({"x": "7"}, predicate="id = 1")
    ...     changed = blame(f"{folder}/t", "id = 1", root=f"{folder}/ledger")
    ...     copied = blame(f"{folder}/t", "id = 2", root=f"{folder}/ledger")
    >>> print(changed.versions, copied.versions, copied.rows[0].writes[0].copied_by)
    (1,) (0,) (1,)
    """
    chosen = settings_with(root, storage_options, settings)
    ledger = ledger_of(chosen, is_required=False)
    return answer_blame(ledger, table, where, limit=limit, show_rows=show_rows, settings=chosen)


def answer_blame(  # noqa: PLR0913 - keyword-only options
    ledger: LedgerListing,
    table: str,
    where: str,
    *,
    limit: int,
    show_rows: bool,
    settings: Settings,
) -> BlameResult:
    """Return the commits that wrote rows; arguments and errors as for :func:`blame`.

    Args:
        ledger: the ledger to query; it may have no tables.
        table: the table.
        where: the condition of the rows.
        limit: maximum number of different rows.
        show_rows: whether the result has the values of the rows.
        settings: the storage options of remote tables.
    """
    if limit < 1:
        msg = "limit: expected 1 or more"
        raise ValueError(msg)
    named = find_table(ledger, table)
    try:
        version = open_version(named, settings)
    except DiffError as error:
        raise QuestionError(str(error)) from error
    selected = _select(version, named, where, limit)
    rewrites = Rewrites(named, settings, version)
    commits = _Commits(ledger, named, settings)
    rows = []
    for row in selected[:limit]:
        origins = rewrites.origins(row)
        rows.append(
            BlamedRow(
                values=dict(row) if show_rows else None,
                rows=sum(each.rows for each in origins),
                writes=tuple(commits.write(each) for each in origins),
            )
        )
    return BlameResult(
        table=version.name,
        where=where,
        rows=tuple(rows),
        is_cut=len(selected) > limit,
        notes=tuple(dict.fromkeys(rewrites.notes)),
    )


def _select(
    version: OpenVersion, named: NamedTable, where: str, limit: int
) -> list[Mapping[str, Any]]:
    """Return different rows that a condition selects, up to one more than the limit.

    Raises:
        QuestionError: the condition is invalid, or the version cannot be read.
    """
    from deltawitness.answers.equal_rows import same_row  # noqa: PLC0415 - heavy

    of_rows = f"FROM {TABLE} WHERE {condition(where)}"
    # A column of a nested type may have no DISTINCT: then the first of many rows are enough.
    forms = (f"SELECT DISTINCT * {of_rows} LIMIT {limit + 1}", f"SELECT * {of_rows} LIMIT {_MANY}")
    problem: Exception | None = None
    for sql in forms:
        try:
            found = query(version.table, sql, [named.name])
        except Exception as error:  # noqa: BLE001 - the engine raises errors of many types
            problem = problem or error
        else:
            return list({same_row(row): row for row in found.to_pylist()}.values())
    msg = f"{version.name} WHERE {where}: {error_text(problem or Exception())}"
    raise QuestionError(msg) from problem


_MANY = 10_000


@dataclass
class _Commits:
    """The commits of a table, each read once.

    Attributes:
        ledger: the ledger to query; it may have no tables.
        named: the table.
        settings: the storage options of a remote table.
    """

    ledger: LedgerListing
    named: NamedTable
    settings: Settings
    _read: dict[int, ShownCommit | None] = field(default_factory=dict)

    def write(self, origin: Origin) -> BlamedWrite:
        """Return an origin with its commit."""
        version = origin.version
        if version is not None and version not in self._read:
            try:
                named = replace(self.named, version=version)
                self._read[version] = read_commit(self.ledger, named, self.settings)
            except LedgerLookupError:
                self._read[version] = None
        return BlamedWrite(
            version=version,
            rows=origin.rows,
            is_certain=origin.is_certain,
            copied_by=origin.copied_by,
            commit=None if version is None else self._read[version],
        )
