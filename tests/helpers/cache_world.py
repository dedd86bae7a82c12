"""Tables, files, in-memory tables and functions that change at random, and their true query results."""

from __future__ import annotations

import os
import shutil
from collections import Counter

import datafusion
import pyarrow as pa
import pyarrow.parquet as pq
from datafusion import col, lit, udf
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaCache, ObservedSessionContext

TYPES = (pa.int64(), pa.int32(), pa.float64())

QUERIES = (
    "SELECT * FROM t",
    "SELECT id, x FROM t WHERE id > {n}",
    "SELECT x, id FROM t WHERE id > {n}",
    "SELECT count(*) AS n, sum(x) AS s, max(id) AS m FROM t",
    "SELECT t.id, t.x, u.x AS y FROM t JOIN u ON t.id = u.id",
    "SELECT id FROM t UNION ALL SELECT id FROM u",
    "SELECT id FROM t EXCEPT SELECT id FROM u WHERE id > {n}",
    "SELECT id, x FROM t WHERE id IN (SELECT id FROM u WHERE id > {n})",
    "SELECT id, (SELECT max(id) FROM u) + {n} AS top FROM t",
    "SELECT id FROM t WHERE id >= (SELECT min(id) FROM files) + {n}",
    "WITH a AS (SELECT id + {n} AS k FROM t) SELECT k, count(*) AS n FROM a GROUP BY k",
    "WITH RECURSIVE r AS (SELECT 1 AS k UNION ALL SELECT k + 1 FROM r WHERE k < {n}) SELECT * FROM r",
    "SELECT * FROM v",
    "SELECT count(*) AS n FROM v WHERE id > {n}",
    "SELECT * FROM below",
    "SELECT b.id, u.x FROM below AS b JOIN u ON b.id = u.id AND u.id > {n}",
    "SELECT * FROM files",
    "SELECT count(*) AS n, sum(id) AS s FROM files WHERE id > {n}",
    "SELECT max(id) AS top FROM files",
    "SELECT m.k, f.id FROM m LEFT JOIN files AS f ON f.id = m.k",
    "SELECT * FROM lines WHERE a > {n}",
    "SELECT * FROM m",
    "SELECT k + {n} AS k FROM m WHERE k IN (SELECT id FROM t)",
    "SELECT * FROM fixed",
    "SELECT fixed.id FROM fixed JOIN t ON t.id = fixed.id",
    "SELECT * FROM either",
    "SELECT value + {n} AS value FROM generate_series(1, {n})",
    "VALUES (1), (2), (3), (4), (5), ({n})",
    "SELECT shift(id) AS shifted FROM t WHERE id > {n}",
    "SELECT date_part('hour', to_timestamp(concat('2020-01-0', k + 1, 'T00:00:00'))) + {n} AS h FROM m",
    "SELECT concat('{n}', 'a\"), Utf8(\"b') AS c",
    "SELECT concat('{n}', 'a', 'b') AS c",
)


SWAPPED = "swapped"
SWAP = {"t": "u", "u": "t"}
"""A schema in which each of two names is the other's table."""


