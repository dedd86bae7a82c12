"""Rows of VALUES are part of the fingerprint, also those that a plan does not print."""

from __future__ import annotations

import pytest

from deltawitness import DeltaCache, ObservedSessionContext


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\u2028b", "a...\nb", "a\n  Values: b"])
def test_a_line_break_in_a_row_hides_no_other_row(text, tmp_path):
    """A plan prints the first five rows and three dots, with the line breaks of their texts."""
    cache = DeltaCache(ObservedSessionContext(), tmp_path / "cache")
    for last in ("6", "7"):
        rows = [text, "2", "3", "4", "5", last]
        listed = ", ".join(f"('{each}')" for each in rows)
        assert cache.view("v", f"VALUES {listed}").to_pydict() == {"column1": rows}
