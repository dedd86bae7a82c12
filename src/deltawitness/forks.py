"""What a fork takes away from a child, and how our own work in the parent leaves the child whole.

delta-rs makes its runtime at the first call that needs one and remembers the process; from then on each
call in a forked child raises "Forked process detected". A module that another thread is importing at the
moment of the fork stays locked in the child for ever. Neither may happen because of us, when the program
itself has done nothing of the kind.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = [
    "has_used_delta_rs",
    "importing",
    "mark_delta_rs_used",
    "reset_in_child",
]

IMPORT_PATIENCE = 30.0
"""Seconds that a fork waits for an import of ours. No import takes that long; but an import that waits for
the thread that forks must not stop that thread for ever."""

_has_used_delta_rs = False
_import_lock = threading.RLock()
_is_import_lock_held = False


def has_used_delta_rs() -> bool:
    """Return whether the program itself has used delta-rs in this process.

    While this is False, work of ours that needs delta-rs must not run in this process.
    """
    return _has_used_delta_rs


def mark_delta_rs_used() -> None:
    """Remember that the program has used delta-rs in this process: call it where delta-rs has answered.

    Never call it for work that the program has not asked for.
    """
    global _has_used_delta_rs  # noqa: PLW0603 - one runtime of the engine per process
    _has_used_delta_rs = True


@contextmanager
def importing() -> Iterator[None]:
    """Hold back a fork of the process while a thread of ours imports something in the block."""
    with _import_lock:
        yield


def reset_in_child(name: str, namespace: dict[str, object], make: Callable[[], object]) -> None:
    """Replace a lock of a module by a new one in each forked child: its holder may be gone there.

    Args:
        name: the global variable that holds the lock.
        namespace: the module's `globals()`.
        make: makes the new lock.
    """
    os.register_at_fork(after_in_child=lambda: namespace.__setitem__(name, make()))


def _before_fork() -> None:
    global _is_import_lock_held  # noqa: PLW0603 - between the two handlers of one fork
    _is_import_lock_held = _import_lock.acquire(timeout=IMPORT_PATIENCE)


def _after_fork_in_parent() -> None:
    if _is_import_lock_held:
        _import_lock.release()


def _after_fork_in_child() -> None:
    global _has_used_delta_rs, _import_lock  # noqa: PLW0603 - the child's own
    _has_used_delta_rs = False
    _import_lock = threading.RLock()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