class World:
    """Everything that a query may read, and a session with a cache over it.

    Args:
        folder: folder of the tables, files and the cache.
        random: random generator that chooses the changes.
    """

    def __init__(self, folder, random):
        self.folder = folder
        self.random = random
        self.done = Counter()
        self.serial = 0
        self.memory = {"k": [1, 2]}
        self.shift = 1
        self.zone = "+00:00"
        self.view = "SELECT * FROM t"
        self.either = "t"
        self.is_view_bound = self.is_session_old = False
        for name in ("t", "u"):
            self.write(name)
        (folder / "files").mkdir()
        self.add_file()
        self.write_lines()
        self.fixed = 0
        self.enter()

    # --- content ---------------------------------------------------------------------------------------

    def uri(self, name):
        """Return the location of a Delta table."""
        return str(self.folder / name)

    def rows(self):
        """Return rows with random columns."""
        count = self.random.randint(0, 4)
        ids = [self.random.randint(0, 5) for _ in range(count)]
        kind = self.random.choice(TYPES)
        columns = {"id": pa.array(ids, pa.int64()), "x": pa.array(ids[::-1], kind)}
        if self.random.random() < 0.3:
            columns["extra"] = pa.array([str(i) for i in ids], pa.string())
        if self.random.random() < 0.3:
            columns = dict(reversed(columns.items()))
        return pa.table(columns)

    def write(self, name):
        """Overwrite a table, perhaps with other columns."""
        write_deltalake(self.uri(name), self.rows(), mode="overwrite", schema_mode="overwrite")

    def like(self, name):
        """Return rows with the schema of a table."""
        schema = pa.schema(DeltaTable(self.uri(name)).schema().to_arrow())
        found = self.rows()
        return pa.table(
            {
                field.name: found[field.name].cast(field.type)
                if field.name in found.column_names
                else pa.nulls(len(found), field.type)
                for field in schema
            }
        )

    def add_file(self):
        """Add a new file to the directory."""
        self.serial += 1
        path = self.folder / "files" / f"{self.serial:04}.parquet"
        self.write_file(path)

    def write_file(self, path):
        ids = [self.random.randint(0, 5) for _ in range(3)]
        pq.write_table(pa.table({"id": pa.array(ids, pa.int64())}), path, compression="none")

    def write_lines(self):
        lines = [f"{self.random.randint(0, 9)};{self.random.randint(0, 9)}" for _ in range(2)]
        (self.folder / "lines.csv").write_text("a;b\n" + "\n".join(lines) + "\n")

    # --- sessions --------------------------------------------------------------------------------------

    def enter(self):
        """Start a new session, with a new cache object at the same place."""
        self.ctx = ObservedSessionContext()
        for name in ("t", "u"):
            self.ctx.register_delta(name, self.uri(name))
        self.ctx.register_delta("fixed", self.uri("t"), version=self.fixed)
        self.ctx.register_delta("either", self.uri(self.either))
        # In this schema each name is the other's table.
        self.ctx.sql(f"CREATE SCHEMA {SWAPPED}")
        for name, meant in SWAP.items():
            self.ctx.register_delta(f"{SWAPPED}.{name}", self.uri(meant))
        self.furnish(self.ctx)
        self.cache = DeltaCache(self.ctx, self.folder / "cache")
        self.frames = {
            "SELECT id FROM t WHERE id > 1": self.ctx.table("t")
            .filter(col("id") > lit(1))
            .select("id"),
            "SELECT k FROM m": self.ctx.table("m").select("k"),
            "SELECT id FROM files": self.ctx.table("files"),
            "SELECT id FROM t UNION ALL SELECT id FROM u": self.ctx.table("t")
            .select("id")
            .union(self.ctx.table("u").select("id")),
        }
        self.is_view_bound = self.is_session_old = False
        self.bound_frames = set()

    def furnish(self, ctx):
        """Register everything that is not a Delta table in a session."""
        ctx.register_parquet("files", str(self.folder / "files"))
        ctx.register_csv("lines", str(self.folder / "lines.csv"), delimiter=";")
        ctx.from_pydict(self.memory, name="m")
        ctx.sql(f"CREATE VIEW v AS {self.view}")
        ctx.sql(f"SET datafusion.execution.time_zone = '{self.zone}'")
        self.register_shift(ctx)

    def register_shift(self, ctx):
        by = self.shift
        ctx.register_udf(
            udf(
                lambda values: pa.array([v.as_py() + by for v in values], pa.int64()),
                [pa.int64()],
                pa.int64(),
                "immutable",
                "shift",
            )
        )

    def truth(self, query, below):
        """Return the result of a query in a new unobserved session over the current inputs."""
        ctx = datafusion.SessionContext()
        for name in ("t", "u"):
            ctx.register_table(name, DeltaTable(self.uri(name)))
        ctx.register_table("fixed", DeltaTable(self.uri("t"), version=self.fixed))
        ctx.register_table("either", DeltaTable(self.uri(self.either)))
        self.furnish(ctx)
        ctx.sql(f"CREATE VIEW below AS {below}")
        return content(ctx.sql(query))

    # --- changes ---------------------------------------------------------------------------------------

    def change(self, query=None):
        """Apply a random change, any of them or one that is relevant to a query."""
        known = [whats for word, whats in RELEVANT.items() if query is not None and word in query]
        what = self.random.choice(self.random.choice(known or [CHANGES]))
        what(self)
        self.done[what.__name__] += 1


def content(frame):
    """Return the column names and the multiset of rows of a frame."""
    table = frame.to_arrow_table()
    columns = [table[i].to_pylist() for i in range(table.num_columns)]
    return tuple(table.column_names), Counter(map(repr, zip(*columns, strict=True)))


def some_table(world):
    return world.random.choice(("t", "u"))


def insert_here(world):
    name = some_table(world)
    world.ctx.refresh(name)
    values = ", ".join(
        "3" if column != "extra" else "'3'" for column in world.ctx.table(name).schema().names
    )
    world.ctx.sql(f"INSERT INTO {name} VALUES ({values})").collect()


