"""Guards of the delta-rs callables that write rows: inside a block, each commits once.

The protocol that makes it sound, on any storage with an atomic put-if-absent:

1. The transaction is looked up in the snapshot of the handle that the write goes through.
2. The engine writes through that handle, so every commit after the snapshot is in its conflict check,
   and it refuses a commit with the application id of another one there.
3. After an error, the handle is refreshed, and the transaction in it decides.

The engine's own functions that open or create a table do not have this property: they read the log after
the look-up. So a missing table is created empty first, without retries, and written through a handle.
"""

from __future__ import annotations

import copy
import functools
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from deltawitness.app_transactions.block import (
    BlockState,
    OnceWrite,
    Retries,
    active_block,
    note_skipped,
    outside_block,
)
from deltawitness.app_transactions.lookup import (
    find_commit,
    has_committed,
    has_landed,
    receipt_from,
    returned_metrics,
)
from deltawitness.commit.engine_version import has_release
from deltawitness.commit.metadata import effective_write_id
from deltawitness.commit.seams import COMMIT_PROPERTIES, MODE, STORAGE_OPTIONS
from deltawitness.error_types import classify, is_programs_own
from deltawitness.exceptions import OnceError
from deltawitness.semconv import ErrorType

if TYPE_CHECKING:
    from deltalake._internal import RawDeltaTable

    from deltawitness.commit.outcome import RawCommit

__all__ = ["GUARDED", "WriteGuards", "check_guarded", "set_guarded"]

Call = Callable[..., Any]

_CONFLICTS = frozenset({ErrorType.COMMIT_CONFLICT, ErrorType.CONCURRENT_TRANSACTION})

_UNMOVED = "create_write_transaction"

_REPEATABLE = frozenset({"update", "delete"})
"""Methods whose arguments can be used again: they read no stream of rows."""

_CREATING = frozenset({"_create_deltalake", "_create_table_with_add_actions"})

GUARDED = frozenset(
    {
        "write",
        "create_write_transaction",
        "update",
        "delete",
        "create_merge_builder",
        "merge_execute",
        "write_deltalake_rust",
        *_CREATING,
    }
)
"""Names of the seams that are guarded."""

FIRST_RELEASE = "1.2.1"
"""Before it, an append reads the log again inside the engine, after the look-up."""

FIRST_WRITE_TRANSACTION = "1.6.3"
"""Before it, `create_write_transaction` drops the application transactions that it is given."""

MAX_PENDING_MERGES = 1024

_guarded: frozenset[str] = frozenset()


def set_guarded(names: Collection[str]) -> None:
    """Record which seams are replaced now; none after the originals are restored."""
    global _guarded  # noqa: PLW0603 - one delta-rs per process
    _guarded = frozenset(names)


def check_guarded() -> None:
    """Check that every write of rows passes a guard.

    Raises:
        OnceError: delta-rs is not instrumented, or this release lacks a seam.
    """
    if not _guarded:
        msg = (
            "once: delta-rs is not instrumented; call DeltaLakeInstrumentor().instrument()"
            " or run the program with `deltawitness run`"
        )
        raise OnceError(msg)
    if not has_release(FIRST_RELEASE):
        msg = f"once: needs deltalake {FIRST_RELEASE} or later; an earlier one commits a key twice in a race"
        raise OnceError(msg)
    if missing := sorted(GUARDED - _guarded):
        msg = f"once: not possible with this release of deltalake, which lacks {', '.join(missing)}"
        raise OnceError(msg)


class _Merge(NamedTuple):
    """A merge that is built and not executed yet."""

    block: BlockState
    write: OnceWrite
    write_id: str | None


