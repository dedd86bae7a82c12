"""Check in an applied program that each table is at its planned version when the program first opens it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from deltawitness.clones.clone import last_commit
from deltawitness.exceptions import PlanError
from deltawitness.locations import local_path, table_id

__all__ = ["PlannedVersions"]

_FILE, _OPENED = "tables.json", "opened"

Commit = tuple[int | None, str | None]
"""A version and the hash of its commit; None for what is not there."""


class PlannedVersions:
    """The versions of a plan, shared by all processes of the program.

    Args:
        path: the folder with the versions.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        planned = json.loads((self.path / _FILE).read_text(encoding="utf-8"))
        self._planned = {place: tuple(commit) for place, commit in planned.items()}
        self._checked: set[str] = set()

    @classmethod
    def write(cls, path: Path, planned: Mapping[str, Commit]) -> PlannedVersions:
        """Write versions, by path of the table, to a folder that is created."""
        (path / _OPENED).mkdir(parents=True)
        (path / _FILE).write_text(json.dumps(planned), encoding="utf-8")
        return cls(path)

    def place_of(self, location: str, *, with_files: bool = False) -> str:  # noqa: ARG002 - as that of clones
        """Return the location unchanged, after the check of its table.

        Raises:
            PlanError: no process of the program has opened the table yet, and it is at another version than
                in the plan.
        """
        path = local_path(location)
        if path is not None:
            real = os.path.realpath(path)
            if real not in self._checked:
                self._check(real)
                self._checked.add(real)
        return location

    def contains(self, path: str) -> bool:  # noqa: ARG002 - as that of clones
        """Return that any table may be written."""
        return True

    def unplanned(self) -> Iterable[str]:
        """Yield the paths of opened tables that the plan does not have, and that exist."""
        for each in sorted((self.path / _OPENED).iterdir()):
            path = each.read_text(encoding="utf-8")
            if path not in self._planned and last_commit(Path(path))[0] is not None:
                yield path

    def _check(self, path: str) -> None:
        opened = self.path / _OPENED / table_id(path)
        if opened.exists():
            return
        planned = self._planned.get(path)
        if planned is not None and last_commit(Path(path)) != planned and not opened.exists():
            version = "absent" if planned[0] is None else f"at {planned[0]}"
            msg = f"deltawitness apply: {path} has changed: it was {version} in the plan"
            raise PlanError(msg)
        opened.write_text(path, encoding="utf-8")
