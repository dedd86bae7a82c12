"""What is the same for every write of one kind to one table, made once and kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from deltawitness.commit.metadata import Stamp
from deltawitness.events import WriteIntent
from deltawitness.hashing import schema_hash
from deltawitness.telemetry.spans import sampling_attributes, span_name

__all__ = ["WriteTemplate"]


@dataclass(slots=True)
class WriteTemplate:
    """An intent with the stamp, the span name and the sampling attributes that follow from it.

    Attributes:
        note: the part of a ledger's note that follows from it, made when it is first needed.
    """

    intent: WriteIntent
    stamp: Stamp
    span_name: str
    attributes: dict[str, str]
    note: str | None = None
    _of_schema: tuple[object, WriteTemplate] | None = field(default=None, init=False)

    @classmethod
    def of(cls, intent: WriteIntent) -> WriteTemplate:
        """Prepare the writes of this intent."""
        return cls(intent, Stamp.of(intent), span_name(intent), sampling_attributes(intent))

    def with_schema(self, schema: object) -> WriteTemplate:
        """Return the same for writes of a schema, whose hash is part of the stamp.

        Most writes to a table are of one schema: it is hashed when it differs from the last one.

        Args:
            schema: the Arrow schema that is written; None when it is not known.

        Raises:
            TypeError: it has a type that cannot be hashed.
        """
        if schema is None or self.intent.schema_hash is not None:
            return self
        if self._of_schema is None or self._of_schema[0] != schema:
            intent = replace(self.intent, schema_hash=schema_hash(schema))
            self._of_schema = schema, WriteTemplate.of(intent)
        return self._of_schema[1]
