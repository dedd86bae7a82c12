"""Rows of operations, from finished events, or from provisional records and the log."""

from __future__ import annotations

import json
import os
import socket
import threading
from dataclasses import replace
from importlib.metadata import version

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, cache_context, run
from deltawitness.events import (
    UNCHANGED,
    CommitMetrics,
    Committed,
    Exported,
    Failed,
    InputVersion,
    Landed,
    NoCommit,
    NoCommitReason,
    WriteIntent,
)
from deltawitness.ledger.spool.provisional import intent_text, provisional_text, shared_text
from deltawitness.ledger.tables.arrow import operation_rows
from deltawitness.ledger.tables.schema import INVENTORY, TABLES, LedgerRoot
from deltawitness.ledger.tables.write_rows import as_json, event_row, ledger_uri, row_of_provisional
from deltawitness.locations import table_id
from deltawitness.redaction import key_hash, redact
from deltawitness.run_context import RunContext
from deltawitness.semconv import WITNESS_VERSION, CacheOperation, ErrorType, Operation
from deltawitness.settings import Settings as Config
from helpers.ledger_parts import START, event, one, operation_row, rows_of

PLACE = {
    "host": socket.gethostname(),
    "engine": f"delta-rs:py-{version('deltalake')}",
    "deltalake_version": version("deltalake"),
    "datafusion_version": version("datafusion"),
    "witness_version": WITNESS_VERSION,
}

OUTCOMES = {
    "committed": (
        Committed((3,), CommitMetrics(rows_added=2, retries=0)),
        {"result": "write", "version": 3, "versions": [3], "rows_added": 2, "retries": 0},
    ),
    "several versions": (
        Committed((3, 4), CommitMetrics(files_removed=9)),
        {"result": "write", "version": 4, "versions": [3, 4], "files_removed": 9},
    ),
    "exported": (Exported(CommitMetrics(bytes_added=7)), {"result": "write", "bytes_added": 7}),
    "no commit": (
        NoCommit(NoCommitReason.NOTHING_TO_DO, CommitMetrics(rows_copied=5)),
        {"result": "noop", "reason": "nothing_to_do", "rows_copied": 5},
    ),
    "failed": (
        Failed(
            ErrorType.SCHEMA_MISMATCH, "deltalake.exceptions.SchemaMismatchError", "no", Landed.NO
        ),
        {
            "result": "error",
            "error_type": "schema_mismatch",
            "exception_type": "deltalake.exceptions.SchemaMismatchError",
            "error_message": "no",
            "landed": "no",
        },
    ),
    "failed and landed": (
        Failed(ErrorType.STORAGE_UNREACHABLE, "builtins.OSError", "late", Landed.YES, 5),
        {
            "result": "error",
            "error_type": "storage_unreachable",
            "exception_type": "builtins.OSError",
            "error_message": "late",
            "landed": "yes",
            "version": 5,
            "versions": [5],
        },
    ),
}


# --- final rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "expected"), OUTCOMES.values(), ids=list(OUTCOMES))
def test_the_row_of_each_outcome(outcome, expected):
    """A row has the event's values in their columns, and omits unknown ones."""
    written = event(outcome, trace_id="0" * 31 + "1", span_id="0" * 15 + "2", table_id="t-1")
    row = json.loads(as_json(event_row(written, redact(written, Config()), "/lake/t")))
    assert row == {
        "event_time": START // 1000,
        "run_id": "run-1",
        "write_id": "w-1",
        "trace_id": "0" * 31 + "1",
        "span_id": "0" * 15 + "2",
        "job": "nightly",
        "operation": "WRITE",
        "cache_operation": "write",
        "scope": "dataset",
        "policy": "unmanaged",
        "mode": "append",
        "table_uri": "file:///lake/t",
        "table_id": "t-1",
        "duration_ms": 1.5,
        "thread": "MainThread",
        "pid": 7,
        "source": "observed",
        **PLACE,
        **expected,
    }


