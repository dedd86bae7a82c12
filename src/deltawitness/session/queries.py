"""Telemetry of queries that return rows to the program, if the setting `capture_queries` is on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import wrapt

from deltawitness.hashing import hash_of_plan_text, plan_text
from deltawitness.internal_errors import call_guarded, report
from deltawitness.locations import table_id
from deltawitness.observe import Observer
from deltawitness.redaction import table_name_for
from deltawitness.session.core.frames import state_of
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import DataFrame

    from deltawitness.telemetry.query_spans import Query

__all__ = ["inside_a_query", "observe_query"]


def observe_query(observer: Observer, name: str, frame: DataFrame, call: Callable[[], Any]) -> Any:
    """Call a frame's method that returns rows, and record the query.

    The method's result and its exception are unchanged, except that a returned stream is wrapped to
    count its rows. A query without Delta tables, or inside another one, is not recorded.

    Args:
        observer: records the query.
        name: the name of the method.
        frame: the frame.
        call: calls the method.
    """
    is_within = _inside.get() or not observer.is_on()
    query = None if is_within else _open_query(observer, frame)
    if query is None:
        return call()
    try:
        with inside_a_query():
            result = call()
    except BaseException as error:
        call_guarded("query", query.end, error)
        raise
    if name in _STREAMS:
        return _STREAMS[name](result, query)
    call_guarded("query", _end, query, name, result)
    return result


_inside: ContextVar[bool] = ContextVar("deltawitness_inside_a_query", default=False)


@contextmanager
def inside_a_query() -> Iterator[None]:
    """Record no further query inside the block: the engine's methods call each other."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def _open_query(observer: Observer, frame: DataFrame) -> Query | None:
    """Return the telemetry of a query over Delta tables; None if it reads none."""
    try:
        state = state_of(frame)
        if state is None:
            return None
        text = plan_text(unpatched(frame, "logical_plan")())
        inputs = state.inputs(text)
        if not inputs:
            return None
        settings = observer.settings
        key = settings.table_id_key
        ids = [r.table_id if key is None else table_id(r.uri or "", key=key) for r in inputs]
        names = [table_name_for(read.uri, None, settings.table_names) for read in inputs]
        return observer.queries.open(
            list(dict.fromkeys(name for name in names if name)),
            [f"{each}@{read.version}" for each, read in zip(ids, inputs, strict=True)],
            hash_of_plan_text(text),
        )
    except Exception as error:  # noqa: BLE001 - telemetry never changes the query
        report("query", error)
        return None


def _end(query: Query, name: str, result: Any) -> None:
    count = _ROWS.get(name)
    query.rows = None if count is None else count(result)
    query.end()


def _rows_of(batches: list[Any]) -> int:
    return sum(batch.num_rows for batch in batches)


_ROWS: dict[str, Callable[[Any], int]] = {
    "collect": _rows_of,
    "collect_column": len,
    "collect_partitioned": lambda partitions: sum(map(_rows_of, partitions)),
    "to_arrow_table": lambda table: table.num_rows,
    "to_pandas": len,
    "to_polars": len,
    "to_pydict": lambda columns: len(next(iter(columns.values()), ())),
    "to_pylist": len,
    "count": lambda _: 1,
}


# --- streams -------------------------------------------------------------------------------------------


if TYPE_CHECKING:
    _ObjectProxy = wrapt.ObjectProxy[Any]  # generic in its stubs only
else:
    _ObjectProxy = wrapt.ObjectProxy


class ObservedStream(_ObjectProxy):
    """A stream of record batches that counts its rows and ends the query at its end.

    Args:
        stream: the engine's stream.
        query: the telemetry of the query.
        siblings: ids of the query's streams that are not read to their end, shared by all of them.
    """

    def __init__(self, stream: Any, query: Query, siblings: set[int] | None = None) -> None:
        super().__init__(stream)
        self._self_query = query
        self._self_open = {id(stream)} if siblings is None else siblings
        query.rows = query.rows or 0

    def next(self) -> Any:
        """Return the next batch."""
        return self._self_take(self.__wrapped__.next)

    def __next__(self) -> Any:
        return self._self_take(self.__wrapped__.__next__)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        try:
            batch = await self.__wrapped__.__anext__()
        except BaseException as error:
            self._self_finish(error)
            raise
        self._self_count(batch)
        return batch

    def __del__(self) -> None:
        # A program may stop before the end: the rows that it has read are the query's rows.
        call_guarded("query", self._self_close, None)

    def _self_take(self, take: Callable[[], Any]) -> Any:
        try:
            batch = take()
        except BaseException as error:
            self._self_finish(error)
            raise
        self._self_count(batch)
        return batch

    def _self_count(self, batch: Any) -> None:
        call_guarded("query", _count_batch, self._self_query, batch)

    def _self_finish(self, error: BaseException) -> None:
        is_end = isinstance(error, StopIteration | StopAsyncIteration)
        call_guarded("query", self._self_close, None if is_end else error)

    def _self_close(self, error: BaseException | None) -> None:
        """End the query if this was its last open stream, or if a stream raised an error."""
        self._self_open.discard(id(self.__wrapped__))
        if error is not None or not self._self_open:
            self._self_query.end(error)


def _count_batch(query: Query, batch: Any) -> None:
    query.rows = (query.rows or 0) + batch.to_pyarrow().num_rows


def _observe_partitions(streams: list[Any], query: Query) -> list[Any]:
    still_open = set(map(id, streams))
    return [ObservedStream(stream, query, still_open) for stream in streams]


class _Capsule:
    """An object that exports an existing Arrow C stream capsule, as pyarrow expects one."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any:
        del requested_schema
        return self._capsule


def _count_capsule_rows(capsule: Any, query: Query) -> Any:
    """Return an Arrow C stream of the same batches that counts their rows as they are read."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    reader = pa.RecordBatchReader.from_stream(_Capsule(capsule))

    def counted() -> Iterator[Any]:
        query.rows = 0
        try:
            for batch in reader:
                query.rows += batch.num_rows
                yield batch
        except GeneratorExit:
            raise
        except BaseException as error:
            call_guarded("query", query.end, error)
            raise
        finally:
            call_guarded("query", query.end)

    return pa.RecordBatchReader.from_batches(reader.schema, counted()).__arrow_c_stream__()


_STREAMS: dict[str, Callable[[Any, Any], Any]] = {
    "__arrow_c_stream__": _count_capsule_rows,
    "__aiter__": ObservedStream,
    "__iter__": ObservedStream,
    "execute_stream": ObservedStream,
    "execute_stream_partitioned": _observe_partitions,
}
