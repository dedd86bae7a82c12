"""Check the log of a table: its commits, its checkpoints, and what other readers fail on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from deltawitness.answers.health.checks import Checkup, versions_text
from deltawitness.answers.health.table_state import TableState, error_text
from deltawitness.answers.health.values import HealthCheck, HealthFinding, Severity
from deltawitness.commit.log import LOG_DIRECTORY
from deltawitness.commit.reader import CommitMetadata

__all__ = ["check_checkpoints", "check_log", "check_readers"]

LONG_TAIL = 100
"""Commits after the last checkpoint from which on reads are slow: each reader reads all of them."""

LONG_LOG = 10_000
"""Commits of a log from which on its listing is slow."""

_LAST = "_last_checkpoint"
_INTERVAL = "delta.checkpointInterval"


def check_log(checkup: Checkup) -> Iterator[HealthFinding]:
    """Yield findings about the length of the log and missing commits."""
    state = checkup.state
    versions, checkpoints = state.versions, state.complete_checkpoints
    gaps = _gaps(versions, checkpoints)
    if gaps:
        yield checkup.finding(
            HealthCheck.LOG_GAP,
            Severity.ERROR,
            f"the log lacks {versions_text(gaps)}, and no checkpoint replaces them: restore these"
            f" files of {LOG_DIRECTORY} from a copy",
            missing=gaps,
        )
    last = checkpoints[-1] if checkpoints else -1
    tail = [version for version in versions if version > last]
    if len(tail) > LONG_TAIL:
        since = "without a checkpoint" if last < 0 else f"after the checkpoint of version {last}"
        yield checkup.finding(
            HealthCheck.LOG_TAIL,
            Severity.WARNING,
            f"{len(tail):,} commits {since}: each reader reads all of them."
            f" `{_INTERVAL}` is {_interval(state)}",
            command=checkup.repairs.write("create_checkpoint()"),
            commits=len(tail),
            checkpoint=last if checkpoints else None,
        )
    if len(versions) > LONG_LOG:
        size = sum(file.size for file in state.log_files.values())
        yield checkup.finding(
            HealthCheck.LOG_LENGTH,
            Severity.WARNING,
            f"the log has {len(versions):,} commits from version {versions[0]} on;"
            " `delta.logRetentionDuration` says how long they stay",
            command=checkup.repairs.write("cleanup_metadata()"),
            commits=len(versions),
            first=versions[0],
            bytes=size,
        )


def _gaps(versions: list[int], checkpoints: list[int]) -> list[int]:
    """Return the versions that a reader of the newest version needs, and that are missing."""
    if not versions:
        return []
    last = checkpoints[-1] if checkpoints else -1
    # The commit of the checkpoint's version itself is not needed.
    needed = [version for version in versions if version > last]
    if not needed:
        return []
    missing = list(range(last + 1, needed[0]))
    for before, after in pairwise(needed):
        missing += range(before + 1, after)
    return missing


def _interval(state: TableState) -> str:
    properties = state.snapshot.properties if state.snapshot else {}
    return properties.get(_INTERVAL) or "not set (100)"


# --- checkpoints -------------------------------------------------------------------------------------


def check_checkpoints(checkup: Checkup) -> Iterator[HealthFinding]:
    """Yield findings about checkpoints that are damaged, and about `_last_checkpoint`."""
    state = checkup.state
    complete = state.complete_checkpoints
    for version in sorted(set(state.checkpoints) - set(complete)):
        names = state.checkpoints[version]
        yield _damaged(checkup, version, f"it has only the parts {', '.join(names)}", is_last=False)
    # Readers use the last one only.
    if complete and (reason := _damage(state, complete[-1])) is not None:
        yield _damaged(checkup, complete[-1], reason, is_last=True)
    named, problem = _last_checkpoint(state)
    if problem is None and named is not None and named not in complete:
        problem = f"names version {named}, which has no complete checkpoint"
    if problem is None and named is not None and complete and named < complete[-1]:
        problem = (
            f"names version {named}, and the last checkpoint is that of version {complete[-1]}"
        )
    if problem is None and named is None and complete:
        problem = "is missing: readers list the log to find a checkpoint"
    if problem is not None:
        # delta-rs writes no second checkpoint of a version.
        can_write = bool(state.versions) and state.versions[-1] not in complete
        yield checkup.finding(
            HealthCheck.LAST_CHECKPOINT,
            Severity.WARNING,
            f"{_LAST} {problem}{'' if can_write else '. The next checkpoint replaces it'}",
            command=checkup.repairs.write("create_checkpoint()") if can_write else None,
            named=named,
            checkpoints=complete,
        )


def _damaged(checkup: Checkup, version: int, reason: str, *, is_last: bool) -> HealthFinding:
    state = checkup.state
    earlier = [each for each in state.complete_checkpoints if each < version]
    has_commits = bool(state.versions) and not _gaps(state.versions, earlier)
    names = ", ".join(state.checkpoints[version])
    text = f"the checkpoint of version {version} is damaged: {reason}"
    command = None
    if not is_last:
        text += ". Readers ignore it"
        command = checkup.repairs.delete(state.checkpoints[version])
    elif has_commits:
        text += f". The log has the commits that replace it: delete {names} and {_LAST}, then create one"
        files = [*state.checkpoints[version], _LAST]
        command = checkup.repairs.delete_and_write(files, "create_checkpoint()")
    else:
        text += ". The log lacks the commits that replace it: restore the file from a copy"
    return checkup.finding(
        HealthCheck.DAMAGED_CHECKPOINT,
        Severity.ERROR if is_last else Severity.WARNING,
        text,
        command=command,
        version=version,
        files=list(state.checkpoints[version]),
    )


def _damage(state: TableState, version: int) -> str | None:
    """Return what is wrong with a checkpoint: it must have one protocol and one metadata action."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

    assert state.storage is not None
    counts = {"protocol": 0, "metaData": 0}
    for name in state.checkpoints[version]:
        if not name.endswith(".parquet"):
            return None  # a checkpoint of version 2 in JSON, which delta-rs reads
        try:
            with state.storage.open_file(f"{LOG_DIRECTORY}/{name}") as file:
                found = pq.ParquetFile(file).read(columns=list(counts))
        except Exception as error:  # noqa: BLE001 - Parquet readers raise errors of many types
            return error_text(error)
        for column in counts:
            if column in found.column_names:
                values = found[column].combine_chunks()
                counts[column] += len(values) - values.null_count
    wrong = [f"{count} {name} actions" for name, count in counts.items() if count != 1]
    return f"it has {' and '.join(wrong)}" if wrong else None


