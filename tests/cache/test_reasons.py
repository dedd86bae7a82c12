"""A miss has reasons without paths and literals, in `explain` and in the ledger."""

from __future__ import annotations

import os
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import udf
from deltalake import DeltaTable, write_deltalake

from deltawitness import CachePolicy, DeltaCache, ObservedSessionContext, Settings
from deltawitness.exceptions import CacheError, ConfigurationError
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.observe import current_observer
from deltawitness.testing import InMemoryTelemetry, fixed_clock
from helpers.ledger_parts import rows_of


class Place:
    """A session with inputs of every kind, and a cache.

    Args:
        folder: folder of the tables, files and the cache.
    """

    def __init__(self, folder):
        self.folder = folder
        self.t = str(folder / "t")
        write_deltalake(self.t, pa.table({"id": [1, 2], "x": [3, 4]}), name="t")
        write_deltalake(str(folder / "u"), pa.table({"id": [1]}))
        (folder / "p").mkdir()
        self.file("one")
        self.ctx = ObservedSessionContext()
        self.ctx.register_delta("t", self.t)
        self.ctx.register_delta("u", folder / "u")
        self.ctx.register_parquet("p", str(folder / "p"))
        self.ctx.from_pydict({"k": [1]}, name="m")
        self.ctx.register_udf(
            udf(lambda v: v, [pa.int64()], pa.int64(), "immutable", "same"),
        )
        self.cache = DeltaCache(self.ctx, folder / "cache")

    def file(self, name, rows=1):
        pq.write_table(pa.table({"a": list(range(rows))}), self.folder / "p" / f"{name}.parquet")

    def view(self, query, name="seen", **more):
        return self.cache.view(name, query, **more)

    def overwrite(self, **columns):
        write_deltalake(self.t, pa.table(columns), mode="overwrite", schema_mode="overwrite")

    def reasons_of(self, name="seen"):
        explanation = self.cache.explain(name)
        assert str(explanation) == str(explanation.name) + ": " + explanation.result.value + (
            f" ({'; '.join(map(str, explanation.reasons))})" if explanation.reasons else ""
        )
        return [(reason.kind.value, str(reason)) for reason in explanation.reasons]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_an_unchanged_entry_is_a_hit(place):
    """An unchanged entry is a hit with the served version."""
    place.view("SELECT * FROM t")
    explanation = place.cache.explain("seen")
    assert (explanation.result.value, explanation.version, explanation.reasons) == ("hit", 0, ())


def test_explain_needs_an_earlier_request(place):
    """`explain` of a name that was not requested before raises: its definition is not available."""
    with pytest.raises(CacheError, match="seen: call view"):
        place.cache.explain("seen")


def append(place):
    write_deltalake(place.t, pa.table({"id": [5], "x": [5]}), mode="append")


def recreate(place):
    import shutil

    shutil.rmtree(place.t)
    write_deltalake(place.t, pa.table({"id": [1, 2], "x": [3, 4]}))


def add_and_retype(place):
    place.overwrite(id=[1], x=[1.5], more=["a"])


def drop(place):
    place.overwrite(id=[1])


