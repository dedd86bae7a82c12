"""Makes a provider's own flush and shutdown wait for the writes that are still to be delivered.

A program that calls `provider.force_flush()` after its last write expects that write's telemetry
to be out. As deliveries are made off the caller's thread, the two public methods are wrapped on
the provider object, and put back on `uninstrument()`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["FlushFirst"]

_METHODS = ("force_flush", "shutdown")


class FlushFirst:
    """Wraps `force_flush` and `shutdown` of the SDK providers it is shown.

    Args:
        deliver: delivers what waits; called before the provider's own method.
    """

    def __init__(self, deliver: Callable[[], object]) -> None:
        self._deliver = deliver
        self._providers: dict[int, Any] = {}

    def wrap(self, provider: object) -> bool:
        """Wrap the provider's methods, once; a provider without them (no SDK) is left alone.

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
        """Flush every adopted provider: what a process that skips its exit handlers needs."""
        for provider in list(self._providers.values()):
            provider.force_flush()

    def force_flush_within(self, timeout: float) -> None:
        """Flush every adopted provider at the same time, and wait no longer than so many seconds.

        One whose server does not answer takes nothing from the others.
        """
        deadline = time.monotonic() + timeout
        threads = [
            threading.Thread(
                target=self._flush, args=(provider,), name="deltawitness-flush", daemon=True
            )
            for provider in list(self._providers.values())
        ]
        for thread in threads:
            with suppress(RuntimeError):  # no more threads can be had
                thread.start()
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    @staticmethod
    def _flush(provider: Any) -> None:
        with suppress(Exception):  # the exporters' own troubles are theirs to log
            provider.force_flush()

    def restore(self) -> None:
        """Put the providers' own methods back."""
        for provider in self._providers.values():
            for name in _METHODS:
                vars(provider).pop(name, None)
        self._providers.clear()
