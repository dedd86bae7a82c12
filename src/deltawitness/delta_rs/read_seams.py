"""Record which versions of tables a program reads through delta-rs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from deltawitness.commit.seams import Seam
from deltawitness.delta_rs.engine_calls import Call
from deltawitness.delta_rs.seam_states import position_of
from deltawitness.events import InputVersion
from deltawitness.internal_errors import guard
from deltawitness.locations import table_id
from deltawitness.observe.run_reads import record_reads
from deltawitness.patching import argument

__all__ = ["ReadSeams"]

_QUERIED = "delta_table"


class ReadSeams:
    """Makes the callables that replace the seams of reads.

    Args:
        only_when: called before each read is recorded; returns whether to record it.
    """

    def __init__(self, only_when: Callable[[], bool]) -> None:
        self._only_when = only_when

    def read(self, seam: Seam, original: Call) -> Call:  # noqa: ARG002 - one signature for all
        """Return a method of `RawDeltaTable` that Python code calls to read a table, recording the read."""

        @functools.wraps(original)
        def observed(table: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(table, *args, **kwargs)
            self._record_read(table)
            return result

        return observed

    def query(self, seam: Seam, original: Call) -> Call:  # noqa: ARG002 - one signature for all
        """Return the method that registers a table with a `QueryBuilder`, recording the read."""
        position = position_of(original, _QUERIED) - 1

        @functools.wraps(original)
        def observed(builder: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(builder, *args, **kwargs)
            self._record_read(argument(args, kwargs, position, _QUERIED))
            return result

        return observed

    def _record_read(self, table: Any) -> None:
        with guard("seam"):
            if self._only_when():
                uri = table.table_uri()
                record_reads(InputVersion(table_id(uri), table.version(), uri))
