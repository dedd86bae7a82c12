"""A hit is valid: after any change, the cache returns what a new computation would."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from deltalake import DeltaTable

from helpers.cache_world import QUERIES, SWAP, SWAPPED, World, content
from helpers.sizes import sized

pytestmark = pytest.mark.slow

STEPS = sized(12, 25, 25)
"""Requests per world."""


class Asking:
    """Sends requests to the cache of a world, and compares the results.

    Args:
        world: the world.
    """

    def __init__(self, world):
        self.world = world
        self.counts = Counter()
        self.below = "SELECT id, x FROM t"

    def ask(self, name, query):
        """Request a view, and return whether an existing entry was served without a write."""
        world = self.world
        before = self.version(name)
        frame = world.cache.view(name, query, functions={"shift": str(world.shift)})
        found = content(frame)
        self.compare(query, found)
        return before is not None and self.version(name) == before

    def ask_for_frame(self, name, query):
        """Request a view by a frame that was created earlier."""
        frame = self.world.frames[query]
        # A frame keeps the in-memory table that it was created over.
        expected = content(frame) if query in self.world.bound_frames else None
        self.compare(query, content(self.world.cache.view(name, frame)), expected)

    def ask_for_dataset(self):
        """Request a dataset of one of the external sources."""
        world = self.world
        source, query = world.random.choice(
            (
                (world.folder / "files", "SELECT * FROM files"),
                (world.uri("t"), "SELECT * FROM t"),
                (DeltaTable(world.uri("u")), "SELECT * FROM u"),
            )
        )
        found = content(world.cache.dataset("outside", source))
        self.counts["asked"] += 1
        assert found == world.truth(query, self.below), (query, world.done)

    def ask_under_each_schema(self):
        """Request one SQL text under two default schemas, in which its names are other tables."""
        world = self.world
        name, query = world.random.choice(tuple(SWAP)), "SELECT id FROM {}"
        for schema, meant in world.random.sample([("public", name), (SWAPPED, SWAP[name])], 2):
            world.ctx.sql(f"SET datafusion.catalog.default_schema = '{schema}'")
            found = content(world.cache.view("moved", query.format(name)))
            assert found == world.truth(query.format(meant), self.below), (schema, name, world.done)
            self.counts["asked"] += 1
        world.ctx.sql("SET datafusion.catalog.default_schema = 'public'")

    def compare(self, query, found, expected=None):
        world = self.world
        is_plain = self.is_plain(query)
        if expected is None:
            expected = world.truth(query, self.below) if is_plain else content(world.ctx.sql(query))
        self.counts["asked"] += 1
        assert found == expected, (query, world.done)

    def is_plain(self, query):
        """Return whether the session itself returns what a new session would.

        A view keeps the tables it was created over, and the engine caches file statistics.
        """
        world = self.world
        reads_files = "files" in query or (" v" in query and "files" in world.view)
        return not (world.is_view_bound and " v" in query) and not (
            world.is_session_old and reads_files
        )

    def version(self, name):
        folder = self.world.folder / "cache" / "cache_views" / name
        return DeltaTable(folder).version() if (folder / "_delta_log").is_dir() else None


def live(folder, seed, steps):
    """Run a world for some steps, and return the counts."""
    chance = random.Random(seed)
    world = World(folder, chance)
    asking = Asking(world)
    below = "SELECT id, x FROM t WHERE id > {n}"
    known = {}
    for _ in range(steps):
        if chance.random() < 0.2:
            asking.below = below.format(n=chance.randint(0, 3))
        asking.ask("below", asking.below)
        kind = chance.random()
        if kind < 0.1:
            name = chance.choice(sorted(world.frames))
            asking.ask_for_frame(f"frame{sorted(world.frames).index(name)}", name)
        elif kind < 0.2:
            asking.ask_for_dataset()
        elif kind < 0.3:
            asking.ask_under_each_schema()
        else:
            name = chance.choice(("one", "two", "three"))
            if name not in known or chance.random() < 0.4:
                known[name] = chance.choice(QUERIES).format(n=chance.randint(1, 4))
            asking.ask(name, known[name])
            again(asking, name, known[name])
            if chance.random() < 0.5:
                world.change(known[name])
                if "below" in known[name]:
                    asking.ask("below", asking.below)
                asking.ask(name, known[name])
        world.change()
    return asking.counts + Counter(changes=sum(world.done.values()))


def again(asking, name, query):
    """Repeat an unchanged request, here or in a new session, and count it as a hit if nothing was written."""
    if asking.world.random.random() < 0.3:
        was_plain = asking.is_plain(query)
        asking.world.enter()
        # The new session needs the cached view that the query reads.
        asking.ask("below", asking.below)
        if not was_plain:
            asking.ask(name, query)
    if asking.ask(name, query):
        asking.counts["hits"] += 1
    else:
        assert not asking.is_plain(query), asking.world.cache.explain(name)


def test_results_equal_a_new_computation(tmp_path, size, say):
    """Results equal a new computation after random changes of inputs, plans, schemas, functions and settings."""
    cases, counts, seed = size(150, 5000, 40), Counter(), 0
    while counts["asked"] < cases:
        folder = tmp_path / str(seed)
        folder.mkdir()
        counts += live(folder, seed, STEPS)
        seed += 1
    assert counts["hits"] > cases / 8
    say(
        f"truth of a cache: {counts['asked']} results compared with a bare new session after"
        f" {counts['changes']} changes, {counts['hits']} hits where nothing had changed, 0 stale"
    )
