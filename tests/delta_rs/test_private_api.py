"""Contract tests of delta-rs' private API: a release that changes a seam fails here."""

from __future__ import annotations

import importlib
import inspect

import deltalake
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake._internal import RawDeltaTable

from deltawitness.commit.private_api import (
    COMMIT_PROPERTIES,
    CONVERT_OPEN_SEAM,
    FUNCTION_SEAMS,
    MERGE_BUILD,
    MERGE_EXECUTE,
    METHOD_SEAMS,
    OPEN_SEAM,
    READING_METHODS,
    WHOLE_WRITE,
    read_file,
    remote_store,
    storage_options_of,
    store_of,
)

DATA = pa.table({"id": [1, 2, 3]})

COMMITTING = {
    "write_deltalake",
    "convert_to_deltalake",
    "transaction.create_table_with_add_actions",
    "DeltaTable.create",
    "DeltaTable.create_write_transaction",
    "DeltaTable.delete",
    "DeltaTable.merge",
    "DeltaTable.repair",
    "DeltaTable.restore",
    "DeltaTable.update",
    "DeltaTable.vacuum",
    "TableAlterer.add_columns",
    "TableAlterer.add_constraint",
    "TableAlterer.add_feature",
    "TableAlterer.drop_column_not_null",
    "TableAlterer.drop_constraint",
    "TableAlterer.set_column_metadata",
    "TableAlterer.set_table_description",
    "TableAlterer.set_table_name",
    "TableAlterer.set_table_properties",
    "TableOptimizer.compact",
    "TableOptimizer.z_order",
}
"""Every public callable of delta-rs that takes commit properties: all are observed, each is
written through in `delta_rs/test_instrumentation.py`."""


def public_callables():
    """Yield every public function and method of the engine's public modules, by name."""
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


def test_every_public_callable_that_commits_is_listed():
    """A new entry point that takes commit properties must be observed and listed here."""
    committing = {
        name
        for name, member in public_callables().items()
        if COMMIT_PROPERTIES in inspect.signature(member).parameters
    }
    assert (
        committing - {"create_table_with_add_actions", "deprecate_positional_commit_args"}
        == COMMITTING
    )


def test_every_method_of_the_raw_table_is_in_one_list():
    """A new method of `RawDeltaTable` must be listed as a writing or a reading method."""
    methods = {name for name in dir(RawDeltaTable) if not name.startswith("_")}
    observed = {seam.name for seam in METHOD_SEAMS} | {MERGE_BUILD, MERGE_EXECUTE.name}
    assert methods == observed | READING_METHODS
    assert not observed & READING_METHODS


@pytest.mark.parametrize("seam", METHOD_SEAMS, ids=lambda seam: seam.name)
def test_committing_methods_take_commit_properties(seam):
    """The signature of each committing method has `commit_properties`."""
    parameters = inspect.signature(getattr(RawDeltaTable, seam.name)).parameters
    assert (COMMIT_PROPERTIES in parameters) == seam.commits


@pytest.mark.parametrize("seam", FUNCTION_SEAMS, ids=lambda seam: seam.name)
def test_function_seams_are_module_globals(seam):
    """Function seams are looked up at call time, under the listed names and with the listed parameters."""
    function = getattr(importlib.import_module(seam.module), seam.name)
    parameters = inspect.signature(function).parameters
    assert {seam.uri, "storage_options", COMMIT_PROPERTIES} <= set(parameters)


def test_write_deltalake_opens_the_table_through_the_open_seam():
    """`write_deltalake` opens its table by the open seam before anything else."""
    module, name = OPEN_SEAM
    source = inspect.getsource(write_deltalake)
    assert importlib.import_module(module).__dict__[name]
    assert f"{name}(table_or_uri, storage_options)" in source


def test_a_conversion_looks_for_the_table_through_its_own_seam():
    """`convert_to_deltalake` looks up its table by the seam in mode `ignore`, and only there."""
    module, name = CONVERT_OPEN_SEAM
    source = inspect.getsource(deltalake.convert_to_deltalake)
    assert importlib.import_module(module).__dict__[name]
    assert source.count(name) == 1
    assert f'mode == "ignore" and {name}(uri, storage_options) is not None' in source


def test_the_code_of_write_deltalake_can_be_replaced():
    """`write_deltalake` is not a closure and issues no warning with a stack level."""
    module, name = WHOLE_WRITE
    function = getattr(importlib.import_module(module), name)
    assert function is write_deltalake
    assert function.__closure__ is None
    assert "warn" not in function.__code__.co_names


def test_methods_of_the_raw_table_can_be_replaced_in_place(monkeypatch, tmp_path):
    """`RawDeltaTable` accepts attributes, and methods are looked up on the class."""
    seen = []
    original = RawDeltaTable.write

    def noted(*args, **kwargs):
        seen.append(sorted(kwargs))
        return original(*args, **kwargs)

    write_deltalake(tmp_path, DATA)
    monkeypatch.setattr(RawDeltaTable, "write", noted)
    write_deltalake(tmp_path, DATA, mode="append")
    assert len(seen) == 1
    assert {"batch_schema", "commit_properties", "mode"} <= set(seen[0])


def test_a_handle_is_at_the_version_of_its_own_write(tmp_path):
    """After a write, a handle has that version, also when another writer came in between."""
    write_deltalake(tmp_path, DATA)
    mine, other = DeltaTable(tmp_path), DeltaTable(tmp_path)
    write_deltalake(other, DATA, mode="append")
    write_deltalake(mine, DATA, mode="append")
    assert (other.version(), mine.version()) == (1, 2)


def test_a_read_past_the_end_returns_the_complete_file(tmp_path):
    """A request for more bytes than there are returns all of the file; a missing file is None."""
    write_deltalake(tmp_path, DATA)
    path, missing = "_delta_log/00000000000000000000.json", "_delta_log/00000000000000000009.json"
    content = (tmp_path / path).read_bytes()
    store = remote_store(str(tmp_path), None, [path, missing])
    assert read_file(store, path) == content
    assert read_file(store, missing) is None
    assert read_file(store_of(DeltaTable(tmp_path)._table, [path]), path) == content


def test_a_table_has_its_storage_options(tmp_path):
    """A table has its storage options under the private name that `storage_options_of` reads."""
    write_deltalake(tmp_path, DATA)
    assert storage_options_of(DeltaTable(tmp_path, storage_options={"a": "b"})) == {"a": "b"}
