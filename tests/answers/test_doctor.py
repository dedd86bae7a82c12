"""`doctor` finds what is wrong with tables, says how bad it is, and names a command that mends it."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    HealthCheck,
    Settings,
    Severity,
    doctor,
    run,
    table_id,
)
from deltawitness.commit.engine_version import has_release
from deltawitness.exceptions import LedgerLookupError
from helpers.histories import build_history

needs_doubling = pytest.mark.skipif(
    not has_release("1.6.4"), reason="this release rejects the second compaction"
)


@pytest.fixture
def lake(tmp_path):
    """An empty lake with a ledger."""
    return Lake(tmp_path)


class Lake:
    """Tables with one column of numbers."""

    def __init__(self, folder):
        self.folder, self.root = folder / "lake", str(folder / "ledger")

    def uri(self, name):
        return str(self.folder / name)

    def append(self, name, *numbers, **more):
        write_deltalake(self.uri(name), pa.table({"x": list(numbers)}), mode="append", **more)

    def observed(self):
        return Observed(self.root)

    def check(self, *names, **more):
        return doctor(*(names or [str(self.folder)]), root=self.root, **more)

    def found(self, name, check, **more):
        """Return the findings of a check of one table."""
        (table,) = self.check(self.uri(name), **more).tables
        return [each for each in table.findings if each.check == check]

    def mend(self, finding):
        """Run the Python program of a command, and return the command's words."""
        words = shlex.split(finding.command)
        if words[:2] == ["rm", "-f"]:
            end = words.index("&&") if "&&" in words else len(words)
            for path in words[2:end]:
                os.remove(path)
            words = words[end + 1 :]
        if "python" in words:
            exec(words[-1], {})  # noqa: S102 - the command that is tested
        return words


class Observed:
    """Observes the writes of a block."""

    def __init__(self, root):
        self.root = root

    def __enter__(self):
        DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=self.root))

    def __exit__(self, *_):
        DeltaLakeInstrumentor().uninstrument()


def test_an_observed_table_has_no_findings(lake):
    """A table whose writes are observed and in the ledger is healthy, and its sizes are those of its files."""
    with lake.observed(), run("load"):
        lake.append("t", 1, 2)
    health = lake.check("t")
    (table,) = health.tables
    assert health.findings == ()
    assert health.is_healthy
    assert health.severity is None
    assert (table.version, table.files, table.rows, table.commits) == (0, 1, 2, 1)
    (file,) = Path(lake.uri("t")).glob("*.parquet")
    assert table.bytes == file.stat().st_size
    assert [(each.below, each.files) for each in table.sizes if each.files] == [(65536, 1)]


@pytest.mark.slow
def test_tables_are_named_by_folders_globs_ids_and_names(lake):
    """A table of a folder, a glob, a name and an id is checked once; all tables of the ledger without a name."""
    with lake.observed():
        lake.append("t", 1)
        lake.append("u", 1)
    beginning = table_id(lake.uri("u"))[:12]
    names = [str(lake.folder), lake.uri("*"), "t", beginning, lake.uri("u")]
    assert [table.name for table in lake.check(*names).tables] == ["t", "u"]
    assert [table.name for table in doctor(root=lake.root).tables] == ["t", "u"]


