"""Observed Spark sessions: the metadata of each call, and the calls of PySpark that are replaced meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from deltawitness.commit.metadata import keys_of_run
from deltawitness.forks import reset_in_child
from deltawitness.ids_and_clock import new_id
from deltawitness.integrations._spark_calls import (
    CallKind,
    SparkCall,
    is_connect,
    is_same_session,
    replace_calls,
)
from deltawitness.integrations._spark_conf import CommitTexts, SessionSetting
from deltawitness.internal_errors import guard
from deltawitness.patching import Replacements
from deltawitness.run import (
    add_run_listener,
    current_cache_context,
    current_run,
    is_suppressed,
    remove_run_listener,
)
from deltawitness.run_context import NO_CACHE_CONTEXT, CacheContext, RunContext
from deltawitness.semconv import USER_METADATA, CommitKey
from deltawitness.telemetry.spans import traceparent_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["ObservedSession", "observed_sessions"]


class ObservedSession:
    """A Spark session whose Delta commits get our metadata, from :meth:`start` to :meth:`stop`.

    Args:
        spark: the session.
        run: the run of all commits; the run of the calling context if None.

    Attributes:
        is_active: whether the session is observed now.
        is_connect: whether it is one of Spark Connect.
    """

    def __init__(self, spark: SparkSession, run: RunContext | None) -> None:
        self.spark = spark
        self.is_connect = is_connect(spark)
        self._run = run
        self._thread = threading.get_ident()
        self._setting = SessionSetting(spark.conf)
        self.is_active = False

    def start(self) -> None:
        """Set the metadata of the run, and replace the calls."""
        self.is_active = True
        _add(self)
        add_run_listener(self)
        self._setting.set_idle(self._run_text())

    def stop(self) -> None:
        """Restore the calls, and remove the metadata from the session's settings."""
        self.is_active = False
        remove_run_listener(self)
        _remove(self)
        if not getattr(self.spark, "is_stopped", False):
            self._setting.set_idle(None)

    # --- calls -------------------------------------------------------------------------------------

    @contextmanager
    def around(self, call: SparkCall) -> Iterator[None]:
        """Set the metadata of a call's commits for its duration."""
        texts, option = None, None
        with guard("spark"):
            made = self._texts(call)
            self._setting.begin(made)
            texts = made
            option = _Option.add(call, made.write)
        try:
            yield
        finally:
            with guard("spark"):
                if option is not None:
                    option.remove()
                if texts is not None:
                    self._setting.end(texts)

    def _texts(self, call: SparkCall) -> CommitTexts:
        if is_suppressed():
            return CommitTexts(None, None)
        is_write = call.kind is CallKind.WRITE
        return CommitTexts(_as_setting(self.keys(is_write=is_write)), self._run_text())

    def keys(self, *, is_write: bool) -> dict[str, str]:
        """Return our keys for the commits of a call that starts now.

        Args:
            is_write: whether its commits are of one write, and not of a query that commits often.
        """
        keys = self._of_run(current_cache_context())
        traceparent = traceparent_of(trace.get_current_span())
        if traceparent is not None:
            keys[CommitKey.TRACEPARENT.value] = traceparent
        if is_write:
            keys[CommitKey.WRITE_ID.value] = new_id()
        return keys

    def _of_run(self, cache: CacheContext) -> dict[str, str]:
        return keys_of_run(self._run or current_run(), cache)

    def _run_text(self) -> str:
        return _as_setting(self._of_run(NO_CACHE_CONTEXT))

    # --- runs --------------------------------------------------------------------------------------

    def run_started(self, _: RunContext, /) -> None:
        """Follow the runs of the thread that observes, for commits of calls that are not replaced."""
        self._follow()

    def run_ending(self, _: RunContext, /) -> None:
        """Do nothing: the run's calls have returned."""

    def run_ended(self, _: RunContext, error: BaseException | None, /) -> None:
        """Do nothing: the run is still the current one."""

    def run_closed(self, _: RunContext, /) -> None:
        """Return to the enclosing run."""
        self._follow()

    def _follow(self) -> None:
        # A request to a server that is gone is repeated for minutes, and a run may open without Spark.
        if not self.is_connect and threading.get_ident() == self._thread:
            with guard("spark"):
                self._setting.set_idle(self._run_text())


def _as_setting(keys: dict[str, str]) -> str:
    """Return keys as JSON in which Spark finds no `${...}`, which it would replace in a setting."""
    return json.dumps(keys, separators=(",", ":")).replace("$", "\\u0024")


class _Option:
    """The option `userMetadata` of one write of Spark Connect, for engines that ignore the setting."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @classmethod
    def add(cls, call: SparkCall, text: str | None) -> _Option | None:
        """Add the option to a write that has none; return None where there is nothing to remove."""
        options = call.options()
        if text is None or options is None:
            return None
        if any(name.lower() == USER_METADATA.lower() for name in options):
            return None
        options[USER_METADATA] = text
        return cls(options)

    def remove(self) -> None:
        """Remove the option."""
        self._options.pop(USER_METADATA, None)


# --- the replaced calls ------------------------------------------------------------------------------

_active: tuple[ObservedSession, ...] = ()
"""The active sessions, the newest first."""

_replaced: dict[bool, Replacements] = {}
"""The replaced calls, by whether they are those of Spark Connect."""

_lock = threading.Lock()
reset_in_child("_lock", globals(), threading.Lock)


def observed_sessions(spark: SparkSession) -> list[ObservedSession]:
    """Return the observations of a session that are active."""
    return [each for each in _active if is_same_session(each.spark, spark)]


def _add(session: ObservedSession) -> None:
    """Add a session, and replace the calls of its kind."""
    global _active  # noqa: PLW0603 - a new tuple, so that a call in progress iterates over a stable one
    with _lock:
        _active = (session, *_active)
        if session.is_connect not in _replaced:
            _replaced[session.is_connect] = replace_calls(_around, connect=session.is_connect)


def _remove(session: ObservedSession) -> None:
    """Remove a session, and restore the calls if no other session needs them."""
    global _active  # noqa: PLW0603 - see _add
    with _lock:
        _active = tuple(other for other in _active if other is not session)
        if all(other.is_connect is not session.is_connect for other in _active):
            _replaced.pop(session.is_connect).restore()


@contextmanager
def _around(call: SparkCall) -> Iterator[None]:
    """Run a call in the observation of its session, if there is one."""
    found = None
    with guard("spark"):
        found = next((each for each in _active if call.belongs_to(each.spark)), None)
    if found is None:
        yield
    else:
        with found.around(call):
            yield