def _last_checkpoint(state: TableState) -> tuple[int | None, str | None]:
    """Return the version that `_last_checkpoint` names, and what is wrong with the file."""
    if _LAST not in state.log_files or state.storage is None:
        return None, None
    try:
        with state.storage.open_file(f"{LOG_DIRECTORY}/{_LAST}") as file:
            found: Any = json.loads(bytes(file.read()))
        return int(found["version"]), None
    except Exception as error:  # noqa: BLE001 - the file may have any content
        return None, f"cannot be read: {error_text(error)}"


# --- other readers -----------------------------------------------------------------------------------

_TYPES: dict[str, type] = {"tags": dict, "job": dict, "notebook": dict, "txnId": str}
"""Keys of `commitInfo` that Spark parses, and the types that it expects."""


def check_readers(checkup: Checkup) -> Iterator[HealthFinding]:
    """Yield a finding if commits have content on which stricter readers fail."""
    broken: dict[int, list[str]] = {}
    mistyped: dict[int, list[str]] = {}
    for commit in checkup.state.commits:
        problems = [each for each in commit.metadata.problems if each != _NO_INFO]
        if not commit.bytes:
            problems.append("the commit is empty")
        if commit.damaged:
            problems.append("a line is not a JSON object")
        if problems:
            broken[commit.version] = problems
        keys = _mistyped(commit.metadata)
        if keys:
            mistyped[commit.version] = keys
    if broken:
        reasons = sorted({reason for found in broken.values() for reason in found})
        yield checkup.finding(
            HealthCheck.FOREIGN_READERS,
            Severity.ERROR,
            f"other readers fail on {versions_text(broken)}: {'; '.join(reasons)}."
            " A checkpoint lets them read the table without these commits; their history still fails"
            " until the log's retention deletes the commits",
            command=checkup.repairs.write("create_checkpoint()"),
            versions=list(broken),
            reasons=reasons,
        )
    if mistyped:
        keys = sorted({key for found in mistyped.values() for key in found})
        yield checkup.finding(
            HealthCheck.FOREIGN_READERS,
            Severity.WARNING,
            f"Spark fails on the history of {versions_text(mistyped)}: it expects other types of"
            f" {', '.join(keys)}. DELTAWITNESS_RESERVED_KEYS=refuse prevents such commits",
            versions=list(mistyped),
            keys=keys,
        )


_NO_INFO = "the commit has no commitInfo"
"""Not a problem of readers: the protocol allows it."""


def _mistyped(metadata: CommitMetadata) -> list[str]:
    given = {**metadata.origin, **metadata.metadata}
    return [
        key for key, kind in _TYPES.items() if key in given and not isinstance(given[key], kind)
    ]