@pytest.mark.parametrize(("outcome", "expected"), OUTCOMES.values(), ids=list(OUTCOMES))
def test_the_row_of_each_outcome_fits_the_table(outcome, expected):
    """Every row converts to the inventory's schema, times and lists included."""
    written = event(
        outcome,
        intent=WriteIntent(Operation.MERGE, CacheOperation.MERGE, inputs=(InputVersion("i", 4),)),
    )
    line = as_json(event_row(written, redact(written, Config()), None)).encode()
    [row] = operation_rows([line]).to_pylist()
    assert {name: row[name] for name in expected} == expected
    assert row["event_date"].isoformat() == "2023-11-14"
    assert row["inputs"] == [{"table_id": "i", "uri": None, "version": 4}]


def test_hashes_inputs_and_keys_of_an_intent():
    """A row has the intent's hashes unchanged, its key as a hash, its inputs with locations."""
    intent = WriteIntent(
        Operation.WRITE,
        CacheOperation.WRITE,
        policy="views",
        cache_key="customer=17",
        schema_hash="s",
        plan_hash="p",
        plan_shape_hash="ps",
        inputs=(InputVersion("raw-id", 4, "s3://key:secret@bucket/in?sig=x"),),
    )
    written = event(intent=intent)
    row = event_row(
        written, redact(written, Config(table_id_key=b"k")), "s3://key:secret@bucket/t?sig=x"
    )
    keyed = table_id("s3://key:secret@bucket/in?sig=x", key=b"k")
    expected = {
        "policy": "views",
        "key": key_hash("customer=17"),
        "schema_hash": "s",
        "plan_hash": "p",
        "plan_shape_hash": "ps",
        "inputs": [{"table_id": keyed, "uri": "s3://bucket/in", "version": 4}],
        "table_uri": "s3://bucket/t",
    }
    assert {name: row[name] for name in expected} == expected


def test_a_write_without_a_thread_or_a_location():
    """Unknown values are omitted."""
    written = event(thread=None)
    row = json.loads(as_json(event_row(written, redact(written, Config()), None)))
    assert {"thread", "table_uri", "table_id", "key", "inputs"} & set(row) == set()


@pytest.mark.slow
@given(
    st.dictionaries(
        st.sampled_from(["job", "thread", "policy", "table_uri"]),
        st.text(st.characters(exclude_categories=())),
    )
)
def test_any_text_can_be_carried_into_the_table(texts):
    """Any text can be read back by Arrow, including lone surrogates and NUL characters."""
    line = as_json(operation_row("w", **texts))
    assert line.isascii()
    [row] = operation_rows([line.encode()]).to_pylist()
    expected = {name: text.encode("utf-8", "replace").decode() for name, text in texts.items()}
    paired = {
        name: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        for name, text in texts.items()
    }
    assert {name: len(row[name]) for name in texts} == {
        name: len(text) for name, text in paired.items()
    }
    assert {name: row[name] for name in texts if texts[name].isprintable()} == {
        name: expected[name] for name in texts if texts[name].isprintable()
    }


def test_a_duration_of_nanoseconds_is_a_number():
    """Arrow parses numbers that Python formats with an exponent."""
    [row] = operation_rows([as_json(operation_row("w", duration_ms=10 / 1e6)).encode()]).to_pylist()
    assert row["duration_ms"] == 1e-05


# --- provisional records completed from the log -------------------------------------------------------


class Noted:
    """A table with real commits, and provisional records of writes to it."""

    def __init__(self, path):
        self.path = str(path)

    def commit(self, write_id, rows=1, **more):
        metadata = {"write_id": write_id, "schema_hash": "from-the-commit"}
        data = pa.table({"x": list(range(rows))})
        write_deltalake(
            self.path,
            data,
            mode="append",
            commit_properties=CommitProperties(custom_metadata=metadata),
            **more,
        )

    def note(self, write_id="w-1", operation=Operation.WRITE, location=None, **more):
        intent = WriteIntent(operation, CacheOperation.WRITE, mode="append")
        where = self.path if location is None else location
        shared = shared_text(
            intent_text(intent, where, "t-1"),
            RunContext("run-1", "nightly"),
            more.pop("thread", "MainThread"),
            more.pop("message", None),
            more.pop("site", None),
        )
        text = provisional_text(
            shared,
            **{
                "write_id": write_id,
                "commit_write_id": write_id,
                "started_at": START,
                "duration_ns": 1_500_000,
                "trace_id": None,
                "span_id": None,
                "base": None,
                "version": None,
                **more,
            },
        )
        return json.loads(text)


