"""Results that a notebook shows as HTML."""

from __future__ import annotations

from importlib import import_module
from typing import TypeVar, cast

__all__ = ["HtmlDisplay", "RowList"]

_T = TypeVar("_T")


class HtmlDisplay:
    """A result with the method by which IPython asks for HTML.

    The HTML is made in `deltawitness.notebook`, which is loaded when a notebook shows the first result.
    That module is in a higher layer than the results.
    """

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        return cast("str | None", import_module("deltawitness.notebook.display").to_html(self))


class RowList(list[_T], HtmlDisplay):
    """A list of rows of the ledger, which a notebook shows as a table."""

    __slots__ = ()
