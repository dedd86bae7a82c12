"""A dataset that delta-rs reads returns the same rows as DataFusion's own provider."""

from __future__ import annotations

import os
import random
import shutil
import struct
import threading

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from datafusion import SessionContext
from datafusion.catalog import Table
from deltalake import DeltaTable, QueryBuilder, WriterProperties, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from deltawitness import ObservedSessionContext
from deltawitness.scan.dataset import DeltaDataset
from deltawitness.scan.filters import FilterError, parse_filter, pruning_filter, to_sql
from deltawitness.scan.read_ahead import read_ahead
from helpers.deletion_vectors import delete_rows
from helpers.places import FOREIGN_TABLES
from helpers.random_rows import random_rows
from helpers.sql_statements import SCHEMA, predicates

NAN = float("nan")

EXAMPLES = {"long": 5_000, "ci": 150}.get(os.environ.get("TEST_SIZE"), 40)

FOREIGN = FOREIGN_TABLES


def foreign(name):
    """A table that another writer has created."""
    if not FOREIGN.is_dir():
        pytest.skip(f"no tables of other writers: the folder {FOREIGN.name} is not there")
    return FOREIGN / name


# --- the same rows ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """For each partitioning, a session with the engine's provider and one with the dataset."""
    found = []
    for number, partition_by in enumerate((None, ["p"], ["small"], ["D", "ok"], ["f.x"])):
        place = tmp_path_factory.mktemp("scan") / str(number)
        for part in range(3):
            rows = pa.Table.from_pylist(random_rows(10 * number + part, 80), schema=SCHEMA)
            write_deltalake(place, rows, mode="append", partition_by=partition_by)
        opened = DeltaTable(place)
        engine, ours = SessionContext(), ObservedSessionContext()
        engine.register_table("t", Table(opened))
        ours.register_table("t", Table(DeltaDataset(opened)))
        found.append((engine, ours))
    return found


@settings(max_examples=EXAMPLES)
@given(
    condition=predicates(),
    number=st.integers(0, 4),
    columns=st.sampled_from(['"id", "f.x"', "*", "count(*)", '"st"']),
)
@pytest.mark.slow
def test_every_filter_leaves_the_rows_that_the_engine_leaves(sessions, condition, number, columns):
    """Every filter selects the same rows, pushed down to the scan or not."""
    sql = f"SELECT {columns} FROM t WHERE {condition}"
    engine, ours = (sorted(map(repr, ctx.sql(sql).to_pylist())) for ctx in sessions[number])
    assert ours == engine


CONSTANTS = pa.table(
    {
        "id": pa.array([1, 2, 3, 4, 5], pa.int32()),
        "x": [1.0, NAN, 3.0, None, -0.0],
        "f": pa.array([1, NAN, 3, None, 0.0], pa.float32()),
        "b": [True, False, None, True, False],
        "bin": pa.array([b"a", b"\xff", None, b"", b"b"], pa.binary()),
        "st": pa.array(
            [{"p": 1, "q": [1, 2]}, {"p": 2, "q": []}, None, {"p": None, "q": None}, {"p": 5, "q": [5]}],
            pa.struct([("p", pa.int64()), ("q", pa.list_(pa.int32()))]),
        ),
        "m": pa.array([[("k", 1)], [], None, [("z", 3)], [("k", 2)]], pa.map_(pa.string(), pa.int64())),
    }
)  # fmt: skip


@pytest.mark.parametrize(
    "condition",
    [
        "st = {'p': 1, 'q': [1, 2]}",
        "st <> {'p': 1, 'q': [1, 2]}",
        "st = NULL",
        "m = MAP {'k': 1}",
        "bin = x'ff'",
        "bin IN (x'61', x'ff', x'62', x'')",
        "f > 1.1::float",
        "f IN (1, 3, 5, 7)",
        "x = -'NaN'::double",
        "x > -'NaN'::double",
        "x < 'NaN'::double",
        "x IN (1.0, 'NaN'::double, 3.0, 5.0)",
        "x NOT IN (1.0, 'NaN'::double, 3.0, 5.0)",
        "(x > 1) = b",
        "(id > 1) IS NULL",
        "b > false",
        "id > 99999999999",
        "id NOT IN (1, 3, 7, 8, 9)",
        "id NOT IN (1, 3, 7, 8, NULL)",
    ],
)
def test_constants_of_every_type_are_pushed_down(tmp_path, condition):
    """Nested constants, bytes, both NaNs and lists of them are pushed down."""
    write_deltalake(tmp_path / "t", CONSTANTS)
    opened = DeltaTable(tmp_path / "t")
    engine, ours = SessionContext(), ObservedSessionContext()
    engine.register_table("t", Table(opened))
    ours.register_table("t", Table(DeltaDataset(opened)))
    sql = f"SELECT id FROM t WHERE {condition} ORDER BY id"
    assert ours.sql(sql).to_pydict() == engine.sql(sql).to_pydict()


