"""Add the application transaction of a write to the arguments of a call of delta-rs."""

from __future__ import annotations

import copy
import time
from typing import Any

from deltawitness.app_transactions.block import OnceWrite
from deltawitness.commit.metadata import effective_write_id
from deltawitness.commit.seams import COMMIT_PROPERTIES
from deltawitness.patching import argument

__all__ = ["with_transaction"]


def with_transaction(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    position: int,
    write: OnceWrite,
    retries: int | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any], str | None]:
    """Return the arguments of a call with the write's transaction, and the write id in its commit properties.

    An argument that is not a `CommitProperties` is passed on unchanged, so that delta-rs raises its error.

    Args:
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        position: position of the parameter `commit_properties`.
        write: the write.
        retries: maximum number of commit retries of delta-rs; unchanged when None.
    """
    from deltalake import CommitProperties, Transaction  # noqa: PLC0415 - heavy, and imported by the caller

    given = argument(args, kwargs, position, COMMIT_PROPERTIES)
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
