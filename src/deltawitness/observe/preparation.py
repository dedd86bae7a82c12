"""What is the same for every write of one kind to one table, made once and kept."""

from __future__ import annotations

from dataclasses import dataclass

from deltawitness.commit.metadata import Stamp
from deltawitness.events import WriteIntent
from deltawitness.telemetry.spans import sampling_attributes, span_name

__all__ = ["Preparation"]


@dataclass(slots=True)
class Preparation:
    """An intent with the stamp, the span name and the sampling attributes that follow from it.

    Attributes:
        note: the part of a ledger's note that follows from it, made when it is first needed.
    """

    intent: WriteIntent
    stamp: Stamp
    span_name: str
    attributes: dict[str, str]
    note: str | None = None

    @classmethod
    def of(cls, intent: WriteIntent) -> Preparation:
        """Prepare the writes of this intent."""
        return cls(intent, Stamp.of(intent), span_name(intent), sampling_attributes(intent))
