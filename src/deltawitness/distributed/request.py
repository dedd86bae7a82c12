"""The arguments of a distributed write, checked before anything is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from deltawitness.exceptions import WriteRequestError

if TYPE_CHECKING:
    from deltalake import CommitProperties

__all__ = ["PartitionFilter", "Request", "request_from"]

PartitionFilter = tuple[str, str, str]
"""Column, operator and value, as delta-rs takes it."""

MODES = ("append", "overwrite", "error", "ignore")
SCHEMA_MODES = ("merge", "overwrite")


@dataclass(frozen=True, slots=True)
class Request:
    """A distributed write as the program has described it.

    Attributes:
        mode: save mode.
        partition_by: partition columns; None for those of the table.
        schema_mode: how a part may differ from the table.
        predicate: the rows that an overwrite replaces; None for all.
        schema: schema of a new table; None for that of the parts.
        name: name of a new table.
        description: description of a new table.
        configuration: properties of a new table.
        target_file_size: as for `write_deltalake`.
        writer_properties: as for `write_deltalake`.
        commit_properties: of the commit.

    Raises:
        WriteRequestError: an argument is invalid, or two exclude each other.
    """

    mode: str = "append"
    partition_by: tuple[str, ...] | None = None
    schema_mode: str | None = None
    predicate: str | None = None
    schema: Any = None
    name: str | None = None
    description: str | None = None
    configuration: Mapping[str, str | None] | None = None
    target_file_size: int | None = None
    writer_properties: Any = None
    commit_properties: CommitProperties | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the table."""
        if self.mode not in MODES:
            _refuse(f"mode: expected one of {', '.join(MODES)}, not {self.mode!r}")
        if self.schema_mode not in {None, *SCHEMA_MODES}:
            _refuse(f"schema_mode: expected {' or '.join(SCHEMA_MODES)}, not {self.schema_mode!r}")
        if self.mode != "overwrite":
            if self.schema_mode == "overwrite":
                _refuse("schema_mode: 'overwrite' needs mode='overwrite'")
            if self.predicate is not None:
                _refuse("predicate: needs mode='overwrite'")
        elif self.predicate is not None and self.schema_mode == "overwrite":
            _refuse("predicate: a part of the rows cannot be replaced with schema_mode='overwrite'")
        if (self.configuration or {}).get("delta.columnMapping.mode", "none") != "none":
            _refuse(
                "configuration: parts of a new table cannot share a column mapping;"
                " create the table with DeltaTable.create first"
            )

    def partition_filters(self, partition_by: list[str]) -> list[PartitionFilter] | None:
        """Return the predicate as filters over partition columns; None without a predicate.

        Args:
            partition_by: the partition columns of the table.

        Raises:
            WriteRequestError: the predicate does not select partitions by equality.
        """
        if self.predicate is None:
            return None
        filters = []
        for term in _AND.split(self.predicate):
            match = _TERM.fullmatch(term)
            column = match and (match["quoted"] or match["name"])
            if match is None or column not in partition_by:
                _refuse(
                    "predicate: a distributed overwrite replaces partitions; use"
                    " `column = 'value'` of partition columns, joined by AND, or write_deltalake"
                )
            value = match["number"] if match["text"] is None else match["text"].replace("''", "'")
            filters.append((str(column), "=", value))
        return filters


def request_from(*, partition_by: Sequence[str] | str | None = None, **arguments: Any) -> Request:
    """Return the request for arguments of `write_distributed`, in which one partition column may be text.

    Raises:
        WriteRequestError: an argument is invalid.
    """
    columns = [partition_by] if isinstance(partition_by, str) else partition_by
    return Request(partition_by=None if columns is None else tuple(columns), **arguments)


_AND = re.compile(r"\s+AND\s+(?=(?:[^']*'[^']*')*[^']*$)", re.IGNORECASE)
"""The word AND outside of text literals."""

_TERM = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_]\w*)|"(?P<quoted>[^"]+)")\s*=\s*"""
    r"""(?:'(?P<text>(?:[^']|'')*)'|(?P<number>-?\d+))\s*"""
)


def _refuse(msg: str) -> NoReturn:
    raise WriteRequestError(msg)
