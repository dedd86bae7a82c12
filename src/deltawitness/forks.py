"""Make sure that deltawitness's work in a process does not break the children that the program forks.

delta-rs creates its runtime at the first call that needs one and stores the process id; from then on each
delta-rs call in a forked child raises "Forked process detected". And a module that another thread is
importing during a fork stays locked in the child forever. So while the program has not used delta-rs,
deltawitness does not either, and a fork waits for imports of deltawitness.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = [
    "ForkHandler",
    "at_fork",
    "importing",
    "mark_delta_rs_used",
    "may_use_delta_rs",
    "register_fork_handlers",
    "reset_in_child",
]

IMPORT_TIMEOUT = 30.0
"""Seconds that a fork waits for an import of deltawitness. An import is faster than that, unless it waits
for the thread that forks: the timeout ends such a deadlock."""

_has_used_delta_rs = False
_import_lock = threading.RLock()
_is_import_lock_held = False


def at_fork(**handlers: Callable[[], object]) -> None:
    """Register functions that are called at each fork of the process. On Windows, nothing forks.

    Args:
        handlers: as for `os.register_at_fork`: `before`, `after_in_parent`, `after_in_child`.
    """
    register = getattr(os, "register_at_fork", None)
    if register is not None:
        register(**handlers)


def may_use_delta_rs() -> bool:
    """Return whether deltawitness may call delta-rs in this process.

    It may after the program itself has, and where no process can fork.
    """
    return _has_used_delta_rs or not hasattr(os, "fork")


def mark_delta_rs_used() -> None:
    """Record that the program has used delta-rs in this process.

    Call it after a delta-rs call of the program, never after a call that deltawitness made for itself.
    """
    global _has_used_delta_rs  # noqa: PLW0603 - one runtime of the engine per process
    _has_used_delta_rs = True


@contextmanager
def importing() -> Iterator[None]:
    """Delay forks of the process while the block imports modules on a thread of deltawitness."""
    with _import_lock:
        yield


def reset_in_child(name: str, namespace: dict[str, object], make: Callable[[], object]) -> None:
    """Replace a module's lock by a new one in each forked child, where the holder's thread does not exist.

    Args:
        name: the global variable of the lock.
        namespace: the module's `globals()`.
        make: creates the new lock.
    """
    at_fork(after_in_child=lambda: namespace.__setitem__(name, make()))


class ForkHandler(Protocol):
    """An object that takes part in each fork of the process."""

    def before_fork(self) -> None:
        """Prepare for the fork, in the parent."""

    def after_fork_in_parent(self) -> None:
        """Continue in the parent."""

    def after_fork_in_child(self) -> None:
        """Reset in the child, which has only the thread that forked."""


def register_fork_handlers(instances: Iterable[ForkHandler]) -> None:
    """Call the handlers of all instances at each fork of the process.

    Call it once for each collection, when its module is imported. The order of these imports is the
    order of the handlers: before a fork, those that were registered last are called first.

    Args:
        instances: the objects. The collection is read at each fork, and may be a `WeakSet`.
    """

    def before() -> None:
        for instance in list(instances):
            instance.before_fork()

    def after_in_parent() -> None:
        for instance in list(instances):
            instance.after_fork_in_parent()

    def after_in_child() -> None:
        for instance in list(instances):
            instance.after_fork_in_child()

    at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)


def _before_fork() -> None:
    global _is_import_lock_held  # noqa: PLW0603 - between the two handlers of one fork
    _is_import_lock_held = _import_lock.acquire(timeout=IMPORT_TIMEOUT)


def _after_fork_in_parent() -> None:
    if _is_import_lock_held:
        _import_lock.release()


def _after_fork_in_child() -> None:
    global _has_used_delta_rs, _import_lock  # noqa: PLW0603 - the child's own
    _has_used_delta_rs = False
    _import_lock = threading.RLock()


at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
