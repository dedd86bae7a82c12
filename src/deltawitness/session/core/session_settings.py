"""The settings of a session, cached: reading them from the engine copies them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from deltawitness.session.core.private_api import FILE_CACHE_LIMIT

if TYPE_CHECKING:
    from datafusion import SessionConfig, SessionContext

__all__ = ["SessionSettings"]


class SessionSettings:
    """The settings of one session, and what SET statements have changed.

    Attributes:
        config: a cached copy of the settings; None after a statement that may have changed them.
        time_zones: the number of times that the session's time zone was set.
        file_cache_statement: the SET statement with the current size of the session's cache of
            directory listings.
    """

    def __init__(self) -> None:
        self.config: SessionConfig | None = None
        self.time_zones = 0
        self.file_cache_statement = f"SET {FILE_CACHE_LIMIT} = '1M'"
        self._changes = 0
        self._lock = threading.Lock()

    def config_of(self, ctx: SessionContext) -> SessionConfig:
        """Return a copy of the session's settings; the same object until they change.

        Args:
            ctx: a context of the session.
        """
        config, changes = self.config, self._changes
        if config is None:
            config = ctx.copied_config()
            with self._lock:
                if changes == self._changes:
                    self.config = config
        return config

    def forget_config(self) -> None:
        """Drop the cached settings, because a statement may have changed them."""
        with self._lock:
            self._changes += 1
            self.config = None
