"""Random rows of the columns of `sql_statements`, with many NULL and NaN values."""

from __future__ import annotations

import random

from helpers.sql_statements import COLUMNS, VALUES

NAN = float("nan")

WEIGHTED = {
    **VALUES,
    "id": list(range(40)),
    "A b": [*VALUES["A b"], "z" * 100, "z" * 100 + "a"],
}


FLOATS = (
    [NAN, 1.5],
    [NAN, -2.25, 0.0],
    [NAN, NAN, -0.0, 0.0, 1.5, -2.25, 100.0, float("inf"), float("-inf")],
)
"""Floats of a file: where they are few, its statistics say that it has nothing above or below."""


def random_rows(seed, count):
    """Return rows in which a third of the values are NULL and many floats are NaN."""
    chosen = random.Random(seed)
    values = {**WEIGHTED, "f.x": FLOATS[seed % len(FLOATS)]}
    return [
        {name: None if chosen.random() < 1 / 3 else chosen.choice(values[name]) for name in COLUMNS}
        for _ in range(count)
    ]
