"""Observed and plain frames combine, become views, and replace parameters as in the engine."""

from __future__ import annotations

import pytest
from datafusion import SessionContext, col
from datafusion.catalog import Table
from deltalake import write_deltalake

from deltawitness import ObservedDataFrame, ObservedSessionContext
from helpers.observed_sessions import DATA, WAYS, comparable, started
from helpers.session_calls import deprecated


@pytest.fixture
def delta(tmp_path):
    """A Delta table of three rows."""
    write_deltalake(tmp_path / "delta", DATA)
    return tmp_path / "delta"


MEETINGS = {
    "except_all": lambda left, right: left.except_all(right),
    "intersect": lambda left, right: left.intersect(right),
    "join": lambda left, right: left.join(right, on="a").select("a"),
    "join_on": lambda left, right: (
        left.alias("l").join_on(right.alias("r"), col("l.a") == col("r.a")).select(col("l.a"))
    ),
    "union": lambda left, right: left.union(right),
    "union_by_name": lambda left, right: left.union_by_name(right),
    "union_distinct": deprecated(lambda left, right: left.union_distinct(right)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MEETINGS)
def test_frames_meet_whether_they_are_observed_or_not(name, way, files):
    """A plain and an observed frame of one session can be combined, on either side."""
    plain = started(SessionContext, files)
    left, right = plain.table("t").select("a"), plain.table("o").select("a")
    meet = MEETINGS[name]
    expected = comparable(meet(left, right))
    with WAYS[way]():
        observed = ObservedSessionContext(plain)
        ours = observed.table("t").select("a"), observed.table("o").select("a")
        assert comparable(meet(ours[0], right)) == expected
        assert comparable(meet(left, ours[1])) == expected
        assert comparable(meet(*ours)) == expected
        assert type(meet(ours[0], right)) is type(meet(*ours)) is ObservedDataFrame


VIEWS = {
    "register_view": lambda ctx, frame: ctx.register_view("n", frame),
    "register_table": lambda ctx, frame: ctx.register_table("n", frame),
    "into_view": lambda ctx, frame: ctx.register_table("n", frame.into_view()),
    "Table": lambda ctx, frame: ctx.register_table("n", Table(frame)),
    "Table of a session": lambda ctx, frame: ctx.register_table("n", Table(frame, ctx)),
    "Schema": lambda ctx, frame: ctx.catalog().schema().register_table("n", frame),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_frame_becomes_a_view_whether_it_is_observed_or_not(name, files):
    """A plain and an observed frame can be registered as a view in a plain and an observed session."""
    expected = comparable(started(SessionContext, files).table("t").filter("a > 1"))
    plain = started(SessionContext, files)
    observed = ObservedSessionContext(plain)
    for ctx in (plain, observed):
        for source in (plain, observed):
            VIEWS[name](ctx, source.table("t").filter("a > 1"))
            assert comparable(plain.table("n")) == comparable(observed.table("n")) == expected
            observed.deregister_table("n")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_of_a_frame_shows_later_writes(name, way, delta):
    """A view of a frame over a Delta table shows later writes, for every way of creating the view."""
    with WAYS[way]() as make:
        ctx = make()
        ctx.register_delta("d", delta)
        VIEWS[name](ctx, ctx.table("d").filter("a > 2").select("a"))
        ctx.register_view("v", ctx.table("n"))
        ctx.sql("CREATE VIEW w AS SELECT * FROM v")
        ctx.sql("INSERT INTO d (a) VALUES (7)").collect()
        for view in ("n", "v", "w"):
            assert sorted(ctx.table(view).to_pydict()["a"]) == [3, 7]


def test_a_view_of_a_frame_after_fill_null_without_columns_shows_later_writes(delta):
    """`fill_null` without columns returns the frame itself, whose view still follows writes."""
    ctx = ObservedSessionContext()
    ctx.register_delta("d", delta)
    frame = ctx.table("d")
    assert frame.fill_null(0, subset=[]) == frame == frame.fill_nan(0, subset=[])
    ctx.register_view("v", frame.fill_null(0, subset=[]))
    ctx.sql("INSERT INTO d (a) VALUES (7)").collect()
    assert ctx.table("v").count() == 4


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["ctx", "name", "self_", "session", "call", "query_", "df"])
def test_a_frame_replaces_a_parameter_of_any_name(name, way, files):
    """A parameter may have the name of an argument of ours."""
    with WAYS[way]() as make:
        ctx = started(make, files)
        frame = ctx.table("t").filter("a > 1")
        result = ctx.sql(f"SELECT a FROM ${name}", **{name: frame})
        assert sorted(result.to_pydict()["a"]) == [2, 3]
