"""`ObservedSessionContext` and `ObservedDataFrame`: transparent proxies over DataFusion's own.

Each observed method is one line that hands over to :mod:`deltawitness.proxies.handlers`; everything
else reaches the wrapped object untouched.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import wrapt
from datafusion import DataFrame, SessionContext
from datafusion.catalog import Catalog, Schema

from deltawitness.internal import report
from deltawitness.proxies.delta_writes import write_delta
from deltawitness.proxies.handlers import (
    CATALOG_HANDLERS,
    FRAME_EXTRAS,
    FRAME_HANDLERS,
    GIVING_DATA,
    SCHEMA_HANDLERS,
    SESSION_EXTRAS,
    SESSION_HANDLERS,
    Handler,
    refresh,
    register_delta,
)
from deltawitness.proxies.installation import install_enclosed
from deltawitness.proxies.originals import REPLACED
from deltawitness.proxies.state import keeping_session, session_of

if TYPE_CHECKING:
    from datafusion import RuntimeEnvBuilder, SessionConfig

__all__ = ["ObservedDataFrame", "ObservedSessionContext"]

if TYPE_CHECKING:
    # What a reader and a type checker see of a proxy is the class that it stands for.
    _FrameProxy = DataFrame
    _SessionProxy = SessionContext
else:
    _FrameProxy = _SessionProxy = wrapt.BaseObjectProxy


def _plain(value: Any) -> Any:
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


def _methods(handlers: Mapping[str, Handler], wrapped: type) -> Callable[[type], type]:
    """Return a class decorator that adds every public method of the wrapped class.

    Those that have a handler go to it, the others straight on.
    """

    def add(proxy: type) -> type:
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
        return repr(_plain(self))

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, form: str) -> str:
        return format(repr(self), form)

    def __copy__(self) -> Any:
        return _again(self, copy.copy(_plain(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _again(self, copy.deepcopy(_plain(self), memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (_plain(self),)

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

        def __init__(self, frame: DataFrame) -> None: ...

    def transform(self, func: Callable[..., Any], *args: Any) -> Any:
        """Apply a function to this frame; it gets the observed frame."""
        return func(self, *args)

    write_delta = _method("write_delta", FRAME_EXTRAS["write_delta"], write_delta)


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

    def __init__(
        self,
        config: SessionConfig | SessionContext | None = None,
        runtime: RuntimeEnvBuilder | None = None,
    ) -> None:
        wrapped: Any = (
            _plain(config)
            if isinstance(config, SessionContext)
            else SessionContext(config, runtime)
        )
        super().__init__(wrapped)
        session_of(wrapped)
        try:
            install_enclosed()
        except Exception as error:  # noqa: BLE001 - telemetry never changes the program
            report("session", error)

    @classmethod
    def global_ctx(cls) -> ObservedSessionContext:
        """Return the global context, observed."""
        return cls(keeping_session(SessionContext.global_ctx()))

    register_delta = _method("register_delta", SESSION_EXTRAS["register_delta"], register_delta)
    refresh = _method("refresh", SESSION_EXTRAS["refresh"], refresh)


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