@pytest.mark.parametrize("name", ["none", "", "none/*", "."])
def test_a_name_without_a_table_is_an_error(lake, name, tmp_path, monkeypatch):
    """A text that names no table raises an error."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LedgerLookupError):
        doctor(name, root=lake.root)


def test_a_location_without_a_log_cannot_be_read(lake):
    """A table without a log is a finding, so that the others are checked."""
    lake.append("t", 1)
    os.makedirs(lake.uri("u/_delta_log"))
    assert ("u", "unreadable") in [(each.table, each.check) for each in lake.check().findings]


# --- rows in the table twice -------------------------------------------------------------------------


def double(lake, name="t", after=()):
    """Compact a table twice from the same version."""
    for number in range(3):
        lake.append(name, number)
    handles = [DeltaTable(lake.uri(name)), DeltaTable(lake.uri(name))]
    for handle in handles:
        handle.optimize.compact()
    for number in after:
        lake.append(name, number)


@needs_doubling
def test_doubled_rows_are_an_error_with_the_version_to_restore(lake):
    """The command restores the version before the second compaction; afterwards the finding is information."""
    double(lake, after=[7])
    (finding,) = lake.found("t", HealthCheck.DOUBLED_ROWS)
    assert finding.severity is Severity.ERROR
    assert dict(finding.evidence) == {
        "first": 3,
        "second": 4,
        "files": 3,
        "restore_version": 3,
        "later_changes": [5],
    }
    assert "the changes of version 5 would be lost" in finding.text
    lake.mend(finding)
    assert sorted(DeltaTable(lake.uri("t")).to_pyarrow_table()["x"].to_pylist()) == [0, 1, 2]
    (finding,) = lake.found("t", HealthCheck.DOUBLED_ROWS)
    assert (finding.severity, finding.command) == (Severity.INFO, None)


@needs_doubling
def test_doubled_rows_stay_doubled_after_a_compaction_and_not_after_an_overwrite(lake):
    """A later compaction merges both copies; an overwrite removes them; a DELETE may have removed one of them."""
    double(lake)
    DeltaTable(lake.uri("t")).optimize.compact()
    (finding,) = lake.found("t", HealthCheck.DOUBLED_ROWS)
    assert (finding.severity, finding.evidence["restore_version"]) == (Severity.ERROR, 3)
    DeltaTable(lake.uri("t")).delete("x = 1")
    (finding,) = lake.found("t", HealthCheck.DOUBLED_ROWS)
    assert finding.severity is Severity.WARNING
    assert "(version 6)" in finding.text
    write_deltalake(lake.uri("t"), pa.table({"x": [1]}), mode="overwrite")
    (finding,) = lake.found("t", HealthCheck.DOUBLED_ROWS)
    assert finding.severity is Severity.INFO


@needs_doubling
def test_doubled_rows_without_the_files_of_the_version_before_have_no_command(lake):
    """If a vacuum deleted the files of the version to restore, the text says so."""
    double(lake)
    DeltaTable(lake.uri("t")).vacuum(0, dry_run=False, enforce_retention_duration=False)
    DeltaTable(lake.uri("t")).optimize.compact()
    DeltaTable(lake.uri("t")).vacuum(0, dry_run=False, enforce_retention_duration=False)
    (finding,) = lake.found("t", HealthCheck.DOUBLED_ROWS)
    assert (finding.severity, finding.command) == (Severity.ERROR, None)
    assert "Version 3 cannot be restored: files of it were deleted" in finding.text


# --- the log -----------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_an_error(lake):
    """A checkpoint that is no Parquet file makes the table unreadable; the command deletes and replaces it."""
    for number in range(3):
        lake.append("t", number)
    DeltaTable(lake.uri("t")).create_checkpoint()
    (path,) = Path(lake.uri("t"), "_delta_log").glob("*.checkpoint.parquet")
    path.write_bytes(b"PAR1 damaged")
    (finding,) = lake.found("t", HealthCheck.DAMAGED_CHECKPOINT)
    assert (finding.severity, finding.evidence["version"]) == (Severity.ERROR, 2)
    lake.mend(finding)
    assert lake.found("t", HealthCheck.DAMAGED_CHECKPOINT) == []
    assert lake.found("t", HealthCheck.UNREADABLE) == []


def test_a_checkpoint_that_lacks_a_part_is_found(lake):
    """A checkpoint of two parts with only one of them is damaged."""
    lake.append("t", 1)
    log = Path(lake.uri("t"), "_delta_log")
    (log / f"{0:020d}.checkpoint.{1:010d}.{2:010d}.parquet").write_bytes(b"x")
    (finding,) = lake.found("t", HealthCheck.DAMAGED_CHECKPOINT)
    assert finding.severity is Severity.WARNING
    lake.mend(finding)
    assert lake.found("t", HealthCheck.DAMAGED_CHECKPOINT) == []


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "is missing"), ("{", "cannot be read"), ('{"version": 0}', "names version 0, which")],
)
def test_a_wrong_last_checkpoint_is_a_warning(lake, content, text):
    """A `_last_checkpoint` that is missing, damaged, or of another version, is found and mended."""
    lake.append("t", 1)
    lake.append("t", 2)
    DeltaTable(lake.uri("t")).create_checkpoint()
    path = Path(lake.uri("t"), "_delta_log", "_last_checkpoint")
    path.unlink() if content is None else path.write_text(content)
    (finding,) = lake.found("t", HealthCheck.LAST_CHECKPOINT)
    assert finding.severity is Severity.WARNING
    assert text in finding.text
    assert finding.command is None  # there is a checkpoint of the newest version already
    lake.append("t", 3)
    (finding,) = lake.found("t", HealthCheck.LAST_CHECKPOINT)
    lake.mend(finding)
    assert lake.found("t", HealthCheck.LAST_CHECKPOINT) == []


def test_a_gap_in_the_log_is_an_error(lake):
    """A missing commit is named; commits before a checkpoint are not needed."""
    for number in range(4):
        lake.append("t", number)
    log = Path(lake.uri("t"), "_delta_log")
    (log / f"{1:020d}.json").rename(log / "aside")
    (finding,) = lake.found("t", HealthCheck.LOG_GAP)
    assert (finding.severity, finding.evidence["missing"]) == (Severity.ERROR, [1])
    (log / "aside").rename(log / f"{1:020d}.json")
    DeltaTable(lake.uri("t")).create_checkpoint()
    (log / f"{1:020d}.json").unlink()
    assert lake.found("t", HealthCheck.LOG_GAP) == []


@pytest.mark.slow
def test_many_commits_after_a_checkpoint_are_a_warning(lake):
    """From 100 commits on that each reader has to read, the command creates a checkpoint."""
    for number in range(102):
        lake.append("t", number, configuration={"delta.checkpointInterval": "1000"})
    (finding,) = lake.found("t", HealthCheck.LOG_TAIL)
    assert finding.evidence["commits"] == 102
    (files,) = lake.found("t", HealthCheck.SMALL_FILES)
    assert (files.severity, files.evidence["files_after"]) == (Severity.WARNING, 1)
    for each in (finding, files):
        lake.mend(each)
    assert lake.found("t", HealthCheck.LOG_TAIL) + lake.found("t", HealthCheck.SMALL_FILES) == []


def test_content_on_which_other_readers_fail_is_found(lake):
    """A duplicate key fails every strict reader, a `tags` that is no object Spark's."""
    lake.append("t", 1)
    lake.append("t", 2, commit_properties=CommitProperties(custom_metadata={"tags": "nightly"}))
    lake.append("t", 3)
    path = Path(lake.uri("t"), "_delta_log", f"{2:020d}.json")
    path.write_text(path.read_text().replace('"operation":', '"operation":"X","operation":', 1))
    broken, mistyped = lake.found("t", HealthCheck.FOREIGN_READERS)
    assert (broken.severity, broken.evidence["versions"]) == (Severity.ERROR, [2])
    assert (mistyped.severity, mistyped.evidence["versions"]) == (Severity.WARNING, [1])


