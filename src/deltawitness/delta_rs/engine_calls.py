"""Call the engine for an observed write: with the library's commit metadata, and with its result recorded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deltawitness.app_transactions import innermost_block
from deltawitness.commit.seams import COMMIT_PROPERTIES
from deltawitness.delta_rs.caller_keys import CallerKeyErrors, check_caller_keys
from deltawitness.events import Landed
from deltawitness.exceptions import ExpectationError, RequirementError
from deltawitness.internal_errors import guard
from deltawitness.scan.feeding import end_feeding, start_feeding

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.observe.observer import Observer

__all__ = ["REFUSALS", "Call", "call_engine", "engine_call", "with_metadata"]

Call = Callable[..., Any]

REFUSALS = (*CallerKeyErrors, RequirementError, ExpectationError)
"""Errors that refuse a write before the engine is called, as the settings and the program require."""


def engine_call(original: Call, guarded: Call, *, reads_rows: bool) -> Call:
    """Return the callable that a seam calls: the engine's own, or that of an exactly-once block.

    One callable for both purposes: each further one would build the arguments of each write again.

    Args:
        original: the callable outside of blocks.
        guarded: the callable in a block.
        reads_rows: whether the engine reads rows during the call; scans that feed it must know.
    """
    if not reads_rows:
        return guarded

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        start_feeding(None)
        try:
            if innermost_block() is None:
                return original(*args, **kwargs)
            return guarded(*args, **kwargs)
        finally:
            end_feeding()

    return call


def with_metadata(
    observer: Observer,
    in_flight: InFlightWrite,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    position: int,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with the library's metadata merged into the caller's commit properties.

    An argument that is not a `CommitProperties` is passed on, for delta-rs to reject.

    Args:
        observer: observes the write.
        in_flight: the write.
        args: the arguments of the engine's call.
        kwargs: its keyword arguments.
        position: the index of the commit properties among the arguments.

    Raises:
        RequirementError: the write lacks what the settings require.
        MetadataKeyError: a key of the caller breaks readers, and the settings refuse it.
        CommitKeyWarning: the same, where a warnings filter raises warnings as errors.
    """
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


def call_engine(  # noqa: PLR0913 - a call and what belongs to it
    observer: Observer,
    in_flight: InFlightWrite,
    original: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    table: Any = None,
    storage_options: dict[str, str] | None = None,
) -> Any:
    """Call the engine for a write that was opened, and finish the write; raise what the engine raises.

    Args:
        observer: observes the write.
        in_flight: the write.
        original: the engine's callable.
        args: its arguments.
        kwargs: its keyword arguments.
        table: the open table; None for a write by URI.
        storage_options: options to open the table with.
    """
    # The span is not made current: the engine reads its source on threads of the engine, which would
    # not inherit it.
    try:
        result = original(*args, **kwargs)
    except BaseException as error:
        with guard("seam"):
            observer.fail(in_flight, error, table=table, storage_options=storage_options)
        raise
    with guard("seam"):
        observer.finish(in_flight, result, table=table, storage_options=storage_options)
    return result
