"""The calls of PySpark and delta-spark that may commit, replaced so that observed sessions see each call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from importlib import import_module
from typing import Any, NamedTuple

from deltawitness.extras import is_installed
from deltawitness.patching import Replacements, argument
from deltawitness.sql_statements import makes_no_commit

__all__ = ["CallKind", "SparkCall", "is_connect", "is_same_session", "replace_calls"]

Call = Callable[..., Any]


class CallKind(Enum):
    """How a call commits."""

    WRITE = "write"
    """It returns after its commit."""
    STREAM = "stream"
    """It starts a query that makes a commit for each batch of rows."""


class SparkCall(NamedTuple):
    """A call that may commit.

    Attributes:
        kind: how it commits.
        receiver: the object whose method was called.
        source: the format in the arguments of the call; None if they have none.
    """

    kind: CallKind
    receiver: Any
    source: Any = None

    def belongs_to(self, spark: Any) -> bool:
        """Return whether the call uses a session.

        Args:
            spark: the session.
        """
        found = vars(self.receiver)
        for name in ("_spark", "_session", "_sparkSession"):
            if name in found:
                return is_same_session(spark, found[name])
        if "_client" in found and "_target_table" in found:  # a MERGE of Spark Connect
            return found["_client"] is getattr(spark, "_client", None)
        return is_same_session(spark, self.receiver)

    def options(self) -> dict[str, str] | None:
        """Return the options of a DataFrame writer of Spark Connect for a Delta table; None for other calls.

        A change of the dictionary changes the options of the write.
        """
        write = vars(self.receiver).get("_write")
        if write is None:
            return None
        named = (getattr(write, "source", None), getattr(write, "provider", None))
        name = next(filter(None, (self.source, *named)), None)
        options = getattr(write, "options", None)
        is_delta = isinstance(name, str) and name.lower() == "delta"
        return options if is_delta and isinstance(options, dict) else None


_WRITER_V2 = ("create", "replace", "createOrReplace", "append", "overwrite", "overwritePartitions")
_TABLE = (
    *("delete", "update", "vacuum", "generate", "restoreToVersion", "restoreToTimestamp"),
    *("clone", "cloneAtVersion", "cloneAtTimestamp"),
    *("upgradeTableProtocol", "addFeatureSupport", "dropFeatureSupport"),
)

_CLASSIC = "pyspark.sql."
_CONNECT = "pyspark.sql.connect."

_CALLS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("session", "SparkSession", ("sql",)),
    ("readwriter", "DataFrameWriter", ("save", "saveAsTable", "insertInto")),
    ("readwriter", "DataFrameWriterV2", _WRITER_V2),
    ("merge", "MergeIntoWriter", ("merge",)),
    ("catalog", "Catalog", ("createTable",)),
    ("streaming.readwriter", "DataStreamWriter", ("start", "toTable")),
)
"""Module below the package, class and methods. An earlier PySpark lacks some of them."""

_DELTA_CALLS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("DeltaTable", _TABLE),
    ("DeltaMergeBuilder", ("execute",)),
    ("DeltaTableBuilder", ("execute",)),
    ("DeltaOptimizeBuilder", ("executeCompaction", "executeZOrderBy")),
)

_WITH_FORMAT = frozenset({"save", "saveAsTable"})
"""Methods whose second argument is the format."""


def is_connect(spark: Any) -> bool:
    """Return whether a session is one of Spark Connect.

    Args:
        spark: the session.
    """
    return type(spark).__module__.startswith(_CONNECT)


def is_same_session(spark: Any, other: Any) -> bool:
    """Return whether two objects are the same Spark session: PySpark may have several for one.

    Args:
        spark: a session.
        other: another session, or any other object.
    """
    if spark is other:
        return True
    ours, others = (getattr(each, "_jsparkSession", None) for each in (spark, other))
    if ours is None or others is None:
        return False
    try:
        return bool(ours == others)
    except Exception:  # noqa: BLE001 - the JVM of one of them has ended
        return False


def replace_calls(
    around: Callable[[SparkCall], AbstractContextManager[None]], *, connect: bool
) -> Replacements:
    """Replace every call that may commit; return the replacements.

    Args:
        around: returns the context manager in which a call runs.
        connect: replace the calls of Spark Connect, and not those of a session with a JVM.
    """
    replaced = Replacements()
    package = _CONNECT if connect else _CLASSIC
    for module, owner, names in _CALLS:
        _replace(replaced, f"{package}{module}", owner, names, around)
    if is_installed("delta.tables"):
        module = "delta.connect.tables" if connect else "delta.tables"
        for owner, names in _DELTA_CALLS:
            _replace(replaced, module, owner, names, around)
    return replaced


def _replace(
    replaced: Replacements,
    module: str,
    owner: str,
    names: tuple[str, ...],
    around: Callable[[SparkCall], AbstractContextManager[None]],
) -> None:
    try:
        found = getattr(import_module(module), owner)
    except (ImportError, AttributeError):  # another release, or an optional package is missing
        return
    kind = CallKind.STREAM if owner == "DataStreamWriter" else CallKind.WRITE
    for name in names:
        if name in vars(found):
            replaced.replace(found, name, _replacement_of(name, kind, around))


def _replacement_of(
    name: str, kind: CallKind, around: Callable[[SparkCall], AbstractContextManager[None]]
) -> Callable[[Call], Call]:
    def make(original: Call) -> Call:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if name == "sql" and makes_no_commit(argument(args, kwargs, 0, "sqlQuery")):
                return original(self, *args, **kwargs)
            source = argument(args, kwargs, 1, "format") if name in _WITH_FORMAT else None
            with around(SparkCall(kind, self, source)):
                return original(self, *args, **kwargs)

        return call

    return make