CHANGES = [
    (append, "SELECT * FROM t", [("input_changed", "input changed: t 0 -> 1")]),
    (recreate, "SELECT * FROM t", [("input_changed", "input changed: t was recreated")]),
    (
        add_and_retype,
        "SELECT * FROM t",
        [
            ("plan_changed", "plan changed: the query changed"),
            ("schema_changed", "schema changed: added more; retyped x int64 -> double"),
            ("input_changed", "input changed: t 0 -> 1"),
        ],
    ),
    (
        drop,
        "SELECT * FROM t",
        [
            ("plan_changed", "plan changed: the query changed"),
            ("schema_changed", "schema changed: dropped x"),
            ("input_changed", "input changed: t 0 -> 1"),
        ],
    ),
    (
        lambda place: place.file("two"),
        "SELECT * FROM p",
        [("input_changed", "input changed: file new: two.parquet")],
    ),
    (
        lambda place: place.file("one", rows=9),
        "SELECT * FROM p",
        [("input_changed", "input changed: file changed: one.parquet")],
    ),
    (
        lambda place: (place.file("two"), os.unlink(place.folder / "p" / "one.parquet")),
        "SELECT * FROM p",
        [
            ("input_changed", "input changed: file new: two.parquet"),
            ("input_changed", "input changed: file gone: one.parquet"),
        ],
    ),
    (
        lambda place: (
            place.ctx.deregister_table("m"),
            place.ctx.from_pydict({"k": [2]}, name="m"),
        ),
        "SELECT * FROM m",
        [("input_changed", "input changed: in-memory table changed: m")],
    ),
    (
        lambda place: place.ctx.sql("SET datafusion.execution.time_zone = '+05:00'"),
        "SELECT * FROM t",
        [("setting_changed", "setting changed: datafusion.execution.time_zone")],
    ),
    (
        lambda place: place.cache.invalidate("seen"),
        "SELECT * FROM t",
        [("invalidated", "invalidated")],
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "query", "reasons"), CHANGES, ids=[reasons[-1][1] for *_, reasons in CHANGES]
)
def test_each_changed_input_is_a_reason(change, query, reasons, place):
    """Each change of an input is a reason; the next request recomputes the entry, and then it is a hit."""
    place.view(query)
    change(place)
    assert place.reasons_of() == reasons
    place.view(query)
    assert place.reasons_of() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then", "reasons"),
    [
        (
            {"query": "SELECT id FROM t WHERE id > 1"},
            {"query": "SELECT id FROM t WHERE id > 2"},
            [("plan_changed", "plan changed: the same query with other literals")],
        ),
        (
            {"query": "SELECT id, x FROM t"},
            {"query": "SELECT x, id FROM t"},
            [
                ("plan_changed", "plan changed: the query changed"),
                ("schema_changed", "schema changed: the order or the nullability of its columns"),
            ],
        ),
        (
            {"query": "SELECT same(id) AS id FROM t", "functions": {"same": "1"}},
            {"query": "SELECT same(id) AS id FROM t", "functions": {"same": "2"}},
            [("function_changed", "function changed: same 1 -> 2")],
        ),
        (
            {"query": "SELECT id FROM t", "version": "a"},
            {"query": "SELECT id FROM t", "version": "b"},
            [("version_changed", "version changed: a -> b")],
        ),
        (
            {"query": "SELECT id FROM t"},
            {"query": "SELECT id FROM u"},
            [
                ("plan_changed", "plan changed: the query changed"),
                ("input_changed", "input changed: u was not read before"),
                ("input_changed", "input changed: t is no longer read"),
            ],
        ),
    ],
)
def test_each_changed_argument_is_a_reason(first, then, reasons, place):
    """A changed query, version or function version is a reason of the miss."""
    place.view(**first)
    kept = place.cache._entry("view", "seen").fingerprint
    place.view(**then)
    from deltawitness.session.fingerprint.diff import differences

    now = place.cache._entry("view", "seen").fingerprint
    assert [(reason.kind.value, str(reason)) for reason in differences(kept, now)] == reasons


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (
            "SELECT random() AS r",
            "random() is volatile: set max_age in the cache policy",
        ),
        (
            "SELECT same(id) AS id FROM t",
            "same() is a user-defined function: pass its version in functions=",
        ),
        (
            "SELECT 'secret(1)' AS s FROM t",
            "it may call a user-defined function: pass its version in functions=",
        ),
        (
            "SELECT t.id, u.id FROM t, u",
            "two columns have the same name (case is ignored): rename one",
        ),
    ],
)
def test_an_uncacheable_result_has_a_reason(query, reason, place):
    """A result that cannot be cached is computed on each request, with the reason."""
    for _ in range(2):
        place.view(query)
        assert place.reasons_of() == [("uncacheable", reason)]
    assert place.cache.list() == []


def test_an_expired_entry_has_its_age_as_reason(place):
    """An entry older than `max_age` is a miss with its age."""
    hourly, now = CachePolicy("hourly", max_age=timedelta(hours=1)), 1_800_000_000
    with fixed_clock(now * 10**9):
        place.view("SELECT random() AS r", policy=hourly)
        assert place.reasons_of() == []
    with fixed_clock((now + 3600) * 10**9):
        assert place.reasons_of() == []
    with fixed_clock((now + 3602) * 10**9):
        assert place.reasons_of() == [("expired", "policy expired: 3602 s old, at most 3600 s")]
    with fixed_clock((now - 86_400) * 10**9):  # the clock was wrong, or is wrong now
        assert [kind for kind, _ in place.reasons_of()] == ["expired"]


def test_reasons_have_no_paths_and_no_literals(place, tmp_path):
    """Reasons never show names that are paths or arbitrary text."""
    place.ctx.from_pydict({"k": [1]}, name="/home/xavier/secret.csv")
    secrets = ("xavier", "secret", str(tmp_path))
    for query in (
        'SELECT * FROM "/home/xavier/secret.csv"',
        "SELECT 'secret' AS s, random() AS r",
        'SELECT * FROM t WHERE x = (SELECT max(k) FROM "/home/xavier/secret.csv") + 77',
    ):
        place.view(query)
        place.ctx.deregister_table("/home/xavier/secret.csv")
        place.ctx.from_pydict({"k": [2]}, name="/home/xavier/secret.csv")
        text = str(place.cache.explain("seen"))
        assert not any(secret in text for secret in secrets), text


