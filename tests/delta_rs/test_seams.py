"""The seams of the installed delta-rs: all are on or known to be absent, and each fails on its own."""

from __future__ import annotations

import importlib
import inspect
import logging

import deltalake
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake._internal import RawDeltaTable

import deltawitness
from deltawitness import DeltaLakeInstrumentor, flush
from deltawitness.commit.engine_version import has_release
from deltawitness.commit.seams import (
    COMMIT_PROPERTIES,
    CONVERT_OPEN_SEAM,
    METHOD_SEAMS,
    OPEN_SEAM,
    READING_METHODS,
    SEAMS,
    WHOLE_WRITE,
    Seam,
)
from deltawitness.delta_rs.seam_states import SeamState, owner_of, reset_seam_states, seam_states
from deltawitness.distributions import parse_release
from helpers.delta_rs_writes import rows


@pytest.fixture(autouse=True)
def clean_states():
    reset_seam_states()
    yield
    reset_seam_states()


def state_of(name):
    (status,) = [status for status in seam_states() if status.name.endswith(f".{name}")]
    return status


# --- the contract ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.path)
def test_a_seam_is_on_from_the_release_that_has_it(seam):
    """Each seam is on since its first release, and absent before."""
    (status,) = [status for status in seam_states() if status.name == seam.path]
    is_there = seam.since is None or has_release(seam.since)
    assert (status.state, status.reason is None) == (
        (SeamState.ON, True) if is_there else (SeamState.ABSENT, False)
    )
    assert status.is_expected


def test_every_method_of_the_raw_table_is_in_one_list():
    """A new method of `RawDeltaTable` must be listed as a writing or a reading method."""
    methods = {name for name in dir(RawDeltaTable) if not name.startswith("_")}
    writing = {seam.name for seam in SEAMS if seam.owner == "RawDeltaTable"} - READING_METHODS
    assert methods <= writing | READING_METHODS


@pytest.mark.parametrize("seam", METHOD_SEAMS, ids=lambda seam: seam.name)
def test_committing_methods_take_commit_properties(seam):
    """The signature of each committing method, and of no other, has `commit_properties`."""
    method = getattr(RawDeltaTable, seam.name, None)
    if method is not None:
        assert (COMMIT_PROPERTIES in inspect.signature(method).parameters) == seam.commits


def test_write_deltalake_opens_the_table_through_the_open_seam():
    """`write_deltalake` opens its table by the open seam before anything else."""
    source = inspect.getsource(write_deltalake)
    assert vars(owner_of(OPEN_SEAM))[OPEN_SEAM.name]
    assert f"{OPEN_SEAM.name}(table_or_uri, storage_options)" in source


def test_a_conversion_looks_for_the_table_through_its_own_seam():
    """`convert_to_deltalake` looks up its table by the seam in mode `ignore`, and only there."""
    name = CONVERT_OPEN_SEAM.name
    source = inspect.getsource(deltalake.convert_to_deltalake)
    assert source.count(name) == 1
    assert f'mode == "ignore" and {name}(uri, storage_options) is not None' in source


def test_the_code_of_write_deltalake_can_be_replaced():
    """`write_deltalake` is the public function, is not a closure and issues no warning."""
    function = getattr(owner_of(WHOLE_WRITE), WHOLE_WRITE.name)
    assert function is write_deltalake
    assert function.__closure__ is None
    assert "warn" not in function.__code__.co_names


# --- another release ---------------------------------------------------------------------------------


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.WARNING, logger="deltawitness")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_seam_with_another_signature_is_off_alone(table, monkeypatch, lines):
    """The changed seam is named once in the log, and the other writes are observed."""
    original = RawDeltaTable.update

    def update(self, *args, **options):
        return original(self, *args, **options)

    monkeypatch.setattr(RawDeltaTable, "update", update)
    seen = []
    for _ in range(2):
        DeltaLakeInstrumentor().instrument(sinks=[seen.append])
        DeltaTable(table).update({"p": "'x'"})
        write_deltalake(table, rows(4), mode="append")
        DeltaLakeInstrumentor().uninstrument()
    assert [event.intent.operation for event in seen] == ["WRITE", "WRITE"]
    assert state_of("update").state is SeamState.OFF
    (line,) = lines()
    assert line == (
        f"deltalake {deltalake.__version__}: calls of deltalake._internal.RawDeltaTable.update are not"
        " observed: has no parameter commit_properties"
    )


def test_a_seam_without_a_signature_is_off(table, monkeypatch):
    """A function whose parameters cannot be read is not replaced."""
    monkeypatch.setattr(RawDeltaTable, "update", max)
    assert state_of("update").reason == "has no readable signature"


