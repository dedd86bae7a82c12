"""The Delta tables that a session's names resolve to, and the version at which each is served."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from deltawitness.commit.private_api import storage_options_of
from deltawitness.events import InputVersion
from deltawitness.locations import table_id
from deltawitness.session.core.private_api import SCAN
from deltawitness.sql_quoting import quote_identifier

if TYPE_CHECKING:
    from datafusion import SessionContext
    from datafusion.catalog import Table
    from deltalake import DeltaTable

__all__ = [
    "Registered",
    "Snapshot",
    "TableName",
    "View",
    "inputs_of",
    "is_printed_as",
    "scanned_names",
]


class TableName(NamedTuple):
    """The full name of a table in a session: catalog, schema and table."""

    catalog: str
    schema: str
    table: str

    def sql(self) -> str:
        """Return the name as a quoted SQL identifier."""
        return quote_identifier(*self)


@dataclass(frozen=True, slots=True)
class Registered:
    """A Delta table that is registered under a name in the session.

    Attributes:
        name: the name.
        uri: the table's path or URI.
        storage_options: options to open the table with.
        version: the version that the session serves.
        table_id: stable id of its location.
        identity: the id in the table's metadata; it changes when the table is dropped and recreated.
        fixed: the table was registered at a fixed version and is read-only.
        defaults: SQL of the columns' default values, by column.
    """

    name: TableName
    uri: str
    storage_options: Mapping[str, str] | None
    version: int
    table_id: str
    identity: str
    fixed: bool = False
    defaults: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: TableName, table: DeltaTable, *, fixed: bool, defaults: Mapping[str, str]
    ) -> Registered:
        """Return the registration of an open table at its current version.

        Args:
            name: the name.
            table: the open table.
            fixed: whether the table is registered at a fixed version.
            defaults: SQL of the columns' default values, by column.
        """
        uri = table.table_uri
        return cls(
            name=name,
            uri=uri,
            storage_options=storage_options_of(table),
            version=table.version(),
            table_id=table_id(uri),
            identity=str(table.metadata().id),
            fixed=fixed,
            defaults=defaults,
        )

    def is_same_version(self, other: Registered) -> bool:
        """Return whether both are one version of one table; a recreated table is another table."""
        return (self.table_id, self.identity, self.version) == (
            other.table_id,
            other.identity,
            other.version,
        )

    def as_input(self) -> InputVersion:
        """Return the table's version as an input of a write."""
        return InputVersion(self.table_id, self.version, self.uri)


@dataclass(frozen=True, slots=True)
class View:
    """A view over Delta tables, which is replaced when one of the tables has a new version.

    Attributes:
        name: the view's name.
        reads: the names of the Delta tables that it reads, each with the table's id, and names of a
            cache, with None.
        make: plans the view over the current versions; its other names resolve as when the view was
            created.
    """

    name: TableName
    reads: Mapping[TableName, str | None]
    make: Callable[[SessionContext], Table]

    def reads_table(self, entry: Registered) -> bool:
        """Return whether the view reads a Delta table, by the table's id or by its name."""
        return entry.name in self.reads or entry.table_id in self.reads.values()


class Snapshot:
    """The registered Delta tables at one time; immutable, each change creates another snapshot.

    Args:
        entries: the tables, by name.
        default: the default catalog and schema; None if not known.

    Attributes:
        is_complete: the tables can be found by each of their spellings, because the default catalog and
            schema are known or there are no tables.
    """

    __slots__ = ("_spellings", "default", "entries", "is_complete")

    def __init__(
        self, entries: Mapping[TableName, Registered], default: tuple[str, str] | None
    ) -> None:
        self.entries: Mapping[TableName, Registered] = entries
        self.default: tuple[str, str] | None = default
        self.is_complete: bool = default is not None or not entries
        self._spellings: dict[str, list[TableName]] | None = None

    def __iter__(self) -> Iterator[Registered]:
        return iter(self.entries.values())

    def get(self, name: TableName) -> Registered | None:
        """Return the table with this name, or None."""
        return self.entries.get(name)

    def with_entry(self, entry: Registered) -> Snapshot:
        """Return a snapshot with this table added or replaced."""
        after = Snapshot({**self.entries, entry.name: entry}, self.default)
        if entry.name in self.entries:
            after._spellings = self._spellings
        return after

    def full_name(self, parts: tuple[str, ...]) -> TableName:
        """Return the full name for one to three parts; missing parts come from the defaults."""
        missing = len(TableName._fields) - len(parts)
        return TableName(*(self.default or ())[:missing], *parts)

    def without(self, names: Iterable[TableName]) -> Snapshot:
        """Return a snapshot without the tables of these names."""
        removed = set(names)
        entries = {name: entry for name, entry in self.entries.items() if name not in removed}
        return self if len(entries) == len(self.entries) else Snapshot(entries, self.default)

    def named(self, spelling: str) -> list[Registered]:
        """Return the tables that a name in a plan's text may refer to: it is dotted and unquoted."""
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
    """Return whether a plan's text may print a table's name so: dotted, unquoted, maybe shortened."""
    return printed in {".".join(name), ".".join(name[1:]), name.table}


def scanned_names(plan_text: str, snapshot: Snapshot) -> list[Registered]:
    """Return the Delta tables that a plan scans, each once, including those inside views.

    Args:
        plan_text: `LogicalPlan.display_indent()`, which prints subqueries and the plans of views.
        snapshot: the tables that names resolved to when the plan was created.
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
    """Return the versions of Delta tables that a plan reads.

    Args:
        plan_text: `LogicalPlan.display_indent()`.
        snapshot: the tables that names resolved to when the plan was created.
    """
    return tuple(entry.as_input() for entry in scanned_names(plan_text, snapshot))