def test_rows_are_counted_without_columns(tmp_path):
    """Scans without columns return the row count, for none and for several batches of rows."""
    write_deltalake(tmp_path / "t", pa.table({"id": range(100_000)}))
    ctx = SessionContext()
    ctx.register_table("t", Table(DeltaDataset(DeltaTable(tmp_path / "t"))))
    assert ctx.table("t").count() == 100_000
    assert ctx.sql("SELECT count(*) AS n FROM t WHERE id < 3").to_pydict() == {"n": [3]}
    assert ctx.sql("SELECT count(*) AS n FROM t WHERE id < 0").to_pydict() == {"n": [0]}


# --- tables with deletion vectors ------------------------------------------------------------------


@pytest.mark.slow
def test_rows_behind_deletion_vectors_are_gone(tmp_path):
    """Deleted rows are not read, also in files of many row groups of which a filter skips some."""
    properties = WriterProperties(
        max_row_group_size=100, data_page_row_count_limit=20, write_batch_size=20
    )
    for start in (0, 1000):
        numbers = range(start, start + 1000)
        rows = pa.table({"id": numbers, "s": [f"r{n:06}" for n in numbers]})
        write_deltalake(tmp_path / "t", rows, mode="append", writer_properties=properties)
    added = pa.table(DeltaTable(tmp_path / "t").get_add_actions()).to_pylist()
    chosen = random.Random(1)
    gone = [sorted(chosen.sample(range(1000), 333)) for _ in added]
    delete_rows(tmp_path / "t", gone)
    deleted = {
        file["min"]["id"] + at for file, rows in zip(added, gone, strict=True) for at in rows
    }
    left = [number for number in range(2000) if number not in deleted]
    ctx = ObservedSessionContext()
    ctx.register_delta("t", tmp_path / "t")
    for condition, is_wanted in (
        ("true", lambda n: True),
        ("id > 555", lambda n: n > 555),
        ("id BETWEEN 440 AND 470", lambda n: 440 <= n <= 470),
        ("s = 'r001234' OR id < 7", lambda n: n == 1234 or n < 7),
        ("id IN (3, 4, 5, 1500, 1998, 1999)", lambda n: n in {3, 4, 5, 1500, 1998, 1999}),
    ):
        found = ctx.sql(f"SELECT id FROM t WHERE {condition} ORDER BY id").to_pydict()["id"]
        assert found == [number for number in left if is_wanted(number)]
        counted = ctx.sql(f"SELECT count(*) AS n FROM t WHERE {condition}").to_pydict()["n"]
        assert counted == [len(found)]


