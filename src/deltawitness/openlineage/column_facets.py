"""The column lineage of a write as facets of OpenLineage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from deltawitness.column_sources import ColumnSource, ColumnUse, WriteColumns
from deltawitness.openlineage.datasets import DatasetName
from deltawitness.openlineage.facets import facet

__all__ = ["column_lineage_facet", "lineage_entry"]

_TRANSFORMATIONS = {
    ColumnUse.IDENTITY: {"type": "DIRECT", "subtype": "IDENTITY"},
    ColumnUse.TRANSFORMATION: {"type": "DIRECT", "subtype": "TRANSFORMATION"},
    ColumnUse.AGGREGATION: {"type": "DIRECT", "subtype": "AGGREGATION"},
    ColumnUse.CONDITION: {"type": "INDIRECT", "subtype": "CONDITIONAL"},
    ColumnUse.FILTER: {"type": "INDIRECT", "subtype": "FILTER"},
    ColumnUse.JOIN: {"type": "INDIRECT", "subtype": "JOIN"},
    ColumnUse.GROUP: {"type": "INDIRECT", "subtype": "GROUP_BY"},
    ColumnUse.SORT: {"type": "INDIRECT", "subtype": "SORT"},
}


def column_lineage_facet(
    columns: WriteColumns, inputs: Sequence[DatasetName | None]
) -> dict[str, Any] | None:
    """Return the facet `columnLineage` of the written table; None if no column is known.

    Args:
        columns: from which columns the write made its columns.
        inputs: the datasets of the write's inputs, in their order; None for one without a location.
    """
    fields = {
        name: {"inputFields": found}
        for name, sources in columns.columns.items()
        if (found := _inputs(sources or (), inputs))
    }
    of_rows = _inputs(columns.rows or (), inputs)
    if not fields and not of_rows:
        return None
    return facet(
        "ColumnLineageDatasetFacet", fields=fields, **({"dataset": of_rows} if of_rows else {})
    )


def lineage_entry(
    output: DatasetName, columns: WriteColumns | None, inputs: Sequence[DatasetName | None]
) -> dict[str, Any]:
    """Return the entry of the written table in the facet `lineage` of the job.

    Args:
        output: the written dataset.
        columns: as for :func:`column_lineage_facet`; None if they are not known.
        inputs: as for :func:`column_lineage_facet`.
    """
    known = WriteColumns() if columns is None else columns
    fields = {
        name: {"inputs": [_typed(each) for each in found]}
        for name, sources in known.columns.items()
        if (found := _inputs(sources or (), inputs))
    }
    entities = [dict(each._asdict()) for each in dict.fromkeys(inputs) if each is not None]
    of_rows = _inputs(known.rows or (), inputs)
    return {
        **_typed(dict(output._asdict())),
        "inputs": [_typed(each) for each in (*entities, *of_rows)],
        **({"fields": fields} if fields else {}),
    }


def _typed(dataset: dict[str, Any]) -> dict[str, Any]:
    return {**dataset, "type": "DATASET"}


def _inputs(
    sources: Iterable[ColumnSource], inputs: Sequence[DatasetName | None]
) -> list[dict[str, Any]]:
    """Return each column that was read once, with all its transformations."""
    found: dict[tuple[DatasetName, str], list[dict[str, str]]] = {}
    for source in sources:
        dataset = _dataset(source.table, inputs)
        if dataset is not None:
            found.setdefault((dataset, source.column), []).append(_TRANSFORMATIONS[source.use])
    return [
        {**dataset._asdict(), "field": column, "transformations": list(uses)}
        for (dataset, column), uses in found.items()
    ]


def _dataset(table: int | str, inputs: Sequence[DatasetName | None]) -> DatasetName | None:
    """Return the dataset of a source; None for a table that is no Delta table, which is no dataset."""
    is_known = isinstance(table, int) and 0 <= table < len(inputs)
    return inputs[table] if is_known and isinstance(table, int) else None
