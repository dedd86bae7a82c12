"""The parts of a distributed write: how a program can give them, and how a worker reads one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from deltawitness.exceptions import WriteRequestError

__all__ = [
    "DatasetFragment",
    "is_dask_collection",
    "is_dask_object",
    "is_ray_dataset",
    "is_ray_reference",
    "is_stream",
    "open_part",
    "parts_of",
    "schema_of",
]


@dataclass(frozen=True, slots=True)
class DatasetFragment:
    """A fragment of a pyarrow dataset, with the schema of the dataset."""

    fragment: Any
    schema: Any


def open_part(part: Any) -> Any:
    """Return the rows of a part, in a form that `write_deltalake` takes.

    Args:
        part: a table, frame or stream with Arrow data, a list of batches, a pandas DataFrame, the path of
            a Parquet file or of a folder of them, a pyarrow dataset or a fragment of one, or a function
            without parameters that returns one of these.

    Raises:
        WriteRequestError: the part is none of these.
    """
    if callable(part) and not hasattr(part, "__arrow_c_stream__"):
        part = part()
    if isinstance(part, str | os.PathLike):
        import pyarrow.dataset as ds  # noqa: PLC0415 - heavy

        return ds.dataset(os.fspath(part), format="parquet").scanner().to_reader()
    if isinstance(part, DatasetFragment):
        return part.fragment.scanner(schema=part.schema).to_reader()
    if _is_pandas(part):
        import pyarrow as pa  # noqa: PLC0415 - heavy

        return pa.Table.from_pandas(part, preserve_index=False)
    if hasattr(part, "__arrow_c_stream__") or hasattr(part, "__arrow_c_array__"):
        return part
    if hasattr(part, "scanner"):
        return part.scanner().to_reader()
    if isinstance(part, Sequence) and len(part):
        return part
    msg = f"parts: a {type(part).__name__} is no part; see the documentation of write_distributed"
    raise WriteRequestError(msg)


def _is_pandas(value: object) -> bool:
    kind = type(value)
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pandas"


def is_stream(part: object) -> bool:
    """Return whether a part can be read only once and only in this process."""
    kind = type(part)
    if isinstance(part, Iterator):
        return True
    return (
        hasattr(part, "__arrow_c_stream__")
        and not hasattr(part, "shape")
        and kind.__name__ not in {"Table", "RecordBatch"}
    )


def parts_of(source: Any) -> Iterable[Any]:
    """Return the parts of what a program gave: each is one task.

    Args:
        source: a pyarrow dataset, which is split into its fragments, a Dask DataFrame, which is split into
            its partitions, or an iterable of parts.

    Raises:
        WriteRequestError: the source cannot be split.
    """
    if hasattr(source, "get_fragments"):
        return _fragments(source)
    if is_dask_collection(source):
        partitions: Iterable[Any] = source.to_delayed()
        return partitions
    if isinstance(source, str | bytes | os.PathLike) or _has_rows(source):
        msg = f"parts: expected an iterable of parts, not one {type(source).__name__}; pass it in a list"
        raise WriteRequestError(msg)
    if not isinstance(source, Iterable):
        msg = f"parts: a {type(source).__name__} is neither a dataset nor an iterable of parts"
        raise WriteRequestError(msg)
    return source


def _has_rows(source: object) -> bool:
    return hasattr(source, "__arrow_c_stream__") or _is_pandas(source)


def _fragments(dataset: Any) -> Iterable[Any]:
    try:
        fragments = list(dataset.get_fragments())
    except ValueError:
        msg = "parts: a filtered pyarrow dataset has no fragments; pass the dataset without the filter"
        raise WriteRequestError(msg) from None
    if any(not hasattr(fragment, "path") for fragment in fragments):
        return [dataset.scanner().to_reader()]  # rows in memory
    return [DatasetFragment(fragment, dataset.schema) for fragment in fragments]


def schema_of(source: Any) -> Any:
    """Return the Arrow schema of a pyarrow dataset; None for anything else."""
    return source.schema if hasattr(source, "get_fragments") else None


def is_dask_collection(source: object) -> bool:
    """Return whether something is a Dask DataFrame."""
    return hasattr(source, "to_delayed") and hasattr(source, "npartitions")


def is_dask_object(part: object) -> bool:
    """Return whether a part is a Dask `Delayed` or a future of a Dask client."""
    module = type(part).__module__.partition(".")[0]
    return module in {"dask", "distributed"}


def is_ray_dataset(source: object) -> bool:
    """Return whether something is a Ray Dataset."""
    return type(source).__module__.startswith("ray.data")


def is_ray_reference(part: object) -> bool:
    """Return whether a part is a Ray `ObjectRef`."""
    return type(part).__module__.partition(".")[0] == "ray" and "ObjectRef" in type(part).__name__