# --- files -------------------------------------------------------------------------------------------


def test_missing_files_are_an_error(lake):
    """A file of the newest version that is not on the storage is named; without a listing it is not known."""
    lake.append("t", 1)
    lake.append("t", 2)
    (first, _) = sorted(Path(lake.uri("t")).glob("*.parquet"))
    first.unlink()
    (finding,) = lake.found("t", HealthCheck.MISSING_FILES)
    assert (finding.severity, finding.evidence["files"]) == (Severity.ERROR, [first.name])
    assert lake.found("t", HealthCheck.MISSING_FILES, files=False) == []


def test_files_with_another_size_are_an_error(lake):
    """A file that was cut off is named; its content is not read."""
    lake.append("t", 1)
    (file,) = Path(lake.uri("t")).glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    (finding,) = lake.found("t", HealthCheck.DAMAGED_FILES)
    assert (finding.severity, finding.evidence["files"]) == (Severity.ERROR, [file.name])


def test_a_damaged_commit_is_no_commit_without_observation(lake):
    """An empty commit, and one with a line that is not JSON, are an error of readers."""
    with lake.observed():
        for number in range(3):
            lake.append("t", number)
    log = Path(lake.uri("t"), "_delta_log")
    (log / f"{1:020d}.json").write_bytes(b"")
    (log / f"{2:020d}.json").write_bytes(b"[]\n{")
    (finding,) = lake.found("t", HealthCheck.FOREIGN_READERS)
    assert finding.evidence["versions"] == [1, 2]
    assert lake.found("t", HealthCheck.UNANNOTATED) == []


