"""The rows of two versions, and those that may differ: the rows of files that not both versions have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deltawitness.answers.diff.versions import OpenVersion

if TYPE_CHECKING:
    from deltawitness.answers.diff.datasets import RowSource

__all__ = ["RowOptions", "Sources", "open_sources"]


@dataclass(frozen=True, slots=True)
class RowOptions:
    """How rows are compared.

    Attributes:
        key: the columns that identify a row; empty to compare complete rows as multisets.
        limit: maximum number of examples of each kind of change.
        show_rows: whether examples are returned.
    """

    key: tuple[str, ...] = ()
    limit: int = 10
    show_rows: bool = False


@dataclass(frozen=True, slots=True)
class Sources:
    """The rows of two versions.

    Attributes:
        a: all rows of the first version.
        b: all rows of the second version.
        changed_a: the rows of the first version that the second may not have.
        changed_b: the rows of the second version that the first may not have.
        shared: the rows of the files that both have; None if there are no such files.
    """

    a: RowSource
    b: RowSource
    changed_a: RowSource
    changed_b: RowSource
    shared: RowSource | None


def open_sources(a: OpenVersion, b: OpenVersion) -> Sources:
    """Return the rows of two versions."""
    from deltawitness.answers.diff.datasets import source_of  # noqa: PLC0415 - heavy

    left, right = source_of(a), source_of(b)
    shared = set(left.files or ()) & set(right.files or ())
    # A table that was created again may use the same file names for other rows.
    if not shared or a.incarnation != b.incarnation:
        return Sources(left, right, left, right, None)
    return Sources(left, right, left.without(shared), right.without(shared), left.only(shared))
