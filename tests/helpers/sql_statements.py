"""Random tables and statements, in SQL that DataFusion and DuckDB interpret alike."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

UTC = dt.UTC

of_any_size = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
"""Settings of the tests that run sequences of statements."""

COLUMNS = {
    "id": pa.int64(),
    "small": pa.int32(),
    "A b": pa.string(),
    "f.x": pa.float64(),
    'q"q': pa.decimal128(10, 2),
    "Ts": pa.timestamp("us", "UTC"),
    "tn": pa.timestamp("us"),
    "D": pa.date32(),
    "ok": pa.bool_(),
    "Li": pa.list_(pa.int64()),
    "st": pa.struct([("a", pa.int64()), ("B c", pa.string())]),
    "p": pa.string(),
}
SCHEMA = pa.schema(list(COLUMNS.items()))

SOURCE_SCHEMA = pa.schema(
    [("id", pa.int64()), ("v", pa.int64()), ("W w", pa.string()), ("x", pa.float64())]
)

PARTITIONS = (None, ["p"], ["small"], ["D", "ok"])

VALUES = {
    "id": [0, 1, 2, 3, 4],
    "small": [-1, 0, 7],
    "A b": ["x", "Y", "it's", "", "ün"],
    "f.x": [1.5, -2.25, float("nan"), 0.0, 100.0],
    'q"q': [Decimal("1.50"), Decimal("-2.25"), Decimal("0.00")],
    "Ts": [
        dt.datetime(2024, 1, 1, tzinfo=UTC),
        dt.datetime(2024, 6, 1, 12, 0, 0, 123456, tzinfo=UTC),
    ],
    "tn": [dt.datetime(2024, 1, 1), dt.datetime(2023, 5, 5, 5, 5, 5)],  # noqa: DTZ001 - a column without a zone
    "D": [dt.date(2024, 1, 1), dt.date(2020, 2, 29)],
    "ok": [True, False],
    "Li": [[], [1, None], [2, 3]],
    "st": [{"a": 1, "B c": "z"}, {"a": None, "B c": "y"}],
    "p": ["p", "q", "a b/c=d"],
}

COMPARABLE = tuple(name for name in COLUMNS if name not in {"Li", "st"})


def quoted(name):
    """A column's name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(name, value):  # noqa: PLR0911 - one return per type
    """A value of a column as a SQL literal."""
    if value is None:
        return "NULL"
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"CAST('{value}' AS DOUBLE)"
        case Decimal():
            return f"CAST('{value}' AS DECIMAL(10,2))"
        case dt.datetime():
            return f"'{value.isoformat()}'"
        case dt.date():
            return f"DATE '{value.isoformat()}'"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case list():
            members = ", ".join("NULL" if member is None else str(member) for member in value)
            return f"[{members}]"
        case dict():
            first = "CAST(NULL AS BIGINT)" if value["a"] is None else str(value["a"])
            return f"{{'a': {first}, 'B c': {literal(name, value['B c'])}}}"
    return str(value)


def values_of(name):
    """A value of a column; NULL is as likely as any other value."""
    return st.sampled_from([None, *VALUES[name]])


rows = st.lists(
    st.fixed_dictionaries({name: values_of(name) for name in COLUMNS}), min_size=0, max_size=6
)

source_rows = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.sampled_from([None, 0, 1, 2, 3, 9]),
            "v": st.sampled_from([None, 10, 20]),
            "W w": st.sampled_from([None, "x", "w"]),
            "x": st.sampled_from([None, 1.5, float("nan")]),
        }
    ),
    max_size=4,
    unique_by=lambda row: row["id"],
)


# --- expressions -------------------------------------------------------------------------------------


@st.composite
def comparisons(draw, prefix=""):
    """Comparisons of a column with a literal of its type."""
    name = draw(st.sampled_from(COMPARABLE))
    column = prefix + quoted(name)
    value = st.sampled_from(VALUES[name]).map(lambda value: literal(name, value))
    match draw(st.integers(0, 6)):
        case 0 | 1:
            operator = draw(st.sampled_from(["=", "<>", "<", "<=", ">", ">="]))
            return f"{column} {operator} {draw(value)}"
        case 2:
            return f"{column} IS {draw(st.sampled_from(['', 'NOT ']))}NULL"
        case 3:
            members = draw(st.lists(value, min_size=1, max_size=3))
            return f"{column} {draw(st.sampled_from(['', 'NOT ']))}IN ({', '.join(members)})"
        case 4:
            return f"{column} {draw(st.sampled_from(['', 'NOT ']))}BETWEEN {draw(value)} AND {draw(value)}"
        case 5:
            return f"({column} IS NOT DISTINCT FROM {draw(value)})"
        case _:
            return f"({column} = {draw(value)}) IS {draw(st.sampled_from(['', 'NOT ']))}TRUE"