@pytest.fixture
def table(tmp_path):
    return Noted(tmp_path / "t")


KNOWN_OF_THE_NOTE = {
    "event_time": START // 1000,
    "run_id": "run-1",
    "write_id": "w-1",
    "job": "nightly",
    "operation": "WRITE",
    "cache_operation": "write",
    "scope": "dataset",
    "policy": "unmanaged",
    "mode": "append",
    "table_id": "t-1",
    "duration_ms": 1.5,
    "thread": "MainThread",
    "pid": os.getpid(),
    "source": "observed",
    **PLACE,
}


ZEROS = UNCHANGED.known()
ZEROS_OF_A_WRITE = {name: 0 for name in ZEROS if name != "bytes_added"}


def outcome_of(row):
    """Return the columns of a row that its provisional record did not contain."""
    return {
        name: value
        for name, value in row.items()
        if name not in KNOWN_OF_THE_NOTE and name != "table_uri"
    }


def test_a_provisional_record_of_a_commit_is_completed_from_the_log(table):
    """Version, metrics and schema hash come from the commit; values of the record remain."""
    table.commit("w-0")
    table.commit("w-1", rows=3)
    row = row_of_provisional(table.note(base=0, version=1), 64)
    assert {name: row[name] for name in KNOWN_OF_THE_NOTE} == KNOWN_OF_THE_NOTE
    assert row["table_uri"] == f"file://{table.path}"
    expected = outcome_of(row)
    sizes = {name: expected.pop(name) for name in ("bytes_added", "execution_ms")}
    assert expected == ZEROS_OF_A_WRITE | {
        "result": "write",
        "version": 1,
        "versions": [1],
        "rows_added": 3,
        "files_added": 1,
        "retries": 0,
        "schema_hash": "from-the-commit",
    }
    assert sizes["bytes_added"] > 0


@pytest.mark.parametrize("base", [None, 0])
def test_a_commit_of_an_unknown_version_is_found_by_its_write_id(table, base):
    """If the record has no version (a write by URI), the log is searched for its write id."""
    for write_id in ("w-0", "w-1", "w-2"):
        table.commit(write_id)
    row = row_of_provisional(table.note(base=base), 64)
    assert (row["result"], row["versions"]) == ("write", [1])


def test_several_versions_of_one_operation(table):
    """An operation with two commits, such as VACUUM, has both versions in its row."""
    table.commit("w-0")
    metadata = CommitProperties(custom_metadata={"write_id": "w-1"})
    handle = DeltaTable(table.path)
    write_deltalake(handle, one(1), mode="overwrite")
    handle.vacuum(0, dry_run=False, enforce_retention_duration=False, commit_properties=metadata)
    row = row_of_provisional(table.note(operation=Operation.VACUUM, base=1, version=3), 64)
    assert (row["result"], row["version"], row["versions"], row["files_deleted"]) == (
        "write",
        3,
        [2, 3],
        1,
    )


def test_a_write_that_others_overtook(table):
    """Another write's commit between base and version is not counted."""
    for write_id in ("w-0", "other", "w-1"):
        table.commit(write_id)
    assert row_of_provisional(table.note(base=0, version=2), 64)["versions"] == [2]


def test_a_provisional_record_without_a_commit_is_a_noop(table):
    """A write without a commit is a noop, with the recorded reason or the one from the log."""
    table.commit("w-0")
    idle = table.note(base=0, more={"_idle": "dry_run"})
    assert outcome_of(row_of_provisional(idle, 64)) == ZEROS | {
        "result": "noop",
        "reason": "dry_run",
    }
    unchanged = table.note(base=0, version=0)
    assert outcome_of(row_of_provisional(unchanged, 64)) == {
        "result": "noop",
        "reason": "not_found",
    }
    unfound = table.note()
    assert outcome_of(row_of_provisional(unfound, 64)) == {"result": "noop", "reason": "not_found"}


