"""A caller's commit keys that break readers of the Delta log: warned of once each, or refused."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from deltawitness.exceptions import CommitKeyWarning, MetadataKeyError
from deltawitness.forks import reset_in_child
from deltawitness.semconv import BREAKING_COMMIT_KEYS, Env
from deltawitness.settings import ReservedKeys
from deltawitness.stack_level import stack_level_of_program

if TYPE_CHECKING:
    from deltalake import CommitProperties

__all__ = ["CallerKeyErrors", "check_caller_keys", "forget_caller_keys"]

CallerKeyErrors = (MetadataKeyError, CommitKeyWarning)
"""What :func:`check_caller_keys` raises: the write is not to reach the engine."""

_lock = threading.Lock()
reset_in_child("_lock", globals(), threading.Lock)
_warned: set[str] = set()


def check_caller_keys(callers: CommitProperties | None, choice: ReservedKeys) -> None:
    """Look for keys in a caller's commit metadata that break readers of the log.

    Args:
        callers: the caller's commit properties.
        choice: what is done about such a key.

    Raises:
        MetadataKeyError: there is one, and the choice is to refuse it.
        CommitKeyWarning: there is one, and a filter makes warnings errors.
    """
    given = None if callers is None else callers.custom_metadata
    if (
        not given
        or choice is ReservedKeys.IGNORE
        or not isinstance(given, Mapping)
        or BREAKING_COMMIT_KEYS.isdisjoint(given)
    ):
        return
    for key in sorted(BREAKING_COMMIT_KEYS.intersection(given)):
        message = (
            f"CommitProperties.custom_metadata key {key!r} breaks readers of the Delta log that expect"
            f" a value of their own there: rename it ({Env.RESERVED_KEYS.value} says what is done)"
        )
        if choice is ReservedKeys.REFUSE:
            raise MetadataKeyError(message)
        _warn_once(key, message)


def forget_caller_keys() -> None:
    """Warn of every key anew; for tests."""
    with _lock:
        _warned.clear()


def _warn_once(key: str, message: str) -> None:
    with _lock:
        if key in _warned:
            return
        _warned.add(key)
    try:
        warnings.warn(message, CommitKeyWarning, stacklevel=stack_level_of_program())
    except BaseException:
        with _lock:
            _warned.discard(key)
        raise
