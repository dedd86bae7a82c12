"""`ObservedSessionContext` and `ObservedDataFrame`: transparent proxies over DataFusion's own.

Each observed method is one line that hands over to the handlers; everything
else reaches the wrapped object untouched.
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

from deltawitness.delta_rs.install import install_for_proxies
from deltawitness.internal_errors import report
from deltawitness.session.catalog_handlers import CATALOG_HANDLERS, SCHEMA_HANDLERS
from deltawitness.session.context_handlers import SESSION_HANDLERS, refresh, register_delta
from deltawitness.session.core.state import keeping_session_alive, session_of
from deltawitness.session.core.unpatched import REPLACED
from deltawitness.session.frame_handlers import FRAME_HANDLERS, GIVING_DATA
from deltawitness.session.handlers import Handler
from deltawitness.session.sql.frame_writer import write_delta

if TYPE_CHECKING:
    from datafusion import RuntimeEnvBuilder, SessionConfig

    from deltawitness.pipeline.request import WriteResult

__all__ = ["ObservedDataFrame", "ObservedSessionContext", "plain"]

if TYPE_CHECKING:
    # What a reader and a type checker see of a proxy is the class that it stands for.
    _FrameProxy = DataFrame
    _SessionProxy = SessionContext
else:
    _FrameProxy = _SessionProxy = wrapt.BaseObjectProxy


T = TypeVar("T")


def plain(value: Any) -> Any:
    """Return the engine's own object behind a proxy; anything else as it is."""
    return value.__wrapped__ if isinstance(value, wrapt.BaseObjectProxy) else value


def _observed(value: Any) -> Any:
    """Return the proxy over what an observed object returned, where there is one for it."""
    kind: Any = type(value)
    if kind is DataFrame:
        return ObservedDataFrame(value)
    proxy = _proxy_for(kind)
    return value if proxy is None else proxy(value)


@lru_cache(maxsize=512)
def _proxy_for(kind: Any) -> Callable[[Any], Any] | None:
    return next((proxy for wrapped, proxy in _PROXIES.items() if issubclass(kind, wrapped)), None)


def _methods(handlers: Mapping[str, Handler], wrapped: type) -> Callable[[type[T]], type[T]]:
    """Return a class decorator that adds every public method of the wrapped class.

    Those that have a handler go to it, the others straight on.
    """

    def add(proxy: type[T]) -> type[T]:
        for name, member in vars(wrapped).items():
            if name in handlers:
                setattr(proxy, name, _method(name, handlers[name], member))
            elif name not in vars(proxy) and _is_public(name):
                setattr(proxy, name, _passed_through(name, member))
        return proxy

    return add


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name.startswith("__datafusion_")


def _passed_through(name: str, member: Any) -> Any:
    if isinstance(member, property):
        return property(lambda self: getattr(self.__wrapped__, name), doc=member.__doc__)
    if not inspect.isfunction(member):
        return member  # a static method, which is the same wherever it is called

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return _observed(getattr(self.__wrapped__, name)(*args, **kwargs))

    return functools.wraps(member)(method)


def _method(name: str, handler: Handler, documented: Any) -> Callable[..., Any]:
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if REPLACED:  # the wrapped object's own class is observed, and hands over by itself
            return _observed(getattr(self.__wrapped__, name)(*args, **kwargs))
        return _observed(handler(self.__wrapped__, args, kwargs))

    def plain_method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if REPLACED:
            return getattr(self.__wrapped__, name)(*args, **kwargs)
        return handler(self.__wrapped__, args, kwargs)

    return functools.wraps(documented)(plain_method if name in GIVING_DATA else method)


