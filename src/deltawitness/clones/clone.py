"""Make a shallow clone of a local table: its log is copied, its data files are linked.

The engines read only data files below the location of their table, so a clone cannot name files of another
table by absolute paths. A hard link costs no space, and deleting it leaves the file of the table. Where
hard links are not possible, such as between two disks, a data file is a symbolic link, else a copy.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from deltawitness.commit.log import LOG_DIRECTORY

__all__ = ["clone_table", "last_commit", "link_files"]

_VERSION = re.compile(r"(\d{20})\.(json|checkpoint\..*)")
_HINT = "_last_checkpoint"


def clone_table(source: Path, target: Path) -> None:
    """Clone a table at its newest version; the target stays absent if there is no folder at the source.

    Args:
        source: folder of the table.
        target: folder of the clone, which does not exist.

    Raises:
        OSError: a file cannot be read, linked or copied.
    """
    if not source.is_dir():
        return
    target.mkdir(parents=True)
    log = source / LOG_DIRECTORY
    if not log.is_dir():
        return
    # The log first: the data files of its commits exist by then. The hint before the list of files: the
    # checkpoint that it names exists by then.
    copied = target / LOG_DIRECTORY
    copied.mkdir()
    if (log / _HINT).exists():
        _copy(log / _HINT, copied / _HINT)
    for file in list(_files(log)):
        if file.name != _HINT:
            _copy(file, copied / file.relative_to(log))
    link_files(source, target)


def link_files(source: Path, target: Path) -> None:
    """Link the data files of a folder into another one; existing files there stay.

    The log and tables in subfolders are left out.

    Raises:
        OSError: a file cannot be read, linked or copied.
    """
    _link_below(str(source), str(target))


def _link_below(source: str, target: str) -> None:
    """Link the files of one folder, then those of its subfolders; on text, because tables have many files."""
    has_target = False
    with os.scandir(source) as entries:
        for entry in entries:
            place = f"{target}{os.sep}{entry.name}"
            if entry.is_dir():
                if entry.name != LOG_DIRECTORY and not _is_table(entry.path):
                    _link_below(entry.path, place)
                continue
            if not has_target:
                os.makedirs(target, exist_ok=True)  # noqa: PTH103 - as above
                has_target = True
            _link(os.path.realpath(entry.path) if entry.is_symlink() else entry.path, place)


def _is_table(folder: str) -> bool:
    return os.path.isdir(f"{folder}{os.sep}{LOG_DIRECTORY}")  # noqa: PTH112 - as above


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copy2(source, target)  # the time of a commit may be that of its file
    except FileNotFoundError:
        return  # a clean-up of the log has deleted it


def _link(source: str, target: str) -> None:
    for make in (os.link, os.symlink, shutil.copy2):
        try:
            make(source, target)
        except (FileNotFoundError, FileExistsError):
            return  # a vacuum has deleted it, or it is linked already
        except OSError:
            continue
        return
    msg = f"{source} can be neither linked nor copied"
    raise OSError(msg)


def last_commit(table: Path) -> tuple[int | None, str | None]:
    """Return the last version in a table's log and the hash of its commit; None for what is not there.

    A table that was deleted and created again has another commit at the same version.
    """
    try:
        names = os.listdir(table / LOG_DIRECTORY)  # noqa: PTH208 - names are all that is needed
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    versions = [int(match[1]) for name in names if (match := _VERSION.fullmatch(name))]
    if not versions:
        return None, None
    try:
        content = (table / LOG_DIRECTORY / f"{max(versions):020d}.json").read_bytes()
    except FileNotFoundError:
        return max(versions), None
    return max(versions), sha256(content).hexdigest()
