"""The configurations, alerts and dashboard for a Collector, and a function that writes them to a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from deltawitness.exceptions import DeltaWitnessError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["CollectorFileExistsError", "CollectorFiles", "write_collector_files"]

FILES = (
    "README.md",
    "agent-tier.yaml",
    "alerts/deltawitness.rules.yaml",
    "builder-config.yaml",
    "compose.yaml",
    "config.yaml",
    "dashboards/delta-writes.json",
    "gateway-tier.yaml",
    "grafana/provisioning/dashboards/deltawitness.yaml",
    "grafana/provisioning/datasources/deltawitness.yaml",
    "prometheus.yaml",
    "tempo.yaml",
    "traces-backend.yaml",
)
"""The files, with `/` between folders. They are in the folder `collector` of the repository, and the build
copies them into the wheel."""


class CollectorFileExistsError(DeltaWitnessError):
    """Files of the folder differ from those to write, and they are not to be replaced."""


@dataclass(frozen=True, slots=True)
class CollectorFiles:
    """The files of a folder after `write_collector_files`.

    Attributes:
        folder: absolute path of the folder.
        written: relative paths of the files that were written.
        unchanged: relative paths of the files that already had the right content.
    """

    folder: str
    written: tuple[str, ...]
    unchanged: tuple[str, ...]


def write_collector_files(folder: str | os.PathLike[str], *, force: bool = False) -> CollectorFiles:
    """Write the configurations, alerts and dashboard for a Collector to a folder.

    It creates the folder if needed. Other files of the folder remain. Each file is replaced atomically.

    Args:
        folder: where to write.
        force: replace files that differ.

    Returns:
        The files that were written, and those that were there with the same content.

    Raises:
        CollectorFileExistsError: a file exists with other content and `force` is not set; nothing is
            written then.
        OSError: the folder cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first, second = write_collector_files(folder), write_collector_files(folder)
        >>> "config.yaml" in first.written, second.written
        (True, ())
    """
    place, source = Path(folder).absolute(), _source()
    contents = {name: source.joinpath(*name.split("/")).read_bytes() for name in FILES}
    states = {name: _is_same(place / name, content) for name, content in contents.items()}
    differing = [name for name, is_same in states.items() if is_same is False]
    if differing and not force:
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        msg = f"{place / differing[0]}{more} exists with other content: pass --force to replace it"
        raise CollectorFileExistsError(msg)
    written = [name for name, is_same in states.items() if not is_same]
    for name in written:
        _replace(place / name, contents[name])
    unchanged = tuple(name for name, is_same in states.items() if is_same)
    return CollectorFiles(str(place), tuple(written), unchanged)


def _source() -> Traversable:
    """Return the folder of the files: in the installed package, else in the repository."""
    packaged = resources.files("deltawitness") / "collector"
    if packaged.is_dir():
        return packaged
    return Path(__file__).parents[2] / "collector"


def _is_same(path: Path, content: bytes) -> bool | None:
    """Return whether a file has the given content; None if there is no file."""
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        return False


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
