"""`write_distributed`: workers write the parts of a Delta table, and one commit adds them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from deltawitness.app_transactions import outside_block
from deltawitness.commit.engine_version import engine_version, has_release
from deltawitness.delta_rs.install import install_for_proxies
from deltawitness.delta_rs.unreached import UnreachedWrite
from deltawitness.distributed.commit import (
    Commit,
    commit,
    earlier_commit,
    transaction_block,
)
from deltawitness.distributed.engines import engine_for, stage_parts
from deltawitness.distributed.parts import schema_of
from deltawitness.distributed.request import Request, request_from
from deltawitness.distributed.result import DistributedWriteResult
from deltawitness.distributed.schemas import merged_schema, new_columns
from deltawitness.distributed.staging import StagedPart, StagingTask
from deltawitness.distributed.target import Target, open_target, schema_in
from deltawitness.events import Landed, NoCommitReason
from deltawitness.exceptions import UnsupportedEngineError, WriteRequestError
from deltawitness.hashing import schema_hash
from deltawitness.ids_and_clock import new_id
from deltawitness.internal_errors import guard, guarded_value, report
from deltawitness.locations import table_id
from deltawitness.observe.write_context import NO_ATTRIBUTES, WriteAttributes, write_context
from deltawitness.semconv import Operation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltalake import CommitProperties, DeltaTable, WriterProperties

    from deltawitness.observe import Observer

__all__ = [
    "FIRST_RELEASE",
    "DistributedWriteResult",
    "Workers",
    "write_distributed",
    "write_with_attributes",
]

FIRST_RELEASE = "1.6.3"
"""First release of delta-rs whose write transactions contain application transactions."""


def write_distributed(  # noqa: PLR0913 - the arguments of write_deltalake, by keyword
    parts: Any,
    table: str | os.PathLike[str] | DeltaTable,
    *,
    mode: Literal["append", "overwrite", "error", "ignore"] = "append",
    partition_by: Sequence[str] | str | None = None,
    schema: Any = None,
    schema_mode: Literal["merge", "overwrite"] | None = None,
    predicate: str | None = None,
    storage_options: Mapping[str, str] | None = None,
    engine: Literal["executor", "dask", "ray"] | Executor | Any | None = None,
    max_in_flight: int | None = None,
    key: str | None = None,
    name: str | None = None,
    description: str | None = None,
    configuration: Mapping[str, str | None] | None = None,
    target_file_size: int | None = None,
    writer_properties: WriterProperties | None = None,
    commit_properties: CommitProperties | None = None,
) -> DistributedWriteResult:
    """Write parts to a Delta table on several workers, with one commit.

    Each worker writes the data files of its parts below the table. When all parts are written, this
    process checks their schemas and makes one commit, which is observed as one write. After an error or a
    crash before the commit, the files belong to no table, and `DeltaTable.vacuum(full=True)` removes them.

    Args:
        parts: a pyarrow dataset, whose fragments are the parts; a Dask DataFrame, whose partitions are;
            a Ray Dataset, whose blocks are; or an iterable. An item of an iterable is an Arrow or pandas
            table, a stream of batches, a pyarrow dataset, the path of Parquet files, a function without
            parameters that returns one of these, a Dask `Delayed` or future, or a Ray `ObjectRef`.
        table: path or URI of the table, or an open table.
        mode: save mode, as for `write_deltalake`.
        partition_by: partition columns of a new table.
        schema: Arrow or Delta schema of a new table; that of the parts when None.
        schema_mode: `merge` lets parts lack columns and, in a new table or an overwrite, have further
            ones; `overwrite` replaces the schema of the table.
        predicate: the partitions that an overwrite replaces, such as `day = '2026-11-27'`; every row when
            None.
        storage_options: as for `DeltaTable`.
        engine: `executor` for a pool of spawned processes, `dask` or `ray` for the cluster that this process
            is connected to, an `Executor`, or a Dask client. When None, the engine of the parts.
        max_in_flight: number of parts that workers have at the same time.
        key: makes the write exactly-once: a second call with the key, in any process, commits nothing
            and returns the result of the first. See :class:`deltawitness.once`.
        name: name of a new table.
        description: description of a new table.
        configuration: properties of a new table.
        target_file_size: as for `write_deltalake`.
        writer_properties: as for `write_deltalake`.
        commit_properties: as for `write_deltalake`.

    Returns:
        What was committed.

    Raises:
        WriteRequestError: the write is not possible; nothing was written.
        ConfigurationError: the engine or the key is invalid.
        UnsupportedEngineError: the release of deltalake is older than 1.6.3.
        OnceError: there is a key, and writes are suppressed.
        deltalake.exceptions.SchemaMismatchError: the parts do not fit together, or not the table. Nothing
            was committed.
        deltalake.exceptions.DeltaError: another error of delta-rs.

    >>> import pyarrow as pa, tempfile
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> parts = [pa.table({"id": [1, 2]}), pa.table({"id": [3]})]
    >>> with ThreadPoolExecutor() as pool, tempfile.TemporaryDirectory() as folder:
    ...     result = write_distributed(parts, f"{folder}/t", engine=pool)
    ...     result.version, result.rows, result.parts
    (0, 3, 2)
    """
    request = request_from(
        mode=mode,
        partition_by=partition_by,
        schema=schema,
        schema_mode=schema_mode,
        predicate=predicate,
        name=name,
        description=description,
        configuration=configuration,
        target_file_size=target_file_size,
        writer_properties=writer_properties,
        commit_properties=commit_properties,
    )
    options = None if storage_options is None else dict(storage_options)
    workers = Workers(engine, max_in_flight)
    return write_with_attributes(parts, (table, options), request, workers, key, NO_ATTRIBUTES)


@dataclass(frozen=True, slots=True)
class Workers:
    """The engine as the program has described it, and how many parts it has at the same time."""

    engine: Any
    max_in_flight: int | None


def write_with_attributes(  # noqa: PLR0913, PLR0917 - the parts of one call
    parts: Any,
    table: tuple[Any, dict[str, str] | None],
    request: Request,
    workers: Workers,
    key: str | None,
    attributes: WriteAttributes,
) -> DistributedWriteResult:
    """Write parts as :func:`write_distributed` does, with attributes of the query that makes the rows.

    Args:
        parts: the parts.
        table: the table and its storage options.
        request: the write.
        workers: the engine.
        key: the key of the write.
        attributes: plan, inputs and policy of the rows.
    """
    if not has_release(FIRST_RELEASE):
        msg = (
            f"write_distributed: needs deltalake {FIRST_RELEASE} or later, found {engine_version()}"
        )
        raise UnsupportedEngineError(msg)
    write = _Write(request, _observer(), attributes, time.perf_counter_ns())
    with write.recording_failure(table[0]):
        if write.observer is not None:
            write.observer.require()
        write.target = target = open_target(*table)
        write_id = new_id()
        with transaction_block(target, key, write_id):
            skipped = write.skip()
            if skipped is not None:
                return skipped
            target.check(request)
            with outside_block():  # workers in threads would inherit the block
                staged, schema = _staged(parts, target, request, workers, write_id)
            return write.commit(Commit(target, request, write_id, staged, schema))


def _observer() -> Observer | None:
    """Return the observer of the process; None if it cannot be made, so the write is not observed."""
    try:
        return install_for_proxies()
    except Exception as error:  # noqa: BLE001 - telemetry never changes the write
        report("distributed", error)
        return None


class _Write:
    """One distributed write, and what is recorded about it.

    Args:
        request: the write.
        observer: records it; None for an unobserved write.
        attributes: plan, inputs and policy of the rows.
        clock: `time.perf_counter_ns()` at its start.
    """

    def __init__(
        self,
        request: Request,
        observer: Observer | None,
        attributes: WriteAttributes,
        clock: int,
    ) -> None:
        self.request = request
        self.observer = observer
        self.target: Target | None = None
        self._attributes = attributes
        self._clock = clock
        self._is_recorded = False

    def skip(self) -> DistributedWriteResult | None:
        """Return the result of a write that is not necessary, and record it; None if it is necessary."""
        assert self.target is not None
        earlier = earlier_commit(self.target)
        if earlier is not None:
            self._record_skip(NoCommitReason.ALREADY_COMMITTED)
            return earlier
        if self.request.mode != "ignore" or self.target.table is None:
            return None
        self._record_skip(NoCommitReason.TABLE_EXISTS)
        return DistributedWriteResult(
            None, 0, 0, 0, None, Landed.NO, None, is_new=False, table_id=table_id(self.target.uri)
        )

    def commit(self, planned: Commit) -> DistributedWriteResult:
        """Make the commit: the one event of the write, which began with the staging."""
        attributes = replace(
            self._attributes,
            parts=len(planned.parts),
            schema_hash=guarded_value("schema_hash", lambda: _hash_of(planned.schema), None),
        )
        with write_context(attributes) as context:
            outer_clock, context.clock = context.clock, self._clock
            before = context.observed
            try:
                return commit(planned)
            finally:
                context.clock = outer_clock
                self._is_recorded = context.observed > before

    @contextmanager
    def recording_failure(self, table: Any) -> Iterator[None]:
        """Record a failure that no patched call of delta-rs has seen.

        Args:
            table: the table as the program gave it.
        """
        try:
            yield
        except BaseException as error:
            if self._is_observed() and not self._is_recorded:
                with guard("distributed"), write_context(self._attributes):
                    assert self.observer is not None
                    self._unreached(table).record_failure(self.observer, error)
            raise

    def _record_skip(self, reason: NoCommitReason) -> None:
        if self._is_observed():
            with guard("distributed"), write_context(self._attributes):
                assert self.observer is not None
                assert self.target is not None
                self._unreached(self.target.table).record_skip(self.observer, reason)

    def _is_observed(self) -> bool:
        return self.observer is not None and self.observer.is_on()

    def _unreached(self, table: Any) -> UnreachedWrite:
        return UnreachedWrite.of(Operation.WRITE, table, table, self.request.mode, self._clock)


def _hash_of(schema: str) -> str:
    import pyarrow as pa  # noqa: PLC0415 - heavy
    from deltalake import Schema  # noqa: PLC0415 - heavy

    return schema_hash(pa.schema(Schema.from_json(schema).to_arrow()))


def _staged(
    parts: Any, target: Target, request: Request, workers: Workers, write_id: str
) -> tuple[list[StagedPart], str]:
    """Write the files of all parts, and return them with the schema of the table.

    Raises:
        SchemaMismatchError: the schemas do not fit.
        WriteRequestError: there is no schema, or rows are outside the predicate.
    """
    first_commit = target.first_commit(request, schema_of(parts))
    task = StagingTask(
        target.uri,
        target.storage_options,
        write_id,
        first_commit,
        tuple(target.partition_by(request)),
        target.configuration(request) or None,
        request.schema_mode,
        request.target_file_size,
        request.writer_properties,
    )
    staged = []
    engine = engine_for(workers.engine, parts, workers.max_in_flight)
    try:
        with closing(stage_parts(engine, task, parts)) as results:
            for part in results:
                _raise_error_of(part)
                staged.append(part)
    finally:
        engine.close()
    _check_predicate(staged, target, request)
    return staged, _schema_of_table(staged, target, request, schema_in(first_commit))


def _raise_error_of(part: StagedPart) -> None:
    if part.error is not None:
        import deltalake.exceptions  # noqa: PLC0415 - heavy

        name, text = part.error
        msg = f"part {part.number}: {text}"
        raise getattr(deltalake.exceptions, name)(msg)


def _schema_of_table(
    staged: list[StagedPart], target: Target, request: Request, given: str | None
) -> str:
    """Return the schema of the table after the write, as Delta JSON."""
    if given is not None and request.schema_mode != "merge":
        return given
    if target.table is not None and request.mode == "append" and given is not None:
        found = new_columns(staged, given)
        if found is None:
            return given
        from deltalake.exceptions import SchemaMismatchError  # noqa: PLC0415 - heavy

        msg = (
            f"part {found[0]}: column {found[1]!r} is not in the table, and a distributed append cannot"
            " add it; call DeltaTable.alter.add_columns first"
        )
        raise SchemaMismatchError(msg)
    schema = merged_schema(staged, given, may_differ=request.schema_mode == "merge")
    if schema is None:
        msg = "parts: there is none, and the table needs a schema; pass schema="
        raise WriteRequestError(msg)
    return schema


def _check_predicate(staged: list[StagedPart], target: Target, request: Request) -> None:
    filters = request.partition_filters(target.partition_by(request))
    for part in staged if filters else ():
        for add in part.adds:
            for column, _, value in filters or ():
                if add["partitionValues"].get(column) != value:
                    msg = f"predicate: part {part.number} has rows of other partitions"
                    raise WriteRequestError(msg)
