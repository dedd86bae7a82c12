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
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deltawitness.app_transactions import WriteGuards, guard_whole_write, set_guarded
from deltawitness.commit.merge_builders import MergeBuilders
from deltawitness.commit.private_api import storage_options_of
from deltawitness.commit.seams import (
    COMMIT_PROPERTIES,
    CONVERT_OPEN_SEAM,
    CONVERT_SEAM,
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
from deltawitness.delta_rs.absent_tables import take_absent
from deltawitness.delta_rs.auditors import (
    Auditor,
    audit_merge,
    refuse_unchecked,
    use_storage_options,
)
from deltawitness.delta_rs.caller_keys import CallerKeyErrors, check_caller_keys
from deltawitness.delta_rs.compaction_lease import CompactionGuard
from deltawitness.delta_rs.handle_cache import HandleCache
from deltawitness.delta_rs.seam_states import (
    SeamState,
    log_unusable,
    owner_of,
    position_of,
    record_failed,
    seam_states,
)
from deltawitness.delta_rs.sources import (
    KnownSource,
    SourceMetrics,
    current_source_metrics,
    known_source,
    measuring,
)
from deltawitness.delta_rs.unreached import UnreachedWrite
from deltawitness.delta_rs.whole_calls import observe_whole_calls
from deltawitness.delta_rs.write_audit import WriteAudit, merge_result
from deltawitness.events import InputVersion, Landed, NoCommitReason
from deltawitness.exceptions import ExpectationError, RequirementError
from deltawitness.expectations import has_expectations
from deltawitness.internal_errors import guard, report
from deltawitness.locations import table_id
from deltawitness.observe.run_reads import record_reads
from deltawitness.observe.write_context import write_context
from deltawitness.observe.write_watch import record_write, watched_writes
from deltawitness.patching import Replacements, argument
from deltawitness.scan.feeding import feeding
from deltawitness.semconv import Operation

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.observe.observer import Observer

__all__ = ["DeltaLakeSeams", "import_seams"]

Call = Callable[..., Any]

_Refusals = (*CallerKeyErrors, RequirementError, ExpectationError)
"""Errors that refuse a write before the engine is called, as the settings and the program require."""


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
    """

    def __init__(self, observer: Observer, only_when: Callable[[], bool]) -> None:
        self._observer = observer
        self._only_when = only_when
        self.replaced: frozenset[str] = frozenset()
        self._replacements = Replacements()
        self._merges: MergeBuilders[_BuiltMerge] = MergeBuilders()
        self._handles = HandleCache() if observer.settings.reuse_handles else None
        self._leased = threading.local()
        self._source = threading.local()
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
            self._restore_whole_write = observe_whole_calls(
                function, lambda original: self._whole_write(guard_whole_write(original))
            )
            return
        observing = self._observing(seam)
        reads_rows = seam.name in READING_ROWS

        def observed(original: Call) -> Any:
            original = self._guards.guard(seam.name, original)
            call = observing(seam, feeding(original) if reads_rows else original)
            return self._compactions.guard(seam.name, call)

        self._replacements.replace(owner, seam.name, observed)

    def _observing(self, seam: Any) -> Callable[[Any, Call], Any]:
        """Return the method that makes the replacement of a seam."""
        by_kind = self._method if seam.owner else self._function
        return self._special.get(seam, by_kind)

    @functools.cached_property
    def _special(self) -> dict[Any, Callable[[Any, Call], Any]]:
        """The methods for seams that are replaced in another way than those of their kind."""
        return {
            MERGE_BUILD: self._merge_build,
            MERGE_EXECUTE: self._merge_execute,
            MERGE_SOURCE: self._merge_source,
            OPEN_SEAM: self._open,
            CONVERT_OPEN_SEAM: self._find_before_convert,
            QUERY_SEAM: self._query,
            **dict.fromkeys(READ_SEAMS, self._read),
        }

    # --- the observing callables ------------------------------------------------------------------

    def _method(self, seam: WriteSeam, original: Call) -> Call:
        position = position_of(original, COMMIT_PROPERTIES) - 1 if seam.commits else -1
        dry_run = position_of(original, DRY_RUN) - 1 if DRY_RUN in seam.parameters else None
        mode_at = position_of(original, MODE) - 1 if MODE in seam.parameters else None
        auditor = Auditor(seam.name, original)

        def observed(table: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._only_when():
                return original(table, *args, **kwargs)
            try:
                mode = None if mode_at is None else argument(args, kwargs, mode_at, MODE)
                in_flight = self._open_write(seam, table.table_uri(), table, mode, args, kwargs)
                kwargs, audit = auditor.prepare(self._observer, in_flight, table, args, kwargs)
                if dry_run is not None and argument(args, kwargs, dry_run, DRY_RUN):
                    in_flight.no_commit_reason = NoCommitReason.DRY_RUN
                if seam.commits:
                    args, kwargs = self._with_metadata(in_flight, args, kwargs, position)
                self._observer.enter(in_flight)
            except _Refusals:
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
                    self._observer.fail(in_flight, error, table=table)
                raise
            # try, not `with guard("seam")`: faster, on the path of every write.
            try:
                self._observer.finish(in_flight, result, table=table)
                if self._handles is not None:
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

        def observed(*args: Any, **kwargs: Any) -> Any:
            if not self._only_when():
                return original(*args, **kwargs)
            options = argument(args, kwargs, options_at, STORAGE_OPTIONS)
            try:
                mode = None if mode_at is None else argument(args, kwargs, mode_at, MODE)
                location = str(argument(args, kwargs, uri_at, seam.uri))
                in_flight = self._open_write(seam, location, None, mode, args, kwargs)
                kwargs, audit = auditor.prepare(self._observer, in_flight, None, args, kwargs)
                args, kwargs = self._with_metadata(in_flight, args, kwargs, position)
                self._observer.enter(in_flight)
            except _Refusals:
                raise
            except Exception as error:  # noqa: BLE001 - telemetry never changes the write
                report("seam", error)
                record_write(None)
                auditor.refuse_unchecked(error)
                return original(*args, **kwargs)
            call = self._audited(audit, original)
            return self._call_engine(in_flight, call, args, kwargs, storage_options=options)

        return observed

    def _open(self, seam: Seam, original: Call) -> Call:
        def observed(*args: Any, **kwargs: Any) -> Any:
            # A release that passes more arguments opens the table itself.
            is_known = len(args) + len(kwargs) == len(seam.parameters)
            if not is_known:
                return original(*args, **kwargs)
            if kwargs:
                target, options = (
                    argument(args, kwargs, at, name) for at, name in enumerate(seam.parameters)
                )
            else:
                target, options = args
            if take_absent(target):
                return None, str(target)
            if self._handles is None:
                return original(*args, **kwargs)
            if not isinstance(target, str | Path):
                return original(*args, **kwargs)
            return self._lease(self._handles, target, options)

        return observed

    def _whole_write(self, original: Call) -> Call:
        """Return `write_deltalake` with calls recorded that end before they reach a seam."""

        def observed(*args: Any, **kwargs: Any) -> Any:
            if not self._only_when():
                return original(*args, **kwargs)
            known = known_source(args[1] if len(args) > 1 else kwargs.get("data"))
            if known is None and not has_expectations() and current_source_metrics() is None:
                return self._watched(original, args, kwargs)[0]
            knowing = nullcontext() if known is None else write_context(known.attributes)
            metrics = None if known is None else known.metrics
            remembering: Any = nullcontext()
            if has_expectations():
                remembering = use_storage_options(_storage_options(args, kwargs))
            with knowing, measuring(metrics), remembering:
                result, has_written = self._watched(original, args, kwargs)
            if metrics is not None and has_written:
                metrics.record(self._observer)
            return result

        return observed

    def _watched(
        self, original: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, bool]:
        """Call `write_deltalake`, record that no write reached a seam, and return whether one did."""
        clock = time.perf_counter_ns()
        # In place of `watch_writes`: a generator-based context manager costs each write microseconds.
        outer = watched_writes.get()
        writes: list[InFlightWrite | None] = []
        token = watched_writes.set(writes)
        try:
            result = original(*args, **kwargs)
            if not writes and kwargs.get(MODE) == "ignore":
                with guard("seam"):
                    write = _unreached_write(args, kwargs, clock)
                    write.record_skip(self._observer, NoCommitReason.TABLE_EXISTS)
        except BaseException as error:
            if not writes:
                with guard("seam"):
                    write = _unreached_write(args, kwargs, clock)
                    write.record_failure(self._observer, error)
            raise
        finally:
            watched_writes.reset(token)
            if outer is not None:
                outer.extend(writes)
        return result, bool(writes)

    def _read(self, seam: Seam, original: Call) -> Call:  # noqa: ARG002 - one signature for all
        """Return a method of `RawDeltaTable` that Python code calls to read a table, recording the read."""

        @functools.wraps(original)
        def observed(table: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(table, *args, **kwargs)
            self._record_read(table)
            return result

        return observed

    def _query(self, seam: Seam, original: Call) -> Call:  # noqa: ARG002 - one signature for all
        """Return the method that registers a table with a `QueryBuilder`, recording the read."""
        position = position_of(original, _QUERIED) - 1

        @functools.wraps(original)
        def observed(builder: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(builder, *args, **kwargs)
            self._record_read(argument(args, kwargs, position, _QUERIED))
            return result

        return observed

    def _record_read(self, table: Any) -> None:
        with guard("seam"):
            if self._only_when():
                uri = table.table_uri()
                record_reads(InputVersion(table_id(uri), table.version(), uri))

    def _merge_source(self, seam: Seam, original: Any) -> Any:  # noqa: ARG002 - one signature for all
        """Return the class that makes a stream of a merge's source.

        If the source is a frame of a session, the write gets its plan and its inputs.
        """

        def from_arrow(*args: Any, **kwargs: Any) -> Any:
            if not self._only_when():
                return original.from_arrow(*args, **kwargs)
            known = known_source(args[0]) if args else None
            with measuring(None if known is None else known.metrics):
                stream = original.from_arrow(*args, **kwargs)
            self._source.known = None if known is None else (stream, known)
            return stream

        return _Exchanged(original, from_arrow=from_arrow)

    def _find_before_convert(self, seam: Seam, original: Call) -> Call:
        """Return the function with which `convert_to_deltalake` looks up a table in mode `ignore`."""
        location = seam.parameters[0]
        position = position_of(original, location)

        def observed(*args: Any, **kwargs: Any) -> Any:
            clock = time.perf_counter_ns()
            table = original(*args, **kwargs)
            if table is not None and self._only_when():
                with guard("seam"):
                    uri = argument(args, kwargs, position, location)
                    operation = CONVERT_SEAM.operation
                    write = UnreachedWrite.of(operation, uri, table, "ignore", clock)
                    write.record_skip(self._observer, NoCommitReason.TABLE_EXISTS)
            return table

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

    def _merge_build(self, seam: Seam, original: Call) -> Call:  # noqa: ARG002 - one signature for all
        position = position_of(original, COMMIT_PROPERTIES) - 1

        def observed(table: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._only_when():
                return self._unobserved(original(table, *args, **kwargs))
            try:
                source = self._known_source(kwargs.get("source"))
                with nullcontext() if source is None else write_context(source.of_merge()):
                    in_flight = self._observer.open(MERGE_EXECUTE, table.table_uri(), table=table)
                in_flight.schema = kwargs.get("batch_schema")
                self._observer.capture_call(in_flight, table, args, kwargs)
                kwargs, audit = audit_merge(self._observer, in_flight, kwargs)
                args, kwargs = self._with_metadata(in_flight, args, kwargs, position)
            except _Refusals:
                raise
            except Exception as error:  # noqa: BLE001 - telemetry never changes the write
                report("seam", error)
                record_write(None)
                refuse_unchecked(error)
                return self._unobserved(original(table, *args, **kwargs))
            try:
                builder = original(table, *args, **kwargs)
            except BaseException as error:
                with guard("seam"):
                    self._observer.fail(in_flight, error, table=table)
                raise
            with guard("seam"):
                metrics = None if source is None else source.metrics
                self._merges.put(builder, _BuiltMerge(in_flight, metrics, audit))
            return builder

        return observed

    def _known_source(self, stream: object) -> KnownSource | None:
        """Return the source from which the stream of a merge was made, if a session recognized it."""
        known_stream, source = getattr(self._source, "known", None) or (None, None)
        self._source.known = None
        return source if source is not None and known_stream is stream else None

    def _unobserved(self, builder: object) -> object:
        """Return an unobserved builder, without the entry of an earlier builder at the same address."""
        self._merges.pop(builder)
        return builder

    def _merge_execute(self, seam: WriteSeam, original: Call) -> Call:
        (builder,) = seam.parameters
        position = position_of(original, builder) - 1

        def observed(table: Any, *args: Any, **kwargs: Any) -> Any:
            merge = self._merges.pop(argument(args, kwargs, position, builder))
            if merge is None or not self._only_when():
                return original(table, *args, **kwargs)
            in_flight = merge.in_flight
            with guard("seam"):
                self._observer.resume(in_flight, table)
            call = original if merge.audit is None else partial(merge_result, merge.audit, original)
            result = self._call_engine(in_flight, call, (table, *args), kwargs, table=table)
            if merge.metrics is not None:
                merge.metrics.record(self._observer)
            return result

        return observed

    # --- what they have in common --------------------------------------------------------------------

    def _open_write(  # noqa: PLR0913, PLR0917 - a call of the engine and its arguments
        self,
        seam: WriteSeam,
        location: str,
        table: Any,
        mode: str | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> InFlightWrite:
        observer = self._observer
        in_flight = observer.open(seam, location, table=table, mode=mode)
        in_flight.schema = kwargs.get("batch_schema")
        if observer.has_hooks:
            observer.capture_call(in_flight, table, args, kwargs)
        return in_flight

    def _with_metadata(
        self,
        in_flight: InFlightWrite,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        position: int,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with the library's metadata merged into the caller's commit properties.

        An argument that is not a `CommitProperties` is passed on, for delta-rs to reject.

        Raises:
            RequirementError: the write lacks what the settings require.
            MetadataKeyError: a key of the caller breaks readers, and the settings refuse it.
            CommitKeyWarning: the same, where a warnings filter raises warnings as errors.
        """
        observer = self._observer
        if observer.settings.require and in_flight.no_commit_reason is None:  # else it is a dry run
            observer.require_of(in_flight)
        given = args[position] if len(args) > position else kwargs.get(COMMIT_PROPERTIES)
        if given is not None:
            if not hasattr(given, "custom_metadata"):
                return args, kwargs
            try:
                check_caller_keys(given, observer.settings.reserved_keys)
            except CallerKeyErrors as error:
                in_flight.landed = Landed.NO
                with guard("seam"):
                    observer.fail(in_flight, error)
                raise
        properties = observer.properties(in_flight, given)
        if len(args) > position:
            return (*args[:position], properties, *args[position + 1 :]), kwargs
        return args, {**kwargs, COMMIT_PROPERTIES: properties}

    def _call_engine(  # noqa: PLR0913 - a call and what belongs to it
        self,
        in_flight: InFlightWrite,
        original: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        table: Any = None,
        storage_options: dict[str, str] | None = None,
    ) -> Any:
        # The span is not made current: the engine reads its source on its own threads, which would not
        # inherit it.
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            with guard("seam"):
                self._observer.fail(in_flight, error, table=table, storage_options=storage_options)
            raise
        with guard("seam"):
            self._observer.finish(in_flight, result, table=table, storage_options=storage_options)
        return result


class _BuiltMerge(NamedTuple):
    """A merge that delta-rs has built and not executed yet.

    Attributes:
        in_flight: the write.
        metrics: measures the operators of its source; None where they are not captured.
        audit: checks its source; None without an expectation.
    """

    in_flight: InFlightWrite
    metrics: SourceMetrics | None
    audit: WriteAudit | None


class _Exchanged:
    """Replaces a class of delta-rs in one module: delegates to it, with some methods replaced."""

    def __init__(self, original: Any, **methods: Call) -> None:
        self._original = original
        vars(self).update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._original(*args, **kwargs)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._original)


def _storage_options(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, str] | None:
    """Return the storage options of a `write_deltalake` call: its own, or those of its open table."""
    given: dict[str, str] | None = kwargs.get(STORAGE_OPTIONS)
    target = argument(args, kwargs, 0, "table_or_uri")
    return given or (storage_options_of(target) if hasattr(target, "table_uri") else None)


def _unreached_write(args: tuple[Any, ...], kwargs: dict[str, Any], clock: int) -> UnreachedWrite:
    """Return the write of a `write_deltalake` call that reached no seam."""
    target = argument(args, kwargs, 0, "table_or_uri")
    return UnreachedWrite.of(Operation.WRITE, target, target, kwargs.get("mode", "error"), clock)


_QUERIED = "delta_table"
