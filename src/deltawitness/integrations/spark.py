"""Apache Spark: Delta commits of a Spark session carry the run, job and message, as those of delta-rs do.

Needs `pyspark`; to write Delta tables, also `delta-spark`, or a server of Spark Connect that can.
"""

from __future__ import annotations

import json
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from deltawitness.exceptions import ConfigurationError
from deltawitness.integrations._spark_sessions import ObservedSession, observed_sessions
from deltawitness.internal_errors import guard
from deltawitness.run import current_run
from deltawitness.run_context import RunContext

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["SparkObservation", "observe"]


def observe(spark: SparkSession, run: RunContext | None = None) -> SparkObservation:
    """Write the run into `userMetadata` of each Delta commit of a Spark session.

    The observation starts with this call. It ends with :meth:`SparkObservation.stop`, or at the end of
    a `with` block. Observing the session again ends the observation before.

    Args:
        spark: a session with a JVM, or of Spark Connect.
        run: the run of all commits. If it is None, a commit has the run that is open where the program
            calls Spark.

    Raises:
        ConfigurationError: `spark` is not a Spark session, or a variable of the run is invalid.
    """
    if not (hasattr(spark, "conf") and hasattr(spark, "sql")):
        msg = f"observe: expected a SparkSession, not {type(spark).__name__}"
        raise ConfigurationError(msg)
    if run is None:
        current_run()  # raises for an invalid variable here, not in a write
    return SparkObservation(spark, run)


class SparkObservation:
    """An observed Spark session; :func:`observe` returns it."""

    def __init__(self, spark: SparkSession, run: RunContext | None) -> None:
        self._session: ObservedSession | None = None
        for former in observed_sessions(spark):
            with guard("spark"):
                former.stop()
        with guard("spark"):
            session = ObservedSession(spark, run)
            session.start()
            self._session = session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def is_active(self) -> bool:
        """Whether the session is still observed by this observation."""
        return self._session is not None and self._session.is_active

    def stop(self) -> None:
        """Remove our metadata from the settings of the session. A second call does nothing."""
        if self._session is not None and self._session.is_active:
            with guard("spark"):
                self._session.stop()

    def user_metadata(self, **members: Any) -> str:
        """Return JSON for the option `userMetadata` of one write: our keys, and the caller's members.

        Without this function, a write with its own option has no metadata of ours: Delta takes one text.

        Args:
            **members: further members, of types that JSON has. Names of our keys are not replaced.

        Raises:
            TypeError: a value has no JSON form.
        """
        with guard("spark"):
            if self._session is not None:
                members |= self._session.keys(is_write=True)
        return json.dumps(members, separators=(",", ":"))
