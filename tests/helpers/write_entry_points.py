"""A call of each public function and method of delta-rs that writes, and what it changes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Field, TableFeatures, write_deltalake
from deltalake._internal import PrimitiveType
from deltalake.transaction import AddAction, create_table_with_add_actions

from deltawitness.commit.seams import COMMIT_PROPERTIES
from deltawitness.semconv import Operation
from helpers.delta_rs_writes import rows

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("p", pa.string())])

Metrics = dict[str, int]


def two_files(uri):
    write_deltalake(uri, rows(1, 2))
    write_deltalake(uri, rows(3), mode="append")


@dataclass(frozen=True)
class EntryPoint:
    """A call that writes.

    Attributes:
        operation: the operation.
        act: makes the call, on the folder of a table.
        metrics: what it changes.
        commits: number of commits; 0 for a call that writes, but not a commit.
        prepare: called before, without observation; the table has two files and three rows by default.
    """

    operation: Operation
    act: Callable[[str], object]
    metrics: Metrics = field(default_factory=dict)
    commits: int = 1
    prepare: Callable[[str], object] = two_files


def nothing(uri):
    """Prepare no table."""


def parquet_file(uri):
    """Write a file that is in no table, and return its size in bytes."""
    folder = Path(uri)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows(1, 2), folder / "part.parquet")
    return (folder / "part.parquet").stat().st_size


def without_a_file(uri):
    two_files(uri)
    min(Path(uri).glob("*.parquet")).unlink()


def with_constraint(uri):
    two_files(uri)
    DeltaTable(uri).alter.add_constraint({"c": "id > 0"})


def with_deleted_row(uri):
    two_files(uri)
    DeltaTable(uri).delete("id = 3")


def merge(uri):
    (
        DeltaTable(uri)
        .merge(rows(3, 9), "s.id = t.id", source_alias="s", target_alias="t")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )


def add_file(uri):
    return AddAction("part.parquet", parquet_file(uri), {}, 0, data_change=True, stats="{}")


def create_with_file(uri):
    table = DeltaTable(uri.removesuffix("/t") + "/other")
    create_table_with_add_actions(uri, table.schema(), [add_file(uri)])


def append_file(uri):
    table = DeltaTable(uri)
    table.create_write_transaction([add_file(uri)], "append", table.schema())


def on(act):
    """Return a call on an open table."""
    return lambda uri: act(DeltaTable(uri))


ALTER = {
    "add_columns": (
        Operation.ADD_COLUMNS,
        lambda t: t.add_columns(Field("n", PrimitiveType("long"))),
    ),
    "add_constraint": (Operation.ADD_CONSTRAINT, lambda t: t.add_constraint({"c": "id > 0"})),
    "add_feature": (
        Operation.ADD_FEATURE,
        lambda t: t.add_feature(TableFeatures.AppendOnly, allow_protocol_versions_increase=True),
    ),
    "set_column_metadata": (
        Operation.SET_COLUMN_METADATA,
        lambda t: t.set_column_metadata("id", {"k": "v"}),
    ),
    "set_table_description": (
        Operation.UPDATE_TABLE_METADATA,
        lambda t: t.set_table_description("d"),
    ),
    "set_table_name": (Operation.UPDATE_TABLE_METADATA, lambda t: t.set_table_name("n")),
    "set_table_properties": (
        Operation.SET_TABLE_PROPERTIES,
        lambda t: t.set_table_properties({"delta.appendOnly": "false"}),
    ),
}

ENTRY_POINTS = {
    "write_deltalake": EntryPoint(
        Operation.WRITE,
        lambda uri: write_deltalake(uri, rows(4, 5), mode="append"),
        {"rows_added": 2, "rows_deleted": 0, "files_added": 1, "files_removed": 0},
    ),
    "write_deltalake (a new table)": EntryPoint(
        Operation.WRITE,
        lambda uri: write_deltalake(uri, rows(4, 5)),
        {"rows_added": 2, "rows_deleted": 0, "files_added": 1, "files_removed": 0},
        prepare=nothing,
    ),
    "write_deltalake (an overwrite)": EntryPoint(
        Operation.WRITE,
        lambda uri: write_deltalake(uri, rows(4), mode="overwrite"),
        {"rows_added": 1, "files_added": 1, "files_removed": 2},
    ),
    "write_deltalake (an open table)": EntryPoint(
        Operation.WRITE,
        on(lambda t: write_deltalake(t, rows(4), mode="append")),
        {"rows_added": 1, "files_added": 1},
    ),
    "convert_to_deltalake": EntryPoint(
        Operation.CONVERT,
        deltalake.convert_to_deltalake,
        {"files_added": 1},
        prepare=parquet_file,
    ),
    "transaction.create_table_with_add_actions": EntryPoint(
        Operation.CREATE_TABLE,
        create_with_file,
        {"files_added": 1},
        prepare=lambda uri: two_files(uri.removesuffix("/t") + "/other"),
    ),
    "DeltaTable.create": EntryPoint(
        Operation.CREATE_TABLE,
        lambda uri: DeltaTable.create(uri, SCHEMA),
        {"rows_added": 0, "files_added": 0},
        prepare=nothing,
    ),
    "DeltaTable.create_write_transaction": EntryPoint(
        Operation.WRITE,
        append_file,
        {"files_added": 1},
    ),
    "DeltaTable.delete": EntryPoint(
        Operation.DELETE,
        on(lambda t: t.delete("id = 1")),
        {"rows_deleted": 1, "rows_added": 0, "rows_copied": 1},
    ),
    "DeltaTable.merge": EntryPoint(
        Operation.MERGE, merge, {"rows_added": 1, "rows_updated": 1, "rows_deleted": 0}
    ),
    "DeltaTable.repair": EntryPoint(
        Operation.REPAIR,
        on(lambda t: t.repair()),
        {"files_removed": 1},
        prepare=without_a_file,
    ),
    "DeltaTable.restore": EntryPoint(
        Operation.RESTORE, on(lambda t: t.restore(0)), {"files_removed": 1}
    ),
    "DeltaTable.update": EntryPoint(
        Operation.UPDATE,
        on(lambda t: t.update({"p": "'x'"}, predicate="id = 1")),
        {"rows_updated": 1, "rows_copied": 1, "rows_added": 0},
    ),
    "DeltaTable.vacuum": EntryPoint(
        Operation.VACUUM,
        on(lambda t: t.vacuum(0, dry_run=False, enforce_retention_duration=False)),
        {"files_deleted": 1},
        commits=2,
        prepare=with_deleted_row,
    ),
    **{
        f"TableAlterer.{name}": EntryPoint(operation, on(lambda t, act=act: act(t.alter)))
        for name, (operation, act) in ALTER.items()
    },
    "TableAlterer.drop_column_not_null": EntryPoint(
        Operation.DROP_NOT_NULL,
        on(lambda t: t.alter.drop_column_not_null("id")),
        prepare=lambda uri: DeltaTable.create(uri, SCHEMA),
    ),
    "TableAlterer.drop_constraint": EntryPoint(
        Operation.DROP_CONSTRAINT,
        on(lambda t: t.alter.drop_constraint("c")),
        prepare=with_constraint,
    ),
    "TableOptimizer.compact": EntryPoint(
        Operation.OPTIMIZE,
        on(lambda t: t.optimize.compact()),
        {"files_added": 1, "files_removed": 2, "rows_added": 0, "rows_copied": 3},
    ),
    "TableOptimizer.z_order": EntryPoint(
        Operation.OPTIMIZE,
        on(lambda t: t.optimize.z_order(["id"])),
        {"files_added": 1, "files_removed": 2, "rows_added": 0},
    ),
    "DeltaTable.create_checkpoint": EntryPoint(
        Operation.CHECKPOINT, on(lambda t: t.create_checkpoint()), commits=0
    ),
    "DeltaTable.cleanup_metadata": EntryPoint(
        Operation.CLEANUP, on(lambda t: t.cleanup_metadata()), commits=0
    ),
    "DeltaTable.compact_logs": EntryPoint(
        Operation.COMPACT_LOGS, on(lambda t: t.compact_logs(0, 1)), commits=0
    ),
    "DeltaTable.generate": EntryPoint(Operation.GENERATE, on(lambda t: t.generate()), commits=0),
}
"""By the name that :func:`public_callables` gives, with a remark where there are several."""


def entry_point_of(name):
    """Return the public name of an entry of `ENTRY_POINTS`, without the remark.

    >>> entry_point_of("write_deltalake (a new table)")
    'write_deltalake'
    """
    return name.partition(" ")[0]


def public_callables():
    """Return every public function and method of the engine's public modules, by name."""
    functions = {
        "write_deltalake": deltalake.write_deltalake,
        "convert_to_deltalake": deltalake.convert_to_deltalake,
    }
    transaction = importlib.import_module("deltalake.transaction")
    functions["transaction.create_table_with_add_actions"] = (
        transaction.create_table_with_add_actions
    )
    for module in (deltalake, importlib.import_module("deltalake.table"), transaction):
        for owner in vars(module).values():
            if inspect.isclass(owner) and owner.__module__.startswith("deltalake."):
                for name, member in vars(owner).items():
                    if not name.startswith("_"):
                        functions[f"{owner.__name__}.{name}"] = getattr(member, "__func__", member)
        for name, member in vars(module).items():
            if inspect.isfunction(member) and not name.startswith("_"):
                functions.setdefault(name, member)
    return {name: member for name, member in functions.items() if inspect.isfunction(member)}


NOT_ENTRY_POINTS = {"create_table_with_add_actions", "deprecate_positional_commit_args"}
"""Another name of an entry point, and a helper of the engine's own signatures."""


def committing_callables():
    """Return the names of the public callables that take commit properties."""
    return {
        name
        for name, member in public_callables().items()
        if COMMIT_PROPERTIES in inspect.signature(member).parameters
    } - NOT_ENTRY_POINTS