class _Copied:
    """Copies, pickles and prints as the proxy over the original, where that can be."""

    def __repr__(self) -> str:
        return repr(plain(self))

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, form: str) -> str:
        return format(repr(self), form)

    def __copy__(self) -> Any:
        return _again(self, copy.copy(plain(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _again(self, copy.deepcopy(plain(self), memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (plain(self),)

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return self.__reduce__()


def _again(proxy: Any, wrapped: Any) -> Any:
    return type(proxy)(wrapped)


@_methods(FRAME_HANDLERS, DataFrame)
class ObservedDataFrame(_Copied, _FrameProxy):
    """A transparent proxy over a DataFusion `DataFrame`; frames that are made from it are as well.

    Statements run at a terminal method (`collect`, `show`, `to_pandas`, ...), once each time, and
    never when somebody only looks at the frame. Writes are observed.

    Args:
        frame: the frame.
    """

    if TYPE_CHECKING:
        # Frames that are made from it are of its kind.
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
        """Apply a function to this frame; it gets the observed frame."""
        return func(self, *args)

    def write_delta(
        self, uri: str | os.PathLike[str], *, mode: str = "error", **options: Any
    ) -> WriteResult:
        """Run the frame and write its rows as a Delta table; they stream, and are never collected.

        The write is observed with the frame's plan, its schema and the Delta tables that it reads.
        A table that the session has registered at this location is served at its new version.

        Args:
            uri: where the table lies or is to be made.
            mode: `error`, `append`, `overwrite` or `ignore`, when there is a table.
            **options: `partition_by`, `schema_mode`, `predicate`, `storage_options`,
                `configuration`, `name`, `description`, `target_file_size`, `writer_properties`,
                `commit_properties`, `post_commithook_properties`, as `write_deltalake` takes them.

        Returns:
            The version that was committed and the rows that were written; `skipped` when mode
            `ignore` found a table.

        Raises:
            StatementError: the mode is none of the four.
            DeltaError: the mode is `error`, and there is a table.

        >>> import tempfile
        >>> from deltawitness import ObservedSessionContext
        >>> frame = ObservedSessionContext().from_pydict({"id": [1, 2]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = frame.write_delta(f"{folder}/t")
        >>> written.version, written.rows
        (0, 2)
        """
        return write_delta(plain(self), uri, mode=mode, **options)


@_methods(SESSION_HANDLERS, SessionContext)
class ObservedSessionContext(_Copied, _SessionProxy):
    """A `datafusion.SessionContext` that also writes Delta tables, every write of it observed.

    `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, `MERGE`, `COPY`, `OPTIMIZE`, `VACUUM` and `RESTORE` on
    registered Delta tables are carried out by delta-rs; everything else is DataFusion's own.

    Args:
        config: session configuration, or an existing context to wrap.
        runtime: runtime configuration.

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
        # Frames that come out of it are observed.
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
        """Return the global context, observed."""
        return cls(keeping_session_alive(SessionContext.global_ctx()))

    def register_delta(
        self,
        name: str,
        uri: str | os.PathLike[str],
        *,
        version: int | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        """Register the Delta table at a location under a name of the session.

        Args:
            name: the name, read as `register_table` reads it.
            uri: where the table lies.
            version: serve this version and no other, read only; the newest when None.
            storage_options: as for `DeltaTable`.

        Raises:
            TableNotFoundError: there is no Delta table.
            DeltaError: there is no such version.
            Exception: the engine's own, when the name is taken.

        >>> import tempfile
        >>> ctx = ObservedSessionContext()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = ctx.from_pydict({"id": [1, 2]}).write_delta(folder, mode="append")
        ...     ctx.register_delta("first", folder, version=0)
        ...     ctx.table("first").count()
        2
        """
        register_delta(plain(self), name, uri, version=version, storage_options=storage_options)

    def refresh(self, name: str | None = None) -> None:
        """Serve the newest version of a registered Delta table, or of all of them.

        What this session writes, it serves at once; this picks up what others have committed. A
        table that was registered at a fixed version stays there.

        Args:
            name: the table; all of them when None.

        Raises:
            StatementError: the name stands for no Delta table.

        >>> ObservedSessionContext().refresh()
        """
        refresh(plain(self), name)


@_methods(CATALOG_HANDLERS, Catalog)
class ObservedCatalog(_Copied, wrapt.BaseObjectProxy):  # type: ignore[type-arg]  # generic in its stubs only
    """A proxy over a catalog of an observed session: it tells which tables come and go."""


@_methods(SCHEMA_HANDLERS, Schema)
class ObservedSchema(_Copied, wrapt.BaseObjectProxy):  # type: ignore[type-arg]  # generic in its stubs only
    """A proxy over a schema of an observed session: it tells which tables come and go."""


_PROXIES: dict[type, Callable[[Any], Any]] = {
    DataFrame: ObservedDataFrame,
    SessionContext: ObservedSessionContext,
    Catalog: ObservedCatalog,
    Schema: ObservedSchema,
}
