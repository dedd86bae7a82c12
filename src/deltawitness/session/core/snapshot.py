"""Which names of a session stand for Delta tables, and at which version each is served."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from deltawitness.events import InputVersion
from deltawitness.session.core.private_api import SCAN
from deltawitness.session.core.tokens import quote_identifier

__all__ = ["Registered", "Snapshot", "TableName", "inputs_of", "is_printed_as", "scanned_names"]


class TableName(NamedTuple):
    """A table's full name in a session."""

    catalog: str
    schema: str
    table: str

    def sql(self) -> str:
        """Return the name as SQL that means exactly it."""
        return quote_identifier(*self)


@dataclass(frozen=True, slots=True)
class Registered:
    """A Delta table under a name of the session.

    Attributes:
        name: the name.
        uri: where it lies.
        storage_options: how it is opened.
        version: the version that the session serves.
        table_id: stable id of its location.
        identity: the id in the table's metadata; another one means a table made anew.
        fixed: it was registered at a version, and so is read only.
        defaults: SQL of the columns' defaults, by column.
    """

    name: TableName
    uri: str
    storage_options: Mapping[str, str] | None
    version: int
    table_id: str
    identity: str
    fixed: bool = False
    defaults: Mapping[str, str] = field(default_factory=dict)

    def is_same_version(self, other: Registered) -> bool:
        """Return whether both are the same version of the same table, and not of one created in its place."""
        return (self.table_id, self.identity, self.version) == (
            other.table_id,
            other.identity,
            other.version,
        )

    def as_input(self) -> InputVersion:
        """Return the table as something that a write was made from."""
        return InputVersion(self.table_id, self.version, self.uri)


class Snapshot:
    """The registered Delta tables at one moment; never changed, but replaced by the next one.

    Args:
        entries: the tables, by name.
        default: catalog and schema that a name without them is looked up in.
    """

    __slots__ = ("_spellings", "default", "entries")

    def __init__(
        self, entries: Mapping[TableName, Registered], default: tuple[str, str] | None
    ) -> None:
        self.entries = entries
        self.default = default
        self._spellings: dict[str, list[TableName]] | None = None

    def __iter__(self) -> Iterator[Registered]:
        return iter(self.entries.values())

    def get(self, name: TableName) -> Registered | None:
        """Return the table of that name, or None."""
        return self.entries.get(name)

    def with_entry(self, entry: Registered) -> Snapshot:
        """Return a snapshot with this table at its name."""
        after = Snapshot({**self.entries, entry.name: entry}, self.default)
        if entry.name in self.entries:
            after._spellings = self._spellings
        return after

    def full_name(self, parts: tuple[str, ...]) -> TableName:
        """Return the full name of a table that is named by at most three parts."""
        missing = len(TableName._fields) - len(parts)
        return TableName(*(self.default or ())[:missing], *parts)

    def without(self, names: Iterable[TableName]) -> Snapshot:
        """Return a snapshot in which these names stand for no Delta table."""
        gone = set(names)
        kept = {name: entry for name, entry in self.entries.items() if name not in gone}
        return self if len(kept) == len(self.entries) else Snapshot(kept, self.default)

    def named(self, spelling: str) -> list[Registered]:
        """Return the tables that a plan may mean by a name as it prints it: dotted, without quotes."""
        return [self.entries[name] for name in self._by_spelling().get(spelling, ())]

    def _by_spelling(self) -> dict[str, list[TableName]]:
        if self._spellings is None:
            spellings: dict[str, list[TableName]] = {}
            for name in self.entries:
                for spelling in _spellings(name, self.default):
                    spellings.setdefault(spelling, []).append(name)
            self._spellings = spellings
        return self._spellings


def _spellings(name: TableName, default: tuple[str, str] | None) -> Iterator[str]:
    catalog, schema, table = name
    yield f"{catalog}.{schema}.{table}"
    if default is not None and catalog == default[0]:
        yield f"{schema}.{table}"
        if schema == default[1]:
            yield table


def is_printed_as(name: TableName, printed: str) -> bool:
    """Return whether a plan may print a table's name like this: dotted, in part, and without quotes."""
    return printed in {".".join(name), ".".join(name[1:]), name.table}


def scanned_names(plan_text: str, snapshot: Snapshot) -> list[Registered]:
    """Return the Delta tables that a plan scans, each once, views followed down to them.

    Args:
        plan_text: `LogicalPlan.display_indent()`, which prints subqueries and the inside of views.
        snapshot: what the names meant when the plan was made.
    """
    found: dict[TableName, Registered] = {}
    for match in SCAN.finditer(plan_text):
        shown = match[1]
        for spelling in (shown, shown.split(" projection=")[0], shown.split(", ")[0]):
            if entries := snapshot.named(spelling):
                found.update((entry.name, entry) for entry in entries)
                break
    return list(found.values())


def inputs_of(plan_text: str, snapshot: Snapshot) -> tuple[InputVersion, ...]:
    """Return the Delta tables that a plan reads, at the versions that it reads.

    Args:
        plan_text: as for :func:`scanned_names`.
        snapshot: as for :func:`scanned_names`.
    """
    return tuple(entry.as_input() for entry in scanned_names(plan_text, snapshot))
