"""Patches of delta-rs: replace each inner callable that writes (a seam) by one that observes.

Only what delta-rs looks up at call time is replaced: module globals and methods of `RawDeltaTable`
(listed in :mod:`deltawitness.commit.seams`). Public functions and classes stay the same objects,
so programs that imported them before the patches were installed are observed as well. The code of
`write_deltalake` is replaced, because the function may end before it calls a seam
(:mod:`deltawitness.delta_rs.whole_calls`).
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.app_transactions import ALWAYS_GUARDED, WriteGuards, set_guarded
from deltawitness.commit.seams import (
    COMMIT_PROPERTIES,
    CONVERT_OPEN_SEAM,
    DRY_RUN,
    MERGE_BUILD,
    MERGE_EXECUTE,
    MERGE_SOURCE,
    MODE,
    OPEN_SEAM,
    QUERY_SEAM,
    READ_SEAMS,
    READING_ROWS,
    SEAMS,
    STORAGE_OPTIONS,
    WHOLE_WRITE,
    Seam,
    WriteSeam,
)
from deltawitness.delta_rs.absent_tables import current_absent, take_absent
from deltawitness.delta_rs.auditors import Auditor
from deltawitness.delta_rs.compaction_lease import CompactionGuard
from deltawitness.delta_rs.engine_calls import (
    REFUSALS,
    Call,
    call_engine,
    engine_call,
    with_metadata,
)
from deltawitness.delta_rs.handle_cache import HandleCache
from deltawitness.delta_rs.merge_seams import MergeSeams
from deltawitness.delta_rs.read_seams import ReadSeams
from deltawitness.delta_rs.seam_states import (
    SeamState,
    log_unusable,
    owner_of,
    position_of,
    record_failed,
    seam_states,
)
from deltawitness.delta_rs.unreached_calls import UnreachedCalls
from deltawitness.delta_rs.whole_calls import observe_whole_calls
from deltawitness.delta_rs.write_audit import WriteAudit
from deltawitness.events import NoCommitReason
from deltawitness.internal_errors import guard, report
from deltawitness.observe.write_watch import record_write
from deltawitness.patching import Replacements, argument

if TYPE_CHECKING:
    from deltawitness.observe.observer import Observer

__all__ = ["DeltaLakeSeams", "import_seams"]


def import_seams() -> None:
    """Import every module with a seam, which runs the post-import hooks of other libraries.

    Call this before the first seam is replaced: a hook may instrument the process.
    """
    importlib.import_module("deltalake")
    for module in {seam.module for seam in SEAMS}:
        with suppress(ModuleNotFoundError):  # another release: its seams are absent
            importlib.import_module(module)


def _nothing() -> None:
    """Do nothing: there is nothing to restore."""


class DeltaLakeSeams:
    """Replaces the seams by observing callables, and restores the originals.

    Args:
        observer: observes the writes.
        only_when: called before each write; returns whether to observe it.

    Attributes:
        replaced: names of the seams that are replaced.
        is_active: whether writes are observed: from the start of the observer to its end.
    """

    def __init__(self, observer: Observer, only_when: Callable[[], bool]) -> None:
        self._observer = observer
        self._only_when = only_when
        self.replaced: frozenset[str] = frozenset()
        self.is_active: bool = False
        self._replacements = Replacements()
        self._merges = MergeSeams(observer, only_when)
        self._reads = ReadSeams(only_when)
        self._unreached = UnreachedCalls(observer, only_when)
        self._handles = HandleCache() if observer.settings.reuse_handles else None
        self._leased = threading.local()
        self._guards = WriteGuards(position_of)
        self._compactions = CompactionGuard(observer.settings, only_when, self._diagnose)
        self._restore_whole_write: Callable[[], None] = _nothing

    def _diagnose(self, name: str, properties: Mapping[str, object]) -> None:
        self._observer.diagnostics.record_event(name, properties)

    def install(self) -> None:
        """Replace each seam that the installed delta-rs has with the parameters that are used here.

        The other seams are logged, unless this release is known to lack them.
        """
        while not self._replace_usable():
            self.uninstall()
        statuses = seam_states()
        log_unusable(statuses)
        states = zip(SEAMS, statuses, strict=True)
        replaced = {seam.name for seam, status in states if status.state is SeamState.ON}
        self.replaced = frozenset(replaced)
        set_guarded(replaced - self._guards.missing)

    def uninstall(self) -> None:
        """Restore every original."""
        set_guarded(())
        self._restore_whole_write()
        self._restore_whole_write = _nothing
        self._replacements.restore()
        self._merges.clear()

    def _replace_usable(self) -> bool:
        """Replace each seam that is on; return False if one cannot be replaced, which makes its state off."""
        for seam, status in zip(SEAMS, seam_states(), strict=True):
            if status.state is not SeamState.ON:
                continue
            try:
                self._replace(seam)
            except Exception as error:  # noqa: BLE001 - the other seams are observed nevertheless
                record_failed(seam, f"cannot be replaced ({type(error).__name__})")
                return False
        return True

    def _replace(self, seam: Seam) -> None:
        owner = owner_of(seam)
        if seam is WHOLE_WRITE:
            function = getattr(owner, seam.name)
            self._restore_whole_write = observe_whole_calls(function, self._unreached.whole_write)
            return
        observing = self._observing(seam)
        reads_rows = seam.name in READING_ROWS

        def observed(original: Call) -> Any:
            guarded = self._guards.guard(seam.name, original)
            plain = guarded if seam.name in ALWAYS_GUARDED else original
            call = engine_call(plain, guarded, reads_rows=reads_rows)
            return self._compactions.guard(seam.name, observing(seam, call))

        self._replacements.replace(owner, seam.name, observed)

    def _observing(self, seam: Any) -> Callable[[Any, Call], Any]:
        """Return the method that makes the replacement of a seam."""
        by_kind = self._method if seam.owner else self._function
        return self._special.get(seam, by_kind)

    @functools.cached_property
    def _special(self) -> dict[Any, Callable[[Any, Call], Any]]:
        """The methods for seams that are replaced in another way than those of their kind."""
        return {
            MERGE_BUILD: self._merges.build,
            MERGE_EXECUTE: self._merges.execute,
            MERGE_SOURCE: self._merges.source,
            OPEN_SEAM: self._open,
            CONVERT_OPEN_SEAM: self._unreached.find_before_convert,
            QUERY_SEAM: self._reads.query,
            **dict.fromkeys(READ_SEAMS, self._reads.read),
        }

    # --- the observing callables ------------------------------------------------------------------

    def _method(self, seam: WriteSeam, original: Call) -> Call:
        position = position_of(original, COMMIT_PROPERTIES) - 1 if seam.commits else -1
        dry_run = position_of(original, DRY_RUN) - 1 if DRY_RUN in seam.parameters else None
        mode_at = position_of(original, MODE) - 1 if MODE in seam.parameters else None
        auditor = Auditor(seam.name, original)
        observer, only_when, handles = self._observer, self._only_when, self._handles

        def observed(table: Any, *args: Any, **kwargs: Any) -> Any:
            if not only_when():
                return original(table, *args, **kwargs)
            try:
                mode = None if mode_at is None else argument(args, kwargs, mode_at, MODE)
                in_flight = observer.open(seam, table.table_uri(), table=table, mode=mode)
                in_flight.schema = kwargs.get("batch_schema")
                observer.capture_call(in_flight, table, args, kwargs)
                kwargs, audit = auditor.prepare(observer, in_flight, table, args, kwargs)
                if dry_run is not None and argument(args, kwargs, dry_run, DRY_RUN):
                    in_flight.no_commit_reason = NoCommitReason.DRY_RUN
                if seam.commits:
                    args, kwargs = with_metadata(observer, in_flight, args, kwargs, position)
                observer.enter(in_flight)
            except REFUSALS:
                raise
            except Exception as error:  # noqa: BLE001 - telemetry never changes the write
                report("seam", error)
                record_write(None)
                auditor.refuse_unchecked(error)
                return original(table, *args, **kwargs)
            try:
                result = self._audited(audit, original)(table, *args, **kwargs)
            except BaseException as error:
                with guard("seam"):
                    observer.fail(in_flight, error, table=table)
                raise
            # try, not `with guard("seam")`: faster, on the path of every write.
            try:
                observer.finish(in_flight, result, table=table)
                if handles is not None:
                    self._release_handle(table)
            except Exception as error:  # noqa: BLE001 - telemetry never changes the write
                report("seam", error)
            return result

        return observed

    def _function(self, seam: WriteSeam, original: Call) -> Call:
        position = position_of(original, COMMIT_PROPERTIES)
        uri_at = position_of(original, seam.uri)
        options_at = position_of(original, STORAGE_OPTIONS)
        mode_at = position_of(original, MODE) if MODE in seam.parameters else None
        auditor = Auditor(seam.name, original)
        observer, only_when = self._observer, self._only_when

        def observed(*args: Any, **kwargs: Any) -> Any:
            if not only_when():
                return original(*args, **kwargs)
            options = argument(args, kwargs, options_at, STORAGE_OPTIONS)
            try:
                mode = None if mode_at is None else argument(args, kwargs, mode_at, MODE)
                location = str(argument(args, kwargs, uri_at, seam.uri))
                in_flight = observer.open(seam, location, table=None, mode=mode)
                in_flight.schema = kwargs.get("batch_schema")
                observer.capture_call(in_flight, None, args, kwargs)
                kwargs, audit = auditor.prepare(observer, in_flight, None, args, kwargs)
                args, kwargs = with_metadata(observer, in_flight, args, kwargs, position)
                observer.enter(in_flight)
            except REFUSALS:
                raise
            except Exception as error:  # noqa: BLE001 - telemetry never changes the write
                report("seam", error)
                record_write(None)
                auditor.refuse_unchecked(error)
                return original(*args, **kwargs)
            call = self._audited(audit, original)
            return call_engine(observer, in_flight, call, args, kwargs, storage_options=options)

        return observed

    def _open(self, seam: Seam, original: Call) -> Call:
        handles, count = self._handles, len(seam.parameters)

        def observed(*args: Any, **kwargs: Any) -> Any:
            # A release that passes more arguments opens the table itself.
            if len(args) + len(kwargs) != count or (handles is None and current_absent() is None):
                return original(*args, **kwargs)
            target, options = (
                argument(args, kwargs, at, name) for at, name in enumerate(seam.parameters)
            )
            if take_absent(target):
                return None, str(target)
            if handles is None or not isinstance(target, str | Path):
                return original(*args, **kwargs)
            return self._lease(handles, target, options)

        return observed

    def _audited(self, audit: WriteAudit | None, original: Call) -> Call:
        """Return the engine's call with the check of its rows; unchanged without a check."""
        if audit is None:
            return original
        return lambda *args, **kwargs: self._run(audit, partial(original, *args, **kwargs))

    def _run(self, audit: WriteAudit, call: Call) -> Any:
        """Run the engine's call with the check of its rows."""
        lease = getattr(self._leased, "handle", None)
        try:
            return audit.run(call)
        finally:
            self._leased.handle = lease  # a write to the quarantine has a separate handle

    def _lease(
        self, handles: HandleCache, uri: str | Path, storage_options: dict[str, str] | None
    ) -> tuple[Any, str]:
        """Return what delta-rs would return, with a leased handle in place of a newly opened table."""
        lease = self._leased.handle = handles.lease(uri, storage_options)
        return lease.table, str(uri)

    def _release_handle(self, table: Any) -> None:
        """Release the handle that was leased for a write by URI; a table of the caller is left alone."""
        lease = getattr(self._leased, "handle", None)
        if lease is not None and lease.table is not None and lease.table._table is table:  # noqa: SLF001 - as delta-rs does
            self._leased.handle = None
            lease.release()
