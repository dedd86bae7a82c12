"""UPDATE and DELETE plans: the shapes that are executed and those that are refused."""

from __future__ import annotations

import pyarrow as pa
import pytest
from datafusion import SessionContext
from deltalake import DeltaTable, write_deltalake

from deltawitness.exceptions import StatementError
from deltawitness.session.core.private_api import wrapped_plan
from deltawitness.session.sql.plan_shapes import DeleteShape, UpdateShape

COLUMNS = ["a", "b"]


@pytest.fixture
def ctx(tmp_path):
    """A plain session with a Delta table."""
    write_deltalake(tmp_path / "t", pa.table({"a": [1, 2], "b": ["x", "y"]}))
    context = SessionContext()
    context.register_table("t", DeltaTable(tmp_path / "t"))
    return context


def below(plan):
    return wrapped_plan(plan.to_variant().input())


@pytest.mark.parametrize("table", ["t", "public.t", "datafusion.public.t", "t AS x"])
def test_the_plan_of_a_text_is_read(ctx, table):
    """Plans of statement texts are parsed: with a filter, without one, and with the assigned values."""
    update = below(ctx.sql(f"UPDATE {table} SET b = 'z' WHERE a = 1 OR b IS NULL").logical_plan())
    shape = UpdateShape.of(update, "t", COLUMNS)
    assert list(shape.assigned) == ["b"]
    assert shape.filter is not None
    swap = below(ctx.sql(f"UPDATE {table} SET a = length(b), b = a").logical_plan())
    shape = UpdateShape.of(swap, "t", COLUMNS)
    assert (list(shape.assigned), shape.filter) == (["a", "b"], None)
    if "AS" not in table:
        delete = below(ctx.sql(f"DELETE FROM {table} WHERE a = 1").logical_plan())
        assert DeleteShape.of(delete, "t", COLUMNS).filter is not None


OPTIMIZED = [
    "DELETE FROM t WHERE 1 = 2",
    "DELETE FROM t WHERE a IN (SELECT 1)",
    "DELETE FROM t WHERE length(b) > 5 OR length(b) < 3",
    "UPDATE t SET b = 'z' WHERE a = 1",
    "UPDATE t SET b = 'z'",
    "UPDATE t SET b = (SELECT 'z') WHERE a = 1",
]


@pytest.mark.parametrize("statement", OPTIMIZED)
def test_an_optimized_plan_is_refused(ctx, statement):
    """An optimized plan is refused: it has other nodes, or lacks columns that no expression reads."""
    plan = below(ctx.sql(statement).optimized_logical_plan())
    kind = DeleteShape if statement.startswith("DELETE") else UpdateShape
    with pytest.raises(StatementError, match="not one that DataFusion makes of a statement's text"):
        kind.of(plan, "t", COLUMNS)


def test_columns_are_those_of_the_table(ctx):
    """A plan that lacks a column of the table, or has another one, is refused."""
    plan = below(ctx.sql("UPDATE t SET b = 'z'").logical_plan())
    for columns in (["a"], ["a", "b", "c"], ["a", "c"]):
        with pytest.raises(StatementError, match="UPDATE t"):
            UpdateShape.of(plan, "t", columns)


def test_a_plan_over_another_table_is_refused(ctx):
    """A plan whose scan reads another table than the target is refused."""
    plan = below(ctx.sql("DELETE FROM t WHERE a = 1").logical_plan())
    with pytest.raises(StatementError, match="DELETE FROM u"):
        DeleteShape.of(plan, "u", COLUMNS)
