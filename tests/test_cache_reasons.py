"""Why an entry is not served is told in a sentence without a path or a literal, and kept in the ledger."""

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
        folder: where they lie.
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

    def told(self, name="seen"):
        explanation = self.cache.explain(name)
        assert str(explanation) == str(explanation.name) + ": " + explanation.result.value + (
            f" ({'; '.join(map(str, explanation.reasons))})" if explanation.reasons else ""
        )
        return [(reason.kind.value, str(reason)) for reason in explanation.reasons]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_nothing_has_changed(place):
    """Then it is a hit, with the version that is served."""
    place.view("SELECT * FROM t")
    explanation = place.cache.explain("seen")
    assert (explanation.result.value, explanation.version, explanation.reasons) == ("hit", 0, ())


def test_what_a_cache_was_not_asked_for_it_cannot_explain(place):
    """It does not know how it is made."""
    with pytest.raises(CacheError, match="seen: this cache was not asked for it yet"):
        place.cache.explain("seen")


def append(place):
    write_deltalake(place.t, pa.table({"id": [5], "x": [5]}), mode="append")


def make_anew(place):
    import shutil

    shutil.rmtree(place.t)
    write_deltalake(place.t, pa.table({"id": [1, 2], "x": [3, 4]}))


def add_and_retype(place):
    place.overwrite(id=[1], x=[1.5], more=["a"])


def drop(place):
    place.overwrite(id=[1])


CHANGES = [
    (append, "SELECT * FROM t", [("input_changed", "input changed: t 0 -> 1")]),
    (make_anew, "SELECT * FROM t", [("input_changed", "input changed: t was made anew")]),
    (
        add_and_retype,
        "SELECT * FROM t",
        [
            ("plan_changed", "plan changed: it is another query"),
            ("schema_changed", "schema changed: added more; retyped x int64 -> double"),
            ("input_changed", "input changed: t 0 -> 1"),
        ],
    ),
    (
        drop,
        "SELECT * FROM t",
        [
            ("plan_changed", "plan changed: it is another query"),
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


@pytest.mark.parametrize(
    ("change", "query", "reasons"), CHANGES, ids=[reasons[-1][1] for *_, reasons in CHANGES]
)
def test_what_has_changed_is_told(change, query, reasons, place):
    """In a sentence for each; the next ask makes it anew, and then it is a hit."""
    place.view(query)
    change(place)
    assert place.told() == reasons
    place.view(query)
    assert place.told() == []


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
                ("plan_changed", "plan changed: it is another query"),
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
                ("plan_changed", "plan changed: it is another query"),
                ("input_changed", "input changed: u was not read before"),
                ("input_changed", "input changed: t is not read any more"),
            ],
        ),
    ],
)
def test_what_the_program_asks_otherwise_is_told(first, then, reasons, place):
    """By the same sentences; the ask itself is what `explain` looks at."""
    place.view(**first)
    kept = place.cache._entry("view", "seen").fingerprint
    place.view(**then)
    from deltawitness.cache.fingerprint.diff import differences

    now = place.cache._entry("view", "seen").fingerprint
    assert [(reason.kind.value, str(reason)) for reason in differences(kept, now)] == reasons


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (
            "SELECT random() AS r",
            "random() gives another result each time: give the policy a max_age",
        ),
        ("SELECT same(id) AS id FROM t", "same() is the program's own: give it a version"),
        (
            "SELECT 'secret(1)' AS s FROM t",
            "it may call a function of the program's own: give it a version",
        ),
        ("SELECT t.id, u.id FROM t, u", "two of its columns have one name: give them others"),
    ],
)
def test_what_cannot_be_kept_is_told(query, reason, place):
    """It is computed each time."""
    for _ in range(2):
        place.view(query)
        assert place.told() == [("uncacheable", reason)]
    assert place.cache.list() == []


def test_an_age_is_told(place):
    """By a clock that the test has."""
    hourly, now = CachePolicy("hourly", max_age=timedelta(hours=1)), 1_800_000_000
    with fixed_clock(now * 10**9):
        place.view("SELECT random() AS r", policy=hourly)
        assert place.told() == []
    with fixed_clock((now + 3600) * 10**9):
        assert place.told() == []
    with fixed_clock((now + 3602) * 10**9):
        assert place.told() == [("expired", "policy expired: 3602 s old, at most 3600 s")]


def test_reasons_hold_no_path_and_no_literal(place, tmp_path):
    """Also of names that are paths or hold whatever there is."""
    place.ctx.from_pydict({"k": [1]}, name="/home/ann/secret.csv")
    secrets = ("ann", "secret", str(tmp_path))
    for query in (
        'SELECT * FROM "/home/ann/secret.csv"',
        "SELECT 'secret' AS s, random() AS r",
        'SELECT * FROM t WHERE x = (SELECT max(k) FROM "/home/ann/secret.csv") + 77',
    ):
        place.view(query)
        place.ctx.deregister_table("/home/ann/secret.csv")
        place.ctx.from_pydict({"k": [2]}, name="/home/ann/secret.csv")
        text = str(place.cache.explain("seen"))
        assert not any(secret in text for secret in secrets), text


def test_every_operation_is_a_span_and_a_row(tmp_path):
    """A read with its result, key and reason; a write with what its commit carries."""
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
    told = [
        (span.name, span.attributes["cache.scope"], span.attributes["cache.result"])
        for span in telemetry.spans()
        if span.name.startswith("cache.")
    ]
    assert told == [
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
        ("read", "view", "view_delta_staging", "miss", "absent: it was never kept", key, None),
        ("write", "view", "view_delta_staging", "write", None, key, 0),
        ("read", "view", "view_delta_staging", "hit", None, key, 0),
        (
            "read",
            "view",
            "view_delta_staging",
            "miss",
            "random() gives another result each time: give the policy a max_age",
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
def test_a_name_that_is_none_is_refused(name, place):
    """Before anything is computed."""
    for act in (
        lambda: place.cache.view(name, "SELECT 1 AS a"),
        lambda: place.cache.dataset(name, pa.table({"a": [1]})),
        lambda: place.cache.artifact(name, 1),
    ):
        with pytest.raises(ConfigurationError, match="a cache entry's name"):
            act()
    assert place.cache.list() == []


def test_a_name_that_is_taken_is_refused(place):
    """The session's own tables stay what they are."""
    with pytest.raises(ConfigurationError, match="knows another table under the name t"):
        place.cache.view("t", "SELECT 1 AS a")
    assert place.ctx.table("t").count() == 2


def test_a_view_that_reads_itself_is_refused(place):
    """It would never be true."""
    place.view("SELECT 1 AS a")
    with pytest.raises(ConfigurationError, match="the view seen reads itself"):
        place.view("SELECT a + 1 AS a FROM seen")
