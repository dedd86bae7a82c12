"""Error types are derived from the engine's texts; each type is provoked in the real engine."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.transaction import Transaction

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings
from deltawitness.error_types import classify, is_programs_own
from deltawitness.locations import canonical_uri, table_id
from deltawitness.redaction import redact_text, without_location
from deltawitness.semconv import ErrorType
from deltawitness.testing import capture_writes

DATA = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "p": ["a", "b", "c"]})
UNREACHABLE = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ALLOW_HTTP": "true",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_REGION": "us-east-1",
    "max_retries": "0",
}


def appended(uri, **options):
    write_deltalake(uri, options.pop("data", DATA), mode="append", **options)


def constrained(uri):
    DeltaTable(uri).alter.add_constraint({"c": "id < 100"})
    appended(uri, data=pa.table({"id": pa.array([4711], pa.int64()), "p": ["canary"]}))


def append_only(uri):
    DeltaTable(uri).alter.set_table_properties({"delta.appendOnly": "true"})
    DeltaTable(uri).delete("id = 1")


def conflicting(uri):
    first, second = DeltaTable(uri), DeltaTable(uri)
    first.delete("id = 1")
    second.delete("id = 1")


def stale_transaction(uri):
    stale = DeltaTable(uri)
    properties = CommitProperties(app_transactions=[Transaction("app", 1)])
    appended(uri, commit_properties=properties)
    write_deltalake(stale, DATA, mode="append", commit_properties=properties)


def broken_source(uri):
    def batches():
        yield DATA.to_batches()[0]
        raise RuntimeError("the source broke")

    appended(uri, data=pa.RecordBatchReader.from_batches(DATA.schema, batches()))


def ambiguous_merge(uri):
    source = pa.table({"id": pa.array([1, 1], pa.int64()), "p": ["x", "y"]})
    (
        DeltaTable(uri)
        .merge(source, "s.id = t.id", source_alias="s", target_alias="t")
        .when_matched_update_all()
        .execute()
    )


def corrupt_log(uri):
    (uri / "_delta_log" / f"{1:020d}.json").write_text("{broken")
    appended(uri)


PROVOKED = {
    "table exists": (lambda u: write_deltalake(u, DATA), ErrorType.TABLE_EXISTS),
    "table not found": (lambda u: DeltaTable(u / "no"), ErrorType.TABLE_NOT_FOUND),
    "schema mismatch": (
        lambda u: appended(u, data=pa.table({"other": [1]})),
        ErrorType.SCHEMA_MISMATCH,
    ),
    "cast": (
        lambda u: appended(u, data=pa.table({"id": ["canary"], "p": ["a"]})),
        ErrorType.CAST_FAILED,
    ),
    "unknown column": (lambda u: DeltaTable(u).delete("nope = 1"), ErrorType.INVALID_SQL),
    "bad sql": (lambda u: DeltaTable(u).delete("id >>> 3"), ErrorType.INVALID_SQL),
    "constraint": (constrained, ErrorType.CONSTRAINT_VIOLATION),
    "append only": (append_only, ErrorType.APPEND_ONLY),
    "conflict": (conflicting, ErrorType.COMMIT_CONFLICT),
    "transaction": (stale_transaction, ErrorType.CONCURRENT_TRANSACTION),
    "version": (lambda u: DeltaTable(u, version=99), ErrorType.VERSION_NOT_FOUND),
    "retention": (lambda u: DeltaTable(u).vacuum(0), ErrorType.INVALID_ARGUMENT),
    "partition": (lambda u: appended(u, partition_by=["p"]), ErrorType.PARTITION_MISMATCH),
    "save mode": (lambda u: write_deltalake(u, DATA, mode="bogus"), ErrorType.INVALID_ARGUMENT),
    "reserved key": (
        lambda u: appended(u, commit_properties=CommitProperties({"operation": "x"})),
        ErrorType.METADATA_REJECTED,
    ),
    "unreachable": (
        lambda u: write_deltalake("s3://b/t", DATA, storage_options=UNREACHABLE),
        ErrorType.STORAGE_UNREACHABLE,
    ),
    "source": (broken_source, ErrorType.SOURCE_FAILED),
    "log": (corrupt_log, ErrorType.LOG_CORRUPT),
    "drop constraint": (
        lambda u: DeltaTable(u).alter.drop_constraint("nope"),
        ErrorType.INVALID_ARGUMENT,
    ),
}


@pytest.mark.parametrize("what", PROVOKED)
def test_each_error_text_of_the_engines_has_its_type(what, tmp_path):
    """Each text gives its type, and its redacted form has no row, path or literal."""
    act, expected = PROVOKED[what]
    uri = tmp_path / "flights"
    write_deltalake(uri, DATA)
    with pytest.raises(BaseException) as raised:
        act(uri)
    assert classify(raised.value) is expected, str(raised.value)
    told = redact_text(str(raised.value))
    assert str(tmp_path) not in told
    assert "canary" not in told
    assert "4711" not in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), ErrorType.INTERRUPTED),
        (SystemExit(143), ErrorType.INTERRUPTED),
        (OSError(28, "No space left on device"), ErrorType.STORAGE_FULL),
        (OSError(30, "Read-only file system"), ErrorType.PERMISSION_DENIED),
        (PermissionError(), ErrorType.PERMISSION_DENIED),
        (ConnectionResetError(), ErrorType.STORAGE_UNREACHABLE),
        (OSError("odd"), ErrorType.STORAGE_FAILED),
        (MemoryError(), ErrorType.OUT_OF_MEMORY),
        (TypeError("odd"), ErrorType.INVALID_ARGUMENT),
        (RuntimeError("odd"), ErrorType.OTHER),
        (type("PanicException", (BaseException,), {})("odd"), ErrorType.ENGINE_PANIC),
        (type("CommitFailedError", (Exception,), {})("odd"), ErrorType.COMMIT_CONFLICT),
        (type("DeltaProtocolError", (Exception,), {})("odd"), ErrorType.PROTOCOL_UNSUPPORTED),
        (type("SchemaMismatchError", (Exception,), {})("odd"), ErrorType.SCHEMA_MISMATCH),
        (type("Odd", (BaseException,), {})("odd"), ErrorType.INTERRUPTED),
    ],
)
def test_an_error_without_a_known_text_is_classified_by_its_class(error, expected):
    """Without a matching text the class decides, and the last fallback is `_OTHER`."""
    assert classify(error) is expected


def test_an_error_that_cannot_be_printed_has_a_kind_all_the_same():
    """An exception whose `__str__` raises is classified."""

    class Mute(ValueError):
        def __str__(self):
            raise RuntimeError

    assert classify(Mute()) is ErrorType.INVALID_ARGUMENT


def test_an_unwritable_directory_is_classified(tmp_path):
    """The provocation is a file in place of the table, because permissions do not stop root."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception) as raised:
        write_deltalake(tmp_path / "file" / "table", DATA)
    assert classify(raised.value) in {
        ErrorType.TABLE_NOT_FOUND,
        ErrorType.STORAGE_FAILED,
        ErrorType.PERMISSION_DENIED,
    }


