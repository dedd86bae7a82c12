"""Fragments of PyArrow datasets of Delta tables."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.compute as pc
import pyarrow.dataset as pd

__all__ = ["without_statistics"]


def without_statistics(fragment: pd.Fragment, partitions: Sequence[str]) -> pd.Fragment:
    """Return a fragment that has only the values of the partition columns; statistics ignore NaN.

    Args:
        fragment: the fragment of a data file.
        partitions: the partition columns of the table.
    """
    keys = pd.get_partition_keys(fragment.partition_expression)
    expression = pc.scalar(True)  # noqa: FBT003 - the signature of pyarrow
    for name in partitions:
        value = keys.get(name)
        field = pc.field(name)
        expression &= field.is_null() if value is None else field == pc.scalar(value)
    return fragment.format.make_fragment(
        fragment.path, fragment.filesystem, partition_expression=expression
    )
