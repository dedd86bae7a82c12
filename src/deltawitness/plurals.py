"""Counts with their units in texts, in the singular or the plural."""

from __future__ import annotations

__all__ = ["count_of", "form_for"]


def count_of(count: float, unit: str, plural: str | None = None) -> str:
    """Return a count and its unit, in the singular or plural.

    Args:
        count: the count; a fraction is rounded to an integer.
        unit: the singular.
        plural: the plural; by default the singular and an s.

    >>> count_of(1, "table"), count_of(1200, "commit"), count_of(2, "entry", "entries")
    ('1 table', '1,200 commits', '2 entries')
    """
    return f"{count:,.0f} {form_for(count, unit, plural)}"


def form_for(count: float, singular: str, plural: str | None = None) -> str:
    """Return the form of a word for a count, such as of a verb beside it.

    Args:
        count: the count; a fraction is rounded to an integer.
        singular: the form for 1.
        plural: the form for all other counts; by default the singular and an s.

    >>> form_for(1, "was", "were"), form_for(0, "was", "were"), form_for(3, "version")
    ('was', 'were', 'versions')
    """
    return singular if round(count) == 1 else plural or f"{singular}s"
