"""The columns that a plan reads: for each kind of node and expression, and against values that change."""

from __future__ import annotations

import pyarrow as pa
import pytest
from datafusion import SessionContext, col
from datafusion import functions as f

from deltawitness.column_sources import MAX_TEXT, ColumnSource, ColumnUse, WriteColumns
from deltawitness.session.core.column_lineage import columns_of_plan

A = {
    "id": [1, 2, 3, 4],
    "k": [1, 1, 2, 9],
    "x": [1.0, 2.0, 3.0, 4.0],
    "y": [4, 3, 2, 1],
    "s": ["p", "q", "p", "q"],
}
B = {"id": [1, 2, 3], "k": [1, 2, 3], "z": [10, 20, 30], "t": ["p", "q", "r"]}

CHANGED = {
    "id": [4, 3, 2, 1],
    "k": [2, 9, 1, 1],
    "x": [9.0, 1.0, 7.0, 2.0],
    "y": [1, 2, 4, 3],
    "s": ["q", "p", "q", "q"],
    "z": [3, 1, 2],
    "t": ["q", "q", "p"],
}


def session(**tables):
    ctx = SessionContext()
    for name, columns in ({"a": A, "b": B} | tables).items():
        ctx.from_arrow(pa.table(columns), name=name)
    return ctx


def written(plan):
    """Return the columns of a plan and those that decide about its rows, as texts."""
    found = columns_of_plan(plan, lambda name: name)
    assert WriteColumns.parse(found.to_text()) == found
    columns = {
        name: None if sources is None else texts(sources) for name, sources in found.columns.items()
    }
    return columns, None if found.rows is None else texts(found.rows)


def texts(sources):
    return {f"{each.table}.{each.column} {each.use}" for each in sources}


EXAMPLES = {
    "SELECT id, x AS renamed, CAST(y AS VARCHAR) AS text, 1 AS one FROM a": (
        {
            "id": {"a.id identity"},
            "renamed": {"a.x identity"},
            "text": {"a.y identity"},
            "one": set(),
        },
        set(),
    ),
    "SELECT x * y + 1 AS m, -y AS n, coalesce(s, 'no') AS c, y BETWEEN 1 AND id AS b FROM a WHERE k > 1": (
        {
            "m": {"a.x transformation", "a.y transformation"},
            "n": {"a.y transformation"},
            "c": {"a.s transformation"},
            "b": {"a.y transformation", "a.id transformation"},
        },
        {"a.k filter"},
    ),
    "SELECT CASE WHEN y > 1 THEN x ELSE 0 END AS c, CASE s WHEN 'p' THEN id END AS d FROM a": (
        {
            "c": {"a.x transformation", "a.y condition"},
            "d": {"a.id transformation", "a.s condition"},
        },
        set(),
    ),
    "SELECT s, sum(x * y) AS total, count(*) AS n, max(x) FILTER (WHERE y > 1) AS big FROM a"
    " GROUP BY s HAVING min(id) > 0": (
        {
            "s": {"a.s identity"},
            "total": {"a.x aggregation", "a.y aggregation"},
            "n": set(),
            "big": {"a.x aggregation", "a.y condition"},
        },
        {"a.s group", "a.id filter"},
    ),
    "SELECT a.id, b.z FROM a JOIN b ON a.k = b.k AND b.id > a.y": (
        {"id": {"a.id identity"}, "z": {"b.z identity"}},
        {"a.k join", "b.k join", "b.id join", "a.y join"},
    ),
    "SELECT id, x FROM a UNION ALL SELECT z, k FROM b": (
        {"id": {"a.id identity", "b.z identity"}, "x": {"a.x identity", "b.k identity"}},
        set(),
    ),
    "SELECT id, sum(x) OVER (PARTITION BY s ORDER BY y) AS total, row_number() OVER (ORDER BY k) AS n FROM a": (
        {
            "id": {"a.id identity"},
            "total": {"a.x aggregation", "a.s condition", "a.y condition"},
            "n": {"a.k condition"},
        },
        set(),
    ),
    "SELECT id, (SELECT max(z) FROM b WHERE b.k = a.k) AS m FROM a WHERE y IN (SELECT id FROM b)": (
        {"id": {"a.id identity"}, "m": {"b.z aggregation", "b.k condition", "a.k condition"}},
        {"a.y filter", "b.id filter"},
    ),
    "WITH c AS (SELECT k AS j, x * 2 AS w FROM a), d AS (SELECT j, w FROM c) SELECT DISTINCT w FROM d": (
        {"w": {"a.x transformation"}},
        set(),
    ),
    "SELECT id FROM a ORDER BY y LIMIT 2": ({"id": {"a.id identity"}}, {"a.y sort"}),
    "SELECT id FROM a ORDER BY y": ({"id": {"a.id identity"}}, set()),
    "SELECT k FROM a EXCEPT SELECT k FROM b": ({"k": {"a.k identity"}}, {"a.k join", "b.k join"}),
    "SELECT s, sum(x) AS total FROM a GROUP BY ROLLUP(s)": (
        {"s": {"a.s identity"}, "total": {"a.x aggregation"}},
        {"a.s group"},
    ),
    "SELECT unnest([id, y]) AS u, s FROM a": (
        {"u": {"a.id transformation", "a.y transformation"}, "s": {"a.s identity"}},
        set(),
    ),
    "WITH RECURSIVE r AS (SELECT id AS n, y AS m FROM a UNION ALL SELECT n + 1, n FROM r WHERE n < 3)"
    " SELECT n, m FROM r": (
        {"n": {"a.id transformation"}, "m": {"a.id transformation", "a.y identity"}},
        {"a.id filter"},
    ),
    "SELECT a.id, o.z FROM a, LATERAL (SELECT z FROM b WHERE b.k = a.y) AS o": (
        {"id": {"a.id identity"}, "z": {"b.z identity"}},
        {"b.k filter", "a.y filter"},
    ),
    "SELECT a.id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)": (
        {"id": {"a.id identity"}},
        {"a.k filter", "b.k filter"},
    ),
    "SELECT column1 AS v FROM (VALUES (1), (2))": ({"v": set()}, set()),
}