def test_partition_values_with_special_characters_are_not_missing(lake):
    """Paths in the log are percent-encoded, those on the storage are not."""
    values = ["a b", "a%b", "ü/x", "=", "#"]
    data = pa.table({"p": values, "x": list(range(len(values)))})
    write_deltalake(lake.uri("t"), data, partition_by=["p"])
    (table,) = lake.check().tables
    assert (table.files, table.partitions, table.orphan_files, table.held_files) == (5, 5, 0, 0)
    assert [each.check for each in table.findings] == [HealthCheck.UNANNOTATED]


def test_files_of_old_versions_and_orphans_are_counted(lake):
    """A replaced file is held by old versions, an old file that no commit names is an orphan, a young one is not."""
    lake.append("t", 1)
    write_deltalake(lake.uri("t"), pa.table({"x": [2]}), mode="overwrite")
    (file, _) = sorted(Path(lake.uri("t")).glob("*.parquet"))
    for name in ("orphan", "young"):
        (Path(lake.uri("t")) / f"{name}.parquet").write_bytes(b"12345")
    os.utime(Path(lake.uri("t")) / "orphan.parquet", (1e9, 1e9))
    (table,) = lake.check().tables
    assert (table.held_files, table.held_bytes) == (1, file.stat().st_size)
    assert (table.orphan_files, table.orphan_bytes) == (1, 5)
    (held,) = lake.found("t", HealthCheck.OLD_VERSIONS)
    assert (held.severity, held.evidence["due_files"], held.command) == (Severity.INFO, 0, None)
    DeltaTable(lake.uri("t")).alter.set_table_properties(
        {"delta.deletedFileRetentionDuration": "interval 0 seconds"}
    )
    (held,) = lake.found("t", HealthCheck.OLD_VERSIONS)
    assert held.evidence["due_files"] == 1
    lake.mend(held)
    assert lake.found("t", HealthCheck.OLD_VERSIONS) == []


def test_a_large_partition_is_named(lake):
    """A partition with many times the median is named with its size."""
    data = pa.table({"p": [*"abcd", *"e" * 30_000], "x": list(range(30_004))})
    write_deltalake(lake.uri("t"), data, partition_by=["p"])
    (finding,) = lake.found("t", HealthCheck.PARTITION_SKEW)
    assert (finding.severity, finding.evidence["partition"]) == (Severity.INFO, "p=e")


# --- the ledger --------------------------------------------------------------------------------------


def test_commits_without_observation_are_found(lake):
    """A commit that nothing observed between observed ones is a warning with its engine."""
    with lake.observed():
        lake.append("t", 1)
    lake.append("t", 2)
    (finding,) = lake.found("t", HealthCheck.UNANNOTATED)
    assert (finding.severity, finding.evidence["versions"]) == (Severity.WARNING, [1])
    assert lake.mend(finding)[:2] == ["deltawitness", "reconcile"]


