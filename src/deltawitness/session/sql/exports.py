"""Observe files that DataFusion writes outside Delta: `COPY TO`, `write_parquet`, `write_csv`, ..."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deltawitness.delta_rs.install import install_for_proxies
from deltawitness.events import CommitMetrics
from deltawitness.exceptions import RequirementError
from deltawitness.forks import importing
from deltawitness.internal_errors import guard, report
from deltawitness.locations import local_path
from deltawitness.observe import Observer
from deltawitness.observe.write_template import write_intent
from deltawitness.semconv import CacheOperation, Operation
from deltawitness.session.core.filter_fallback import call_frame
from deltawitness.session.core.frame_attributes import attributes_of_frame
from deltawitness.session.core.frames import FrameState, attach_state, state_of
from deltawitness.session.core.private_api import wrapped_plan
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.counts import count_frame, count_in

if TYPE_CHECKING:
    from datafusion import DataFrame

    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.session.sql.name_binding import BoundCall

__all__ = ["CopyTo", "run_export"]

T = TypeVar("T")

_inside: ContextVar[bool] = ContextVar("deltawitness_inside_an_export", default=False)
"""Whether an observed export is running: a method that writes files may call another one."""

MAX_COUNTED_BYTES = 1 << 28
"""Maximum total size in bytes of text files whose rows are counted; above it the count is unknown."""


def run_export(
    frame: DataFrame,
    destination: str | os.PathLike[str],
    write: Callable[[], T],
    rows_in: Callable[[T], int | None] = lambda _: None,
    *,
    headers: int = 0,
) -> T:
    """Run a write of files and observe it.

    Args:
        frame: the rows.
        destination: path or URI that is written.
        write: runs the write; its result and its exception are unchanged.
        rows_in: returns the number of written rows from the result, or None.
        headers: number of header lines in each text file.

    Raises:
        RequirementError: the settings refuse the write.
    """
    try:
        observer = install_for_proxies()
        if _inside.get() or not observer.is_on():
            return write()
        location = os.fspath(destination)
        before = _files(location)
        in_flight = _begin(observer, frame, location)
        observer.require_of(in_flight)
        observer.enter(in_flight)
    except RequirementError:
        raise
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("export", error)
        return write()
    token = _inside.set(True)
    try:
        result = write()
    except BaseException as error:
        with guard("export"):
            observer.fail(in_flight, error)
        raise
    finally:
        _inside.reset(token)
    written = _WrittenFiles(location, before, headers)
    with guard("export"):
        _record_return(observer, in_flight, written, lambda: rows_in(result))
    return result


def _begin(observer: Observer, frame: DataFrame, location: str) -> InFlightWrite:
    attributes = attributes_of_frame(frame, state_of(frame), schema=frame.schema())
    intent = write_intent(
        observer.settings, attributes, Operation.COPY, CacheOperation.WRITE, location
    )
    return observer.begin(intent)


def _record_return(
    observer: Observer,
    in_flight: InFlightWrite,
    written: _WrittenFiles,
    reported_rows: Callable[[], int | None],
) -> None:
    written.find_written()
    rows = reported_rows()
    in_flight.exported = lambda: written.metrics(rows)
    observer.finish(in_flight, None, table=None)


@dataclass(frozen=True, slots=True)
class CopyTo:
    """`COPY ... TO` files, which runs when its frame's rows are requested."""

    frame: DataFrame
    state: FrameState
    bound: BoundCall | None

    @property
    def title(self) -> str:
        """What the statement does, without its literals."""
        return "COPY TO"

    def run(self) -> DataFrame:
        """Write the files and return the frame with the count of rows, as the engine does."""
        frame, state, ctx = self.frame, self.state, self.state.ctx
        if self.bound is not None:
            frame = self.bound.current_frame(frame, state.snapshot)
            state = state_of(frame) or state
        parts = unpatched(frame, "logical_plan")().to_variant()
        rows = unpatched(ctx, "create_dataframe_from_logical_plan")(wrapped_plan(parts.input()))
        batches = run_export(
            attach_state(rows, state),
            parts.output_url(),
            partial(call_frame, frame, "collect"),
            count_in,
        )
        return count_frame(ctx, count_in(batches))


# --- written files --------------------------------------------------------------------------------------

Files = dict[str, tuple[int, int]]
"""Local files by path, each with its mtime in nanoseconds and its size in bytes."""


def _files(location: str) -> Files:
    place = local_path(location)
    if place is None:
        return {}
    found = {}
    for path in _below(Path(place)):
        with suppress(FileNotFoundError):  # another process has deleted it
            found[str(path)] = _identity(path)
    return found


def _below(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    elif place.is_dir():
        yield from (path for path in place.rglob("*") if path.is_file())


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


class _WrittenFiles:
    """The files that a write has created or changed at a location.

    Args:
        location: path or URI that was written.
        before: the files at the location before the write.
        headers: number of header lines in each text file.
    """

    def __init__(self, location: str, before: Files, headers: int) -> None:
        self._location = location
        self._headers = headers
        self._before = before
        self._files: Files = {}

    def find_written(self) -> None:
        """Find new and changed files; for use right after the write."""
        now = _files(self._location)
        self._files = {
            path: identity for path, identity in now.items() if self._before.get(path) != identity
        }

    def metrics(self, rows: int | None) -> CommitMetrics:
        """Return rows, files and bytes that were written; for an object store, only the rows.

        Args:
            rows: the number of rows if the engine returned it; None counts them in local files.
        """
        if local_path(self._location) is None:
            return CommitMetrics(rows_added=rows)
        size = sum(size for _, size in self._files.values())
        if rows is None:
            rows = self._rows(size)
        return CommitMetrics(rows_added=rows, files_added=len(self._files), bytes_added=size)

    def _rows(self, size: int) -> int | None:
        counts = []
        for name, identity in self._files.items():
            path = Path(name)
            count = _ROWS.get(path.suffix)
            if count is None or (size > MAX_COUNTED_BYTES and path.suffix != ".parquet"):
                return None
            if not path.exists() or _identity(path) != identity:
                return None  # another process has changed the file since
            headers = self._headers if path.suffix == ".csv" else 0
            counts.append(max(count(path) - headers, 0))
        return sum(counts)


def _parquet_rows(path: Path) -> int:
    with importing():
        import pyarrow.parquet as pq  # noqa: PLC0415 - heavy, and for exports only

    return int(pq.read_metadata(path).num_rows)


def _lines(path: Path) -> int:
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


def _csv_rows(path: Path) -> int:
    """Return the number of line ends outside quotes."""
    ends, is_quoted = 0, False
    with path.open("rb") as content:
        while chunk := content.read(1 << 20):
            for place, part in enumerate(chunk.split(b'"')):
                if place:
                    is_quoted = not is_quoted
                if not is_quoted:
                    ends += part.count(b"\n")
    return ends


_ROWS: Mapping[str, Callable[[Path], int]] = {
    ".parquet": _parquet_rows,
    ".json": _lines,
    ".csv": _csv_rows,
}
