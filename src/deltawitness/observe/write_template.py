"""What all writes of one kind to one table share, computed once and reused."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from deltawitness.commit.metadata import RunStamp, Stamp
from deltawitness.events import WriteIntent
from deltawitness.hashing import schema_hash
from deltawitness.internal_errors import guarded_value
from deltawitness.locations import is_uri, strip_credentials
from deltawitness.observe.run_reads import reads_of_run
from deltawitness.observe.write_context import NO_ATTRIBUTES, WriteAttributes
from deltawitness.redaction import redact_label, table_name_for
from deltawitness.run import current_cache_context
from deltawitness.run_context import NO_CACHE_CONTEXT
from deltawitness.semconv import POLICY_UNMANAGED, CacheOperation, CacheScope, Operation
from deltawitness.telemetry.spans import sampling_attributes, span_name

if TYPE_CHECKING:
    from deltalake._internal import RawDeltaTable

    from deltawitness.commit.seams import WriteSeam
    from deltawitness.observe.write_context import WriteContext
    from deltawitness.run_context import RunContext
    from deltawitness.settings import Settings

__all__ = ["WriteTemplate", "WriteTemplateCache", "write_intent"]

TEMPLATE_CAPACITY = 4096
"""Templates in a cache; one more empties it."""


@dataclass(slots=True)
class WriteTemplate:
    """An intent with the values that follow from it alone.

    Attributes:
        intent: what the writes mean to do.
        stamp: the commit metadata.
        span_name: name of the spans.
        attributes: sampling attributes of the spans.
        intent_text: the intent's part of a provisional record; None until it is first needed.
        running: the text in the file of running writes that the last write of a run shares with the next.
        is_absolute: whether the location stays valid when the program changes its working directory;
            False if that is not known.
        shared_texts: the parts of provisional records that writes share, by what they follow from.
    """

    intent: WriteIntent
    stamp: Stamp
    span_name: str
    attributes: dict[str, str]
    intent_text: str | None = None
    running: tuple[RunContext, str] | None = None
    is_absolute: bool = False
    shared_texts: dict[tuple[object, ...], str] = field(default_factory=dict)
    _of_schema: tuple[object, WriteTemplate] | None = field(default=None, init=False)
    _of_run: tuple[RunContext, Stamp] | None = field(default=None, init=False)

    @classmethod
    def of(cls, intent: WriteIntent) -> WriteTemplate:
        """Return the template for writes of an intent."""
        return cls(intent, Stamp.of(intent), span_name(intent), sampling_attributes(intent))

    def stamp_in(self, run: RunContext) -> Stamp:
        """Return the commit metadata of the writes of a run, which are made once for writes in sequence.

        Args:
            run: the run.
        """
        last = self._of_run
        if last is None or last[0] is not run:
            stamp = self.stamp.with_run(RunStamp.of(run, self.intent.message))
            last = self._of_run = run, stamp
        return last[1]

    def with_schema(self, schema: object) -> WriteTemplate:
        """Return the template with the hash of a schema in its intent and stamp.

        Most writes to a table have one schema: it is hashed only where it differs from the last one.

        Args:
            schema: the written Arrow schema; None when it is not known.

        Raises:
            TypeError: a type in the schema cannot be hashed.
        """
        if schema is None or self.intent.schema_hash is not None:
            return self
        if self._of_schema is None or self._of_schema[0] != schema:
            intent = replace(self.intent, schema_hash=schema_hash(schema))
            self._of_schema = schema, WriteTemplate.of(intent)
        return self._of_schema[1]


class WriteTemplateCache:
    """The templates of the writes that reach the engine.

    Args:
        settings: how table names are redacted.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._templates: dict[tuple[object, ...], WriteTemplate] = {}

    def get(  # noqa: PLR0913, PLR0917 - a write, on its path: no object is made for it
        self,
        seam: WriteSeam,
        location: str,
        table: RawDeltaTable | None,
        mode: str | None,
        run: RunContext,
        context: WriteContext | None,
    ) -> WriteTemplate:
        """Return the template of a write that is about to reach the engine.

        The write is counted in the write context, whose attributes it gets. Only writes
        through an open table are cached: without one, each may be to another table.

        Args:
            seam: the patched callable that saw the write.
            location: the table's location as the engine spells it.
            table: the open table, if the write goes through one.
            mode: the save mode, if it has one.
            run: the run of the write.
            context: the enclosing write context; None outside of any.
        """
        ambient = current_cache_context()
        attributes = NO_ATTRIBUTES
        key: tuple[object, ...] = seam.name, location, mode
        if context is not None:
            context.observed += 1
            attributes = context.attributes
        has_inputs = attributes.plan_hash or seam.operation is Operation.RESTORE
        run_inputs = () if has_inputs else reads_of_run(run)
        if attributes.store_plan is not None:
            attributes = replace(attributes, store_plan=None)  # a template must not hold a plan
        if attributes is not NO_ATTRIBUTES or ambient is not NO_CACHE_CONTEXT or run_inputs:
            key = *key, attributes, ambient, run_inputs
        try:
            return self._templates[key]
        except KeyError:
            named = (
                None
                if table is None
                else guarded_value("seam", lambda: table.metadata().name, None)
            )
            intent = write_intent(
                self._settings,
                attributes,
                seam.operation,
                seam.cache_operation,
                location,
                named=named,
                mode=mode,
            )
            template = WriteTemplate.of(replace(intent, run_inputs=run_inputs))
            template.is_absolute = location.startswith("/") or is_uri(location)
            if len(self._templates) >= TEMPLATE_CAPACITY:
                self._templates.clear()
            if table is not None:
                self._templates[key] = template
            return template

    def clear(self) -> None:
        """Drop every template, because a table's name may have changed."""
        self._templates.clear()


def write_intent(  # noqa: PLR0913 - what a write is, by keyword where it may be missing
    settings: Settings,
    attributes: WriteAttributes,
    operation: Operation,
    cache_operation: CacheOperation,
    location: str | None,
    *,
    named: str | None = None,
    mode: str | None = None,
) -> WriteIntent:
    """Return what a write means to do.

    Args:
        settings: how table names are redacted.
        attributes: attributes from the outer call; they take precedence over the ambient cache context.
        operation: the engine's operation.
        cache_operation: the same operation in terms of the cache.
        location: the table's location as the engine spells it.
        named: the table's name in its metadata.
        mode: the save mode.
    """
    ambient = current_cache_context()
    return WriteIntent(
        operation=operation,
        cache_operation=cache_operation,
        table_uri=None
        if location is None
        else guarded_value("redaction", lambda: strip_credentials(location), None),
        table_name=guarded_value(
            "redaction",
            lambda: table_name_for(location, named, settings.table_names),
            None,
        ),
        mode=mode,
        policy=guarded_value(
            "redaction",
            lambda: redact_label(attributes.policy or ambient.policy or POLICY_UNMANAGED),
            POLICY_UNMANAGED,
        ),
        scope=attributes.scope or ambient.scope or CacheScope.DATASET,
        cache_key=attributes.cache_key if attributes.cache_key is not None else ambient.key,
        schema_hash=attributes.schema_hash,
        plan_hash=attributes.plan_hash,
        plan_shape_hash=attributes.plan_shape_hash,
        inputs=attributes.inputs,
        parts=attributes.parts,
        column_lineage=attributes.column_lineage,
        message=ambient.message,
    )