class WriteGuards:
    """Wraps the callables of delta-rs that write rows.

    Args:
        position_of: returns the position of a parameter of a callable, `self` included; raises ValueError
            if there is no such parameter.

    Attributes:
        missing: names of callables that cannot be guarded.
    """

    def __init__(self, position_of: Callable[[Call, str], int]) -> None:
        self._position_of = position_of
        self._write: Call | None = None
        self._merges: OrderedDict[int, _Merge] = OrderedDict()
        self.missing: set[str] = set()

    def guard(self, name: str, original: Call) -> Call:
        """Return a callable of delta-rs with its guard; the same callable if it has none.

        A callable of a release that lacks a parameter stays as it is: then its name is in `missing`.

        Args:
            name: name of the callable.
            original: the callable.
        """
        if name not in GUARDED:
            return original
        try:
            return self._guard_of(name, original)
        except ValueError:
            self.missing.add(name)
            return original

    def _guard_of(self, name: str, original: Call) -> Call:
        if name == "create_merge_builder":
            return self._build_guard(original)
        if name == "merge_execute":
            return self._execute_guard(original)
        if name == "write_deltalake_rust":
            return self._creating_write_guard(original)
        if name in _CREATING:
            return self._creation_guard(name, original)
        guarded = self._method_guard(name, original)
        if name == "write":
            self._write = guarded
        return guarded

    def _creating_write_guard(self, original: Call) -> Call:
        """Return the guard of the function that writes to a table that does not exist."""

        @functools.wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            block = active_block()
            if block is None:
                return original(*args, **kwargs)
            if args or self._write is None:
                msg = "once: this release of deltalake cannot create a table in a block; create it before"
                raise OnceError(msg)
            if kwargs[MODE] == "ignore":
                msg = "once: mode `ignore` writes no rows after a crash; use mode `append`"
                raise OnceError(msg)
            table = _open_or_create(block, kwargs)
            rest = {name: value for name, value in kwargs.items() if name not in _OF_A_TABLE}
            return self._write(table, **rest)

        return guarded

    def _build_guard(self, original: Call) -> Call:
        position = self._position_of(original, COMMIT_PROPERTIES) - 1

        @functools.wraps(original)
        def guarded(table: RawDeltaTable, *args: Any, **kwargs: Any) -> Any:
            block = active_block()
            if block is None:
                builder = original(table, *args, **kwargs)
                self._merges.pop(id(builder), None)
                return builder
            write = block.next_write(table.table_uri())
            _catch_up(block, table, write)
            args, kwargs, write_id = _with_transaction(args, kwargs, position, write)
            builder = original(table, *args, **kwargs)
            # A builder takes no attribute; a later one at the same address replaces the entry here.
            self._merges[id(builder)] = _Merge(block, write, write_id)
            self._merges.move_to_end(id(builder))
            while len(self._merges) > MAX_PENDING_MERGES:
                self._merges.popitem(last=False)
            return builder

        return guarded

    def _execute_guard(self, original: Call) -> Call:
        position = self._position_of(original, "merge_builder") - 1

        @functools.wraps(original)
        def guarded(table: RawDeltaTable, *args: Any, **kwargs: Any) -> Any:
            builder = _argument(args, kwargs, position, "merge_builder")
            merge = self._merges.pop(id(builder), None)
            block = active_block()
            if block is None and merge is None:
                return original(table, *args, **kwargs)
            if (
                block is None
                or merge is None
                or merge.block is not block
                or merge.write != block.next_write(table.table_uri())
            ):
                msg = "once: build and execute a merge inside one block, before the next write to its table"
                raise OnceError(msg)
            call = functools.partial(original, table, *args, **kwargs)
            return _commit_once(block, "merge_execute", table, merge.write, merge.write_id, call)

        return guarded

    def _method_guard(self, name: str, original: Call) -> Call:
        position = self._position_of(original, COMMIT_PROPERTIES) - 1

        @functools.wraps(original)
        def guarded(table: RawDeltaTable, *args: Any, **kwargs: Any) -> Any:
            block = active_block()
            if block is None:
                return original(table, *args, **kwargs)
            if name == _UNMOVED and not has_release(FIRST_WRITE_TRANSACTION):
                msg = f"once: create_write_transaction needs deltalake {FIRST_WRITE_TRANSACTION} or later"
                raise OnceError(msg)
            write = block.next_write(table.table_uri())
            if name == "write" and kwargs.get(MODE) == "error" and _is_created_by(table, write):
                kwargs = {**kwargs, MODE: "append"}
            args, kwargs, write_id = _with_transaction(args, kwargs, position, write)
            call = functools.partial(original, table, *args, **kwargs)
            return _commit_once(block, name, table, write, write_id, call)

        return guarded

    def _creation_guard(self, name: str, original: Call) -> Call:
        """Return the guard of a function that creates a table."""
        positions = {
            each: self._position_of(original, each)
            for each in ("table_uri", MODE, STORAGE_OPTIONS, COMMIT_PROPERTIES)
        }

        @functools.wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            block = active_block()
            if block is None:
                return original(*args, **kwargs)
            uri, mode, options = (
                _argument(args, kwargs, positions[each], each)
                for each in ("table_uri", MODE, STORAGE_OPTIONS)
            )
            if mode not in {"error", "ignore"}:
                msg = f"once: a table cannot be created with mode `{mode}` in a block; use `error` or `ignore`"
                raise OnceError(msg)
            write = block.next_write(str(uri))
            args, kwargs, write_id = _with_transaction(
                args, kwargs, positions[COMMIT_PROPERTIES], write, retries=0
            )
            return _create_once(
                block, name, write, write_id, (str(uri), options), lambda: original(*args, **kwargs)
            )

        return guarded


