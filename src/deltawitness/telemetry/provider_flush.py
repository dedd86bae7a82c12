"""Make the flush and the shutdown of an OpenTelemetry provider deliver queued writes first.

A program that calls `provider.force_flush()` after its last write expects the write's telemetry to be
exported. Writes are delivered on another thread than the caller's, so the two public methods are wrapped
on the provider object, and restored on `uninstrument()`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from deltawitness.thread_start import start_thread

__all__ = ["FlushFirst"]

_METHODS = ("force_flush", "shutdown")


class FlushFirst:
    """Wraps `force_flush` and `shutdown` of SDK providers.

    Args:
        deliver: delivers the queued writes; called before the provider's own method.
    """

    def __init__(self, deliver: Callable[[], object]) -> None:
        self._deliver = deliver
        self._providers: dict[int, Any] = {}

    def wrap(self, provider: object) -> bool:
        """Wrap the methods of a provider, once; a provider without them is not one of an SDK.

        Returns:
            Whether the provider is one of an SDK.
        """
        if id(provider) in self._providers:
            return True
        if not all(hasattr(provider, name) for name in _METHODS):
            return False
        self._providers[id(provider)] = provider
        for name in _METHODS:
            setattr(provider, name, self._delivering_first(getattr(provider, name)))
        return True

    def _delivering_first(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def delivering_first(*args: Any, **kwargs: Any) -> Any:
            self._deliver()
            return original(*args, **kwargs)

        return delivering_first

    def force_flush(self) -> None:
        """Flush every wrapped provider, in a process that skips the exit handlers of the SDK."""
        for provider in list(self._providers.values()):
            provider.force_flush()

    def force_flush_within(self, timeout: float) -> None:
        """Flush every wrapped provider concurrently, and wait at most `timeout` seconds for all.

        A provider whose server does not answer does not delay the others. Where no thread can be
        started, as in exit handlers since Python 3.12, they are flushed one after the other.
        """
        deadline = time.monotonic() + timeout
        threads = [
            threading.Thread(
                target=self._flush, args=(provider,), name="deltawitness-flush", daemon=True
            )
            for provider in list(self._providers.values())
        ]
        for thread in threads:
            with suppress(RuntimeError):  # no further thread can be started
                if not start_thread(thread):
                    thread.run()
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    @staticmethod
    def _flush(provider: Any) -> None:
        with suppress(Exception):  # exporters log their own errors
            provider.force_flush()

    def restore(self) -> None:
        """Restore the providers' own methods."""
        for provider in self._providers.values():
            for name in _METHODS:
                vars(provider).pop(name, None)
        self._providers.clear()