FAILURE = {"error_type": "schema_mismatch", "exception_type": "builtins.ValueError"}


@pytest.mark.parametrize(
    ("committed", "expected"),
    [("w-1", {"landed": "yes", "version": 1, "versions": [1]}), ("other", {"landed": "no"})],
)
def test_the_log_decides_whether_a_failed_write_has_landed(table, committed, expected):
    """The log decides whether a failed write has landed."""
    table.commit("w-0")
    table.commit(committed)
    row = row_of_provisional(table.note(base=0, more=FAILURE), 64)
    counts = {name: row.pop(name) for name in (*ZEROS, "execution_ms", "retries") if name in row}
    assert outcome_of(row) == {"result": "error", **FAILURE, **expected}
    assert (counts["rows_added"], counts["files_added"]) == (
        (1, 1) if "versions" in expected else (0, 0)
    )


def test_a_failure_that_has_not_landed(table):
    """If the record says whether a failed write landed, the log is not read."""
    table.commit("w-1")
    row = row_of_provisional(table.note(more={**FAILURE, "landed": "no"}), 64)
    assert outcome_of(row) == ZEROS | {"result": "error", **FAILURE, "landed": "no"}


def test_a_provisional_record_of_an_export(table):
    """An export has no log to search."""
    row = row_of_provisional(table.note(operation=Operation.COPY, more={"_exported": True}), 64)
    assert outcome_of(row) | {"operation": row["operation"]} == {
        "operation": "COPY",
        "result": "write",
    }


def test_a_write_without_a_table(table):
    """A record without a location is completed without a log."""
    note = table.note(more=FAILURE)
    del note["table_uri"]
    assert outcome_of(row_of_provisional(note, 64)) == {
        "result": "error",
        **FAILURE,
        "landed": "unknown",
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"base": 0, "version": 1}, {"result": "write", "version": 1, "versions": [1]}),
        ({"base": 0}, {"result": "noop", "reason": "not_found"}),
        ({"more": FAILURE}, {"result": "error", **FAILURE, "landed": "unknown"}),
    ],
)
def test_a_provisional_record_is_complete_without_the_log(table, tmp_path, arguments, expected):
    """If the log cannot be read, the row has the values of the record."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "_delta_log").mkdir()
    for number in range(3):
        (tmp_path / "t" / "_delta_log" / f"{number:020d}.json").mkdir()
    assert outcome_of(row_of_provisional(table.note(**arguments), 64)) == expected


def test_a_table_that_is_gone(table):
    """If the table was deleted meanwhile, the row has the recorded version."""
    row = row_of_provisional(table.note(base=0, version=1), 64)
    assert outcome_of(row) == {"result": "write", "version": 1, "versions": [1]}


def test_a_row_has_the_trace_of_its_provisional_record(table):
    """The row has the record's trace and span id."""
    row = row_of_provisional(table.note(trace_id="a" * 32, span_id="b" * 16), 64)
    assert (row["trace_id"], row["span_id"]) == ("a" * 32, "b" * 16)


def test_the_id_that_the_caller_gave_the_commit(table):
    """A commit with the caller's write id is found by that id."""
    table.commit('the "caller\'s"')
    row = row_of_provisional(table.note(commit_write_id='the "caller\'s"'), 64)
    assert (row["write_id"], row["versions"]) == ("w-1", [0])


# --- redaction ------------------------------------------------------------------------

CANARIES = {
    "password": "hunter2hunter2",
    "path": "/home/ann/private",
    "literal": "canary-of-a-row",
    "key": "canary-of-a-key",
    "token": "eyJhbGciOiJIUzI1NiJ9.canary.canary",
}