def _commit_once(  # noqa: PLR0913, PLR0917 - a call and what belongs to it
    block: BlockState,
    name: str,
    table: RawDeltaTable,
    write: OnceWrite,
    write_id: str | None,
    call: Call,
) -> Any:
    """Call the engine, unless the write has committed; return what the commit says after an error."""
    retries = Retries(block.deadline)
    _catch_up(block, table, write)
    while True:
        if has_committed(table, write):
            return _resolved(block, name, table, write, write_id)
        base = table.version()
        try:
            result = call()
        except Exception as error:
            if is_programs_own(error):
                raise
            if has_landed(table, write):
                return _resolved(block, name, table, write, write_id)
            if classify(error) not in _CONFLICTS:
                raise
            if name in _REPEATABLE and retries.wait():
                continue
            block.conflict = error
            raise
        # After `create_write_transaction`, the handle is at the version that it was at before.
        has_commit = table.version() != base or (name == _UNMOVED and has_landed(table, write))
        commit = find_commit(table, write) if has_commit else None
        block.complete(write, receipt_from(commit, write, is_new=True), has_commit=has_commit)
        return result


def _catch_up(block: BlockState, table: RawDeltaTable, write: OnceWrite) -> None:
    """Refresh a handle that is older than the block's own last commit, which would be a conflict."""
    if block.last_committed(write) > (table.transaction_version(write.app_id) or 0):
        table.update_incremental()


def _resolved(
    block: BlockState, name: str, table: RawDeltaTable, write: OnceWrite, write_id: str | None
) -> str | None:
    """Record a write whose commit is in the log, and return what its call returns."""
    commit = find_commit(table, write)
    is_new = commit is not None and write_id is not None and commit.is_of(write_id)
    block.complete(write, receipt_from(commit, write, is_new=is_new))
    if not is_new:
        note_skipped(write_id)
    return returned_metrics(name, commit)


def guard_whole_write(original: Call) -> Call:
    """Return `write_deltalake` with conflicts retried, where its rows can be read again."""

    @functools.wraps(original)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        block = active_block()
        if block is None:
            return original(*args, **kwargs)
        retries = Retries(block.deadline)
        while True:
            try:
                return original(*args, **kwargs)
            except Exception as error:
                can_repeat = block.conflict is error and _is_repeatable(args, kwargs)
                if not can_repeat or not retries.wait():
                    raise

    return guarded


_TABLE_PACKAGES = frozenset({"pyarrow", "pandas", "polars", "arro3"})
_TABLE_CLASSES = frozenset({"Table", "RecordBatch", "DataFrame"})