FULL = """
import sys, pyarrow as pa
from deltalake import write_deltalake
from deltawitness.testing import capture_writes
data = pa.table({"x": pa.array(range(2_000_000), pa.int64())})
with capture_writes() as writes:
    try:
        write_deltalake(sys.argv[1], data, mode="append")
    except BaseException:
        pass
    print(writes.last.outcome.error_type.value, writes.last.outcome.landed.value)
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/bin/mount"), reason="needs root and mount for a tmpfs"
)
@pytest.mark.slow
def test_a_full_disk_is_storage_full_and_has_not_landed(tmp_path):
    """Writing two million rows to a tmpfs of one mebibyte gives `storage_full`, without a commit."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        out = subprocess.run(
            [sys.executable, "-c", FULL, str(place / "t")],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert out.stdout.split() == ["storage_full", "no"]


WORDS = [
    # Each is a text that matches another type of error.
    "forbidden",
    "403 Forbidden",
    "access denied",
    "conflict",
    "append-only",
    "no space left",
    "timed out",
    "Python exception: x",
    "table already exists",
    "sql parser error",
    "os error 28",
    "cast error",
    "concurrent transaction failed",
    "not a Delta table",
    "invariant",
    "custom_metadata key",
]


def a_row_with(word):
    return pa.table({"id": pa.array([500], pa.int64()), "p": [word], word: [word]})


def violated(uri, word):
    write_deltalake(uri, pa.table({"id": pa.array([1], pa.int64()), "p": ["a"], word: ["a"]}))
    DeltaTable(uri).alter.add_constraint({"small": "id < 100"})
    write_deltalake(uri, a_row_with(word), mode="append")


def merged_with_two(uri, word):
    write_deltalake(uri, a_row_with(word))
    source = pa.table({"id": pa.array([500, 500], pa.int64()), "p": [word, word], word: ["a", "b"]})
    (
        DeltaTable(uri)
        .merge(source, "s.id = t.id", source_alias="s", target_alias="t")
        .when_matched_update_all()
        .execute()
    )


def written_before(act):
    def acted(uri, word):
        write_deltalake(uri, a_row_with(word))
        act(uri, word)

    return acted


