"""Tables and files for the tests of sessions, and the known differences from the engine."""

from __future__ import annotations

import json
from functools import partial
from importlib.metadata import version

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from helpers.observed_sessions import DATA
from helpers.patched_sessions import observed
from helpers.patched_sessions import rows as rows_of_ids
from helpers.statement_sessions import write_columns

LIMITS = {
    "test_an_observed_object_claims_no_protocol_that_the_engines_own_does_not[Reversible]": "wrapt",
    "test_an_observed_object_claims_no_protocol_that_the_engines_own_does_not[Sized]": "wrapt",
    "test_a_subclass_may_set_attributes_before_the_base_is_initialized": "wrapt",
    "test_a_context_derived_from_a_subclass_of_the_observed_context_has_that_class": "kind",
    "test_a_view_of_a_frame_shows_later_writes[Table-proxied]": "Table",
    "test_a_view_of_a_frame_shows_later_writes[Table-patched]": "Table",
    "test_a_view_of_a_frame_shows_later_writes[Table of a session-proxied]": "Table",
    "test_a_view_of_a_frame_shows_later_writes[Table of a session-patched]": "Table",
    **{
        f"test_a_warning_of_the_engine_names_the_line_of_the_program[{call}-{how}]": "warning"
        for call in ("union_distinct", "join", "read_csv", "register_table_provider")
        for how in ("proxied", "patched")
    },
}
"""Where an observed object is known to differ from the engine's own, and why."""

if version("datafusion").startswith("54."):
    LIMITS["test_values_are_of_the_type_that_they_say[CASE]"] = "CASE"

REASONS = {
    "wrapt": "an object proxy has the special methods of every protocol, and no attributes before it wraps",
    "kind": "a derived context is an ObservedSessionContext, because a subclass may need other arguments",
    "Table": "a Table that a program creates from a frame accepts no attribute: it reads the frame's version",
    "CASE": "DataFusion 54 plans a CASE with another nullability than it runs it with, and raises",
    "warning": "the engine counts stack frames to find the line, and the wrapper is one of them",
}


@pytest.fixture(autouse=True)
def known_limit(request):
    """Expect a test of a known limit to fail; a limit that is gone is reported."""
    limit = LIMITS.get(request.node.name)
    if limit is not None:
        request.applymarker(pytest.mark.xfail(reason=REASONS[limit], strict=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip the rest of a test at the first MERGE INTO with DataFusion 54, which does not parse it."""
    try:
        return (yield)
    except ValueError as error:
        is_limit = "Unsupported SQL statement: MERGE INTO" in str(error)
        if is_limit and version("datafusion").startswith("54."):
            pytest.skip("DataFusion 54 does not parse MERGE INTO")
        raise


def avro(schema, numbers):
    """An Avro file with one column of numbers in one uncompressed block."""

    def varint(number):
        number <<= 1
        text = b""
        while number > 0x7F:
            text += bytes([number & 0x7F | 0x80])
            number >>= 7
        return text + bytes([number])

    def counted(text):
        return varint(len(text)) + text

    sync = bytes(range(16))
    header = varint(1) + counted(b"avro.schema") + counted(json.dumps(schema).encode()) + varint(0)
    block = varint(len(numbers)) + counted(b"".join(map(varint, numbers)))
    return b"Obj\x01" + header + sync + block + sync


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The same rows as files of each format and as a Delta table."""
    folder = tmp_path_factory.mktemp("files")
    columns = [{"name": "a", "type": "long"}]
    schema = {"type": "record", "name": "rows", "fields": columns}
    (folder / "rows.avro").write_bytes(avro(schema, [1, 2, 3]))
    pa_csv.write_csv(DATA, folder / "rows.csv")
    pq.write_table(DATA, folder / "rows.parquet")
    DATA.to_pandas().to_json(folder / "rows.json", orient="records", lines=True)
    with pa.ipc.new_file(folder / "rows.arrow", DATA.schema) as arrow:
        arrow.write_table(DATA)
    write_deltalake(folder / "delta", DATA)
    return folder


@pytest.fixture
def make(tmp_path):
    """Create a Delta table with the given columns and return its location."""
    return partial(write_columns, tmp_path)


@pytest.fixture
def instrumented():
    """Patch DataFusion's classes for the test."""
    with observed() as instrumentor:
        yield instrumentor


@pytest.fixture
def table(tmp_path):
    """A Delta table of three rows."""
    write_deltalake(tmp_path / "table", rows_of_ids(1, 2, 3))
    return tmp_path / "table"