def all_bytes(folder):
    """Return the bytes of all files in a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def provoke(lake):
    """Make writes with secrets in names, keys, errors and threads."""
    named = f"worker {CANARIES['path']}/x password={CANARIES['password']}"
    attributes = {"api_token": CANARIES["token"], "note": f"see {CANARIES['path']}/y"}
    with (
        run(f"load {CANARIES['path']}/job.py", attributes=attributes),
        cache_context(policy=f"p {CANARIES['path']}/z", key=CANARIES["key"]),
    ):
        write_deltalake(lake, pa.table({"name": ["a"]}))
        thread = threading.Thread(
            target=write_deltalake,
            args=(lake, pa.table({"name": ["b"]})),
            kwargs={"mode": "append"},
            name=named,
        )
        thread.start()
        thread.join()
        DeltaTable(lake).alter.add_constraint({"short": "name < 'c'"})
        with pytest.raises(Exception, match=CANARIES["literal"]):
            write_deltalake(lake, pa.table({"name": [CANARIES["literal"]]}), mode="append")
        with pytest.raises(Exception, match="canary"):
            DeltaTable(lake).delete(f"name = cast('{CANARIES['literal']}' as int)")
        url = f"s3://user:{CANARIES['password']}@bucket/t?sig={CANARIES['token']}"
        with pytest.raises(Exception, match=r"."):
            write_deltalake(
                url,
                one(1),
                storage_options={
                    "aws_access_key_id": "id",
                    "aws_secret_access_key": CANARIES["password"],
                    "aws_region": "x",
                    "aws_endpoint_url": "http://127.0.0.1:9",
                    "aws_allow_http": "true",
                    "max_retries": "0",
                    "retry_timeout": "1s",
                    "timeout": "1s",
                },
            )


@pytest.mark.slow
@pytest.mark.internal_errors
@pytest.mark.parametrize("waits", ["in the spool", "in the ledger"])
def test_no_secret_no_path_and_no_row_gets_into_the_ledger(tmp_path, waits):
    """Credentials, keys, rows and paths in errors and names are in no segment and no table."""
    lake = str(tmp_path / "lake")
    root = tmp_path / "root"
    DeltaLakeInstrumentor().instrument(
        settings=Settings(cache_root=str(root), drain_interval=3600, sink_timeout=60)
    )
    if waits == "in the spool":
        (root).mkdir()
        (root / "cache_ledgers").write_text("in the way: nothing can be drained")
    provoke(lake)
    expected = all_bytes(root / "cache_spool")
    if waits == "in the ledger":
        Ledger(root).drain()
        rows = [rows_of(LedgerRoot(str(root)), table) for table in TABLES]
        expected = repr(rows).encode() + all_bytes(root)
        assert [len(of) for of in rows[:2]] == [6, 1]
        assert {row["error_type"] for row in rows[0] if row["result"] == "error"} > {
            "constraint_violation"
        }
    DeltaLakeInstrumentor().uninstrument()
    assert len(expected) > 5000
    assert [name for name, canary in CANARIES.items() if canary.encode() in expected] == []


@pytest.mark.parametrize("column", ["job", "policy", "thread"])
def test_a_location_is_only_in_its_column(column):
    """Job, policy and thread contain no location; an error message may."""
    failure = Failed(
        ErrorType.OTHER, "builtins.OSError", "cannot read /lake/t/part-1.parquet", Landed.NO
    )
    intent = WriteIntent(
        Operation.WRITE, CacheOperation.WRITE, table_uri="/lake/t", policy="of /lake/t"
    )
    written = event(
        failure, run=RunContext("r", "job of /lake/t"), intent=intent, thread="of /lake/t"
    )
    row = event_row(written, redact(written, Config()), "/lake/t")
    assert "/lake" not in row[column]
    assert replace(written, outcome=failure) == written
    assert row["table_uri"] == "file:///lake/t"


def test_the_columns_of_a_row_are_those_of_the_table():
    """A row has no member without a column in the table."""
    names = set(INVENTORY.schema.names)
    for outcome, _ in OUTCOMES.values():
        written = event(outcome)
        assert set(event_row(written, redact(written, Config()), "/t")) - names == set()


def test_a_relative_location_is_resolved_at_once(tmp_path, monkeypatch):
    """A relative location is made absolute at once, as the working directory may change."""
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert ledger_uri("t") == folder.as_uri() + "/t"
