"""Ordinary writes of a session, for `verify RUN`: the stored plan of a write, and the rows that it wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deltawitness.cache.verify.replay import NotReproducibleError
from deltawitness.commit.reader import CommitMetadata
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.ledger.tables.write_plans import read_plan_of_write
from deltawitness.run import suppressed
from deltawitness.semconv import CommitKey
from deltawitness.session.core.table_providers import provider_of
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.fingerprint.model import Fingerprint
from deltawitness.session.fingerprint.stored_plan import StoredPlan
from deltawitness.session.fingerprint.write_plan import PlannedStatement, WritePlan
from deltawitness.sql_quoting import quote_identifier

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable

__all__ = ["StoredWrite", "stored_write", "written_rows"]

_OF_ROWS = frozenset({"WRITE", "CREATE TABLE", "CREATE OR REPLACE TABLE"})
"""The operations in the commits of writes that add rows of a source."""


@dataclass(frozen=True, slots=True)
class StoredWrite:
    """A write and its stored plan.

    Attributes:
        uri: location of the table.
        version: the version that the write committed.
        fingerprint: the fingerprint of the written rows.
        plan: their plan.
        added: paths of the data files that the version added; None if its rows are all rows of the table.
        is_of_rows: whether the plan computes the rows without those of the version before.
        statement: the SQL statement that wrote them; None for a frame.
        predicate: the rows of the version before that the rows replace; None for all or for none.
    """

    uri: str
    version: int
    fingerprint: Fingerprint
    plan: StoredPlan
    added: tuple[str, ...] | None = None
    is_of_rows: bool = True
    statement: PlannedStatement | None = None
    predicate: str | None = None


def stored_write(
    root: LedgerRoot, uri: str, commit: CommitMetadata, raw: bytes, write_id: str | None
) -> StoredWrite:
    """Return a write with its stored plan.

    Args:
        root: the cache root, which has the plans.
        uri: location of the table.
        commit: the commit of the write.
        raw: content of the commit's file.
        write_id: id of the write; that in the commit when None.

    Raises:
        NotReproducibleError: the rows of the write cannot be computed again.
    """
    found = write_id or commit.write_id
    if write_id is not None and commit.write_ids and write_id not in commit.write_ids:
        msg = "the version has the commit of another write: the table was restored or created again"
        raise NotReproducibleError(msg)
    plan = None if found is None else _read_plan(root, found)
    if plan is None:
        has_plan = CommitKey.PLAN_HASH in commit.witness
        msg = "no plan was stored" if has_plan else "the write has no plan"
        raise NotReproducibleError(msg)
    if plan.reason is not None or plan.fingerprint is None or plan.plan is None:
        raise NotReproducibleError(plan.reason or "no plan was stored")
    write = StoredWrite(uri, commit.version, plan.fingerprint, plan.plan, statement=plan.statement)
    parameters = commit.operation_parameters
    if commit.operation not in _OF_ROWS:
        if plan.statement is None:
            msg = f"{commit.operation} is computed again only if a SQL statement without parameters made it"
            raise NotReproducibleError(msg)
        return replace(write, is_of_rows=False)
    if predicate := parameters.get("predicate"):
        return replace(write, is_of_rows=False, predicate=str(predicate))
    is_append = str(parameters.get("mode", "")).lower() == "append"
    return replace(write, added=tuple(_added_files(raw)) if is_append else None)


def _read_plan(root: LedgerRoot, write_id: str) -> WritePlan | None:
    try:
        content = read_plan_of_write(root, write_id)
        return None if content is None else WritePlan.from_bytes(content)
    except (OSError, ValueError) as error:
        msg = "its plan cannot be read"
        raise NotReproducibleError(msg) from error


def _added_files(raw: bytes) -> Sequence[str]:
    return [
        json.loads(line)["add"]["path"] for line in raw.splitlines() if line.startswith(b'{"add"')
    ]


def written_rows(
    reader: SessionContext, stored: StoredWrite, table: DeltaTable, columns: Sequence[str]
) -> DataFrame:
    """Return the rows that a write wrote, with the columns that its plan computes.

    Columns that delta-rs computes or fills are left out.

    Args:
        reader: the session to read them in.
        stored: the write.
        table: the table, open at the version of the write.
        columns: names of the columns that the plan computes.

    Raises:
        NotReproducibleError: the table lacks a column or a data file.
    """
    own = [field.name for field in table.schema().fields]
    if missing := [name for name in columns if name not in own]:
        msg = f"the table has no column {missing[0]}"
        raise NotReproducibleError(msg)
    if stored.added is None:
        provider = provider_of(table)
    else:
        from datafusion.catalog import Table  # noqa: PLC0415 - heavy

        provider = Table(_dataset_of_files(table, stored.added))
    rows: DataFrame = unpatched(reader, "read_table")(provider)
    if own == list(columns):
        return rows
    chosen: DataFrame = unpatched(rows, "select")(*(quote_identifier(name) for name in columns))
    return chosen


def _dataset_of_files(table: DeltaTable, added: Sequence[str]) -> Any:
    import pyarrow.dataset as pd  # noqa: PLC0415 - heavy

    from deltawitness.scan.fragments import without_statistics  # noqa: PLC0415 - as above

    with suppressed():
        dataset = table.to_pyarrow_dataset()
    paths, partitions = {*added, *map(unquote, added)}, table.metadata().partition_columns
    files = [
        without_statistics(each, partitions)
        for each in dataset.get_fragments()
        if each.path in paths
    ]
    if len(files) != len(added):
        msg = "the data files of the version cannot be found"
        raise NotReproducibleError(msg)
    return pd.FileSystemDataset(files, dataset.schema, dataset.format, files[0].filesystem)
