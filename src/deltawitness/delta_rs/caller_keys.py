"""Warn about, or refuse, commit keys of a caller that break readers of the Delta log."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from deltawitness.commit.engine_version import has_release
from deltawitness.exceptions import CommitKeyWarning, MetadataKeyError
from deltawitness.forks import reset_in_child
from deltawitness.semconv import BREAKING_COMMIT_KEYS, UNREFUSED_COMMIT_KEYS, Env
from deltawitness.settings import ReservedKeys
from deltawitness.stack_level import stack_level_of_program

if TYPE_CHECKING:
    from deltalake import CommitProperties

__all__ = ["CallerKeyErrors", "check_caller_keys", "reset_caller_key_warnings"]

CallerKeyErrors: tuple[type[MetadataKeyError], type[CommitKeyWarning]] = (
    MetadataKeyError,
    CommitKeyWarning,
)
"""What :func:`check_caller_keys` raises to keep the write from the engine."""

_lock = threading.Lock()
reset_in_child("_lock", globals(), threading.Lock)
_warned: set[str] = set()


def check_caller_keys(callers: CommitProperties | None, choice: ReservedKeys) -> None:
    """Check a caller's commit metadata for keys that break readers of the log.

    Each key is warned about once per process.

    Args:
        callers: the caller's commit properties.
        choice: whether to warn, refuse or ignore.

    Raises:
        MetadataKeyError: there is such a key, and the choice is to refuse it.
        CommitKeyWarning: there is such a key, and a warnings filter raises warnings as errors.
    """
    given = None if callers is None else callers.custom_metadata
    if (
        not given
        or choice is ReservedKeys.IGNORE
        or not isinstance(given, Mapping)
        or (breaking := _breaking_keys()).isdisjoint(given)
    ):
        return
    for key in sorted(breaking.intersection(given)):
        message = (
            f"CommitProperties.custom_metadata key {key!r} breaks readers of the Delta log that expect"
            f" another value there: rename it, or set {Env.RESERVED_KEYS.value}=ignore"
        )
        if choice is ReservedKeys.REFUSE:
            raise MetadataKeyError(message)
        _warn_once(key, message)


@cache
def _breaking_keys() -> frozenset[str]:
    """Return the keys that the installed delta-rs writes although they break readers."""
    refuses = has_release("1.6.0")
    return BREAKING_COMMIT_KEYS if refuses else BREAKING_COMMIT_KEYS | UNREFUSED_COMMIT_KEYS


def reset_caller_key_warnings() -> None:
    """Forget which keys were warned about; for tests."""
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
