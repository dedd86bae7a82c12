"""Makes a provider's own flush and shutdown wait for the writes that are still to be delivered.

A program that calls `provider.force_flush()` after its last write expects that write's telemetry
to be out. As deliveries are made off the caller's thread, the two public methods are wrapped on
the provider object, and put back on `uninstrument()`.
"""

from __future__ import annotations

from collections.abc import Callable
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

    def adopt(self, provider: object) -> bool:
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

    def restore(self) -> None:
        """Put the providers' own methods back."""
        for provider in self._providers.values():
            for name in _METHODS:
                vars(provider).pop(name, None)
        self._providers.clear()
