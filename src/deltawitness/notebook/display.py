"""Which result is shown by which function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deltawitness.html_report.markup import Markup, element
from deltawitness.notebook.comparisons import (
    show_explanation,
    show_overdue,
    show_regressions,
    show_run_diff,
    show_table_diff,
)
from deltawitness.notebook.graphs import show_column_lineage, show_impact, show_lineage
from deltawitness.notebook.parts import STYLE
from deltawitness.notebook.runs import row_renderer, show_commit, show_row_list, show_run

__all__ = ["to_html"]


def to_html(value: object) -> str | None:
    """Return a result as HTML; None for a value of another type.

    Texts are escaped. A long table has its first rows, and a line that says how many there are.
    """
    render = _RENDERERS.get(type(value).__name__)
    if render is None:
        return None
    return element("div", element("style", Markup(STYLE)), *render(value), class_="deltawitness")


_RENDERERS: dict[str, Callable[[Any], list[Markup]]] = {
    "ColumnLineage": show_column_lineage,
    "Explanation": show_explanation,
    "Impact": show_impact,
    "Lineage": show_lineage,
    "OverdueResult": show_overdue,
    "RegressionResult": show_regressions,
    "RowList": show_row_list,
    "RunDiff": show_run_diff,
    "RunRow": row_renderer("run"),
    "ShownCommit": show_commit,
    "ShownRun": show_run,
    "TableDiff": show_table_diff,
    "WriteRow": row_renderer("operation"),
}
"""Functions by the names of the classes: to import all classes, DataFusion would be needed."""