@pytest.mark.slow
def test_every_operation_is_a_span_and_a_row(tmp_path):
    """A read has a row with result, key and reason; a write has one with the metadata of its commit."""
    telemetry = InMemoryTelemetry.create()
    DeltaLakeInstrumentor().instrument(
        settings=Settings(cache_root=str(tmp_path / "cache"), drain_interval=3600),
        tracer_provider=telemetry.tracer_provider,
        meter_provider=telemetry.meter_provider,
    )
    place = Place(tmp_path)
    telemetry.spans()
    place.view("SELECT * FROM t")
    place.view("SELECT * FROM t")
    place.view("SELECT random() AS r", name="never")
    place.cache.artifact("made", {"a": 1})
    place.cache.artifact("made", {"a": 1})
    reasons_of = [
        (span.name, span.attributes["cache.scope"], span.attributes["cache.result"])
        for span in telemetry.spans()
        if span.name.startswith("cache.")
    ]
    assert reasons_of == [
        ("cache.read", "view", "miss"),
        ("cache.write", "view", "write"),
        ("cache.read", "view", "hit"),
        ("cache.read", "view", "miss"),
        ("cache.read", "artifact", "miss"),
        ("cache.write", "artifact", "write"),
        ("cache.read", "artifact", "hit"),
    ]
    current_observer().recorder.drain()
    rows = rows_of(
        current_observer().recorder.root,
        INVENTORY,
        "cache_operation, scope, policy, result, reason, key, version",
        "event_time",
    )
    rows = [row for row in rows if row["policy"] != "unmanaged"]
    info = DeltaTable(tmp_path / "cache" / "cache_views" / "seen").history(1)[0]
    key = info["cache_key"]
    assert (info["cache_policy"], info["cache_scope"]) == ("view_delta_staging", "view")
    assert [tuple(row.values()) for row in rows[:4]] == [
        (
            "read",
            "view",
            "view_delta_staging",
            "miss",
            "absent: nothing is stored under this name",
            key,
            None,
        ),
        ("write", "view", "view_delta_staging", "write", None, key, 0),
        ("read", "view", "view_delta_staging", "hit", None, key, 0),
        (
            "read",
            "view",
            "view_delta_staging",
            "miss",
            "random() is volatile: set max_age in the cache policy",
            None,
            None,
        ),
    ]
    assert [(row["cache_operation"], row["scope"], row["result"]) for row in rows[4:]] == [
        ("read", "artifact", "miss"),
        ("write", "artifact", "write"),
        ("read", "artifact", "hit"),
    ]


@pytest.mark.parametrize("name", ["", "1a", "a b", "a/b", "../a", "a" * 129, "ü", None])
def test_an_invalid_name_is_refused(name, place):
    """An invalid name is refused before anything is computed."""
    for act in (
        lambda: place.cache.view(name, "SELECT 1 AS a"),
        lambda: place.cache.dataset(name, pa.table({"a": [1]})),
        lambda: place.cache.artifact(name, 1),
    ):
        with pytest.raises(ConfigurationError, match="a cache entry's name"):
            act()
    assert place.cache.list() == []


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO t VALUES (3, 5)",
        "SHOW TABLES",
        "",
        "selected",
        "/* a */ " * 60 + "DROP TABLE t",
    ],
    ids=["insert", "show", "empty", "another word", "many comments"],
)
def test_a_view_of_another_statement_is_refused(text, place):
    """A view is a query, which is checked before the text is planned, in a time linear in its length."""
    with pytest.raises(ConfigurationError, match="a view needs a query"):
        place.view(text)
    assert place.ctx.table("t").count() == 2


@pytest.mark.parametrize(
    "text",
    [
        "(SELECT 1 AS a)",
        "/* a /* b */ c */ select 1 AS a",
        "WITH q AS (SELECT 1 AS a) SELECT a FROM q",
    ],
    ids=["parenthesis", "comment in a comment", "with"],
)
def test_a_query_may_begin_in_several_ways(text, place):
    """Parentheses, comments and WITH may come before SELECT."""
    assert place.view(text).to_pydict() == {"a": [1]}


def test_a_taken_name_is_refused(place):
    """An entry cannot take the name of a table of the session."""
    with pytest.raises(ConfigurationError, match="the session has another table named t"):
        place.cache.view("t", "SELECT 1 AS a")
    assert place.ctx.table("t").count() == 2


def test_a_view_that_reads_itself_is_refused(place):
    """A view that reads itself is refused: it could never be valid."""
    place.view("SELECT 1 AS a")
    with pytest.raises(ConfigurationError, match="the view seen reads itself"):
        place.view("SELECT a + 1 AS a FROM seen")