def delete_here(world):
    world.ctx.sql(
        f"DELETE FROM {some_table(world)} WHERE id = {world.random.randint(0, 5)}"
    ).collect()


def append_elsewhere(world):
    name = some_table(world)
    write_deltalake(world.uri(name), world.like(name), mode="append")


def append_in_another_session(world):
    other = ObservedSessionContext()
    name = some_table(world)
    other.from_arrow(world.like(name)).write_delta(world.uri(name), mode="append")


def delete_elsewhere(world):
    DeltaTable(world.uri(some_table(world))).delete(f"id = {world.random.randint(0, 5)}")


def update_elsewhere(world):
    DeltaTable(world.uri(some_table(world))).update(
        updates={"id": "id + 1"}, predicate=f"id = {world.random.randint(0, 5)}"
    )


def overwrite(world):
    world.write(some_table(world))


def restore(world):
    table = DeltaTable(world.uri(some_table(world)))
    if table.version():
        table.restore(world.random.randrange(table.version()))


def compact(world):
    DeltaTable(world.uri(some_table(world))).optimize.compact()


def recreate(world):
    shutil.rmtree(world.uri("u"))
    world.write("u")


def new_file(world):
    world.add_file()


def remove_file(world):
    files = sorted((world.folder / "files").iterdir())
    if len(files) > 1:
        world.random.choice(files).unlink()


def change_file_in_place(world):
    path = world.random.choice(sorted((world.folder / "files").iterdir()))
    before = path.stat()
    world.write_file(path)
    if world.random.random() < 0.3 and path.stat().st_size == before.st_size:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        # The engine caches statistics by size and mtime: this session returns stale results now.
        world.is_session_old = True


def touch_file(world):
    world.random.choice(sorted((world.folder / "files").iterdir())).touch()


def change_lines(world):
    world.write_lines()


def other_memory(world):
    world.memory = {"k": [world.random.randint(0, 5) for _ in range(2)]}
    world.ctx.deregister_table("m")
    world.ctx.from_pydict(world.memory, name="m")
    world.is_view_bound = " m" in world.view
    world.bound_frames = {query for query in world.frames if " m" in query}


def same_memory(world):
    world.ctx.deregister_table("m")
    world.ctx.from_pydict(world.memory, name="m")


def other_view(world):
    world.view = world.random.choice(
        (
            "SELECT * FROM t",
            "SELECT id FROM u",
            "SELECT k AS id FROM m",
            "SELECT id, 1 AS one FROM files",
        )
    )
    world.ctx.sql(f"CREATE OR REPLACE VIEW v AS {world.view}")
    world.is_view_bound = False


def other_binding(world):
    world.either = "u" if world.either == "t" else "t"
    world.ctx.deregister_table("either")
    world.ctx.register_delta("either", world.uri(world.either))


def other_fixed_version(world):
    world.fixed = world.random.randint(0, DeltaTable(world.uri("t")).version())
    world.ctx.deregister_table("fixed")
    world.ctx.register_delta("fixed", world.uri("t"), version=world.fixed)


def other_function(world):
    world.shift += 1
    world.ctx.deregister_udf("shift")
    world.register_shift(world.ctx)


def other_time_zone(world):
    world.zone = "+05:00" if world.zone == "+00:00" else "+00:00"
    world.ctx.sql(f"SET datafusion.execution.time_zone = '{world.zone}'")


def invalidate(world):
    entries = world.cache.list()
    if entries:
        world.cache.invalidate(world.random.choice(entries).name)


def refresh(world):
    world.ctx.refresh()


def new_session(world):
    world.enter()


CHANGES = (
    insert_here,
    delete_here,
    append_elsewhere,
    append_in_another_session,
    delete_elsewhere,
    update_elsewhere,
    overwrite,
    restore,
    compact,
    recreate,
    new_file,
    remove_file,
    change_file_in_place,
    touch_file,
    change_lines,
    other_memory,
    same_memory,
    other_view,
    other_binding,
    other_fixed_version,
    other_function,
    other_time_zone,
    invalidate,
    refresh,
    new_session,
)

RELEVANT = {
    " t": (insert_here, append_elsewhere, delete_elsewhere, update_elsewhere, overwrite, restore),
    " u": (recreate, append_in_another_session, overwrite, update_elsewhere),
    " v": (other_view, other_memory, overwrite),
    "files": (new_file, remove_file, change_file_in_place),
    "lines": (change_lines,),
    " m": (other_memory,),
    "shift": (other_function,),
    "to_timestamp": (other_time_zone,),
    "either": (other_binding,),
    "fixed": (other_fixed_version,),
}
"""Changes that may alter the result of a query, by a word in its text."""
