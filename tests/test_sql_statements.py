"""Texts that each function accepts and rejects, and what an engine makes of the same texts."""

from __future__ import annotations

import pytest

from deltawitness.sql_statements import (
    QUERY_WORDS,
    changes_table,
    contains_word,
    explained,
    first_word,
    is_plain_query,
    makes_no_commit,
    may_be_query,
)

LONG = "x" * 100_000

# text, its first word, and which callers accept it: the session as a query (Q), the check of a stored
# plan as a change (C), Spark as a statement without a commit (S), `bisect` as a query (B).
TEXTS = [
    ("", "", ""),
    (" \n\t", "", ""),
    (";;", "", ""),
    ("-- only a comment", "", ""),
    ("/* only a comment */", "", ""),
    ("/* left open SELECT 1", "", ""),
    ("1", "", ""),
    ("'select'", "", ""),
    ('"select" = 1', "", ""),
    ("`select` = 1", "", ""),
    ("[select] = 1", "", ""),
    ("selected > 1", "SELECTED", ""),
    ("select_1 > 1", "", ""),
    ("wïth > 1", "", ""),
    ("SELECT 1", "SELECT", "QSB"),
    ("select\n1", "SELECT", "QSB"),
    ("SELECT(1)", "SELECT", "QSB"),
    ("SELECT*FROM t", "SELECT", "QSB"),
    ('SELECT"a"FROM t', "SELECT", "QSB"),
    ("SELECT", "SELECT", "QSB"),
    ("\r\n\tSeLeCt 1", "SELECT", "QSB"),
    ("\u00a0SELECT 1", "SELECT", "QSB"),
    (";; SELECT 1;", "SELECT", "QSB"),
    ("SELECT 1; DROP TABLE t", "SELECT", "QSB"),
    ("-- a\nSELECT 1", "SELECT", "QSB"),
    ("-- a\r\nSELECT 1", "SELECT", "QSB"),
    ("-- a\n-- b\n\n/* c */ -- d\nSELECT 1", "SELECT", "QSB"),
    ("--SELECT 1\nDROP TABLE t", "DROP", ""),
    ("/**/SELECT 1", "SELECT", "QSB"),
    ("/* a; 'b */ SELECT 1", "SELECT", "QSB"),
    ("/***/ SELECT 1 /***/", "SELECT", "QSB"),
    ("/*/ a */ SELECT 1", "SELECT", "QSB"),
    ("/* a -- */ SELECT 1", "SELECT", "QSB"),
    ("-- /*\nSELECT 1", "SELECT", "QSB"),
    ("/* a /* b */ DROP TABLE x */ SELECT 1", "SELECT", "QSB"),
    ("/*/**/*/SELECT 1", "SELECT", "QSB"),
    ("/* not nested: /* b */ SELECT 1", "SELECT", "QSB"),
    ("/* a /* b */ SELECT 1 */ INSERT INTO t VALUES (1)", "INSERT", "C"),
    ("(SELECT 1)", "(", "QB"),
    ("(", "(", "Q"),
    ("((/* a */ select 1) UNION (SELECT 2))", "(", "QB"),
    ("( -- a\nWITH a AS (SELECT 1) SELECT * FROM a)", "(", "QB"),
    ("(SELECT count(*) FROM t) > 3", "(", "QB"),
    ("(euros < 0)", "(", "Q"),
    ("(INSERT INTO t VALUES (1))", "(", "Q"),
    ("WITH a AS (SELECT 1) SELECT * FROM a", "WITH", "QB"),
    ("WITH a AS (SELECT 1 AS x) INSERT INTO t SELECT * FROM a", "WITH", "QB"),
    ("VALUES (1)", "VALUES", "QS"),
    ("SHOW TABLES", "SHOW", "QS"),
    ("EXPLAIN SELECT 1", "EXPLAIN", "S"),
    ("EXPLAIN INSERT INTO t VALUES (1)", "EXPLAIN", "S"),
    ("DESCRIBE t", "DESCRIBE", "S"),
    ("SET a = 1", "SET", "S"),
    ("FROM (SELECT 1)", "FROM", ""),
    ("FROM s INSERT INTO t SELECT *", "FROM", ""),
    ("INSERT INTO t SELECT 1", "INSERT", "C"),
    ("/* nightly */ insert into t select 1", "INSERT", "C"),
    ("UPDATE t SET a = 1", "UPDATE", "C"),
    ("DELETE FROM t", "DELETE", "C"),
    ("MERGE INTO t USING s ON t.a = s.a", "MERGE", "C"),
    ("TRUNCATE TABLE t", "TRUNCATE", "C"),
    ("COPY t TO 'x'", "COPY", ""),
    ("CREATE VIEW v AS SELECT 1", "CREATE", ""),
    ("EXECUTE p", "EXECUTE", ""),
    (f"SELECT '{LONG}'", "SELECT", "QSB"),
    (f"/* {LONG} */ SELECT 1", "SELECT", "QSB"),
    (f"-- {LONG}\nDELETE FROM t", "DELETE", "C"),
    (LONG, "X" * 100_000, ""),
    ("(" * 100_000, "(", "Q"),
    ("(" * 100_000 + "SELECT 1", "(", "QB"),
    (" " * 100_000, "", ""),
    ("/**/" * 25_000 + "1", "", ""),
    ("/* " * 33_000, "", ""),
    ("/*/**/*/" * 5_000 + "1", "", ""),
    ("--\n" * 33_000 + "SELECT 1", "SELECT", "QSB"),
]  # fmt: skip


def shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:20]}...{len(text)}"


@pytest.mark.parametrize(("text", "word", "accepted"), TEXTS, ids=shortened)
def test_what_each_caller_accepts(text, word, accepted):
    """Each function looks at the first word, after comments of any depth."""
    assert first_word(text) == word
    answers = {
        "Q": first_word(text) in QUERY_WORDS,
        "C": changes_table(text),
        "S": makes_no_commit(text),
        "B": may_be_query(text),
    }
    assert "".join(key for key, is_accepted in answers.items() if is_accepted) == accepted


@pytest.mark.parametrize(("text", "word", "accepted"), TEXTS, ids=shortened)
def test_the_quick_test_of_the_session_agrees_with_the_reader(text, word, accepted):
    """Only a comment in a comment makes the quick test miss a query."""
    del word
    has_nested = text.startswith("/*") and "/*" in text[2 : text.find("*/", 2)]
    assert bool(is_plain_query(text)) == ("Q" in accepted and not has_nested)


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("EXPLAIN SELECT 1", " SELECT 1"),
        ("EXPLAIN ANALYZE VERBOSE OPTIMIZE t", " OPTIMIZE t"),
        ("explain format tree /* why */ vacuum t", " /* why */ vacuum t"),
        ("EXPLAIN FORMAT verbose VERBOSE VACUUM t", " VACUUM t"),
        ("/* a */ EXPLAIN -- b\n(SELECT 1)", " -- b\n(SELECT 1)"),
        ("EXPLAIN", ""),
        ("EXPLAIN ANALYZE", ""),
        ("EXPLAIN 'text'", ""),
        ("", ""),
    ],
)
def test_the_statement_that_is_explained(text, statement):
    """The options of EXPLAIN are left out; FORMAT has a value."""
    assert explained(text) == statement


@pytest.mark.parametrize(
    "text",
    [
        "-- a\rINSERT INTO t\nSELECT 1",
        "-- the comment goes on \\\nSELECT 1\nINSERT INTO t SELECT 1",
        b"SELECT 1",
        None,
    ],
)
def test_spark_reads_these_comments_in_its_own_way(text):
    """A statement is observed if Spark may see another first word, or if it is not a text."""
    assert not makes_no_commit(text)


def test_a_word_anywhere_in_a_text():
    """Words of strings, names and comments count; parts of words do not."""
    assert contains_word("(SELECT 1)", ["select"])
    assert contains_word("x = 'runs' -- writes", ["commits", "Writes"])
    assert not contains_word("selected_runs", ["select", "runs"])
    assert not contains_word("a.b", ["a.c", "[a"])


def planned_by_datafusion(ctx, text):
    """Return the first word of the engine's plan; None if the text is not valid in its default dialect."""
    try:
        return ctx.sql(text).logical_plan().display().split()[0].rstrip(":")
    except Exception:  # noqa: BLE001 - the engine raises errors of many types
        return None


@pytest.mark.slow
def test_datafusion_plans_what_is_taken_for_a_query_as_a_query():
    """No text that the session takes for a query changes a table, and all but FROM are recognized."""
    from datafusion import SessionConfig, SessionContext

    ctx = SessionContext(SessionConfig().with_information_schema(True))  # noqa: FBT003 - the engine's API
    ctx.from_pydict({"a": [1]}, "t")
    plans = {
        text: (plan, accepted)
        for text, _, accepted in TEXTS
        if len(text) < 100 and (plan := planned_by_datafusion(ctx, text)) is not None
    }
    kinds = {"Projection", "Values", "Sort", "Distinct", "SubqueryAlias"}
    assert {plan for plan, accepted in plans.values() if "Q" in accepted} <= kinds
    assert [
        text for text, (plan, accepted) in plans.items() if "Q" not in accepted and plan in kinds
    ] == [
        "FROM (SELECT 1)",
    ]
    assert len([text for text, (plan, accepted) in plans.items() if "Q" in accepted]) > 20