@pytest.mark.slow
def test_gaps_of_the_ledger_are_found(lake, tmp_path):
    """Observed commits without a row are a gap once their writer has had time; so are rows without a commit."""
    with lake.observed():
        lake.append("t", 1)
    other = Lake(tmp_path / "other")
    other.folder = lake.folder
    with other.observed():
        lake.append("t", 2)
    assert lake.found("t", HealthCheck.LEDGER_GAP) == []  # it is younger than the grace time
    path = Path(lake.uri("t"), "_delta_log", f"{1:020d}.json")
    path.write_text(re.sub(r'"timestamp":\d+', '"timestamp":1700000000000', path.read_text()))
    (finding,) = lake.found("t", HealthCheck.LEDGER_GAP)
    assert (finding.severity, finding.evidence["versions"]) == (Severity.WARNING, [1])
    path.unlink()
    (finding,) = doctor(lake.uri("t"), root=other.root).tables[0].findings[:1]
    assert (finding.check, finding.evidence["phantom"]) == (HealthCheck.LEDGER_GAP, [1])


@pytest.mark.slow
def test_conflicts_name_both_jobs(lake):
    """A write that lost against another is listed with the job of the winner."""
    with lake.observed():
        lake.append("t", 1, 2)
        handles = DeltaTable(lake.uri("t")), DeltaTable(lake.uri("t"))
        with run("left"):
            handles[0].update({"x": "x + 1"})
        with run("right"), pytest.raises(Exception, match="concurrent"):
            handles[1].update({"x": "x + 1"})
    (finding,) = lake.found("t", HealthCheck.CONFLICTS)
    assert finding.evidence["pairs"] == [
        {"loser": "UPDATE of right", "winner": "UPDATE of left", "count": 1}
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_random_histories_have_no_false_findings(tmp_path, seed):
    """Tables of random histories have no error; files of the newest versions and held ones are all that is stored."""
    history = build_history(tmp_path, seed)
    health = doctor(str(history.lake), root=history.root)
    assert sorted(table.name for table in health.tables) == sorted(history.tables)
    expected = {HealthCheck.UNANNOTATED, HealthCheck.CONFLICTS, HealthCheck.OLD_VERSIONS}
    # A failed checkpoint of a history leaves a folder with its name, which is no checkpoint.
    assert {each.check for each in health.findings} <= expected | {HealthCheck.SMALL_FILES}
    for table in health.tables:
        commits = history.of(table.name)
        assert table.commits == len(commits)
        assert table.rows == len(commits[-1].rows)
        unobserved = [each.version for each in commits if not each.is_observed]
        found = [each for each in table.findings if each.check is HealthCheck.UNANNOTATED]
        assert [each.evidence["versions"] for each in found] == ([unobserved] if unobserved else [])


@pytest.mark.slow
@pytest.mark.remote
def test_tables_on_an_object_store_are_checked(server, tmp_path):
    """Below a prefix of an object store, missing files, files of old versions and small logs are found."""
    for name in ("t", "u"):
        for _ in range(2):
            write_deltalake(
                f"s3://lake/deep/{name}",
                pa.table({"x": [1]}),
                mode="overwrite",
                storage_options=server.options,
            )
    DeltaTable("s3://lake/deep/u", storage_options=server.options).create_checkpoint()
    health = doctor("s3://lake/deep/", root=str(tmp_path), storage_options=server.options)
    assert [
        (each.name, each.version, each.held_files, each.commits_since_checkpoint)
        for each in health.tables
    ] == [
        ("t", 1, 1, 2),
        ("u", 1, 1, 0),
    ]
    assert {each.check for each in health.findings} == {
        HealthCheck.UNANNOTATED,
        HealthCheck.OLD_VERSIONS,
    }
    assert json.dumps([dict(each.evidence) for each in health.findings])