def _is_repeatable(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a call of `write_deltalake` can be made again.

    Its rows must be readable again. An overwrite through a table of the caller is not repeated: its rows
    may have been computed from the version that the table is at.
    """
    target, data = _argument(args, kwargs, 0, "table_or_uri"), _argument(args, kwargs, 1, "data")
    if hasattr(target, "table_uri") and kwargs.get(MODE) != "append":
        return False
    kind = type(data)
    is_table = kind.__name__ in _TABLE_CLASSES and kind.__module__.split(".")[0] in _TABLE_PACKAGES
    return is_table or isinstance(data, Sequence)


# --- tables that do not exist ----------------------------------------------------------------------

_OF_A_TABLE = frozenset({"table_uri", STORAGE_OPTIONS, "configuration", "name", "description"})
"""Arguments of a write that creates its table, which a write through a handle does not take or ignores."""


def _open_or_create(block: BlockState, arguments: dict[str, Any]) -> RawDeltaTable:
    """Return a handle of the table of a write, which is created empty if it does not exist.

    The commit that creates it has the block's transaction with a version before the first write, so
    that a block that runs again knows its own table.
    """
    from deltalake import CommitProperties, DeltaTable, Transaction  # noqa: PLC0415 - heavy, and there already

    uri, options = arguments["table_uri"], arguments.get(STORAGE_OPTIONS)
    write = block.next_write(uri)
    if (found := _opened(uri, options)) is not None:
        return found
    properties = CommitProperties(
        app_transactions=[Transaction(write.app_id, write.number - 1)], max_commit_retries=0
    )
    try:
        with outside_block():
            DeltaTable.create(
                uri,
                arguments["batch_schema"],
                mode="error",
                storage_options=options,
                commit_properties=properties,
                partition_by=arguments.get("partition_by"),
                name=arguments.get("name"),
                description=arguments.get("description"),
                configuration=arguments.get("configuration"),
            )
    except Exception as error:
        if classify(error) not in {*_CONFLICTS, ErrorType.TABLE_EXISTS}:
            raise  # else another writer has created it at the same time
    table: RawDeltaTable = DeltaTable(uri, storage_options=options)._table  # noqa: SLF001 - as delta-rs does
    return table


def _opened(uri: str, options: dict[str, str] | None) -> RawDeltaTable | None:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy, and there already
    from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415 - as above

    try:
        table: RawDeltaTable = DeltaTable(uri, storage_options=options)._table  # noqa: SLF001 - as delta-rs does
    except TableNotFoundError:
        return None
    return table


def _is_created_by(table: RawDeltaTable, write: OnceWrite) -> bool:
    """Return whether the block's key has created the table, and has not written to it yet."""
    return write.number == 1 and table.transaction_version(write.app_id) == 0


def _create_once(  # noqa: PLR0913, PLR0917 - a call and what belongs to it
    block: BlockState,
    name: str,
    write: OnceWrite,
    write_id: str | None,
    location: tuple[str, dict[str, str] | None],
    call: Call,
) -> Any:
    table = _opened(*location)
    if table is not None and has_committed(table, write):
        return _resolved(block, name, table, write, write_id)
    try:
        result = call()
    except Exception as error:
        if is_programs_own(error):
            raise
        table = _opened(*location)
        if table is None or not has_committed(table, write):
            raise
        return _resolved(block, name, table, write, write_id)
    table = _opened(*location)
    commit: RawCommit | None = None if table is None else find_commit(table, write)
    block.complete(write, receipt_from(commit, write, is_new=True))
    return result


# --- arguments ------------------------------------------------------------------------------------


def _with_transaction(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    position: int,
    write: OnceWrite,
    retries: int | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any], str | None]:
    """Return the arguments of a call with the write's transaction, and the write id in them.

    Properties that are not a `CommitProperties` are passed on, for delta-rs to reject.
    """
    from deltalake import CommitProperties, Transaction  # noqa: PLC0415 - heavy, and there already

    given = _argument(args, kwargs, position, COMMIT_PROPERTIES)
    if given is not None and not hasattr(given, "app_transactions"):
        return args, kwargs, None
    properties = CommitProperties() if given is None else copy.copy(given)
    transaction = Transaction(write.app_id, write.number, time.time_ns() // 1_000_000)
    properties.app_transactions = [*(properties.app_transactions or ()), transaction]
    if retries is not None:
        properties.max_commit_retries = retries
    write_id = effective_write_id(properties)
    if len(args) > position:
        return (*args[:position], properties, *args[position + 1 :]), kwargs, write_id
    return args, {**kwargs, COMMIT_PROPERTIES: properties}, write_id


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)
