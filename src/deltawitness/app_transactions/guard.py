"""Guard the callables of delta-rs that write rows, so that inside a block each write commits once.

The protocol needs a storage with an atomic put-if-absent:

1. The transaction is looked up in the snapshot of the handle that the write goes through.
2. The engine writes through that handle, so every commit after the snapshot is in its conflict check,
   and it refuses a commit with the application id of another one there.
3. After an error, the handle is refreshed. The write has committed if the transaction is in the snapshot.

The engine's own functions that open or create a table do not have this property: they read the log after
the look-up. So a missing table is created empty first, without retries, and written through a handle.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from deltawitness.app_transactions.arguments import with_transaction
from deltawitness.app_transactions.block import BlockState, OnceWrite, active_block
from deltawitness.app_transactions.commits import WRITE_TRANSACTION, catch_up, commit_once
from deltawitness.app_transactions.creation import (
    TABLE_ARGUMENTS,
    create_once,
    is_created_by,
    open_or_create,
)
from deltawitness.commit.engine_version import has_release
from deltawitness.commit.merge_builders import MergeBuilders
from deltawitness.commit.seams import COMMIT_PROPERTIES, MODE, STORAGE_OPTIONS
from deltawitness.exceptions import OnceError
from deltawitness.patching import argument

if TYPE_CHECKING:
    from deltalake._internal import RawDeltaTable

__all__ = ["ALWAYS_GUARDED", "GUARDED", "WriteGuards", "check_guarded", "set_guarded"]

Call = Callable[..., Any]

_CREATING = frozenset({"_create_deltalake", "_create_table_with_add_actions"})
"""Names of the seams that create a table."""

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

ALWAYS_GUARDED = frozenset({"create_merge_builder", "merge_execute"})
"""Those whose guards also act outside of blocks, where a merge that was built in a block is refused."""

FIRST_RELEASE = "1.2.1"
"""First release with the protocol: before it, an append reads the log again after the look-up."""

FIRST_WRITE_TRANSACTION = "1.6.3"
"""First release in which `create_write_transaction` writes application transactions to the log."""

_guarded: frozenset[str] = frozenset()


def set_guarded(names: Collection[str]) -> None:
    """Record which seams are replaced now; none after the originals are restored."""
    global _guarded  # noqa: PLW0603 - one delta-rs per process
    _guarded = frozenset(names)


def check_guarded() -> None:
    """Check that every callable that writes rows has a guard.

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
        missing: names of callables without a guard, because they lack a parameter.
    """

    def __init__(self, position_of: Callable[[Call, str], int]) -> None:
        self._position_of = position_of
        self._write: Call | None = None
        self._merges: MergeBuilders[_Merge] = MergeBuilders()
        self.missing: set[str] = set()

    def guard(self, name: str, original: Call) -> Call:
        """Return a callable of delta-rs with its guard; unchanged if it writes no rows.

        A callable that lacks a parameter which the guard needs is returned unchanged, and its name is
        added to `missing`.

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
                msg = "once: a block cannot create a table with this release of deltalake; create it before"
                raise OnceError(msg)
            if kwargs[MODE] == "ignore":
                msg = "once: mode `ignore` writes no rows after a crash; use mode `append`"
                raise OnceError(msg)
            table = open_or_create(block, kwargs)
            rest = {name: value for name, value in kwargs.items() if name not in TABLE_ARGUMENTS}
            return self._write(table, **rest)

        return guarded

    def _build_guard(self, original: Call) -> Call:
        position = self._position_of(original, COMMIT_PROPERTIES) - 1

        @functools.wraps(original)
        def guarded(table: RawDeltaTable, *args: Any, **kwargs: Any) -> Any:
            block = active_block()
            if block is None:
                builder = original(table, *args, **kwargs)
                self._merges.pop(builder)
                return builder
            write = block.next_write(table.table_uri())
            catch_up(block, table, write)
            args, kwargs, write_id = with_transaction(args, kwargs, position, write)
            builder = original(table, *args, **kwargs)
            self._merges.put(builder, _Merge(block, write, write_id))
            return builder

        return guarded

    def _execute_guard(self, original: Call) -> Call:
        position = self._position_of(original, "merge_builder") - 1

        @functools.wraps(original)
        def guarded(table: RawDeltaTable, *args: Any, **kwargs: Any) -> Any:
            builder = argument(args, kwargs, position, "merge_builder")
            merge = self._merges.pop(builder)
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
            return commit_once(block, "merge_execute", table, merge.write, merge.write_id, call)

        return guarded

    def _method_guard(self, name: str, original: Call) -> Call:
        position = self._position_of(original, COMMIT_PROPERTIES) - 1

        @functools.wraps(original)
        def guarded(table: RawDeltaTable, *args: Any, **kwargs: Any) -> Any:
            block = active_block()
            if block is None:
                return original(table, *args, **kwargs)
            if name == WRITE_TRANSACTION and not has_release(FIRST_WRITE_TRANSACTION):
                msg = f"once: create_write_transaction needs deltalake {FIRST_WRITE_TRANSACTION} or later"
                raise OnceError(msg)
            write = block.next_write(table.table_uri())
            if name == "write" and kwargs.get(MODE) == "error" and is_created_by(table, write):
                kwargs = {**kwargs, MODE: "append"}
            args, kwargs, write_id = with_transaction(args, kwargs, position, write)
            call = functools.partial(original, table, *args, **kwargs)
            return commit_once(block, name, table, write, write_id, call)

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
                argument(args, kwargs, positions[each], each)
                for each in ("table_uri", MODE, STORAGE_OPTIONS)
            )
            if mode not in {"error", "ignore"}:
                msg = f"once: a table cannot be created with mode `{mode}` in a block; use `error` or `ignore`"
                raise OnceError(msg)
            write = block.next_write(str(uri))
            args, kwargs, write_id = with_transaction(
                args, kwargs, positions[COMMIT_PROPERTIES], write, retries=0
            )
            return create_once(
                block, name, write, write_id, (str(uri), options), lambda: original(*args, **kwargs)
            )

        return guarded
