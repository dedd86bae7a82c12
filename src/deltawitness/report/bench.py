"""What a benchmark of write overhead has measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from deltawitness.bench.measure import BenchLine

__all__ = ["print_bench"]


def print_bench(console: Console, lines: Sequence[BenchLine], machine: Mapping[str, str]) -> None:
    """Print the figures of each variant, and how to read them.

    Args:
        console: where to.
        lines: the figures.
        machine: what they were measured on.
    """
    table = Table()
    for name in ("case", "variant"):
        table.add_column(name)
    for name in ("writes", "median", "added", "ratio of medians", "median of ratios"):
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(
            line.case,
            line.variant,
            str(line.writes),
            f"{line.median_us / 1e3:.3f} ms",
            f"{line.added_us / 1e3:+.3f} ms",
            f"{line.ratio_of_medians:.3f}",
            f"{line.median_of_ratios:.3f}",
        )
    console.print(table, highlight=False)
    console.print(
        "Ratios are over `bare`. `bare again` is the control: another ratio that is no farther from"
        " 1.000 is noise; more --rounds make it smaller.",
        highlight=False,
        soft_wrap=True,
    )
    told = ", ".join(f"{name} {value}" for name, value in machine.items())
    console.print(told, highlight=False, soft_wrap=True)
