"""The setting of a Spark session whose value Delta writes into the `userMetadata` of each commit."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

__all__ = ["CommitTexts", "SessionSetting"]

SETTING = "spark.databricks.delta.commitInfo.userMetadata"
"""Read by Delta when it commits, unless the write has an option `userMetadata`."""


@dataclass(frozen=True, slots=True, eq=False)
class CommitTexts:
    """The `userMetadata` of a call that is in progress; None for a call that is not observed.

    Attributes:
        write: for the commits of this call.
        run: for commits of any call of the same run.
    """

    write: str | None
    run: str | None


class SessionSetting:
    """Sets `userMetadata` in a session, for whatever calls are in progress.

    Delta reads the setting at the end of a write. So with several calls in progress, in threads, the value
    is the one that fits each of them: that of the call, of the run if all are of one run, or none.
    A value that the program sets stays, and is not replaced.

    Args:
        conf: the configuration of the session.
    """

    def __init__(self, conf: Any) -> None:
        self._conf = conf
        self._lock = threading.Lock()
        self._in_progress: list[CommitTexts] = []
        self._idle: str | None = None
        self._ours: str | None = None

    def set_idle(self, text: str | None) -> None:
        """Set the value for the time when no call is in progress.

        Args:
            text: the value; None for none.
        """
        with self._lock:
            self._idle = text
            self._apply()

    def begin(self, texts: CommitTexts) -> None:
        """Add a call that is in progress."""
        with self._lock:
            self._in_progress.append(texts)
            self._apply()

    def end(self, texts: CommitTexts) -> None:
        """Remove a call that has returned."""
        with self._lock:
            self._in_progress.remove(texts)
            self._apply()

    def _apply(self) -> None:
        wanted = self._wanted()
        current = self._conf.get(SETTING, None)
        is_programs = current is not None and current != self._ours
        if is_programs or current == wanted:
            return
        if wanted is None:
            self._conf.unset(SETTING)
        else:
            self._conf.set(SETTING, wanted)
        self._ours = wanted

    def _wanted(self) -> str | None:
        if not self._in_progress:
            return self._idle
        first, *others = self._in_progress
        if not others:
            return first.write
        return first.run if all(other.run == first.run for other in others) else None