def test_a_seam_that_a_release_is_known_to_lack_is_silent(table, monkeypatch, lines):
    """An older release lacks the seam: it is absent, and no log line names it."""
    if hasattr(RawDeltaTable, "drop_column_not_null"):
        monkeypatch.delattr(RawDeltaTable, "drop_column_not_null")
    monkeypatch.setattr(
        "deltawitness.delta_rs.seam_states.has_release",
        lambda release: release != "1.6.3" and has_release(release),
    )
    DeltaLakeInstrumentor().instrument()
    status = state_of("drop_column_not_null")
    assert (status.state, status.since) == (SeamState.ABSENT, "1.6.3")
    assert status.reason.endswith("; added in 1.6.3")
    assert lines() == []


def test_a_seam_that_is_missing_unexpectedly_is_named(table, monkeypatch, lines):
    """A later release has removed a method: it is absent, and the log names it."""
    monkeypatch.delattr(RawDeltaTable, "z_order_optimize")
    DeltaLakeInstrumentor().instrument()
    DeltaLakeInstrumentor().uninstrument()
    DeltaLakeInstrumentor().instrument()
    assert state_of("z_order_optimize").state is SeamState.ABSENT
    (line,) = lines()
    assert "RawDeltaTable.z_order_optimize are not observed: not in deltalake" in line


def test_a_module_that_was_moved_makes_its_seams_absent(table, monkeypatch, lines):
    """A later release has moved a module: writes through open tables are observed."""
    moved = Seam(name="f", module="deltalake.no_such_module")
    monkeypatch.setattr("deltawitness.delta_rs.seam_states.SEAMS", (*SEAMS, moved))
    monkeypatch.setattr("deltawitness.delta_rs.patches.SEAMS", (*SEAMS, moved))
    seen = []
    DeltaLakeInstrumentor().instrument(sinks=[seen.append])
    write_deltalake(DeltaTable(table), rows(4), mode="append")
    flush()
    assert len(seen) == 1
    assert state_of("f").state is SeamState.ABSENT


def test_half_of_a_merge_is_off_with_the_other(table, monkeypatch, lines):
    """A merge is built and executed by two seams: without one, no merge is stamped or recorded."""
    original = RawDeltaTable.merge_execute

    def merge_execute(self, job):
        return original(self, job)

    monkeypatch.setattr(RawDeltaTable, "merge_execute", merge_execute)
    seen = []
    DeltaLakeInstrumentor().instrument(sinks=[seen.append])
    merger = DeltaTable(table).merge(rows(9), "s.id = t.id", source_alias="s", target_alias="t")
    merger.when_not_matched_insert_all().execute()
    flush()
    assert seen == []
    assert state_of("create_merge_builder").reason == "needs merge_execute, not on"
    assert len(lines()) == 2


def test_a_call_with_more_arguments_is_passed_on(table, monkeypatch):
    """A later release passes one more argument to a function that we replace: it arrives."""
    owner = importlib.import_module(OPEN_SEAM.module)
    original, seen = vars(owner)[OPEN_SEAM.name], []

    def opened(table_or_uri, storage_options, hint=None):
        seen.append(hint)
        return original(table_or_uri, storage_options)

    monkeypatch.setattr(owner, OPEN_SEAM.name, opened)
    DeltaLakeInstrumentor().instrument(settings=deltawitness.Settings(reuse_handles=True))
    getattr(owner, OPEN_SEAM.name)(table, None, hint="h")
    assert seen == ["h"]


def test_a_class_that_cannot_be_changed_leaves_its_seams_off(table, monkeypatch, lines):
    """A later release forbids replacing methods: they are off, and functions are still observed."""

    class Fixed(type):
        def __setattr__(cls, name, value):
            raise TypeError(name)

    class Table(metaclass=Fixed):
        update, delete = RawDeltaTable.update, RawDeltaTable.delete

    monkeypatch.setattr("deltalake._internal.RawDeltaTable", Table)
    seen = []
    DeltaLakeInstrumentor().instrument(sinks=[seen.append])
    write_deltalake(f"{table}/new", rows(4))
    flush()
    assert len(seen) == 1
    assert state_of("update").reason == "cannot be replaced (TypeError)"


# --- versions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "release", "is_newer"),
    [
        ("1.6.6", "1.6.6", True),
        ("1.10.0", "1.6.6", True),
        ("1.5.1", "1.6.0", False),
        ("1.7.0rc1", "1.7.0", True),
    ],
)
def test_releases_are_compared_by_their_numbers(version, release, is_newer):
    """A pre-release counts as its release."""
    assert (parse_release(version) >= parse_release(release)) is is_newer


def test_the_instrumentor_accepts_each_release_of_the_major_version():
    """OpenTelemetry's check of dependencies refuses no supported release."""
    assert DeltaLakeInstrumentor().instrumentation_dependencies() == ("deltalake >= 1.0, < 2",)
