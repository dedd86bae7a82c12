"""Call a function for several items at the same time, also while the interpreter shuts down.

`concurrent.futures` runs nothing once the shutdown has begun, and cannot even be imported then. Exit handlers
drain the ledger, so what a drain calls must not depend on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from deltawitness.thread_hold import hold_at_exit
from deltawitness.thread_start import start_thread

__all__ = ["map_in_threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    act: Callable[[Item], Result], items: Sequence[Item], limit: int
) -> list[Result]:
    """Return the result of a function for each item, in the order of the items.

    The caller's thread works as well, so all items are done where no thread can be started.

    Args:
        act: the function; several threads call it at the same time.
        items: its arguments.
        limit: maximum number of threads, the caller's included.

    Raises:
        Exception: what the function has raised for the first item with an error. The other items are
            done first.

    >>> map_in_threads(len, ["a", "bc", ""], 2)
    [1, 2, 0]
    """
    results: dict[int, Result] = {}
    errors: dict[int, BaseException] = {}
    waiting = list(range(len(items)))[::-1]

    def work() -> None:
        while waiting:
            try:
                number = waiting.pop()
            except IndexError:  # another thread was faster
                return
            try:
                results[number] = act(items[number])
            except BaseException as error:  # noqa: BLE001 - raised on the caller's thread
                errors[number] = error

    threads = _start_threads(work, min(limit, len(items)) - 1)
    work()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[min(errors)]
    return [results[number] for number in range(len(items))]


def _start_threads(work: Callable[[], None], count: int) -> list[threading.Thread]:
    """Start threads, as many as the system lets."""
    threads: list[threading.Thread] = []
    if count > 0:
        hold_at_exit()
    for _ in range(count):
        thread = threading.Thread(target=work, name="deltawitness-reader", daemon=True)
        try:
            is_started = start_thread(thread)
        except RuntimeError:  # a limit of the system
            is_started = False
        if not is_started:
            break
        threads.append(thread)
    return threads
