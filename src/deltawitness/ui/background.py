"""Read on a thread that does not delay the end of the application."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

from deltawitness.thread_hold import hold_at_exit

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(read: Callable[[], T]) -> T:
    """Return the result of a function that runs on another thread.

    A thread of the event loop's executor would have to end before the application can: a request to an
    object store may take minutes.

    Args:
        read: the function.

    Raises:
        BaseException: what the function raised.
    """
    hold_at_exit()
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.done():  # the screen was closed
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast("T", result))

    def run() -> None:
        result, error = None, None
        try:
            result = read()
        except BaseException as raised:  # noqa: BLE001 - raised again by the caller
            error = raised
        with suppress(RuntimeError):  # the application has ended
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, name="deltawitness-reader", daemon=True).start()
    return await future
