"""A session with two Delta tables of people, and the rows of them."""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from deltawitness import ObservedSessionContext


def people_session(folder):
    """Write the Delta tables `people` and `news` to a folder, and return a session with both."""
    write_deltalake(folder / "people", PEOPLE)
    write_deltalake(folder / "news", NEWS)
    context = ObservedSessionContext()
    context.register_table("people", DeltaTable(folder / "people"))
    context.register_delta("news", folder / "news")
    return context


PEOPLE = pa.table({"id": [1, 2, 3], "name": ["ann", "bob", None], "score": [1.5, None, 3.0]})

NEWS = pa.table({"id": [2, 4], "name": ["BOB", "dan"], "score": [20.0, 40.0]})


def run(ctx, sql, **kwargs):
    """Run a statement and return its count."""
    return ctx.sql(sql, **kwargs).to_pydict()["count"][0]


def people(ctx, columns="id, name, score"):
    return [
        tuple(row.values())
        for row in ctx.sql(f"SELECT {columns} FROM people ORDER BY id").to_pylist()
    ]


ANN, BOB, CAT = (1, "ann", 1.5), (2, "bob", None), (3, None, 3.0)
