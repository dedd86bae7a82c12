"""Distributed writes: one commit and one event, for every form of parts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, SchemaMismatchError

from deltawitness import (
    Committed,
    Failed,
    Landed,
    Ledger,
    NoCommit,
    Settings,
    flush,
    once,
    read_commit_metadata,
    run,
    suppressed,
    table_id,
    write_distributed,
)
from deltawitness.exceptions import (
    ConfigurationError,
    OnceError,
    UnsupportedEngineError,
    WriteRequestError,
)
from deltawitness.instrumentation import DeltaLakeInstrumentor
from helpers.engine_versions import needs_deltalake, pretended_release

pytestmark = needs_deltalake("1.6.3", "write transactions contain no application transactions")

PARTS = [pa.table({"id": [1, 2]}), pa.table({"id": [3]})]


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "t")


def ids(uri):
    return sorted(DeltaTable(uri).to_pyarrow_table()["id"].to_pylist())


def test_parts_become_one_commit_and_one_event(uri, pool, captured_writes):
    """The result, the commit and the event agree, and the writes of the workers are not observed."""
    created = write_distributed(PARTS, uri, engine=pool)
    added = write_distributed(PARTS, uri, engine=pool)
    assert (created.version, created.rows, created.files, created.parts) == (0, 3, 2, 2)
    assert (added.version, added.landed, added.is_new) == (1, Landed.YES, True)
    assert ids(uri) == [1, 1, 2, 2, 3, 3]
    first, second = captured_writes.events
    assert [event.write_id for event in (first, second)] == [created.write_id, added.write_id]
    assert isinstance(second.outcome, Committed)
    assert (second.intent.parts, second.outcome.metrics.rows_added) == (2, 3)
    assert second.outcome.metrics.bytes_added == added.bytes
    assert second.table_id == added.table_id == table_id(uri)
    commit = read_commit_metadata(uri, 1).witness
    assert (commit["write_id"], commit["parts"]) == (added.write_id, 2)
    assert len(commit["schema_hash"]) == 32


@pytest.mark.slow
def test_the_event_covers_the_staging(uri, pool, captured_writes):
    """The duration of the event includes the time in which workers make the rows."""
    gate = threading.Event()

    def slow():
        gate.wait(0.3)
        return PARTS[0]

    write_distributed([slow], uri, engine=pool)
    assert captured_writes.events[0].duration_ns > 0.3e9


def test_the_commit_has_a_transaction_of_its_run(uri, pool, captured_writes):
    """The application id has the run and the table, the version counts the writes of the run."""
    with run("nightly", run_id="r1"):
        for _ in range(2):
            write_distributed(PARTS, uri, engine=pool)
    assert DeltaTable(uri).transaction_version(f"deltawitness/run/r1/{table_id(uri)}") == 2
    assert read_commit_metadata(uri).run_id == "r1"


def test_two_processes_of_a_run_both_commit(uri, pool, captured_writes):
    """The transaction of a run does not make a write of another thread look like this one."""
    write_distributed(PARTS, uri, engine=pool)

    def racing():
        other = threading.Thread(
            target=lambda: write_distributed(PARTS, uri, engine=ThreadPoolExecutor(1))
        )
        other.start()
        other.join()
        return PARTS[1]

    result = write_distributed([racing], uri, engine=pool)
    assert (result.version, result.rows, result.is_new) == (2, 1, True)
    assert ids(uri) == [1, 1, 2, 2, 3, 3, 3]


def test_a_key_commits_once(uri, pool, captured_writes):
    """The second call reads no part and returns the result of the first, also for a new table."""
    for key, version in (("a", 0), ("b", 1)):
        first = write_distributed(PARTS, uri, engine=pool, key=key)
        again = write_distributed(iter(()), uri, engine=pool, key=key)
        assert (first.version, first.is_new, again.is_new) == (version, True, False)
        fields = ("version", "rows", "files", "bytes", "parts", "landed", "write_id", "table_id")
        assert [getattr(again, name) for name in fields] == [
            getattr(first, name) for name in fields
        ]
    assert len(ids(uri)) == 6
    outcomes = [event.outcome for event in captured_writes.events]
    assert [type(outcome) for outcome in outcomes] == [Committed, NoCommit] * 2
    assert outcomes[1].reason == "already_committed"


def test_a_block_of_once_covers_the_write(uri, pool, captured_writes):
    """In a block, the key of the block counts; a key as well is refused."""
    for _ in range(2):
        with once("load") as block:
            write_distributed(PARTS, uri, engine=pool)
            write_distributed(PARTS, uri, engine=pool)
    assert [(receipt.version, receipt.is_new) for receipt in block.receipts] == [
        (0, False),
        (1, False),
    ]
    with once("other"), pytest.raises(ConfigurationError, match="key"):
        write_distributed(PARTS, uri, engine=pool, key="k")


def test_the_write_works_without_an_instrumentor_and_inside_suppressed(uri, pool):
    """Without an instrumentor the commit has the metadata; inside `suppressed()` it has none."""
    assert write_distributed(PARTS, uri, engine=pool).write_id is not None
    with suppressed():
        result = write_distributed(PARTS, uri, engine=pool)
        assert (result.version, result.rows, result.write_id) == (1, 3, None)
        with pytest.raises(OnceError):
            write_distributed(PARTS, uri, engine=pool, key="k")


def test_the_ledger_has_one_row_with_the_number_of_parts(tmp_path, uri, pool):
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "root")))
    write_distributed(PARTS, uri, engine=pool)
    flush()
    ledger = Ledger(tmp_path / "root")
    ledger.drain()
    rows = ledger.query("SELECT result, rows_added, files_added, parts FROM inventory").to_pylist()
    assert rows == [{"result": "write", "rows_added": 3, "files_added": 2, "parts": 2}]


# --- forms of parts -----------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for number, part in enumerate(PARTS):
        pq.write_table(part, folder / f"{number}.parquet")
    return folder


FORMS = {
    "tables": lambda files: PARTS,
    "batches": lambda files: [part.to_batches()[0] for part in PARTS],
    "lists of batches": lambda files: [part.to_batches() for part in PARTS],
    "streams": lambda files: (part.to_reader() for part in PARTS),
    "functions": lambda files: [lambda: PARTS[0], PARTS[1].to_reader],
    "paths": lambda files: sorted(files.iterdir()),
    "texts": lambda files: [str(path) for path in files.iterdir()],
    "a folder": lambda files: [files],
    "a dataset": lambda files: ds.dataset(files, format="parquet"),
    "datasets": lambda files: [ds.dataset(files, format="parquet")],
    "rows in memory": lambda files: ds.dataset(PARTS),
    "pandas": lambda files: [pd.DataFrame({"id": [1, 2]}, index=[7, 8]), pd.DataFrame({"id": [3]})],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_parts(form, files, uri, pool, captured_writes):
    result = write_distributed(FORMS[form](files), uri, engine=pool)
    assert (result.rows, ids(uri)) == (3, [1, 2, 3])
    assert DeltaTable(uri).schema().to_arrow().names == ["id"]


@pytest.mark.slow
def test_spawned_processes_write_the_parts(files, uri, captured_writes):
    """The default engine; a stream is read in this process, and errors of delta-rs keep their class."""
    parts = [PARTS[0], PARTS[1].to_reader(), files / "1.parquet"]
    assert write_distributed(parts, uri).rows == 4
    with pytest.raises(SchemaMismatchError, match="part 1: "):
        write_distributed([PARTS[0], pa.table({"x": [1]})], uri)
    assert DeltaTable(uri).version() == 0


def test_parts_are_made_as_workers_take_them(uri, pool, captured_writes):
    """A generator of parts is not read ahead by more than the limit."""
    taken, written = [], []

    def part(number):
        written.append(number)
        return pa.table({"id": [number]})

    def parts():
        for number in range(12):
            taken.append(number)
            assert len(taken) - len(written) <= 3
            yield lambda number=number: part(number)

    assert write_distributed(parts(), uri, engine=pool, max_in_flight=2).parts == 12


@pytest.mark.parametrize("source", [3, "t.parquet", PARTS[0], pd.DataFrame({"id": [1]})])
def test_one_table_is_no_iterable_of_parts(source, uri, pool, captured_writes):
    with pytest.raises(WriteRequestError, match="parts: "):
        write_distributed(source, uri, engine=pool)
    assert not DeltaTable.is_deltatable(uri)


def test_a_dataset_in_hive_folders_has_its_partition_columns(tmp_path, uri, pool, captured_writes):
    rows = pa.table({"id": [1, 2, 3], "day": ["a", "b", "b"]})
    ds.write_dataset(
        rows, tmp_path / "h", format="parquet", partitioning=["day"], partitioning_flavor="hive"
    )
    source = ds.dataset(tmp_path / "h", format="parquet", partitioning="hive")
    assert write_distributed(source, uri, partition_by="day", engine=pool).parts == 2
    found = DeltaTable(uri).to_pyarrow_table().select(["id", "day"]).to_pylist()
    assert sorted(found, key=lambda row: row["id"]) == rows.to_pylist()


def test_a_filtered_dataset_is_refused(files, uri, pool, captured_writes):
    """Its fragments would give the rows without the filter."""
    with pytest.raises(WriteRequestError, match="filter"):
        write_distributed(
            ds.dataset(files, format="parquet").filter(ds.field("id") > 1), uri, engine=pool
        )


@pytest.mark.parametrize("engine", ["spark", 3])
def test_an_unknown_engine_is_refused(engine, uri, captured_writes):
    with pytest.raises(ConfigurationError, match="engine: "):
        write_distributed(PARTS, uri, engine=engine)


# --- errors -------------------------------------------------------------------------------------------


def test_an_error_of_the_program_leaves_unmodified_and_nothing_is_committed(
    uri, pool, captured_writes
):
    """The failed write is one event that has not landed; VACUUM removes the files of the other parts."""
    error = ValueError("no rows today")

    def fail():
        raise error

    write_deltalake(uri, PARTS[0])
    with pytest.raises(ValueError, match="no rows today") as raised:
        write_distributed([PARTS[1], fail], uri, engine=pool)
    assert raised.value is error
    assert DeltaTable(uri).version() == 0
    outcome = captured_writes.events[-1].outcome
    assert isinstance(outcome, Failed)
    assert outcome.landed is Landed.NO
    removed = DeltaTable(uri).vacuum(
        retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True
    )
    assert [path.split("/")[0][:8] for path in removed] == ["staging-"]


@pytest.mark.slow
def test_zero_and_empty_parts(uri, pool, captured_writes):
    """Without parts a new table needs a schema; an append without rows makes a commit, as delta-rs does."""
    with pytest.raises(WriteRequestError, match="schema="):
        write_distributed([], uri, engine=pool)
    empty = PARTS[0].slice(0, 0)
    created = write_distributed([], uri, engine=pool, schema=empty.schema)
    added = write_distributed([empty, PARTS[1], empty], uri, engine=pool)
    assert [(each.version, each.rows, each.parts) for each in (created, added)] == [
        (0, 0, 0),
        (1, 1, 3),
    ]
    assert write_distributed([], uri, engine=pool).version == 2
    assert ids(uri) == [3]


def test_modes(uri, pool, captured_writes):
    """`error` and `ignore` look at the table before a part is read; `overwrite` replaces all rows."""
    write_distributed(PARTS, uri, engine=pool, mode="error")
    with pytest.raises(WriteRequestError, match="exists"):
        write_distributed(PARTS, uri, engine=pool, mode="error")
    skipped = write_distributed(iter(()), uri, engine=pool, mode="ignore")
    assert (skipped.version, skipped.rows, skipped.landed) == (None, 0, Landed.NO)
    replaced = write_distributed([PARTS[1]], uri, engine=pool, mode="overwrite")
    assert (replaced.version, replaced.rows, ids(uri)) == (1, 1, [3])
    assert captured_writes.events[-1].outcome.metrics.files_removed == 2


def test_the_commit_properties_of_the_program_are_kept(uri, pool, captured_writes):
    from deltalake import CommitProperties, Transaction

    properties = CommitProperties({"team": "ops"}, app_transactions=[Transaction("mine", 4)])
    write_distributed(PARTS, uri, engine=pool, commit_properties=properties)
    assert DeltaTable(uri).transaction_version("mine") == 4
    assert read_commit_metadata(uri).metadata["team"] == "ops"


def test_an_open_table_is_a_target(uri, pool, captured_writes):
    """The write goes to the newest version of the table at the same location."""
    write_deltalake(uri, PARTS[0])
    table = DeltaTable(uri)
    write_deltalake(uri, PARTS[0], mode="append")
    assert write_distributed(PARTS, table, engine=pool).version == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a b", "ü #1"])
def test_a_location_with_special_characters(name, tmp_path, pool, captured_writes):
    """As a path, as a `Path` and as an open table."""
    place = tmp_path / name
    write_distributed(PARTS, str(place), engine=pool)
    write_distributed(PARTS, place, engine=pool)
    result = write_distributed(PARTS, DeltaTable(place), engine=pool, key="k")
    assert (result.version, len(ids(place))) == (2, 9)
    assert result.table_id == table_id(str(place))


def test_an_engine_error_is_raised_with_its_class(uri, pool, captured_writes):
    write_deltalake(uri, PARTS[0])
    DeltaTable(uri).alter.add_constraint({"small": "id < 3"})
    with pytest.raises(DeltaError, match=r"part 1: .*Invalid data"):
        write_distributed(PARTS, uri, engine=pool)
    assert ids(uri) == [1, 2]


def test_an_older_release_is_refused(uri):
    """Before 1.6.3 the engine drops the transaction of a write transaction."""
    with (
        pretended_release("1.6.2"),
        pytest.raises(UnsupportedEngineError, match=r"1\.6\.3 or later, found 1\.6\.2"),
    ):
        write_distributed(PARTS, uri)