HOSTILE = {
    "exists": (
        written_before(lambda u, w: write_deltalake(u, a_row_with(w))),
        ErrorType.TABLE_EXISTS,
    ),
    "violated": (violated, ErrorType.CONSTRAINT_VIOLATION),
    "unknown column": (
        written_before(lambda u, w: DeltaTable(u).delete(f"nope = '{w}'")),
        ErrorType.INVALID_SQL,
    ),
    "cast": (
        written_before(lambda u, w: DeltaTable(u).update(updates={"id": f"cast('{w}' as bigint)"})),
        ErrorType.CAST_FAILED,
    ),
    "cast of a row": (
        written_before(
            lambda u, w: write_deltalake(u, pa.table({"id": [w], "p": [w], w: [w]}), mode="append")
        ),
        ErrorType.CAST_FAILED,
    ),
    "schema": (
        written_before(lambda u, w: write_deltalake(u, pa.table({f"{w} too": [1]}), mode="append")),
        ErrorType.SCHEMA_MISMATCH,
    ),
    "partition": (
        written_before(
            lambda u, w: write_deltalake(u, a_row_with(w), mode="append", partition_by=[w])
        ),
        ErrorType.PARTITION_MISMATCH,
    ),
    "save mode": (
        written_before(lambda u, w: write_deltalake(u, a_row_with(w), mode=w)),
        ErrorType.INVALID_ARGUMENT,
    ),
    "reserved key": (
        written_before(
            lambda u, w: write_deltalake(
                u,
                a_row_with(w),
                mode="append",
                commit_properties=CommitProperties({"operation": w, w: w}),
            )
        ),
        ErrorType.METADATA_REJECTED,
    ),
    "version": (
        written_before(lambda u, w: DeltaTable(u).restore(99)),
        ErrorType.VERSION_NOT_FOUND,
    ),
    "retention": (written_before(lambda u, w: DeltaTable(u).vacuum(0)), ErrorType.INVALID_ARGUMENT),
    "no constraint": (
        written_before(lambda u, w: DeltaTable(u).alter.drop_constraint(w)),
        ErrorType.INVALID_ARGUMENT,
    ),
    "bad sql": (
        written_before(lambda u, w: DeltaTable(u).delete(f"id >>> '{w}'")),
        ErrorType.INVALID_SQL,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.one_case_in(7)
def test_names_and_rows_do_not_decide_the_kind_of_an_error(what, word, tmp_path):
    """Folders, columns, rows and literals that contain texts of other types do not change the type."""
    act, expected = HOSTILE[what]
    uri = str(tmp_path / word / "t" / word)
    with capture_writes() as writes:
        with pytest.raises(BaseException) as raised:
            act(uri, word)
        assert writes.last.outcome.error_type is expected, str(raised.value)
    assert without_location(str(raised.value), uri) is not None


def test_an_error_of_the_program_is_classified_by_its_class_alone():
    """The text of the program's exception does not matter, in any callback of the engine."""

    class Refused(PermissionError):
        """An exception class of the program."""

    def source():
        raise OSError("No space left on device")

    assert classify(Refused("no space left")) is ErrorType.PERMISSION_DENIED
    with pytest.raises(OSError, match="No space") as raised:
        source()
    assert is_programs_own(raised.value)
    assert is_programs_own(Refused())
    assert not is_programs_own(OSError("No space left on device"))


UNOPENED = {
    "broken log": ("c", None),
    "unknown scheme": ("nosuch://b/t", None),
    "no server": ("s3://b/t", UNREACHABLE),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", UNOPENED)
def test_a_table_that_cannot_be_opened_has_no_commit_and_a_row_that_names_it(
    what, tmp_path, monkeypatch
):
    """`landed` is `no`, and the row has the table's location and id."""
    monkeypatch.chdir(tmp_path)
    write_deltalake("c", DATA)
    (tmp_path / "c/_delta_log" / f"{0:020d}.json").write_text("{broken")
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "cache")))
    uri, options = UNOPENED[what]
    with pytest.raises(Exception, match=r"(?i)error|scheme"):
        write_deltalake(uri, DATA, mode="append", storage_options=options)
    (row,) = (
        Ledger(tmp_path / "cache")
        .inventory()
        .select("result", "landed", "table_uri", "table_id")
        .to_pylist()
    )
    place = canonical_uri(str(tmp_path / "c") if uri == "c" else uri)
    assert row == {
        "result": "error",
        "landed": "no",
        "table_uri": place,
        "table_id": table_id(place),
    }


def test_an_invalid_location_is_not_recorded(tmp_path):
    """An invalid location may contain data, so it is not recorded."""
    with capture_writes() as writes:
        with pytest.raises(Exception):  # noqa: B017 - the class depends on the engine
            write_deltalake(DATA, DATA)
        assert [event.intent.table_uri for event in writes] in ([], [None], [""])
