"""The run, the trace and the settings go along to the workers of process pools and to children."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, cache_context, current_run, run
from deltawitness.commit import read_commit_metadata
from deltawitness.config import TableNames
from deltawitness.run import current_cache_context


def here(_=None):
    """What a worker says of where it runs."""
    return current_run().run_id, current_cache_context().policy


def appended(uri):
    """Write in a worker."""
    write_deltalake(uri, pa.table({"x": [1]}), mode="append")


@pytest.fixture
def instrumented():
    DeltaLakeInstrumentor().instrument()
    yield
    DeltaLakeInstrumentor().uninstrument()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.usefixtures("instrumented")
def test_a_worker_is_on_the_run_of_each_task(method):
    """And not on the one in which the pool was made."""
    context = multiprocessing.get_context(method)
    with run("one") as one, ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(here).result(60)[0] == one.run_id
        with run("two", attributes={"shard": "2"}) as two, cache_context(policy="p"):
            assert pool.submit(here).result(60) == (two.run_id, "p")
        assert pool.submit(here).result(60) == (one.run_id, None)


@pytest.mark.parametrize(
    "call",
    [
        lambda pool: [pool.apply(here)],
        lambda pool: [pool.apply_async(here).get(60)],
        lambda pool: pool.map(here, [1]),
        lambda pool: pool.map_async(here, [1]).get(60),
        lambda pool: pool.starmap(here, [(1,)]),
        lambda pool: pool.starmap_async(here, [(1,)]).get(60),
        lambda pool: list(pool.imap(here, [1])),
        lambda pool: list(pool.imap_unordered(here, [1])),
    ],
)
@pytest.mark.usefixtures("instrumented")
def test_every_call_of_a_pool_takes_the_run_along(call):
    """Each of those that hand a function over."""
    with multiprocessing.get_context("fork").Pool(1) as pool, run("later") as later:
        assert call(pool) == [(later.run_id, None)]


def test_a_spawned_child_has_the_settings_of_its_parent(tmp_path):
    """Those given in code, too."""
    DeltaLakeInstrumentor().instrument(
        settings=Settings(user_metadata=False, table_id_key=b"\xff\x00")
    )
    child = multiprocessing.get_context("spawn").Process(
        target=appended, args=(str(tmp_path / "t"),)
    )
    child.start()
    child.join()
    DeltaLakeInstrumentor().uninstrument()
    commit = read_commit_metadata(tmp_path / "t")
    assert commit.write_id is not None
    assert "userMetadata" not in commit.metadata


def test_a_setting_given_as_text_is_the_member_it_names():
    """Also where it names the default."""
    assert Settings(table_names="path").table_names is TableNames.PATH
    assert Settings(table_names="none").table_names is TableNames.NONE