@pytest.mark.parametrize("query", EXAMPLES)
def test_the_columns_of_a_query(query):
    """Each column has the columns that its values come from, and the use of each one."""
    assert written(session().sql(query).logical_plan()) == EXAMPLES[query]


@pytest.mark.parametrize("query", EXAMPLES)
def test_a_column_whose_values_change_the_result_is_a_source(query):
    """No other column of a table has an effect: if its values change, the result stays the same."""

    def result(**tables):
        return session(**tables).sql(query).to_pydict()

    columns, rows = written(session().sql(query).logical_plan())
    before = result()
    for table, content in (("a", A), ("b", B)):
        for name in content:
            changed = {**content, name: CHANGED[name][: len(content[name])]}
            after = result(**{table: changed})
            named = f"{table}.{name} "
            if any(each.startswith(named) for each in rows):
                continue
            for column, sources in columns.items():
                if not any(each.startswith(named) for each in sources):
                    assert sorted(map(str, after[column])) == sorted(map(str, before[column])), (
                        named,
                        column,
                    )


def test_the_columns_of_a_frame():
    """Methods of a frame make the same plan as SQL."""
    frame = session().table("a").with_column("w", col("x") * col("y"))
    grouped = frame.aggregate([col("s")], [f.sum(col("w")).alias("total")])
    assert written(grouped.logical_plan()) == (
        {"s": {"a.s identity"}, "total": {"a.x aggregation", "a.y aggregation"}},
        {"a.s group"},
    )


def test_a_view_shows_the_columns_of_its_tables():
    """The plan of a view is part of the plan that reads it."""
    ctx = session()
    ctx.sql("CREATE VIEW v AS SELECT id, x * 2 AS d FROM a WHERE k > 0")
    assert written(ctx.sql("SELECT d FROM v").logical_plan()) == (
        {"d": {"a.x transformation"}},
        {"a.k filter"},
    )


def test_names_with_any_characters_are_found():
    """A name may have spaces, dots, quotes and upper case."""
    ctx = SessionContext()
    ctx.from_arrow(pa.table({'Big "One".x': [1], "é": [2]}), name="odd")
    query = 'SELECT sum("Big ""One"".x") OVER (PARTITION BY "é") AS total FROM odd'
    assert written(ctx.sql(query).logical_plan())[0] == {
        "total": {'odd.Big "One".x aggregation', "odd.é condition"}
    }


def test_what_the_engine_does_not_show_is_unknown():
    """Python cannot read what DISTINCT ON selects, so no column is made up."""
    plan = session().sql("SELECT DISTINCT ON (s) s, x FROM a ORDER BY s, y").logical_plan()
    found = columns_of_plan(plan, lambda name: name)
    assert found.reason is not None
    assert not found.columns
    above = session().sql("SELECT x + 1 AS z FROM (SELECT DISTINCT ON (s) s, x FROM a)")
    assert written(above.logical_plan())[0] == {"z": None}


@pytest.mark.slow
def test_a_plan_with_many_levels_is_unknown():
    """A frame may be made in a loop; its columns are not worth an error."""
    frame = session().table("a").select("id")
    for _ in range(400):
        frame = frame.select((col("id") + 1).alias("id"))
    found = columns_of_plan(frame.logical_plan(), lambda name: name)
    assert found.reason in {None, "the plan has too many levels"}


def test_the_written_names_are_used_by_position():
    """An INSERT assigns the columns of its query by position."""
    plan = session().sql("SELECT id, x FROM a").logical_plan()
    found = columns_of_plan(plan, lambda name: name, ["number", "value"])
    assert list(found.columns) == ["number", "value"]


@pytest.mark.slow
def test_a_text_has_a_bounded_length():
    """A write with too many columns has a reason instead of its columns."""
    source = ColumnSource("t", "c" * 100, ColumnUse.IDENTITY)
    wide = WriteColumns({f"column_{n}": (source,) for n in range(1000)})
    assert WriteColumns.parse(wide.to_text()).reason == "the write has too many columns"
    assert len(WriteColumns({"c": (source,)}).to_text()) < MAX_TEXT


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"columns":{"a":[[7,"b"]]},"sources":[]}', "null"]
)
def test_a_damaged_text_is_unknown(text):
    """A text of another program is not an error of the question."""
    assert WriteColumns.parse(text).reason == "the recorded columns cannot be read"
