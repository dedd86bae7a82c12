"""The public function `diff`: the command of the same name, as a value."""

from __future__ import annotations

import os
from collections.abc import Sequence

from deltawitness.answers.diff.run_values import RunDiff
from deltawitness.answers.diff.runs import diff_runs
from deltawitness.answers.diff.table_values import TableDiff
from deltawitness.answers.diff.tables import DiffOptions, diff_tables
from deltawitness.answers.diff.versions import last_data_versions
from deltawitness.answers.lookup import find_target
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.exceptions import DiffError
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.settings import Settings

__all__ = ["answer_diff", "diff"]


def diff(  # noqa: PLR0913 - keyword-only options
    *names: str | int,
    key: str | Sequence[str] = (),
    rows: bool = True,
    statistics: bool = False,
    limit: int = 10,
    show_rows: bool = False,
    root: str | os.PathLike[str] | None = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> TableDiff | RunDiff:
    """Return what differs between two versions of a table, two tables, or two runs.

    Rows are compared by DataFusion, which the extra `datafusion` installs. Files that both versions have are
    not read, apart from their key columns.

    Args:
        *names: `TABLE, V1, V2`; `TABLE@V1, TABLE@V2`, also of two tables; `RUN_A, RUN_B`; or `TABLE`: the
            last two versions that changed rows; or `TABLE@VERSION`: this version and the one before it.
            Tables and runs are named as for :func:`show`.
        key: the columns that identify a row. Without, complete rows are compared as multisets.
        rows: whether rows are compared; without, only the logs are read.
        statistics: whether to summarize the columns of both versions, which reads all their files.
        limit: maximum number of examples of each kind of change.
        show_rows: whether the result has values of rows: examples, least and greatest texts.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        DiffError: the names do not go together, a version cannot be read, or the key is not unique.
        LedgerLookupError: a name means nothing, or several runs or tables.
        MissingExtraError: DataFusion is not installed, and rows or statistics are requested.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import DeltaTable, write_deltalake
    >>> from deltawitness import diff
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_deltalake(f"{folder}/t", pa.table({"id": [1, 2, 3], "x": [1.0, 2.0, 3.0]}))
    ...     _ = DeltaTable(f"{folder}/t").update({"x": "x + 1"}, predicate="id = 2")
    ...     _ = DeltaTable(f"{folder}/t").delete("id = 3")
    ...     found = diff(f"{folder}/t", 0, 2, key="id", root=f"{folder}/ledger")
    >>> print(*(each.operation for each in found.operations))
    UPDATE DELETE
    >>> found.rows.added, found.rows.removed, found.rows.changed, found.rows.columns
    (0, 1, 1, {'x': 1})
    """
    options = DiffOptions(
        key=(key,) if isinstance(key, str) else tuple(key),
        rows=rows,
        statistics=statistics,
        limit=limit,
        show_rows=show_rows,
    )
    chosen = settings_with(root, storage_options, settings)
    return answer_diff(ledger_of(chosen, is_required=False), names, options, chosen)


def answer_diff(
    ledger: LedgerListing, names: Sequence[str | int], options: DiffOptions, settings: Settings
) -> TableDiff | RunDiff:
    """Return what differs between what some names mean.

    Args:
        ledger: the ledger to query; it may have no tables.
        names: as for :func:`diff`.
        options: what to compare.
        settings: the storage options of remote tables.

    Raises:
        Exception: as for :func:`diff`.
    """
    targets = [find_target(ledger, name) for name in _full_names(names)]
    if any(isinstance(target, str) for target in targets):
        first, *others = targets
        if len(others) != 1 or not isinstance(first, str) or not isinstance(others[0], str):
            msg = "a run can be compared only with another run: name two runs"
            raise DiffError(msg)
        return diff_runs(ledger, first, others[0])
    tables = [target for target in targets if not isinstance(target, str)]
    a, b = tables if len(tables) == 2 else last_data_versions(tables[0], settings)  # noqa: PLR2004 - two versions
    return diff_tables(ledger, a, b, options, settings)


def _full_names(names: Sequence[str | int]) -> list[str]:
    """Return one or two names; a table and two versions are two names.

    Raises:
        DiffError: there are none or too many, or a version is not a number.
    """
    texts = list(map(str, names))
    if len(texts) in {1, 2}:
        return texts
    if len(texts) == 3 and all(text.isdecimal() for text in texts[1:]):  # noqa: PLR2004 - a table and two versions
        return [f"{texts[0]}@{version}" for version in texts[1:]]
    msg = "expected TABLE [V1 V2], two of TABLE@VERSION, or two runs"
    raise DiffError(msg)
