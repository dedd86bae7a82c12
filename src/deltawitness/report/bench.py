"""Results of a benchmark of write overhead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from deltawitness.report.tables import Column, print_line, print_table

if TYPE_CHECKING:
    from deltawitness.bench.measure import BenchLine

__all__ = ["print_bench"]


def print_bench(console: Console, lines: Sequence[BenchLine], machine: Mapping[str, str]) -> None:
    """Print the figures of each variant, and how to read them.

    Args:
        console: the console to print on.
        lines: the figures.
        machine: the machine that they were measured on.
    """
    columns = [Column("case", wrap_at=12), Column("variant", wrap_at=10)]
    columns += [
        Column(name, is_number=True)
        for name in ("writes", "median", "added", "ratio of medians", "median of ratios")
    ]
    rows = [
        (
            line.case,
            line.variant,
            str(line.writes),
            f"{line.median_us / 1e3:.3f} ms",
            f"{line.added_us / 1e3:+.3f} ms",
            f"{line.ratio_of_medians:.3f}",
            f"{line.median_of_ratios:.3f}",
        )
        for line in lines
    ]
    print_table(console, columns, rows)
    print_line(
        console,
        "Ratios are over `bare`. `bare again` is the control: another ratio that is no farther from"
        " 1.000 is noise; more --rounds make it smaller.",
    )
    print_line(console, ", ".join(f"{name} {value}" for name, value in machine.items()))
