"""Rows of a version of a table as a PyArrow dataset with columns that can be compared.

The columns have the names `c0`, `c1` and so on. All NaNs are one value, -0.0 is 0.0, and a value of a nested
type is the hash of its canonical text. Files are read one after the other in a few fragments, so that memory
does not depend on the number of files.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pd
import pyarrow.types as pt

from deltawitness.run import suppressed
from deltawitness.scan.dataset import DeltaDataset
from deltawitness.scan.fragments import without_statistics
from deltawitness.scan.read_ahead import read_ahead

if TYPE_CHECKING:
    from deltawitness.answers.diff.versions import OpenVersion

__all__ = [
    "ComparableRows",
    "Reading",
    "RowSource",
    "canonical",
    "comparable_type",
    "nested_values",
    "source_of",
]

BATCH_ROWS = 1 << 16
"""Maximum number of rows of a batch."""

STOP_SECONDS = 10.0
"""Maximum time in seconds that a stopped query waits for its reads."""

Read = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True, slots=True)
class RowSource:
    """Rows of a version of a table.

    Attributes:
        name: the table and the version, for error messages.
        schema: schema of all columns.
        files: the data files by path; None if the rows are not those of the files.
        reads: functions that read parts of the rows, for some columns.
    """

    name: str
    schema: pa.Schema
    files: dict[str, pd.Fragment] | None
    reads: tuple[Read, ...]

    def without(self, paths: Iterable[str]) -> RowSource:
        """Return the source without some files."""
        left_out = set(paths)
        return self._of_files(lambda path: path not in left_out)

    def only(self, paths: Iterable[str]) -> RowSource:
        """Return the source with only some files."""
        chosen = set(paths)
        return self._of_files(lambda path: path in chosen)

    def _of_files(self, is_chosen: Callable[[str], bool]) -> RowSource:
        files = {path: each for path, each in (self.files or {}).items() if is_chosen(path)}
        return _source(self.name, self.schema, files)


def source_of(version: OpenVersion) -> RowSource:
    """Return the rows of a version of a table."""
    name = str(version.name)
    with suppressed():
        if not version.is_plain:
            dataset = DeltaDataset(version.table)
            return RowSource(name, dataset.schema, None, (partial(_read_delta, dataset),))
        found = version.table.to_pyarrow_dataset()
        partitions = version.table.metadata().partition_columns
        files = {each.path: without_statistics(each, partitions) for each in found.get_fragments()}
        return _source(name, found.schema, files)


def _source(name: str, schema: pa.Schema, files: dict[str, pd.Fragment]) -> RowSource:
    count = max(1, min(len(files), os.cpu_count() or 1))
    ordered = list(files.values())
    groups = (ordered[number::count] for number in range(count))
    reads = tuple(partial(_read_files, schema, each) for each in groups)
    return RowSource(name, schema, files, reads)


def _read_files(
    schema: pa.Schema, files: Sequence[pd.Fragment], columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    if not files:
        return
    dataset = pd.FileSystemDataset(list(files), schema, files[0].format, files[0].filesystem)
    yield from dataset.scanner(
        columns=list(columns), batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=1
    ).to_batches()


def _read_delta(dataset: DeltaDataset, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    yield from dataset.scanner(tuple(columns)).to_batches()


class Reading:
    """The reads of one query, which all end when one of them fails or when the query ends.

    An engine that gets an error from a dataset cancels its other reads. Their threads would return to an
    interpreter that ends, and abort the process. So the reads end without an error, and this object has it.

    Attributes:
        error: the first error of a read, with the name of its source; None if no read has failed.
    """

    def __init__(self) -> None:
        self.error: tuple[str, Exception] | None = None
        self._is_stopped = False
        self._active = 0
        self._changed = threading.Condition()

    def batches(
        self, name: str, batches: Iterable[pa.RecordBatch]
    ) -> Generator[pa.RecordBatch, None, None]:
        """Yield batches until the reads are stopped or one of them fails.

        Args:
            name: the name of the source.
            batches: reads the source.
        """
        iterator = iter(batches)
        while not self._is_stopped and (batch := self._next(name, iterator)) is not None:
            yield batch

    def _next(self, name: str, iterator: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        with self._changed:
            self._active += 1
        try:
            return next(iterator, None)
        except Exception as error:  # noqa: BLE001 - Engine.rows raises it
            self.error = self.error or (name, error)
            self._is_stopped = True
            return None
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def stop(self) -> None:
        """End the reads, and wait until no thread reads, at most `STOP_SECONDS`."""
        self._is_stopped = True
        with self._changed:
            self._changed.wait_for(lambda: self._active == 0, STOP_SECONDS)


class ComparableRows(pd.Dataset):  # type: ignore[misc]  # PyArrow has no types
    """Columns of a source, in a form in which equal values are equal for the engine.

    Args:
        source: the rows.
        columns: names of the columns; column number N gets the name `cN`.
    """

    def __init__(self, source: RowSource, columns: Sequence[str]) -> None:
        self.source = source
        self.columns: tuple[str, ...] = tuple(columns)
        self.reading: Reading = Reading()
        types = [comparable_type(source.schema.field(name).type) for name in columns]
        self._schema = pa.schema([(f"c{number}", kind) for number, kind in enumerate(types)])

    def __reduce__(self) -> Any:
        msg = "rows that are being compared cannot be pickled"
        raise TypeError(msg)

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._schema

    def scanner(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002 - Arrow's name
        **_: Any,
    ) -> _Scan:
        """Return a scan of all rows for which a filter is true."""
        return _Scan(self, self.source.reads, self._names(columns), filter)

    def get_fragments(self, filter: pc.Expression | None = None) -> Iterator[_Fragment]:  # noqa: ARG002, A002 - Arrow's signature
        """Yield the parts that are read in parallel."""
        for read in self.source.reads:
            yield _Fragment(self, read)

    def _names(self, columns: Sequence[str] | None) -> tuple[str, ...]:
        return tuple(self._schema.names if columns is None else columns)


@dataclass(frozen=True, slots=True)
class _Fragment:
    rows: ComparableRows
    read: Read

    def scanner(
        self,
        _schema: pa.Schema | None = None,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002 - Arrow's name
        **_: Any,
    ) -> _Scan:
        return _Scan(self.rows, (self.read,), self.rows._names(columns), filter)  # noqa: SLF001 - the same module


@dataclass(frozen=True, slots=True)
class _Scan:
    rows: ComparableRows
    reads: tuple[Read, ...]
    columns: tuple[str, ...]
    filter: pc.Expression | None

    @property
    def projected_schema(self) -> pa.Schema:
        return pa.schema([self.rows.schema.field(name) for name in self.columns])

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        return self.rows.reading.batches(self.rows.source.name, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        names = self.columns if self.filter is None else tuple(self.rows.schema.names)
        wanted = [self.rows.columns[int(name[1:])] for name in names]
        schema = pa.schema([self.rows.schema.field(name) for name in names])
        for read in self.reads:
            for batch in read_ahead(partial(_comparable, read, wanted, schema)):
                if self.filter is None:
                    yield batch
                    continue
                # The engine passes a constant condition as a scalar.
                is_constant = isinstance(self.filter, pa.Scalar)
                condition = pc.scalar(self.filter) if is_constant else self.filter
                rows = pa.Table.from_batches([batch]).filter(condition)
                yield from rows.select(list(self.columns)).to_batches()


def _comparable(read: Read, wanted: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in read(wanted):
        if not wanted:
            yield batch
            continue
        columns = [
            _comparable_values(column, kind)
            for column, kind in zip(batch.columns, schema.types, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


# --- values ------------------------------------------------------------------------------------------


def comparable_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column after its values were made comparable."""
    if isinstance(kind, pa.BaseExtensionType):
        return comparable_type(kind.storage_type)
    if pt.is_dictionary(kind):
        return comparable_type(kind.value_type)
    if (
        pt.is_nested(kind)
        or pt.is_null(kind)
        or pt.is_string_view(kind)
        or pt.is_large_string(kind)
    ):
        return pa.string()
    if pt.is_binary_view(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind):
        return pa.binary()
    return kind


