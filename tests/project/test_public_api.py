"""The public API: every type that a caller receives or passes can be imported from a public module."""

from __future__ import annotations

import importlib
import inspect
import types
import typing

import pytest

import deltawitness

PUBLIC_MODULES = (
    "deltawitness",
    "deltawitness.exceptions",
    "deltawitness.semconv",
    "deltawitness.testing",
)
FORMER_NAMES = {"Pruned", "Verified"}

PUBLIC_IN_0_1 = [
    "CacheCommitMetadataRequest",
    "CacheEntry",
    "CachePolicy",
    "CommitMetadata",
    "CommitMetrics",
    "Committed",
    "DataFusionInstrumentor",
    "DeltaCache",
    "DeltaLakeInstrumentor",
    "DiagnosticsSink",
    "Explanation",
    "Exported",
    "Failed",
    "InMemoryDiagnosticsSink",
    "Ledger",
    "MetadataSnapshot",
    "NoCommit",
    "ObservedDataFrame",
    "ObservedSessionContext",
    "ObservedWritePipeline",
    "OtelDiagnosticsSink",
    "Pruned",
    "RunContext",
    "Settings",
    "Verdict",
    "Verified",
    "WriteEvent",
    "WriteFormat",
    "WriteIntent",
    "WriteMode",
    "WriteOutcome",
    "WritePipeline",
    "WriteRequest",
    "WriteResult",
    "WriteSink",
    "__version__",
    "cache_commit_metadata",
    "cache_context",
    "cache_span",
    "current_run",
    "diagnostics_sink",
    "flush",
    "history",
    "metric_views",
    "plan_hash",
    "plan_shape_hash",
    "read_commit_metadata",
    "run",
    "schema_hash",
    "suppressed",
    "table_id",
]
"""The public names of release 0.1."""


def public_objects():
    """Yield the name and the value of each public object."""
    for module in PUBLIC_MODULES:
        loaded = importlib.import_module(module)
        names = [name for name in vars(loaded) if not name.startswith("_")]
        for name in getattr(loaded, "__all__", names):
            yield f"{module}.{name}", getattr(loaded, name)


class _AnyAttribute(type):
    def __getattr__(cls, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, name):
        return cls


class Foreign(metaclass=_AnyAttribute):
    """A type of another package, with any attribute and any parameters."""


def types_in(annotation):
    """Yield the classes of this package in an annotation."""
    is_class = inspect.isclass(annotation) and not isinstance(annotation, types.GenericAlias)
    if is_class and annotation.__module__.partition(".")[0] == "deltawitness":
        yield annotation
    for argument in typing.get_args(annotation):
        arguments = argument if isinstance(argument, list) else [argument]
        for each in arguments:
            yield from types_in(each)


def unwrapped(function):
    """Return a function without its decorators; a class unchanged."""
    return inspect.unwrap(function) if inspect.isfunction(function) else function


def hints_with(function, namespace):
    """Return the annotations of a function, with names that only a type checker imports resolved."""
    while True:
        try:
            return typing.get_type_hints(unwrapped(function), localns=namespace)
        except NameError as error:
            namespace[str(error).split("'")[1]] = importable(function, str(error).split("'")[1])


def importable(function, name):
    """Return a class that a module imports for a type checker alone; `Foreign` for one of another package."""
    source = inspect.getsource(inspect.getmodule(unwrapped(function)))
    for line in source.splitlines():
        words = line.replace(",", " ").split()
        is_import = "import" in words and name in words and words[0] == "from"
        if is_import and words[1].startswith("deltawitness"):
            return getattr(importlib.import_module(words[1]), name)
    return Foreign


def uses_of(public):
    """Yield each class of this package in the signatures and fields of a public object."""
    if inspect.isclass(public):
        members = [
            getattr(member, "fget", None) or getattr(member, "__func__", None) or member
            for name, member in vars(public).items()
            if not name.startswith("_") or name == "__init__"
        ]
        functions = [member for member in members if inspect.isfunction(member)]
        holders = [public, *functions]
    else:
        holders = [public] if inspect.isfunction(public) else []
    for holder in holders:
        for name, annotation in hints_with(holder, {}).items():
            if not name.startswith("_"):
                yield from types_in(annotation)
    if hasattr(public, "__supertype__") or typing.get_args(public):
        yield from types_in(public)


@pytest.mark.slow
def test_each_type_of_a_public_signature_is_public():
    """A type that no public module exports cannot be named in a caller's annotations."""
    exported = {id(value) for _, value in public_objects()}
    missing = {
        f"{used.__module__}.{used.__qualname__} (in {name})"
        for name, public in public_objects()
        for used in uses_of(public)
        if id(used) not in exported
    }
    assert "\n".join(sorted(missing)) == ""


def test_former_public_names_are_the_new_ones():
    """A program that imports a name by its former spelling gets the same object."""
    assert deltawitness.Pruned is deltawitness.PruneResult
    assert deltawitness.Verified is deltawitness.VerifyResult
    assert set(deltawitness.__all__) >= FORMER_NAMES


def test_no_public_name_is_lost():
    """Every public name of release 0.1 can still be imported and is in `__all__`."""
    assert set(PUBLIC_IN_0_1) <= set(deltawitness.__all__)
    for name in PUBLIC_IN_0_1:
        assert getattr(deltawitness, name) is not None
