"""A table that reads its rows page by page, on a thread, while the user scrolls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from rich.text import Text
from textual import work
from textual.message import Message
from textual.widgets import DataTable

from deltawitness.report.lineage import visible
from deltawitness.ui.background import in_thread
from deltawitness.ui.reading import PAGE

__all__ = ["PagedTable", "cell"]

_MAX_CELL = 44
"""Characters of a cell; the rest is cut."""

_AHEAD = 40
"""Rows below the cursor from which on the next page is read."""

Column = tuple[str, bool]
"""Name of a column, and whether its cells are numbers."""


def cell(text: object, *, is_number: bool = False, width: int = _MAX_CELL) -> Text:
    """Return a cell: plain text of one line without control characters, and without markup.

    Args:
        text: the value; None is an empty cell.
        is_number: align it to the right.
        width: maximum number of characters.
    """
    shown = "" if text is None else visible(str(text)[: width + 1])
    if len(shown) > width:
        shown = f"{shown[: width - 1]}…"
    return Text(shown, justify="right" if is_number else "left", no_wrap=True)


class PagedTable(DataTable[Text]):
    """A table of rows that a function reads.

    Args:
        columns: the columns.
        cells: returns the cells of an item.
        read: returns the items from an offset on; None shows only what `show_items` is called with.
        width: maximum number of characters of a cell.
        id: id of the widget.

    Attributes:
        items: the items that were read so far, in the order of the rows.
        is_complete: whether all items were read.
    """

    class Failed(Message):
        """A page could not be read.

        Args:
            table: the table.
            error: the error.
        """

        def __init__(self, table: PagedTable, error: BaseException) -> None:
            super().__init__()
            self.table = table
            self.error = error

    class Loaded(Message):
        """A page was read.

        Args:
            table: the table.
        """

        def __init__(self, table: PagedTable) -> None:
            super().__init__()
            self.table = table

    def __init__(
        self,
        columns: Sequence[Column],
        cells: Callable[[Any], Sequence[object]],
        read: Callable[[int], Sequence[Any]] | None = None,
        *,
        width: int = _MAX_CELL,
        id: str | None = None,  # noqa: A002 - the name that every widget uses
    ) -> None:
        super().__init__(cursor_type="row", zebra_stripes=True, id=id)
        self._columns_given = columns
        self._cells_of = cells
        self._width = width
        self.read = read
        self.items: list[Any] = []
        self.is_complete: bool = False
        self._is_loading = False
        self._generation = 0

    def on_mount(self) -> None:
        """Add the columns."""
        for name, is_number in self._columns_given:
            self.add_column(Text(name, justify="right" if is_number else "left"))

    def reload(self) -> None:
        """Read the first page again."""
        self._generation += 1
        self._is_loading = False
        self.is_complete = False
        self.items = []
        self.clear()
        self._load()

    def show_items(self, items: Sequence[Any]) -> None:
        """Show items that were read elsewhere."""
        self._generation += 1
        self.items = []
        self.clear()
        self._append(items)
        self.is_complete = True

    @property
    def selected(self) -> Any:
        """The item at the cursor; None without one."""
        row = self.cursor_row
        return self.items[row] if 0 <= row < len(self.items) else None

    def on_data_table_row_highlighted(self) -> None:
        """Read the next page when the cursor nears the end."""
        if self.cursor_row >= len(self.items) - _AHEAD:
            self._load()

    def watch_scroll_y(self, old: float, new: float) -> None:
        """Read the next page when the mouse wheel nears the end."""
        super().watch_scroll_y(old, new)
        if self.items and new + self.size.height >= len(self.items) - _AHEAD:
            self._load()

    def _load(self) -> None:
        if self.read is None or self._is_loading or self.is_complete:
            return
        self._is_loading = True
        self._read_page(self.read, len(self.items), self._generation)

    @work(group="pages")
    async def _read_page(
        self, read: Callable[[int], Sequence[Any]], offset: int, generation: int
    ) -> None:
        try:
            items = await in_thread(lambda: read(offset))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - an engine that panics raises no Exception
            self._take_error(error, generation)
        else:
            self._take_page(items, generation)

    def _take_page(self, items: Sequence[Any], generation: int) -> None:
        if generation != self._generation:
            return  # of an earlier filter
        self._is_loading = False
        self.is_complete = len(items) < PAGE
        self._append(items)
        self.post_message(self.Loaded(self))

    def _take_error(self, error: BaseException, generation: int) -> None:
        if generation == self._generation:
            self._is_loading = False
            self.is_complete = True  # until the user reloads
            self.post_message(self.Failed(self, error))

    def _append(self, items: Sequence[Any]) -> None:
        numbers = [is_number for _, is_number in self._columns_given]
        self.items.extend(items)
        self.add_rows(
            [
                cell(text, is_number=number, width=self._width)
                for text, number in zip(self._cells_of(item), numbers, strict=True)
            ]
            for item in items
        )
