"""Execute tasks and actor methods of Ray in the run, cache context and trace of their caller.

Ray's tracing passes its trace context as a keyword argument of each call. Here it is the same: the
function that the caller exports to the workers takes one more keyword argument, enters the run in it, and
calls the function of the program. A worker that cannot import this package calls the function only. The
signature that Ray exports with a function or an actor has the argument, so a caller passes it only where
it is accepted. The functions and classes of the program do not change.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from inspect import Parameter
from types import FunctionType
from typing import Any

from deltawitness.internal_errors import guard
from deltawitness.propagation.submitter import submitter_values

__all__ = [
    "ARGUMENT",
    "actor_class_remote",
    "actor_method_call",
    "remote_function",
    "with_argument",
]

Call = Callable[..., Any]

ARGUMENT = "_deltawitness"
"""Name of the keyword argument with the values of the caller."""

_RAY_METHODS = ("__del__", "__ray_ready__", "__ray_terminate__")
"""Methods of an actor that run no code of the program, or run when modules may be gone."""


def remote_function(original: Call) -> Call:
    """Replace `RemoteFunction._remote`, by which every task is submitted."""

    def _remote(self: Any, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        with guard("propagation"):
            if _prepare_function(self):
                kwargs = {**(kwargs or {}), ARGUMENT: submitter_values()}
        return original(self, args, kwargs, *rest, **options)

    return _remote


def actor_class_remote(original: Call) -> Call:
    """Replace `ActorClass._remote`, by which every actor is created."""

    def _remote(self: Any, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        with guard("propagation"):
            if _prepare_actor_class(self.__ray_metadata__):
                kwargs = {**(kwargs or {}), ARGUMENT: submitter_values()}
        return original(self, args, kwargs, *rest, **options)

    return _remote


def actor_method_call(original: Call) -> Call:
    """Replace `ActorHandle._actor_method_call`, by which every method of an actor is called."""

    def _actor_method_call(
        self: Any,
        method_name: str,
        args: Any = None,
        kwargs: Any = None,
        *rest: Any,
        **options: Any,
    ) -> Any:
        with guard("propagation"):
            if _accepts(self._ray_method_signatures.get(method_name)):
                kwargs = {**(kwargs or {}), ARGUMENT: submitter_values()}
        return original(self, method_name, args, kwargs, *rest, **options)

    return _actor_method_call


def _accepts(signature: Sequence[Parameter] | None) -> bool:
    return any(parameter.name == ARGUMENT for parameter in signature or ())


def _prepare_function(remote: Any) -> bool:
    """Let the function of a remote function take the argument; return whether it does.

    A function that this job has exported already does not change.
    """
    if remote._is_cross_language or _is_client_mode():  # noqa: SLF001 - Ray's private names: private_api.py
        return False
    with remote._inject_lock:  # noqa: SLF001 - as above
        function, signature = remote._function, remote._function_signature  # noqa: SLF001 - as above
        if hasattr(function, ARGUMENT):
            return True
        exported = remote._last_export_cluster_and_job  # noqa: SLF001 - as above
        if exported is not None and exported == _current_job():
            return False
        remote._function = with_argument(function)  # noqa: SLF001 - as above
        if signature is not None:
            remote._function_signature = _with_parameter(signature)  # noqa: SLF001 - as above
        return True


def _prepare_actor_class(meta: Any) -> bool:
    """Let the methods of an actor's class take the argument; return whether its `__init__` does.

    Ray derives a class from the program's class, and the methods of the derived one are replaced. A class
    that this job has exported already does not change.
    """
    if meta.is_cross_language or _is_client_mode():
        return False
    signatures = meta.method_meta.signatures
    with _preparing:
        exported = meta.last_export_cluster_and_job
        if exported is None or exported != _current_job():
            for name in signatures:
                method = inspect.getattr_static(meta.modified_class, name)
                if isinstance(method, FunctionType) and name not in _RAY_METHODS:
                    _prepare_method(meta, name, method)
        return _accepts(signatures["__init__"])


_preparing = threading.Lock()
"""Held while the methods of an actor's class are replaced."""


