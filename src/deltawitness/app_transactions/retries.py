"""Delays between the attempts of a write that lost against a concurrent commit."""

from __future__ import annotations

import random
import time

__all__ = ["Retries"]

_FIRST_DELAY, _LONGEST_DELAY = 0.02, 2.0
"""Upper bounds in seconds of the first delay, and of every delay."""


class Retries:
    """Delays between the attempts of a write after a conflict: random, growing, until a deadline.

    Args:
        deadline: seconds after the first conflict in which attempts may start.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._until: float | None = None
        self._count = 0

    def next_delay(self) -> float | None:
        """Return the seconds to wait before the next attempt; None when the deadline has passed."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._deadline
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(self._count, 16))
        self._count += 1
        delay = random.uniform(0, longest)  # noqa: S311 - jitter, not a secret
        return delay if now + delay < self._until else None

    def wait(self) -> bool:
        """Sleep until the next attempt; return False when the deadline has passed."""
        delay = self.next_delay()
        if delay is None:
            return False
        time.sleep(delay)
        return True
