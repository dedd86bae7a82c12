"""The scratch folder of a plan: which clone belongs to which location, shared by all processes of a program."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from deltawitness.clones.clone import clone_table, last_commit, link_files
from deltawitness.exceptions import PlanError
from deltawitness.locations import (
    canonical_uri,
    last_segment,
    local_path,
    strip_credentials,
    table_id,
)
from deltawitness.semconv import PLANNED_ROOT_DIRECTORY

__all__ = ["Clone", "CloneFolder"]

_TABLES, _DRAFTS, _REFUSED, _LOADED = "tables", "drafts", "refused", "loaded"
_RECORD = "clone.json"


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone of a table, or of a location without a table.

    Attributes:
        uri: canonical location of the table, with symbolic links resolved.
        path: its path.
        place: path of the clone.
        version: the last version when it was cloned; None if there was no table.
        digest: hash of the commit of this version; None if the log no longer has it.
    """

    uri: str
    path: str
    place: str
    version: int | None
    digest: str | None


class CloneFolder:
    """A folder of clones. Several processes may use it at the same time.

    Args:
        path: the folder, which is created if it does not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(os.path.realpath(path))
        self._known: dict[str, Clone] = {}

    def place_of(self, location: str, *, with_files: bool = False) -> str:
        """Return the location of the clone of a table, which is made if it does not exist yet.

        Args:
            location: path or file URI of the table; a location in this folder is returned unchanged.
            with_files: also link the files of a folder that is no table.

        Raises:
            PlanError: the location is on an object store, or the table cannot be cloned.
        """
        path = local_path(location)
        if path is None:
            self._refuse(location, "it is on an object store; only local tables can be planned")
        real = os.path.realpath(path)
        if self.contains(real):
            return location
        clone = self._known.get(real)
        try:
            if clone is None:
                clone = self._known[real] = self._find_or_make(real)
            if with_files and clone.version is None:
                link_files(Path(real), Path(clone.place))
        except OSError as error:
            self._refuse(location, f"it cannot be cloned: {error}")
        return clone.place

    def contains(self, path: str) -> bool:
        """Return whether a path with resolved links is in this folder."""
        return Path(path).is_relative_to(self.path)

    def clones(self) -> list[Clone]:
        """Return all clones, in the order of their creation."""
        records = (self.path / _TABLES).glob(f"*/{_RECORD}")
        return [
            Clone(**json.loads(each.read_text(encoding="utf-8")))
            for each in sorted(records, key=lambda each: each.stat().st_mtime_ns)
        ]

    def refused(self) -> list[str]:
        """Return why locations were refused, one sentence each."""
        files = sorted((self.path / _REFUSED).glob("*"))
        return [each.read_text(encoding="utf-8") for each in files]

    def mark_loaded(self) -> None:
        """Record that a process redirects its tables to this folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / _LOADED).touch()

    @property
    def is_loaded(self) -> bool:
        """Whether a process has redirected its tables to this folder."""
        return (self.path / _LOADED).exists()

    @property
    def root(self) -> Path:
        """The cache root of the planned program."""
        return self.path / PLANNED_ROOT_DIRECTORY

    def remove_tables(self) -> None:
        """Delete the clones, and the ledger and the cache of the program; the tables keep their files."""
        for name in (_TABLES, _DRAFTS, PLANNED_ROOT_DIRECTORY, _REFUSED):
            shutil.rmtree(self.path / name, ignore_errors=True)
        (self.path / _LOADED).unlink(missing_ok=True)

    def _refuse(self, location: str, reason: str) -> NoReturn:
        msg = f"{strip_credentials(location)}: {reason}"
        with suppress(OSError):
            (self.path / _REFUSED).mkdir(parents=True, exist_ok=True)
            name = table_id(location)
            (self.path / _REFUSED / name).write_text(msg, encoding="utf-8")
        error = f"deltawitness plan: {msg}"
        raise PlanError(error)

    def _find_or_make(self, path: str) -> Clone:
        uri = canonical_uri(path)
        final = self.path / _TABLES / table_id(uri)[:16]
        if not final.exists():
            self._make(uri, path, final)
        return Clone(**json.loads((final / _RECORD).read_text(encoding="utf-8")))

    def _make(self, uri: str, path: str, final: Path) -> None:
        """Clone a table; another process may do the same at the same time, and one of them wins."""
        # The engine decodes a path with a percent sign, as if it were a URI.
        name = (last_segment(uri) or "table").replace("%", "_")
        draft = self.path / _DRAFTS / uuid.uuid4().hex
        draft.mkdir(parents=True)
        try:
            clone_table(Path(path), draft / name)
            version, digest = last_commit(draft / name)
            clone = Clone(uri, path, str(final / name), version, digest)
            (draft / _RECORD).write_text(json.dumps(asdict(clone)), encoding="utf-8")
            final.parent.mkdir(exist_ok=True)
            try:
                draft.rename(final)
            except OSError:
                if not final.exists():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
