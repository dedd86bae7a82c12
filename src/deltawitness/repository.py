"""The project that a file belongs to, and the Git commit that is checked out there."""

from __future__ import annotations

import os
import re
import sys

__all__ = ["git_commit", "main_directory", "project_root"]

_REPOSITORY = ".git"
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
_MAX_LEVELS = 40
"""Maximum number of directories above a file that are searched."""

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_READ_LIMIT = 1 << 20
"""Maximum number of bytes that are read of a file of Git."""


def main_directory() -> str:
    """Return the absolute directory of the main script; the working directory where there is no script.

    Before the interpreter runs the script, as in `sitecustomize`, only the command line names it.
    """
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is None and sys.argv and not sys.argv[0].startswith("-"):
        file = sys.argv[0] or None
    if isinstance(file, str) and os.path.exists(file):  # noqa: PTH110 - text, not a file
        return os.path.dirname(os.path.abspath(file))  # noqa: PTH100, PTH120 - as above
    return os.getcwd()  # noqa: PTH109 - as above


def project_root(directory: str) -> str | None:
    """Return the nearest directory that is a Git repository, else the nearest one with project files.

    The search begins at `directory` and ends below the home directory, which may be a
    repository itself.

    Args:
        directory: an absolute path.
    """
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    nearest = None
    for _ in range(_MAX_LEVELS):
        if directory in {home, os.path.dirname(directory)}:  # noqa: PTH120 - text, not a file
            break
        if os.path.exists(os.path.join(directory, _REPOSITORY)):  # noqa: PTH110, PTH118 - as above
            return directory
        if nearest is None and any(
            os.path.exists(os.path.join(directory, name))  # noqa: PTH110, PTH118 - as above
            for name in _PROJECT_FILES
        ):
            nearest = directory
        directory = os.path.dirname(directory)  # noqa: PTH120 - as above
    return nearest


def git_commit(directory: str) -> str | None:
    """Return the commit that is checked out in the repository of a directory; None if there is none.

    Reads at most four small files of the repository and starts no process. Changes that are not
    committed are not considered.

    Args:
        directory: an absolute path.
    """
    root = project_root(directory)
    if root is None:
        return None
    try:
        git, common = _git_directories(os.path.join(root, _REPOSITORY))  # noqa: PTH118 - as above
        head = _read(git, "HEAD")
        if not head.startswith("ref: "):
            return _commit_or_none(head)
        ref = head.removeprefix("ref: ")
        return _commit_of_ref(git, common, ref)
    except (OSError, ValueError):
        return None


def _git_directories(path: str) -> tuple[str, str]:
    """Return the directory of a working tree, and the directory that all working trees share."""
    if os.path.isdir(path):  # noqa: PTH112 - as above
        return path, path
    root, name = os.path.split(path)
    link = _read(root, name).removeprefix("gitdir: ")
    git = os.path.normpath(os.path.join(root, link))  # noqa: PTH118 - as above
    try:
        common = os.path.normpath(os.path.join(git, _read(git, "commondir")))  # noqa: PTH118 - as above
    except OSError:
        common = git
    return git, common


def _commit_of_ref(git: str, common: str, ref: str) -> str | None:
    if not ref.startswith("refs/") or ".." in ref:
        return None
    for directory in (git, common):
        try:
            return _commit_or_none(_read(directory, ref))
        except OSError:
            continue
    for line in _read(common, "packed-refs").splitlines():
        commit, _, name = line.partition(" ")
        if name == ref:
            return _commit_or_none(commit)
    return None


def _commit_or_none(text: str) -> str | None:
    return text if _COMMIT.fullmatch(text) else None


def _read(directory: str, name: str) -> str:
    path = os.path.join(directory, name)  # noqa: PTH118 - as above
    if not os.path.isfile(path):  # noqa: PTH113 - as above
        msg = f"{name} is not a file"  # opening a FIFO would block the program's write
        raise OSError(msg)
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as above
        return file.read(_READ_LIMIT).strip()