def others(prefix=""):
    """Predicates other than comparisons: functions, arithmetic, NULL literals, flags."""
    p = prefix
    return st.sampled_from(
        [
            f'{p}"ok"',
            f'NOT {p}"ok"',
            f'{p}"id" = NULL',
            f'{p}"id" + 1 > 2',
            f'{p}"id" % 2 = 0',
            f'{p}"small" * 2 <> {p}"id"',
            f"upper({p}\"A b\") = 'Y'",
            f"{p}\"A b\" LIKE '%''%'",
            f"{p}\"A b\" || 'z' = 'xz'",
            f'coalesce({p}"id", 0) < 2',
            f'abs({p}"small") = 1',
            f'CASE WHEN {p}"id" > 1 THEN {p}"ok" ELSE true END',
            f'{p}"st" IS NULL',
            f'{p}"Li" IS NOT NULL',
            f'{p}"Li" = [1, NULL]',
            f'{p}"f.x" > {p}"id"',
            "true",
            "1 = 0",
        ]
    )


def predicates(prefix=""):
    """Combinations of comparisons and other predicates."""
    return st.recursive(
        st.one_of(comparisons(prefix), comparisons(prefix), others(prefix)),
        lambda inner: st.one_of(
            st.builds(lambda a, b: f"({a}) AND ({b})", inner, inner),
            st.builds(lambda a, b: f"({a}) OR ({b})", inner, inner),
            inner.map(lambda a: f"NOT ({a})"),
        ),
        max_leaves=4,
    )


SUBQUERIES = (
    '"id" IN (SELECT "id" FROM src)',
    '"id" NOT IN (SELECT "id" FROM src WHERE "id" IS NOT NULL)',
    'EXISTS (SELECT 1 FROM src WHERE src."id" = t."id")',
    'NOT EXISTS (SELECT 1 FROM src WHERE src."id" = t."id" AND src."v" > 10)',
    'EXISTS (SELECT 1 FROM src WHERE "v" = 20)',
    '"id" > (SELECT min("id") FROM src)',
    '"A b" IN (SELECT "W w" FROM src)',
    '"f.x" = (SELECT max("x") FROM src)',
    '"id" IN (SELECT "id" FROM t AS other WHERE other."ok")',
)
"""Predicates with subqueries over another table, and over the table itself."""


@st.composite
def assignments(draw, prefix=""):
    """A column and the SQL of its new value."""
    name = draw(st.sampled_from(list(COLUMNS)))
    written = [draw(values_of(name).map(lambda value: literal(name, value)))]
    p = prefix
    written += {
        "id": [
            f'{p}"id" + 1',
            f'{p}"small"',
            f'CASE WHEN {p}"ok" THEN {p}"small" ELSE 7 END',
            f'CASE WHEN {p}"ok" THEN 1 ELSE {p}"id" END',
        ],
        "small": [
            f'{p}"small" - 1',
            f'abs({p}"small")',
            f'CASE WHEN {p}"ok" THEN {p}"small" ELSE 7 END',
        ],
        "A b": [
            f'upper({p}"A b")',
            f"{p}\"A b\" || '!'",
            f'{p}"p"',
            f"coalesce({p}\"A b\", 'none')",
        ],
        # No unary minus: DataFusion distinguishes NaN with a sign from NaN without one, DuckDB does not.
        "f.x": [f'{p}"f.x" * 2', f'{p}"f.x" * -1'],
        'q"q': [f'{p}"q""q" + CAST(\'1.00\' AS DECIMAL(10,2))'],
        "ok": [f'NOT {p}"ok"', f'{p}"id" > 1'],
        "D": [f'{p}"D"'],
    }.get(name, [])
    return name, draw(st.sampled_from(written))


def assigned(prefix=""):
    """One to three assignments to different columns."""
    return st.lists(assignments(prefix), min_size=1, max_size=3, unique_by=lambda pair: pair[0])


SUBQUERY_ASSIGNMENTS = (
    ("id", '(SELECT max("id") FROM src)'),
    ("A b", '(SELECT max("W w") FROM src WHERE src."id" = t."id")'),
    ("f.x", '(SELECT min("x") FROM src)'),
)


# --- statements --------------------------------------------------------------------------------------


def tuple_sql(row, names):
    """A row as a tuple for VALUES."""
    return "(" + ", ".join(literal(name, row[name]) for name in names) + ")"


@st.composite
def inserts(draw):
    """INSERT of rows, of some columns, and of a query over the source or the table itself."""
    match draw(st.integers(0, 5)):
        case 0 | 1:
            names = draw(
                st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=12, unique=True)
            )
            new = draw(rows.filter(bool))
            listed = ", ".join(map(quoted, names))
            return f"INSERT INTO t ({listed}) VALUES " + ", ".join(tuple_sql(r, names) for r in new)
        case 2:
            return 'INSERT INTO t ("id", "A b", "f.x") SELECT "id", "W w", "x" FROM src'
        case 3:
            return f"INSERT INTO t SELECT * FROM t WHERE {draw(predicates())}"
        case 4:
            return 'INSERT INTO t ("id", "small") SELECT "small", 9 FROM t UNION ALL SELECT "id", 8 FROM t'
        case _:
            return 'INSERT INTO t ("p", "id") SELECT DISTINCT "p", 4 FROM t'


