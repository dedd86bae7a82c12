"""Text tables that fit the terminal, and are plain text in a pipe.

A column without a value is left out, except the first. Numbers, ids and words of a closed set are never
cut or wrapped; other text wraps. If the table is still too wide, each row is printed as lines of
`name  value`. In a pipe a row is one line of any length, unless the variable COLUMNS sets a width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

__all__ = ["UNBOUNDED", "Column", "print_line", "print_table"]

GAPS = (2, 1)
"""Spaces between two columns; the second number is used when the table does not fit with the first."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: its header.
        is_number: align it to the right.
        wrap_at: minimum width of wrapped text; None if the text must not be wrapped.
        splits_words: whether words that are longer than `wrap_at` may be split.
    """

    name: str
    is_number: bool = False
    wrap_at: int | None = None
    splits_words: bool = True


def print_line(console: Console, text: str) -> None:
    """Print a text: wrapped at words in a terminal, as one line in a pipe."""
    if is_wrapped(console):
        console.print(text, highlight=False)
    else:
        console.print(_single_line(text), highlight=False, soft_wrap=True)


def is_wrapped(console: Console) -> bool:
    """Return whether lines must fit the console: in a terminal, or if COLUMNS sets a width."""
    return console.is_terminal or console.width < UNBOUNDED


UNBOUNDED = 1_000_000
"""Width of the console of a pipe."""


def print_table(
    console: Console,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    total: Sequence[str] | None = None,
) -> None:
    """Print rows below the names of their columns.

    Args:
        console: the console to print on.
        columns: the columns.
        rows: a text per column for each row; an empty text for a missing value.
        total: a last row, printed below a line of hyphens.
    """
    body = [*rows, *([] if total is None else [total])]
    shown = [
        number for number in range(len(columns)) if number == 0 or any(row[number] for row in body)
    ]
    columns = [columns[number] for number in shown]
    body = [[row[number] for number in shown] for row in body]
    if not is_wrapped(console):
        body = [[_single_line(cell) for cell in row] for row in body]
    for gap in GAPS:
        widths = _fitting_widths(columns, body, console.width - gap * (len(columns) - 1))
        if widths is not None:
            layout = _Layout(console, columns, widths, gap)
            layout.print_row([column.name for column in columns], style="bold")
            for row in body[: len(rows)]:
                layout.print_row(row)
            if total is not None:
                _print(console, "-" * layout.width)
                layout.print_row(body[-1])
            return
    _print_stacked(console, columns, body)


def _single_line(text: str) -> str:
    return " ".join(text.splitlines())


def _fitting_widths(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int
) -> list[int] | None:
    """Return the width of each column; None if the columns do not fit `room` even with wrapped text."""
    natural = [
        max([cell_len(column.name), *(_longest_line(row[number]) for row in rows)])
        for number, column in enumerate(columns)
    ]
    least = [
        min(natural[number], _least_width(column, [row[number] for row in rows]))
        if column.wrap_at is not None
        else natural[number]
        for number, column in enumerate(columns)
    ]
    if sum(least) > room:
        return None
    widths = list(natural)
    while sum(widths) > room:
        # Narrow the widest column that can be narrowed, so that columns of long text share the room.
        number = max(
            (number for number in range(len(widths)) if widths[number] > least[number]),
            key=widths.__getitem__,
        )
        widths[number] -= 1
    return widths


def _least_width(column: Column, cells: Sequence[str]) -> int:
    words = [] if column.splits_words else [word for cell in cells for word in cell.split()]
    return max([column.wrap_at or 0, cell_len(column.name), *map(cell_len, words)])


def _longest_line(cell: str) -> int:
    return max(map(cell_len, cell.splitlines()), default=0)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Prints rows in columns of given widths."""

    console: Console
    columns: Sequence[Column]
    widths: Sequence[int]
    gap: int

    @property
    def width(self) -> int:
        return sum(self.widths) + self.gap * (len(self.widths) - 1)

    def print_row(self, cells: Sequence[str], style: str = "") -> None:
        wrapped = [
            _wrap(self.console, cell, width) for cell, width in zip(cells, self.widths, strict=True)
        ]
        for number in range(max(map(len, wrapped))):
            line = (" " * self.gap).join(
                _pad(lines[number] if number < len(lines) else "", width, column.is_number)
                for lines, width, column in zip(wrapped, self.widths, self.columns, strict=True)
            )
            _print(self.console, line.rstrip(), style)


def _wrap(console: Console, cell: str, width: int) -> list[str]:
    if _longest_line(cell) <= width:
        return cell.splitlines() or [""]
    lines = Text(cell).wrap(console, max(width, 1), overflow="fold")
    return [line.plain.rstrip() for line in lines]


def _pad(text: str, width: int, is_number: bool) -> str:
    blanks = " " * (width - cell_len(text))
    return blanks + text if is_number else text + blanks


def _print_stacked(
    console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str]]
) -> None:
    indent = max(cell_len(column.name) for column in columns) + 2
    for number, row in enumerate(rows):
        if number:
            _print(console, "")
        for column, cell in zip(columns, row, strict=True):
            lines = _wrap(console, cell, console.width - indent) if cell else []
            for line_number, line in enumerate(lines):
                name = "" if line_number else column.name
                _print(console, f"{name:{indent}}{line}")


def _print(console: Console, line: str, style: str = "") -> None:
    console.print(line, style=style or None, highlight=False, soft_wrap=True)
