"""Look up the run or the table that a name of a caller means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deltawitness.answers.predicates import begins_with
from deltawitness.answers.undrained import undrained_hint
from deltawitness.commit.log import open_log
from deltawitness.exceptions import LedgerLookupError
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, LedgerTable
from deltawitness.locations import canonical_uri, is_uri, last_segment, local_path
from deltawitness.run_context import RUN_ID_FORM
from deltawitness.sql_quoting import quote_literal

__all__ = [
    "NamedTable",
    "find_run_id",
    "find_table",
    "find_target",
    "read_table",
    "run_ids_beginning_with",
    "similar_run_ids",
    "table_condition",
]

_WITH_RUN_IDS = {RUNS: "run_parts", INVENTORY: "inventory"}
"""Where a query finds the ids of runs, by table."""

_SHOWN = 5
"""Maximum number of ids or names that an error message lists."""

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
"""Folders with such names give their tables a name in the ledger, unless the settings leave names out."""

_VERSIONED = re.compile(r"(.+)@(\d{1,18})")


@dataclass(frozen=True, slots=True)
class NamedTable:
    """The table that a caller means.

    Attributes:
        uri: its canonical location.
        location: the location as the caller spelled it, if it is one; else the same as `uri`.
        version: the version that the caller names; None for the last one.
        name: its name in the ledger, else the last segment of its location.
    """

    uri: str
    location: str
    version: int | None
    name: str


def find_target(ledger: LedgerListing, text: str) -> NamedTable | str:
    """Return the table or the id of the run that a text means.

    A text is the id of a run or a prefix of it, or the name, id (or a prefix of it), path or URI of a
    table, which `@VERSION` may follow. A complete id or name of a kind takes precedence over prefixes of
    this kind. `run:` or `table:` before it selects one of the two kinds.

    Args:
        ledger: the ledger to query; it may have no tables.
        text: the text.

    Raises:
        LedgerLookupError: it means nothing, or several runs or tables; the message lists them.
        OSError: the ledger's storage cannot be read.
    """
    kind, separator, rest = text.partition(":")
    is_chosen = separator != "" and kind in {"run", "table"} and rest[:2] != "//"
    name = rest if is_chosen else text
    runs = [] if is_chosen and kind == "table" else _runs_named(ledger, name)
    tables = _Tables() if is_chosen and kind == "run" else _tables_named(ledger, name)
    if runs and (tables.exact or (tables.by_prefix and name not in runs)):
        msg = f"{name} names a run and a table: use run:{name} or table:{name}"
        raise LedgerLookupError(msg)
    if runs:
        return _the_run(runs, name, "")
    if tables.exact or tables.by_prefix:
        return tables.the_one(name)
    raise _unknown(ledger, name, kind if is_chosen else None)


def find_table(ledger: LedgerListing, text: str) -> NamedTable:
    """Return the table that a text means, as in `find_target`; `table:` before it is ignored.

    Args:
        ledger: the ledger to query; it may have no tables.
        text: the name, id (or a prefix of it), path or URI of a table, which `@VERSION` may follow.

    Raises:
        LedgerLookupError: it means no table, or several; the message lists them.
        OSError: the ledger's storage cannot be read.
    """
    name = _without_kind(text)
    tables = _tables_named(ledger, name)
    if tables.exact or tables.by_prefix:
        return tables.the_one(name)
    raise _unknown(ledger, name, "table")


def read_table(rows: list[Row], text: str) -> NamedTable | None:
    """Return the table that a text means among tables that were only read; None if there is none.

    Args:
        rows: location, id and name of the tables; without a name the last segment of the location is it.
        text: as for `find_table`.

    Raises:
        LedgerLookupError: it means several tables.
    """
    name = _without_kind(text)
    match = _VERSIONED.fullmatch(name)
    named = [{**row, "table_name": last_segment(row["table_uri"])} for row in rows]
    for each, version in ((name, None), *([] if match is None else [(match[1], int(match[2]))])):
        tables = _tables_in(named, each, version, is_versioned=match is not None)
        if tables.exact or tables.by_prefix:
            return tables.the_one(each)
    return None


def _without_kind(text: str) -> str:
    kind, separator, rest = text.partition(":")
    return rest if separator and kind == "table" and rest[:2] != "//" else text


def _unknown(ledger: LedgerListing, name: str, kind: str | None) -> LedgerLookupError:
    parts = [] if kind == "table" else [f"no run begins with {name}"]
    if kind != "run":
        parts.append(f"no table has the name, id or location {name}")
    known = _last_written_tables(ledger) if kind != "run" and ledger.exists() else ""
    return LedgerLookupError(", and ".join(parts) + known + undrained_hint(ledger))


# --- runs --------------------------------------------------------------------------------------------


def find_run_id(ledger: LedgerListing, prefix: str, option: str = "") -> str:
    """Return the id of the run that a text identifies.

    Args:
        ledger: the ledger to query.
        prefix: the id, or an unambiguous prefix of it; an id that is also a prefix of others wins.
        option: starts the error message with the name of the option.

    Raises:
        LedgerLookupError: the ledger has no such run, or the prefix is that of several.
    """
    found = run_ids_beginning_with(ledger, prefix)
    if not found:
        msg = f"{option}no run begins with {prefix}{undrained_hint(ledger)}"
        raise LedgerLookupError(msg)
    return _the_run(found, prefix, option)


def _the_run(found: list[str], prefix: str, option: str) -> str:
    if prefix in found:
        return prefix
    if len(found) > 1:
        more = "" if len(found) <= _SHOWN else ", ..."
        msg = f"{option}{len(found)} runs begin with {prefix}: {', '.join(found[:_SHOWN])}{more}"
        raise LedgerLookupError(msg)
    return found[0]


def run_ids_beginning_with(ledger: LedgerListing, prefix: str) -> list[str]:
    """Return the ids of all runs that begin with a text, in order."""
    return _run_ids(ledger, begins_with("run_id", prefix))


def similar_run_ids(ledger: LedgerListing, rows: Iterable[Row]) -> list[str]:
    """Return the ids of all runs that share their first 13 characters with a run of some rows.

    A shortened id must differ from them. On an object store only the open tables are searched: a run that
    only another table has, and that began in the same millisecond, is missing.

    Args:
        ledger: the ledger to query.
        rows: rows of runs or of operations.
    """
    starts = sorted({row["run_id"][:13] for row in rows if row["run_id"]})
    if not starts:
        return []
    # The range lets the engine skip files; the ids of a page of a listing are near each other.
    within = begins_with("run_id", starts[0], starts[-1])
    condition = f"{within} AND {is_in('substr(run_id, 1, 13)', starts)}"
    return _run_ids(ledger, condition, ledger.near)


def _run_ids(
    ledger: LedgerListing, condition: str, tables: Sequence[LedgerTable] = (RUNS, INVENTORY)
) -> list[str]:
    names = [name for table, name in _WITH_RUN_IDS.items() if table in tables]
    if not names:
        return []
    rows = ledger.query(
        " UNION ".join(f"SELECT run_id FROM {name} WHERE {condition}" for name in names)  # noqa: S608 - of quoted literals
    )
    return sorted(row["run_id"] for row in rows)


def _runs_named(ledger: LedgerListing, name: str) -> list[str]:
    return run_ids_beginning_with(ledger, name) if RUN_ID_FORM.fullmatch(name) else []


# --- tables ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tables:
    """The tables that a text names, by location.

    Attributes:
        exact: those whose name, id or location it is.
        by_prefix: those whose id begins with it.
    """

    exact: Mapping[str, NamedTable] = field(default_factory=dict)
    by_prefix: Mapping[str, NamedTable] = field(default_factory=dict)

    def the_one(self, name: str) -> NamedTable:
        """Return the only table; one that is named exactly takes precedence.

        Args:
            name: the text, for the error message.

        Raises:
            LedgerLookupError: there are several.
        """
        found = self.exact or self.by_prefix
        if len(found) > 1:
            places = sorted(found)
            more = "" if len(places) <= _SHOWN else ", ..."
            msg = f"{len(places)} tables are named {name}: {', '.join(places[:_SHOWN])}{more}"
            raise LedgerLookupError(msg)
        return next(iter(found.values()))


def _tables_named(ledger: LedgerListing, text: str) -> _Tables:
    """Return the tables that a text names; if the complete text names none, those before its `@VERSION`."""
    if not text:
        return _Tables()
    match = _VERSIONED.fullmatch(text)
    names = [text] if match is None else [text, match[1]]
    rows = _rows_of_tables(ledger, names)
    rows += _rows_without_name(ledger, names)
    found = _tables_in(rows, text, None, is_versioned=match is not None)
    if match is None or found.exact:
        return found
    return _tables_in(rows, match[1], int(match[2]), is_versioned=False)


def _tables_in(
    rows: Iterable[Row], name: str, version: int | None, *, is_versioned: bool
) -> _Tables:
    """Return the tables with a name.

    Args:
        rows: location, id and name of tables of the ledger.
        name: the name.
        version: the version that the caller wants.
        is_versioned: the name may end with a version, so it is a location only if a table is there.
    """
    uri = canonical_uri(name)
    exact: dict[str, NamedTable] = {}
    by_prefix: dict[str, NamedTable] = {}
    for row in rows:
        place = row["table_uri"]
        own = row["table_name"] or last_segment(place)
        is_exact = name in {own, row["table_id"]} or place == uri
        if not is_exact and not (row["table_id"] or "").startswith(name):
            continue
        location = name if place == uri else place
        shown = own or name
        named = NamedTable(place, location, version, shown)
        (exact if is_exact else by_prefix).setdefault(place, named)
    if uri not in exact and _is_location(name, is_versioned=is_versioned):
        exact[uri] = NamedTable(uri, name, version, last_segment(uri) or name)
    return _Tables(exact, by_prefix)


def _rows_of_tables(ledger: LedgerListing, names: Iterable[str]) -> list[Row]:
    """Return location, id and name of the tables that one of some names may mean, the newest first."""
    conditions = [
        f"table_name = {quote_literal(name)} OR table_uri = {quote_literal(canonical_uri(name))}"
        f" OR ({begins_with('table_id', name)})"
        for name in names
    ]
    return ledger.query(
        "SELECT table_uri, table_id, table_name, max(event_time) AS last FROM inventory"  # noqa: S608 - quoted
        f" WHERE table_uri IS NOT NULL AND ({' OR '.join(conditions)})"
        " GROUP BY table_uri, table_id, table_name ORDER BY last DESC"
    )


def _rows_without_name(ledger: LedgerListing, names: Iterable[str]) -> list[Row]:
    """Return the tables that have no name in the ledger and lie in a folder with one of some names.

    A folder with blanks or letters of other alphabets gives its table no name. Such names are rare, and
    this query reads all rows, so plain names are left out.
    """
    ends = {
        canonical_uri(f"/{name}").removeprefix("file://")
        for name in names
        if name and "/" not in name and not _PLAIN_NAME.fullmatch(name)
    }
    if not ends:
        return []
    conditions = [f"right(table_uri, {len(end)}) = {quote_literal(end)}" for end in sorted(ends)]
    return ledger.query(
        "SELECT table_uri, table_id, CAST(NULL AS VARCHAR) AS table_name, max(event_time) AS last"  # noqa: S608 - quoted
        f" FROM inventory WHERE table_name IS NULL AND ({' OR '.join(conditions)})"
        " GROUP BY table_uri, table_id ORDER BY last DESC"
    )


def _is_location(name: str, *, is_versioned: bool) -> bool:
    """Return whether a text is the location of a table: a path with a log, or any URI."""
    if not name:
        return False
    if local_path(name) is None:
        return is_uri(name) and not is_versioned
    return bool(open_log(name).versions())


def table_condition(ledger: LedgerListing, table: str, option: str = "") -> str:
    """Return the predicate for the rows of a table.

    Args:
        ledger: the ledger to query.
        table: the table's name, id (or an unambiguous prefix of it), path or URI.
        option: starts the error message with the name of the option.

    Raises:
        LedgerLookupError: no row of the ledger is of such a table, or the prefix is that of several ids.
    """
    exact = (
        f"table_name = {quote_literal(table)} OR table_id = {quote_literal(table)}"
        f" OR table_uri = {quote_literal(canonical_uri(table))}"
    )
    if ledger.query(f"SELECT 1 AS one FROM inventory WHERE {exact} LIMIT 1"):  # noqa: S608 - quoted
        return exact
    if unnamed := _rows_without_name(ledger, [table]):
        return is_in("table_uri", sorted({row["table_uri"] for row in unnamed}))
    rows = ledger.query(
        f"SELECT DISTINCT table_id FROM inventory WHERE {begins_with('table_id', table)}"  # noqa: S608 - quoted
    )
    if len(rows) == 1 and table:
        return f"table_id = {quote_literal(rows[0]['table_id'])}"
    if len(rows) > 1 and table:
        ids = sorted(row["table_id"] for row in rows)
        more = ", ..." if len(ids) > _SHOWN else ""
        msg = (
            f"{option}{len(ids)} table ids begin with {table}: give more of the id"
            f" ({', '.join(ids[:_SHOWN])}{more})"
        )
        raise LedgerLookupError(msg)
    known = f"{_last_written_tables(ledger)}{undrained_hint(ledger)}"
    msg = f"{option}the ledger has no table {table!r}{known}"
    raise LedgerLookupError(msg)


def _last_written_tables(ledger: LedgerListing) -> str:
    rows = ledger.query(
        "SELECT table_name, max(event_time) AS last FROM inventory"
        " WHERE table_name IS NOT NULL GROUP BY table_name ORDER BY last DESC"
    )
    names = [row["table_name"] for row in rows]
    more = ", ..." if len(names) > _SHOWN else ""
    return f"; it has {', '.join(names[:_SHOWN])}{more}" if names else ""