@st.composite
def overwrites(draw):
    """INSERT OVERWRITE from the table itself or from the source."""
    if draw(st.booleans()):
        return f"INSERT OVERWRITE t SELECT * FROM t WHERE {draw(predicates())}"
    return 'INSERT OVERWRITE t ("id", "A b") SELECT "id", "W w" FROM src'


@st.composite
def updates(draw):
    """UPDATE with and without a filter."""
    sets = ", ".join(f"{quoted(name)} = {sql}" for name, sql in draw(assigned()))
    where = draw(st.one_of(st.none(), predicates()))
    return f"UPDATE t SET {sets}" + ("" if where is None else f" WHERE {where}")


@st.composite
def subquery_updates(draw):
    """UPDATE with subqueries in the filter, in the assignments, or in both."""
    pairs = draw(
        st.one_of(assigned(), st.sampled_from(SUBQUERY_ASSIGNMENTS).map(lambda pair: [pair]))
    )
    sets = ", ".join(f"{quoted(name)} = {sql}" for name, sql in pairs)
    where = draw(st.one_of(st.none(), st.sampled_from(SUBQUERIES)))
    return f"UPDATE t SET {sets}" + ("" if where is None else f" WHERE {where}")


@st.composite
def deletes(draw):
    """DELETE with and without a filter."""
    where = draw(st.one_of(st.none(), predicates(), predicates(), predicates()))
    return "DELETE FROM t" + ("" if where is None else f" WHERE {where}")


@st.composite
def subquery_deletes(draw):
    """DELETE with a subquery, alone or combined with another predicate."""
    where = draw(st.sampled_from(SUBQUERIES))
    if draw(st.booleans()):
        where = f"({where}) AND ({draw(predicates())})"
    return f"DELETE FROM t WHERE {where}"


@st.composite
def merges(draw):
    """MERGE with one to four clauses of all kinds."""
    on = draw(
        st.sampled_from(
            [
                't."id" = s."id"',
                't."id" = s."id" AND t."ok"',
                '(t."id" IS NOT DISTINCT FROM s."id")',
                'abs(t."id") = s."id"',
            ]
        )
    )
    source = draw(st.sampled_from(["src AS s", '(SELECT * FROM src WHERE "v" > 5) AS s']))
    clauses = []
    for kind, is_conditional, text in draw(st.lists(clause(), min_size=1, max_size=4)):
        # DuckDB refuses a clause after one of the same kind without a condition.
        if not any(known == kind and not conditional for known, conditional, _ in clauses):
            clauses.append((kind, is_conditional, text))
    return f"MERGE INTO t USING {source} ON {on} " + " ".join(text for *_, text in clauses)


@st.composite
def clause(draw):
    """One WHEN clause of a MERGE: its kind, whether it has a condition, and its text."""
    kind = draw(st.sampled_from(["MATCHED", "NOT MATCHED", "NOT MATCHED BY SOURCE"]))
    if kind == "NOT MATCHED":
        only_if = draw(st.sampled_from(["", ' AND s."v" = 10', ' AND coalesce(s."v", 0) <> 10']))
        values = draw(
            st.sampled_from(
                [
                    '("id", "A b") VALUES (s."id", s."W w")',
                    '("id", "f.x", "small") VALUES (s."id" + 1, s."x", 7)',
                    '("A b", "p") VALUES (upper(s."W w"), \'q\')',
                ]
            )
        )
        return kind, bool(only_if), f"WHEN NOT MATCHED{only_if} THEN INSERT {values}"
    condition = draw(st.one_of(st.none(), predicates("t.")))
    only_if = "" if condition is None else f" AND ({condition})"
    if draw(st.booleans()):
        return kind, bool(only_if), f"WHEN {kind}{only_if} THEN DELETE"
    sets = draw(assigned("t."))
    if kind == "MATCHED" and draw(st.booleans()):
        sets = [("f.x", 's."x"'), ("A b", 'coalesce(s."W w", t."A b")')]
    written = ", ".join(f"{quoted(name)} = {sql}" for name, sql in sets)
    return kind, bool(only_if), f"WHEN {kind}{only_if} THEN UPDATE SET {written}"


statements = st.one_of(
    inserts(),
    overwrites(),
    updates(),
    subquery_updates(),
    deletes(),
    subquery_deletes(),
    merges(),
    merges(),
    st.just("TRUNCATE TABLE t"),
)