@pytest.mark.parametrize(
    ("name", "column", "values"),
    [
        ("table-with-dv-small", "value", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("cdf-table-with-cdc-and-dvs", "id", [0, 1, 2, 10, 12]),
    ],
)
@pytest.mark.parametrize("register", ["register_delta", "register_table", "CREATE", "read_table"])
def test_tables_of_other_writers_with_deletion_vectors_are_read(
    tmp_path, name, column, values, register
):
    """Tables with deletion vectors are read for every way of registering them."""
    shutil.copytree(foreign(name), tmp_path / "t")
    ctx = ObservedSessionContext()
    match register:
        case "register_delta":
            ctx.register_delta("t", tmp_path / "t")
        case "register_table":
            ctx.register_table("t", DeltaTable(tmp_path / "t"))
        case "read_table":
            ctx.register_view("t", ctx.read_table(DeltaTable(tmp_path / "t")))
        case "CREATE":
            ctx.sql(f"CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION '{tmp_path / 't'}'")
    assert sorted(ctx.sql(f"SELECT {column} FROM t").to_pydict()[column]) == values
    few = ctx.sql(f"SELECT {column} FROM t WHERE {column} > 5").to_pydict()[column]
    assert sorted(few) == [value for value in values if value > 5]


@pytest.mark.parametrize("name", ["table_with_column_mapping", "table_with_partitioning_mapping"])
def test_mapped_columns_have_their_values(tmp_path, name):
    """Columns with column mapping are read, filtered and used to skip files."""
    shutil.copytree(foreign(name), tmp_path / "t")
    opened = DeltaTable(tmp_path / "t")
    rows = QueryBuilder().register("t", opened).execute("SELECT * FROM t").read_all()
    wanted = pa.table(rows).to_pylist()
    ctx = ObservedSessionContext()
    ctx.register_table("t", Table(DeltaDataset(opened)))
    assert sorted(map(repr, ctx.table("t").to_pylist())) == sorted(map(repr, wanted))
    for column in wanted[0]:
        assert all(row[column] is not None for row in wanted)
        least = min(row[column] for row in wanted)
        found = ctx.sql(f'SELECT * FROM t WHERE "{column}" = $v', param_values={"v": least})
        assert found.count() == sum(row[column] == least for row in wanted)


# --- filters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "sql"),
    [
        (pc.field("a") > 5, "(\"a\" > arrow_cast('5', 'Int64'))"),
        (~pc.field('a "b').isin(["it's", None]), "(NOT (\"a \"\"b\" IN (arrow_cast('it''s', 'Utf8'), arrow_cast(NULL, 'Utf8'))))"),
        (pc.field("a").is_null() | pc.field("end").is_valid(), '(("a" IS NULL) OR ("end" IS NOT NULL))'),
        (pc.scalar(pa.scalar(None, pa.bool_())), "arrow_cast(NULL, 'Boolean')"),
        (pc.field("literal") == pa.scalar("end", pa.string_view()), "(\"literal\" = arrow_cast('end', 'Utf8View'))"),
    ],
)  # fmt: skip
def test_an_expression_is_spelled_as_sql(expression, sql):
    """Names and strings that equal words of the serialized form are translated correctly."""
    assert to_sql(parse_filter(expression)) == sql


@pytest.mark.parametrize(
    "expression",
    [
        pc.field("a") + 1 > 2,
        pc.field(("a", "b")) > 2,
        pc.field("a") == pa.scalar(5, pa.duration("s")),
        pc.field("a") == pa.scalar(struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]),
    ],
    ids=["arithmetic", "a part of a column", "a duration", "a NaN of unusual bits"],
)
def test_an_expression_without_sql_is_refused(expression):
    """A filter that cannot be translated raises: without it the scan returns wrong rows."""
    with pytest.raises(FilterError):
        to_sql(parse_filter(expression))


PRUNED = pa.schema(
    [("i", pa.int32()), ("s", pa.string_view()), ("d", pa.date32()), ("b", pa.bool_()), ("x", pa.float64()), ("t", pa.timestamp("us"))]
)  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "pruned"),
    [
        (pc.field("i") > 5, True),
        ((pc.field("i") > 5) & (pc.field("x") > 5), True),
        ((pc.field("i") > 5) | (pc.field("x") > 5), False),
        ((pc.field("i") > 5) | (pc.field("s") == "a"), True),
        (~(pc.field("i") > 5), False),
        (pc.field("i") != 5, False),
        (pc.field("i").is_null(), False),
        (pc.field("i") > pc.field("i"), False),
        (pc.field("i") == pa.scalar(None, pa.int32()), False),
        (pc.field("i").isin([1, 2]), True),
        (pc.field("i").isin([1, None]), False),
        (~pc.field("i").isin([1, 2]), False),
        (pc.field("b"), True),
        (~pc.field("b"), True),
        (pc.field("x") > 5, False),
        (pc.field("t") > pa.scalar(5, pa.timestamp("us")), False),
        (pc.field("d") == pa.scalar(5, pa.date32()), True),
    ],
)
def test_files_are_skipped_by_statistics(expression, pruned):
    """Files are not skipped by floats, timestamps or negations, or where NULL could match."""
    assert (pruning_filter(parse_filter(expression), PRUNED) is not None) == pruned


# --- reading ahead ---------------------------------------------------------------------------------


def test_an_error_of_the_stream_is_raised_where_it_is_read():
    """An error of the stream is raised after the items before it."""

    def items():
        yield 1
        raise ValueError("torn")

    read = read_ahead(items)
    assert next(read) == 1
    with pytest.raises(ValueError, match="torn"):
        next(read)


def test_a_stream_is_read_a_few_items_ahead_and_no_further():
    """At most a few items are read ahead, and none after the reader has stopped."""
    read = []
    waiting = threading.Event()

    def items():
        for number in range(100):
            read.append(number)
            if number == 4:
                waiting.set()
            yield number

    stream = read_ahead(items)
    assert next(stream) == 0
    assert waiting.wait(10)
    stream.close()
    assert len(read) <= 8
    assert not [t for t in threading.enumerate() if t.name == "deltawitness-scan"]