def _comparable_values(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(values.type, pa.BaseExtensionType):
        return _comparable_values(values.storage, kind)
    if pt.is_dictionary(values.type):
        return _comparable_values(values.dictionary_decode(), kind)
    if pt.is_nested(values.type):
        texts = (None if each is None else _hash(each) for each in values.to_pylist())
        return pa.array(texts, pa.string())
    if pt.is_floating(values.type):
        # Adding zero turns -0.0 into 0.0.
        one_nan = pc.if_else(pc.is_nan(values), pa.scalar(float("nan"), values.type), values)
        return pc.add(one_nan, pa.scalar(0.0, values.type))
    return values if values.type == kind else values.cast(kind)


def _hash(value: Any) -> str:
    return hashlib.blake2b(
        canonical(value).encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()


def _storage_type(kind: pa.DataType) -> pa.DataType:
    """Return a type without extensions and dictionaries around it."""
    if isinstance(kind, pa.BaseExtensionType):
        return _storage_type(kind.storage_type)
    return _storage_type(kind.value_type) if pt.is_dictionary(kind) else kind


def _stored(values: pa.Array) -> pa.Array:
    """Return values without extensions and dictionaries around them."""
    if isinstance(values.type, pa.BaseExtensionType):
        return _stored(values.storage)
    return _stored(values.dictionary_decode()) if pt.is_dictionary(values.type) else values


def nested_values(
    source: RowSource, wanted: Mapping[str, Iterable[object]]
) -> dict[str, dict[str, Any]]:
    """Return values of nested types by column and by their hash, which :class:`ComparableRows` has instead.

    The columns are read once, until all values are found.

    Args:
        source: the rows.
        wanted: hashes by column; other columns and other values are ignored.
    """
    kinds = {
        name: _storage_type(source.schema.field(name).type)
        for name in wanted
        if name in source.schema.names
    }
    columns = [name for name, kind in kinds.items() if pt.is_nested(kind)]
    missing = {name: set(wanted[name]) for name in columns}
    found: dict[str, dict[str, Any]] = {name: {} for name in columns}
    if not columns:
        return found
    for read in source.reads:
        for batch in read(columns):
            for name, values in zip(columns, batch.columns, strict=True):
                for value in _stored(values).to_pylist() if missing[name] else ():
                    if value is not None and (key := _hash(value)) in missing[name]:
                        missing[name].discard(key)
                        found[name][key] = _plain(value, kinds[name])
            if not any(missing.values()):
                return found
    return found


def _plain(value: Any, kind: pa.DataType) -> Any:
    """Return a nested value with mappings for its structs and maps, and lists for its lists.

    A map stays a list of pairs if its keys are nested, or if one of them is repeated.
    """
    kind = _storage_type(kind)
    if value is None or not pt.is_nested(kind):
        return value
    if pt.is_struct(kind):
        return {each.name: _plain(value[each.name], each.type) for each in kind}
    if pt.is_map(kind):
        pairs = [(_plain(key, kind.key_type), _plain(each, kind.item_type)) for key, each in value]
        is_mapping = not pt.is_nested(kind.key_type) and len(dict(pairs)) == len(pairs)
        return dict(pairs) if is_mapping else [list(pair) for pair in pairs]
    if hasattr(kind, "value_type"):
        return [_plain(each, kind.value_type) for each in value]
    return value


def canonical(value: Any) -> str:
    """Return a text that is equal for equal values of one type.

    >>> canonical({"x": [-0.0, float("nan")], "y": None})
    "{'x': [0.0, nan], 'y': None}"
    """
    if isinstance(value, float):
        return repr(value + 0.0)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name!r}: {canonical(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(canonical, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(canonical, value)) + ")"
    return repr(value)