def _prepare_method(meta: Any, name: str, method: FunctionType) -> None:
    signatures = meta.method_meta.signatures
    if not _accepts(signatures[name]):
        wrapped = with_argument(method)
        setattr(meta.modified_class, name, wrapped)
        meta.method_meta.methods[name] = wrapped
        signatures[name] = _with_parameter(signatures[name])


def _is_client_mode() -> bool:
    """Return whether the calls of this process run in a server of Ray Client, which exports them itself."""
    from ray._private.client_mode_hook import (  # noqa: PLC0415 - Ray calls this module
        client_mode_should_convert,
    )

    return bool(client_mode_should_convert())


def _current_job() -> Any:
    import ray._private.worker  # noqa: PLC0415 - as above

    worker = ray._private.worker.global_worker  # noqa: SLF001 - as above
    return worker.current_cluster_and_job if worker.connected else None


def _with_parameter(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Return parameters with that of the argument, before a `**kwargs`."""
    added = Parameter(ARGUMENT, Parameter.KEYWORD_ONLY, default=None)
    variadic = [each for each in parameters if each.kind is Parameter.VAR_KEYWORD]
    return [*(each for each in parameters if each not in variadic), added, *variadic]


def with_argument(function: Call) -> Call:
    """Return a function that enters the run in its argument :data:`ARGUMENT`, then calls `function`.

    It is of the same kind (plain, generator, coroutine, asynchronous generator), and it is pickled by
    value, with the imports inside: a worker needs nothing of this package.
    """

    def entered(values: Any) -> Any:
        try:
            from deltawitness.propagation.submitter import use_submitter  # noqa: PLC0415 - as above
        except ImportError:
            from contextlib import nullcontext  # noqa: PLC0415 - as above

            return nullcontext()
        return use_submitter(values, exports=True)

    signature = inspect.signature(function)
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    call = (_async_call if is_async else _call)(function, entered)
    functools.update_wrapper(call, function)
    del call.__wrapped__  # Ray reads the signature of the innermost function
    call.__signature__ = signature.replace(
        parameters=_with_parameter(list(signature.parameters.values()))
    )
    setattr(call, ARGUMENT, True)
    return call  # type: ignore[no-any-return]  # a function with more attributes


def _call(function: Call, entered: Call) -> Any:
    """Return a function or a generator function that runs `function` in the context `entered(argument)`.

    A generator is in the context while it makes an item, not while its caller has it: the caller may close
    it in another context. Values and errors that the caller sends reach it, as Ray Data needs.
    """

    def generate(*args: Any, _deltawitness: Any = None, **kwargs: Any) -> Any:
        items = function(*args, **kwargs)
        advance = functools.partial(items.send, None)
        while True:
            with entered(_deltawitness):
                try:
                    item = advance()
                except StopIteration as end:
                    return end.value
            try:
                advance = functools.partial(items.send, (yield item))
            except GeneratorExit:
                items.close()
                raise
            except BaseException as error:  # noqa: BLE001 - raised in the program's generator
                advance = functools.partial(items.throw, error)

    def call(*args: Any, _deltawitness: Any = None, **kwargs: Any) -> Any:
        with entered(_deltawitness):
            return function(*args, **kwargs)

    return generate if inspect.isgeneratorfunction(function) else call


def _async_call(function: Call, entered: Call) -> Any:
    """Return a coroutine function or an asynchronous generator function, as :func:`_call` does."""

    async def generate(*args: Any, _deltawitness: Any = None, **kwargs: Any) -> Any:
        items = function(*args, **kwargs)
        advance = functools.partial(items.asend, None)
        while True:
            with entered(_deltawitness):
                try:
                    item = await advance()
                except StopAsyncIteration:
                    return
            try:
                advance = functools.partial(items.asend, (yield item))
            except GeneratorExit:
                await items.aclose()
                raise
            except BaseException as error:  # noqa: BLE001 - raised in the program's generator
                advance = functools.partial(items.athrow, error)

    async def call(*args: Any, _deltawitness: Any = None, **kwargs: Any) -> Any:
        with entered(_deltawitness):
            return await function(*args, **kwargs)

    return generate if inspect.isasyncgenfunction(function) else call
