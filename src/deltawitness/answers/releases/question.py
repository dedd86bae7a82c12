"""The public functions for releases: create, list, compare and verify them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from deltawitness.answers.diff.table_values import DiffChange
from deltawitness.answers.diff.tables import DiffOptions, diff_tables
from deltawitness.answers.diff.versions import OpenVersion, open_version
from deltawitness.answers.lookup import NamedTable, find_table
from deltawitness.answers.questions import ledger_of, settings_with
from deltawitness.answers.releases.lookup import find_release, named_table
from deltawitness.answers.releases.needed import checked_table, open_released
from deltawitness.answers.releases.values import (
    CheckedTable,
    ReleaseCheck,
    ReleaseDiff,
    ReleaseTableDiff,
)
from deltawitness.answers.storage import storage_options_for
from deltawitness.commit.log import open_log
from deltawitness.exceptions import DeltaWitnessError, LedgerLookupError, ReleaseError
from deltawitness.forks import mark_delta_rs_used
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.locations import root_of
from deltawitness.ledger.tables.releases import (
    Release,
    ReleasedTable,
    append_drop,
    append_release,
    read_releases,
)
from deltawitness.locations import strip_credentials
from deltawitness.redaction import redact_message
from deltawitness.run import current_run
from deltawitness.run_origin import process_origin
from deltawitness.settings import Settings

__all__ = [
    "answer_release_diff",
    "create_release",
    "diff_releases",
    "drop_release",
    "releases",
    "verify_release",
]

_Root = str | os.PathLike[str] | None

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_ATTEMPTS = 5
"""Number of attempts to read the last versions of all tables at one time."""


def create_release(  # noqa: PLR0913 - keyword-only options
    name: str,
    tables: Iterable[str],
    *,
    message: str | None = None,
    root: _Root = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> Release:
    """Give a name to a set of table versions.

    A name is created once, also if several processes try it at the same time, and a release does not
    change. Tables without a version are taken at their last versions, all of which were the last ones at
    one time.

    Args:
        name: 1 to 128 letters, digits or `._-`, which begin with a letter or a digit.
        tables: each a name, id (or a prefix of it), path or URI, which `@VERSION` may follow. Their names
            must be different.
        message: what the release is for.
        root: as for :func:`show`. The ledger is created if it does not exist.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        ReleaseError: the name is invalid or taken, or a table cannot be read.
        LedgerLookupError: a name means no table, or several.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read or written.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import create_release, releases
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_deltalake(f"{folder}/orders", pa.table({"id": [1]}))
    ...     write_deltalake(f"{folder}/items", pa.table({"id": [1]}))
    ...     tables = [f"{folder}/orders", f"{folder}/items@0"]
    ...     made = create_release("november", tables, root=f"{folder}/ledger")
    ...     (found,) = releases(root=f"{folder}/ledger")
    >>> print(found.name, *found.tables)
    november orders@0 items@0
    """
    if not _NAME.fullmatch(name):
        msg = (
            f"release {name!r}: expected 1 to 128 letters, digits or '._-' after a letter or digit"
        )
        raise ReleaseError(msg)
    chosen = settings_with(root, storage_options, settings)
    ledger = ledger_of(chosen, is_required=False)
    place = root_of(chosen)
    if read_releases(place, name):
        msg = f"there is a release {name}"
        raise ReleaseError(msg)
    run, author = current_run(), process_origin().author
    release = Release(
        name=name,
        created=datetime.now(UTC),
        message=None if message is None else redact_message(message),
        author=None if author is None else redact_message(author),
        run_id=None if run.is_implicit else run.run_id,
        tables=_released_tables([find_table(ledger, each) for each in tables], chosen),
    )
    append_release(place, release)
    return release


def _released_tables(named: Sequence[NamedTable], settings: Settings) -> tuple[ReleasedTable, ...]:
    """Return the tables at one time.

    Raises:
        ReleaseError: there are none, two have the same name, or one cannot be read.
    """
    if not named:
        msg = "a release needs at least one table"
        raise ReleaseError(msg)
    names = [each.name for each in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"two tables of the release are named {twice}"
        raise ReleaseError(msg)
    for _ in range(_ATTEMPTS):
        opened = [_open(each, settings) for each in named]
        is_last = (
            each.version is not None or not _has_version(found, settings)
            for each, found in zip(named, opened, strict=True)
        )
        if all(is_last):
            return tuple(map(_released, opened))
    msg = "other writers commit too often: name the versions of the tables"
    raise ReleaseError(msg)


def _open(named: NamedTable, settings: Settings) -> OpenVersion:
    try:
        return open_version(named, settings)
    except DeltaWitnessError as error:
        raise ReleaseError(str(error)) from error


def _has_version(found: OpenVersion, settings: Settings) -> bool:
    """Return whether a table has a version after the opened one."""
    uri = found.name.uri or ""
    log = open_log(uri, storage_options_for(uri, settings))
    return log.read(found.table.version() + 1) is not None


def _released(found: OpenVersion) -> ReleasedTable:
    uri = strip_credentials(found.name.uri or "")
    return ReleasedTable(
        found.name.name or uri,
        uri,
        found.name.table_id or "",
        found.table.version(),
        str(found.table.metadata().id),
    )


def drop_release(
    name: str,
    *,
    root: _Root = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> Release:
    """Drop a release, whose files are not needed any more. Its tables do not change.

    The name cannot be created again.

    Args:
        name: the complete name of the release.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Returns:
        The release that was dropped.

    Raises:
        LedgerLookupError: there is no such release.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read or written.
    """
    mark_delta_rs_used()
    place = root_of(settings_with(root, storage_options, settings))
    found = read_releases(place, name)
    if not found:
        msg = f"there is no release {name}"
        raise LedgerLookupError(msg)
    append_drop(place, name)
    return found[0]


def releases(
    *,
    root: _Root = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> list[Release]:
    """Return all releases, newest first.

    Args:
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.
    """
    mark_delta_rs_used()
    return read_releases(root_of(settings_with(root, storage_options, settings)))[::-1]


def diff_releases(  # noqa: PLR0913 - keyword-only options
    a: str,
    b: str | None = None,
    *,
    key: str | Sequence[str] = (),
    rows: bool = True,
    root: _Root = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> ReleaseDiff:
    """Return what differs between two releases, or between a release and the last versions of its tables.

    Args:
        a: name of a release, or an unambiguous prefix of it.
        b: another release; None for the last versions.
        key: the columns that identify a row, in tables that have them; else rows are compared as multisets.
        rows: whether rows are compared, which needs DataFusion; without, only the logs are read.
        root: as for :func:`show`.
        storage_options: as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        LedgerLookupError: there is no such release, or there are several.
        MissingExtraError: DataFusion is not installed, and rows are requested.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the ledger's storage cannot be read.
    """
    options = DiffOptions(key=(key,) if isinstance(key, str) else tuple(key), rows=rows)
    mark_delta_rs_used()
    return answer_release_diff(a, b, options, settings_with(root, storage_options, settings))


def answer_release_diff(
    a: str, b: str | None, options: DiffOptions, settings: Settings
) -> ReleaseDiff:
    """Return what differs between two releases; arguments as for :func:`diff_releases`.

    Raises:
        Exception: as for :func:`diff_releases`.
    """
    first = find_release(settings, a)
    second = None if b is None else find_release(settings, b)
    left = {table.name: table for table in first.tables}
    right = left if second is None else {table.name: table for table in second.tables}
    ledger = LedgerListing.of(settings)
    tables = []
    for name in sorted({*left, *right}):
        one, other = left.get(name), right.get(name)
        if second is None and other is not None:
            found = _diff_to_last(ledger, name, other, options, settings)
        else:
            found = _diff_of(ledger, name, (one, other), options, settings)
        tables.append(found)
    return ReleaseDiff(
        a=first.name, b=None if second is None else second.name, tables=tuple(tables)
    )


def _diff_to_last(
    ledger: LedgerListing,
    name: str,
    table: ReleasedTable,
    options: DiffOptions,
    settings: Settings,
) -> ReleaseTableDiff:
    try:
        last = _released(open_version(replace(named_table(table), version=None), settings))
    except DeltaWitnessError as error:
        return ReleaseTableDiff(
            name=name, change=DiffChange.REMOVED, a=table, b=None, problem=str(error)
        )
    return _diff_of(ledger, name, (table, replace(last, name=name)), options, settings)


def _diff_of(
    ledger: LedgerListing,
    name: str,
    both: tuple[ReleasedTable | None, ReleasedTable | None],
    options: DiffOptions,
    settings: Settings,
) -> ReleaseTableDiff:
    a, b = both
    if a is None or b is None:
        change = DiffChange.ADDED if a is None else DiffChange.REMOVED
        return ReleaseTableDiff(name=name, change=change, a=a, b=b)
    if a == b:
        return ReleaseTableDiff(name=name, change=None, a=a, b=b)
    found = ReleaseTableDiff(name=name, change=DiffChange.CHANGED, a=a, b=b)
    for table in (a, b):
        opened = open_released(table, settings)
        if isinstance(opened, CheckedTable):
            return replace(found, problem=f"{table}: {opened.reason}")
        if not {each.name for each in opened.schema().fields}.issuperset(options.key):
            options = replace(options, key=())
    try:
        compared = diff_tables(ledger, named_table(a), named_table(b), options, settings)
        return replace(found, diff=compared)
    except (DeltaWitnessError, OSError) as error:
        return replace(found, problem=str(error))


def verify_release(
    name: str,
    *,
    root: _Root = None,
    storage_options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> ReleaseCheck:
    """Return whether all tables of a release can be read: their versions are in the logs, all files are there.

    The content of the files is not read.

    Args:
        name: name of the release, or an unambiguous prefix of it.
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
    tables = tuple(checked_table(table, chosen) for table in release.tables)
    return ReleaseCheck(name=release.name, tables=tables)
