"""Write one part of a distributed write on a worker: data files below the table, without a commit there.

delta-rs writes the part to a separate small Delta table in a folder of the target, so it casts the rows,
checks constraints, computes generated columns, statistics and partition values as for the target. The
folder's log is removed; its files belong to no table until the driver adds them to the target.

The folder's name begins with a letter, because VACUUM never removes files of folders that begin with `.`
or `_`.
"""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.commit.log import LOG_DIRECTORY, commit_file, open_log
from deltawitness.commit.outcome import RawCommit, metrics_of
from deltawitness.commit.private_api import writable_store
from deltawitness.distributed.parts import open_part
from deltawitness.locations import local_path
from deltawitness.run import suppressed
from deltawitness.semconv import Operation

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PREFIX", "StagedPart", "StagingTask", "stage"]

PREFIX = "staging-"
"""Start of the names of the folders with the files of parts."""


@dataclass(frozen=True, slots=True)
class StagingTask:
    """What a worker needs to know to write a part; it pickles.

    Attributes:
        table_uri: URI of the target.
        storage_options: storage options of the target.
        write_id: id of the distributed write, in the names of its folders.
        first_commit: the first commit of the folder's table, which makes it like the target; None for a
            new table, which gets the schema of the part.
        partition_by: partition columns of a new table.
        configuration: properties of a new table.
        schema_mode: `merge` if a part may lack columns or have further ones.
        target_file_size: as for `write_deltalake`.
        writer_properties: as for `write_deltalake`.
    """

    table_uri: str
    storage_options: Mapping[str, str] | None
    write_id: str
    first_commit: str | None
    partition_by: tuple[str, ...] = ()
    configuration: Mapping[str, str | None] | None = None
    schema_mode: str | None = None
    target_file_size: int | None = None
    writer_properties: Any = None


@dataclass(frozen=True, slots=True)
class StagedPart:
    """The files of a part, or the error of delta-rs.

    Attributes:
        number: number of the part, from 0.
        adds: the add actions, with paths relative to the target.
        schema: the schema of the files as Delta JSON; None if it is that of the task's first commit.
        rows: number of rows; None if it is not known.
        error: class name and text of an exception of delta-rs, whose exceptions do not pickle.
    """

    number: int
    adds: tuple[Mapping[str, Any], ...] = ()
    schema: str | None = None
    rows: int | None = None
    error: tuple[str, str] | None = None


def stage(task: StagingTask, number: int, part: Any) -> StagedPart:
    """Write a part to a new folder below the target. The writes are not observed.

    Each call uses another folder, so a part that an engine executes twice is in two folders, of which the
    driver uses one.

    Args:
        task: the distributed write.
        number: number of the part.
        part: the part, see :func:`deltawitness.distributed.parts.open_part`.

    Returns:
        The files, or the error of delta-rs. Any other error is raised.
    """
    folder = f"{PREFIX}{task.write_id}-{number:05d}-{uuid.uuid4().hex[:8]}"
    rows = open_part(part)  # code of the program, whose writes are observed
    with suppressed():
        try:
            content = _write(task, folder, rows)
        except Exception as error:
            if not _is_of_delta_rs(error):
                raise
            return StagedPart(number, error=(type(error).__name__, str(error)))
        finally:
            with suppress(Exception):  # VACUUM removes the log later
                _remove_log(task, folder)
    return _staged(number, folder, content)


def _is_of_delta_rs(error: Exception) -> bool:
    import deltalake.exceptions  # noqa: PLC0415 - heavy, loaded by the write

    return getattr(deltalake.exceptions, type(error).__name__, None) is type(error)


def _write(task: StagingTask, folder: str, rows: Any) -> bytes:
    """Write the rows to a table in a folder of the target, and return the commit with its add actions."""
    from deltalake import PostCommitHookProperties, write_deltalake  # noqa: PLC0415 - heavy

    uri = f"{task.table_uri.rstrip('/')}/{folder}"
    options = None if task.storage_options is None else dict(task.storage_options)
    arguments: dict[str, Any] = {
        "storage_options": options,
        "target_file_size": task.target_file_size,
        "writer_properties": task.writer_properties,
        "post_commithook_properties": PostCommitHookProperties(
            create_checkpoint=False, cleanup_expired_logs=False
        ),
    }
    if task.first_commit is None:
        write_deltalake(
            uri,
            rows,
            mode="error",
            partition_by=list(task.partition_by) or None,
            configuration=task.configuration,
            **arguments,
        )
        version = 0
    else:
        _write_first_commit(task, folder)
        if task.schema_mode == "merge":
            arguments["schema_mode"] = "merge"
        write_deltalake(uri, rows, mode="append", **arguments)
        version = 1
    content = open_log(uri, options).read(version)
    if content is None:
        msg = f"the commit of part folder {folder} is not in its log"
        raise OSError(msg)
    return content


def _write_first_commit(task: StagingTask, folder: str) -> None:
    assert task.first_commit is not None
    path = local_path(task.table_uri)
    if path is not None:
        log = Path(path, folder, LOG_DIRECTORY)
        log.mkdir(parents=True)
        (log / commit_file(0)).write_bytes(task.first_commit.encode())
        return
    stream = _files_of(task).open_output_stream(f"{folder}/{LOG_DIRECTORY}/{commit_file(0)}")
    stream.write(task.first_commit.encode())
    stream.close()


def _remove_log(task: StagingTask, folder: str) -> None:
    path = local_path(task.table_uri)
    if path is None:
        _files_of(task).delete_dir(f"{folder}/{LOG_DIRECTORY}")
    else:
        shutil.rmtree(Path(path, folder, LOG_DIRECTORY), ignore_errors=True)


def _files_of(task: StagingTask) -> Any:
    """Return the engine's file client of the target's storage."""
    options = None if task.storage_options is None else dict(task.storage_options)
    return writable_store(task.table_uri, options)


def _staged(number: int, folder: str, content: bytes) -> StagedPart:
    """Return the files in a commit, with paths relative to the target."""
    adds, schema = [], None
    for line in content.splitlines():
        action = json.loads(line)
        if "add" in action:
            add = action["add"]
            adds.append({**add, "path": f"{folder}/{add['path']}"})
        elif "metaData" in action:
            schema = action["metaData"]["schemaString"]
    rows = metrics_of(Operation.WRITE, [RawCommit(0, content)]).rows_added
    return StagedPart(number, tuple(adds), schema, rows)
