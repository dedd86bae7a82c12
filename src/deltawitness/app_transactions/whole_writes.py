"""Retry a call of `write_deltalake` after a conflict, if its rows can be read again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from deltawitness.app_transactions.block import active_block
from deltawitness.app_transactions.retries import Retries
from deltawitness.commit.seams import MODE
from deltawitness.patching import argument

__all__ = ["guard_whole_write"]

Call = Callable[..., Any]


def guard_whole_write(original: Call) -> Call:
    """Return a `write_deltalake` that retries after a conflict, if its rows can be read again."""

    @functools.wraps(original)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        block = active_block()
        if block is None:
            return original(*args, **kwargs)
        retries = Retries(block.deadline)
        while True:
            try:
                return original(*args, **kwargs)
            except Exception as error:
                can_repeat = block.conflict is error and _is_repeatable(args, kwargs)
                if not can_repeat or not retries.wait():
                    raise

    return guarded


_TABLE_PACKAGES = frozenset({"pyarrow", "pandas", "polars", "arro3"})
_TABLE_CLASSES = frozenset({"Table", "RecordBatch", "DataFrame"})


def _is_repeatable(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a call of `write_deltalake` can be repeated.

    Its rows must be readable again. An overwrite through a table of the caller is not repeated: its rows
    may have been computed from the version that the table is at.
    """
    target, data = argument(args, kwargs, 0, "table_or_uri"), argument(args, kwargs, 1, "data")
    if hasattr(target, "table_uri") and kwargs.get(MODE) != "append":
        return False
    kind = type(data)
    is_table = kind.__name__ in _TABLE_CLASSES and kind.__module__.split(".")[0] in _TABLE_PACKAGES
    return is_table or isinstance(data, Sequence)
