"""`ObservedSessionContext` and `ObservedDataFrame`: transparent proxies over DataFusion's classes.

An observed method calls its handler. Every other attribute is forwarded to the wrapped object.
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import wrapt
from datafusion import DataFrame, SessionContext
from datafusion.catalog import Catalog, Schema

from deltawitness.datafusion_pairs import check_engines
from deltawitness.delta_rs.install import install_for_proxies
from deltawitness.internal_errors import report
from deltawitness.session.catalog_handlers import CATALOG_HANDLERS, SCHEMA_HANDLERS
from deltawitness.session.context_handlers import SESSION_HANDLERS, refresh, register_delta
from deltawitness.session.core.releases import register_release
from deltawitness.session.core.state import keep_session_alive, session_of
from deltawitness.session.core.unpatched import REPLACED
from deltawitness.session.frame_handlers import FRAME_HANDLERS, RETURNING_DATA
from deltawitness.session.handlers import Handler
from deltawitness.session.sql.distributed_write import write_distributed
from deltawitness.session.sql.frame_writer import write_delta

if TYPE_CHECKING:
    from datafusion import RuntimeEnvBuilder, SessionConfig

    from deltawitness.distributed.result import DistributedWriteResult
    from deltawitness.pipeline.request import WriteResult

__all__ = ["ObservedDataFrame", "ObservedSessionContext", "plain"]

# wrapt 2 has a base class without __iter__, which DataFusion's classes do not all have.
_Proxy: Any = getattr(wrapt, "BaseObjectProxy", wrapt.ObjectProxy)

if TYPE_CHECKING:
    # Type checkers see a proxy as a subclass of the class that it wraps.
    _FrameProxy = DataFrame
    _SessionProxy = SessionContext
    _CatalogProxy = Catalog
    _SchemaProxy = Schema
else:
    _FrameProxy = _SessionProxy = _CatalogProxy = _SchemaProxy = _Proxy


T = TypeVar("T")


def plain(value: Any) -> Any:
    """Return the wrapped engine object of a proxy; any other value unchanged."""
    return value.__wrapped__ if isinstance(value, _Proxy) else value


def _to_proxy(value: Any) -> Any:
    """Return a value of the engine wrapped in its proxy class; unchanged if there is none."""
    kind: Any = type(value)
    if kind is DataFrame:
        return ObservedDataFrame(value)
    proxy = _proxy_for(kind)
    return value if proxy is None else proxy(value)


@lru_cache(maxsize=512)
def _proxy_for(kind: Any) -> Callable[[Any], Any] | None:
    return next((proxy for wrapped, proxy in _PROXIES.items() if issubclass(kind, wrapped)), None)


def _add_methods(handlers: Mapping[str, Handler], wrapped: type) -> Callable[[type[T]], type[T]]:
    """Return a class decorator that adds every public method of the wrapped class.

    A method with a handler calls the handler; any other method is forwarded to the wrapped object.
    """

    def add(proxy: type[T]) -> type[T]:
        for name, member in vars(wrapped).items():
            if name in handlers:
                setattr(proxy, name, _handled(name, handlers[name], member))
            elif name not in vars(proxy) and _is_public(name):
                setattr(proxy, name, _forwarding(name, member))
        return proxy

    return add


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name.startswith("__datafusion_")


def _forwarding(name: str, member: Any) -> Any:
    if isinstance(member, property):
        return property(lambda self: getattr(self.__wrapped__, name), doc=member.__doc__)
    if not inspect.isfunction(member):
        return member  # a static method needs no instance

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return _to_proxy(getattr(self.__wrapped__, name)(*args, **kwargs))

    return functools.wraps(member)(method)


def _handled(name: str, handler: Handler, documented: Any) -> Callable[..., Any]:
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if REPLACED:  # the wrapped class is patched, and calls the handler itself
            return _to_proxy(getattr(self.__wrapped__, name)(*args, **kwargs))
        result = handler(self.__wrapped__, args, kwargs)
        return ObservedDataFrame(result) if type(result) is DataFrame else _to_proxy(result)

    def plain_method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if REPLACED:
            return getattr(self.__wrapped__, name)(*args, **kwargs)
        return handler(self.__wrapped__, args, kwargs)

    return functools.wraps(documented)(plain_method if name in RETURNING_DATA else method)


class _ProxyProtocols:
    """Printing, copying and pickling of a proxy: each is done by the wrapped object.

    A copy or an unpickled object is a proxy again. Copying and pickling raise as the wrapped object
    does where it supports neither.
    """

    def __repr__(self) -> str:
        return repr(plain(self))

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, form: str) -> str:
        return format(repr(self), form)

    def __copy__(self) -> Any:
        return _proxy_over(self, copy.copy(plain(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _proxy_over(self, copy.deepcopy(plain(self), memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (plain(self),)

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return self.__reduce__()


def _proxy_over(proxy: Any, wrapped: Any) -> Any:
    return type(proxy)(wrapped)


@_add_methods(FRAME_HANDLERS, DataFrame)
class ObservedDataFrame(_ProxyProtocols, _FrameProxy):
    """A transparent proxy over a DataFusion `DataFrame`; derived frames are proxies too.

    The frame of a SQL statement runs the statement once per call of a terminal method (`collect`,
    `show`, `to_pandas`, ...). Displaying the frame does not run it. Writes are observed.

    Args:
        frame: the frame to wrap.
    """

    if TYPE_CHECKING:
        # Derived frames are observed frames.
        def __init__(self, frame: DataFrame) -> None: ...
        def aggregate(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def alias(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def cache(self) -> ObservedDataFrame: ...
        def distinct(self) -> ObservedDataFrame: ...
        def drop(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def filter(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def join(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def limit(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def select(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def sort(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def union(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def with_column(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def with_columns(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...

    def transform(self, func: Callable[..., Any], *args: Any) -> Any:
        """Return what a function returns for this observed frame and further arguments."""
        return func(self, *args)

    def write_delta(
        self, uri: str | os.PathLike[str], *, mode: str = "error", **options: Any
    ) -> WriteResult:
        """Run the frame and stream its rows into a Delta table, without collecting them.

        The write is observed with the frame's plan, its schema and the Delta tables that it reads.
        If the session has registered a table at this location, it serves the new version.

        Args:
            uri: path or URI of the table; the table is created if it does not exist.
            mode: what to do if the table exists: `error`, `append`, `overwrite` or `ignore`.
            **options: `partition_by`, `schema_mode`, `predicate`, `storage_options`,
                `configuration`, `name`, `description`, `target_file_size`, `writer_properties`,
                `commit_properties`, `post_commithook_properties`, as `write_deltalake` takes them.

        Returns:
            The committed version and the number of written rows; `skipped` is true if the mode is
            `ignore` and the table exists.

        Raises:
            StatementError: the mode is none of the four.
            DeltaError: the mode is `error` and the table exists.

        >>> import tempfile
        >>> from deltawitness import ObservedSessionContext
        >>> frame = ObservedSessionContext().from_pydict({"id": [1, 2]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = frame.write_delta(f"{folder}/t")
        >>> written.version, written.rows
        (0, 2)
        """
        return write_delta(plain(self), uri, mode=mode, **options)


@_add_methods(SESSION_HANDLERS, SessionContext)
class ObservedSessionContext(_ProxyProtocols, _SessionProxy):
    """A `datafusion.SessionContext` that also writes Delta tables, and observes every write.

    delta-rs executes `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, `MERGE`, `COPY`, `OPTIMIZE`, `VACUUM`
    and `RESTORE` on registered Delta tables. DataFusion executes everything else.

    Args:
        config: session configuration, or an existing context to wrap.
        runtime: runtime configuration.

    Raises:
        UnsupportedEngineError: the installed DataFusion and deltalake do not work together.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import ObservedSessionContext as SessionContext
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_deltalake(folder, pa.table({"id": [1, 2]}))
    ...     ctx = SessionContext()
    ...     ctx.register_delta("t", folder)
    ...     ctx.sql("INSERT INTO t VALUES (3)").to_pydict()
    ...     ctx.sql("SELECT count(*) AS n FROM t").to_pydict()
    {'count': [1]}
    {'n': [3]}
    """

    if TYPE_CHECKING:
        # Frames of an observed session are observed frames.
        def from_arrow(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def from_pandas(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def from_polars(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def from_pydict(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def from_pylist(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def read_csv(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def read_json(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def read_parquet(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def read_table(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def sql(self, *args: Any, **kwargs: Any) -> ObservedDataFrame: ...
        def table(self, name: str) -> ObservedDataFrame: ...

    def __init__(
        self,
        config: SessionConfig | SessionContext | None = None,
        runtime: RuntimeEnvBuilder | None = None,
    ) -> None:
        check_engines()
        wrapped: Any = (
            plain(config) if isinstance(config, SessionContext) else SessionContext(config, runtime)
        )
        super().__init__(wrapped)
        session_of(wrapped)
        try:
            install_for_proxies()
        except Exception as error:  # noqa: BLE001 - telemetry never changes the program
            report("session", error)

    @classmethod
    def global_ctx(cls) -> ObservedSessionContext:
        """Return a proxy over DataFusion's global context."""
        return cls(keep_session_alive(SessionContext.global_ctx()))

    def register_delta(
        self,
        name: str,
        uri: str | os.PathLike[str],
        *,
        version: int | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        """Register the Delta table at a location under a name in the session.

        Args:
            name: the name, parsed as `register_table` parses it.
            uri: the table's path or URI.
            version: serve only this version, read-only; None serves the newest version.
            storage_options: as for `DeltaTable`.

        Raises:
            TableNotFoundError: there is no Delta table at the location.
            DeltaError: the table has no such version.
            Exception: DataFusion's own error if the name is taken.

        >>> import tempfile
        >>> ctx = ObservedSessionContext()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = ctx.from_pydict({"id": [1, 2]}).write_delta(folder, mode="append")
        ...     ctx.register_delta("first", folder, version=0)
        ...     ctx.table("first").count()
        2
        """
        register_delta(plain(self), name, uri, version=version, storage_options=storage_options)

    def register_release(
        self,
        name: str,
        *,
        root: str | os.PathLike[str] | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> tuple[str, ...]:
        """Register each table of a release at its version, read-only, under its name in the release.

        Args:
            name: name of the release (:func:`deltawitness.create_release`).
            root: the cache root of the ledger with the release; that of the settings when None.
            storage_options: as for `DeltaTable`, for a ledger and tables on an object store; those of the
                settings when None.

        Returns:
            The names of the tables.

        Raises:
            ReleaseError: there is no such release, or a table was created again since.
            DeltaError: a version can no longer be read.
            Exception: DataFusion's own error if a name is taken.

        >>> import tempfile
        >>> from deltawitness import create_release
        >>> ctx = ObservedSessionContext()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = ctx.from_pydict({"id": [1, 2]}).write_delta(f"{folder}/orders")
        ...     made = create_release("november", [f"{folder}/orders@0"], root=f"{folder}/ledger")
        ...     names = ctx.register_release("november", root=f"{folder}/ledger")
        ...     names, ctx.table("orders").count()
        (('orders',), 2)
        """
        return register_release(plain(self), name, root=root, storage_options=storage_options)

    def refresh(self, name: str | None = None) -> None:
        """Serve the newest version of one registered Delta table, or of all of them.

        The session serves its own commits at once; this method picks up commits of other writers.
        A table that was registered at a fixed version stays at that version.

        Args:
            name: the table's name; None refreshes all tables.

        Raises:
            StatementError: no Delta table is registered under the name.

        >>> ObservedSessionContext().refresh()
        """
        refresh(plain(self), name)

    def write_distributed(
        self, query: str | DataFrame, table: str | os.PathLike[str], **options: Any
    ) -> DistributedWriteResult:
        """Write the rows of a query to a Delta table on several workers, with one commit.

        The query is split by the files that it reads. This is possible if it scans one table of files or
        one Delta table on a disk that all workers have, with filters and expressions of single rows above
        it: no sort, limit, aggregate, join, window or volatile function.

        The write is observed as one write, with the query's plan and the Delta table that it reads.

        Args:
            query: SQL text, or a frame of the session.
            table: path or URI of the table; it is created if it does not exist.
            **options: `split="auto"` writes a query that cannot be split as one part, in this process,
                instead of an error. `max_parts` is the maximum number of parts, by default twice the number
                of CPUs. The others are the arguments of :func:`deltawitness.write_distributed`.

        Returns:
            What was committed.

        Raises:
            StatementError: the query cannot be split; the message names the reason.
            WriteRequestError: the write is not possible; nothing was written.

        >>> import pyarrow as pa, tempfile
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from deltalake import write_deltalake
        >>> with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        ...     write_deltalake(f"{folder}/s", pa.table({"id": [1, 2]}))
        ...     write_deltalake(f"{folder}/s", pa.table({"id": [3]}), mode="append")
        ...     ctx = ObservedSessionContext()
        ...     ctx.register_delta("s", f"{folder}/s")
        ...     query = "SELECT id * 2 AS twice FROM s WHERE id > 1"
        ...     result = ctx.write_distributed(query, f"{folder}/t", engine=pool)
        ...     result.rows, result.parts
        (2, 2)
        """
        frame = self.sql(query) if isinstance(query, str) else query
        return write_distributed(plain(self), plain(frame), table, **options)


@_add_methods(CATALOG_HANDLERS, Catalog)
class ObservedCatalog(_ProxyProtocols, _CatalogProxy):
    """A proxy over a `Catalog` that records in the session which schemas are added and removed."""


@_add_methods(SCHEMA_HANDLERS, Schema)
class ObservedSchema(_ProxyProtocols, _SchemaProxy):
    """A proxy over a `Schema` that records in the session which tables are added and removed."""


_PROXIES: dict[type, Callable[[Any], Any]] = {
    DataFrame: ObservedDataFrame,
    SessionContext: ObservedSessionContext,
    Catalog: ObservedCatalog,
    Schema: ObservedSchema,
}
