"""Run SQL of a caller over one version of a table, with the engine that delta-rs has built in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from deltawitness.answers.lookup import NamedTable
from deltawitness.answers.storage import error_reason, storage_options_for
from deltawitness.commit.log import CommitLog, open_log
from deltawitness.run import suppressed
from deltawitness.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

__all__ = [
    "ALL_FILES",
    "TABLE",
    "actions_of",
    "check_query",
    "condition",
    "error_text",
    "keeps_rows",
    "lacks_column",
    "log_of",
    "open_table",
    "query",
    "subquery",
]

TABLE = "t"
"""The name of the table in SQL of a caller."""

ALL_FILES = ""
"""The key of all rows of a version where the rows are not those of its data files."""

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")

_MISSING = re.compile(r"Object at location .* not found|No such file|NoSuchKey")


def log_of(named: NamedTable, settings: Settings) -> CommitLog:
    """Return the log of a table."""
    return open_log(named.location, storage_options_for(named.location, settings))


def open_table(named: NamedTable, version: int | None, settings: Settings) -> DeltaTable:
    """Open a table at a version; the last one for None.

    Raises:
        Exception: of the engine: the version or the storage cannot be read.
    """
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    with suppressed():
        options = storage_options_for(named.location, settings)
        return DeltaTable(named.location, version=version, storage_options=options)


def query(table: DeltaTable, sql: str, names: Iterable[str] = ()) -> pa.Table:
    """Return the result of a query over a table, which has the name `t` in it.

    Args:
        table: the table, open at a version.
        sql: the query.
        names: further names of the table; those that SQL would have to quote are left out.

    Raises:
        Exception: of the engine: the query is invalid, or a file cannot be read.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy

    with suppressed():  # these reads are not inputs of the program
        return pa.table(_execute(table, sql, names).read_all())


def check_query(table: DeltaTable, sql: str, names: Iterable[str] = ()) -> None:
    """Check that a query over a table can be planned; arguments and errors as for `query`."""
    with suppressed():
        _execute(table, sql, names)


def _execute(table: DeltaTable, sql: str, names: Iterable[str]) -> Any:
    from deltalake import QueryBuilder  # noqa: PLC0415 - heavy

    builder = QueryBuilder()
    for name in {TABLE, *filter(_PLAIN_NAME.fullmatch, names)}:
        builder.register(name, table)
    return builder.execute(sql)


def actions_of(content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the value of each action of a raw commit; invalid lines are skipped."""
    for line in content.splitlines():
        with suppress(ValueError):
            action = json.loads(line)
            if isinstance(action, dict):
                yield from ((name, each) for name, each in action.items() if isinstance(each, dict))


def keeps_rows(content: bytes | None) -> bool:
    """Return whether a raw commit changes neither rows nor columns; False for a commit that is not there."""
    if content is None:
        return False
    return not any(
        name == "metaData" or (name in {"add", "remove"} and each.get("dataChange") is not False)
        for name, each in actions_of(content)
    )


def subquery(sql: str) -> str:
    """Return a text of a caller in parentheses, so that it can only be a query or an expression.

    >>> print(subquery("SELECT 1 -- one;"))
    (
    SELECT 1 -- one
    )
    """
    return f"(\n{sql.strip().rstrip(';').rstrip()}\n)"


def condition(sql: str) -> str:
    """Return a text of a caller as a condition, after which no other query can begin."""
    return f"{subquery(sql)} = true"


def lacks_column(error: Exception) -> bool:
    """Return whether the engine has refused a statement because a column does not exist."""
    return "No field named" in str(error)


def error_text(error: Exception) -> str:
    """Return one line about an error of the engine, without credentials and values of rows."""
    return "a data file was deleted" if _MISSING.search(str(error)) else error_reason(error)
