"""Copies, pickles, wrapped contexts and subclasses of a session behave as in the engine, and are observed."""

from __future__ import annotations

import copy
import pickle

import pytest
from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, ObservedDataFrame, ObservedSessionContext, Settings
from deltawitness.session.frame_handlers import TERMINAL
from helpers.engine_calls import FRAME_CALLS
from helpers.observed_sessions import BATCH, DATA, WAYS, Place, comparable, started


@pytest.fixture
def delta(tmp_path):
    """A Delta table of three rows."""
    write_deltalake(tmp_path / "delta", DATA)
    return tmp_path / "delta"


# --- copies, pickles and streams --------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "pick",
    [
        lambda ctx: ctx,
        lambda ctx: ctx.table("t"),
        lambda ctx: ctx.catalog(),
        lambda ctx: ctx.catalog().schema(),
    ],
    ids=["context", "frame", "catalog", "schema"],
)
def test_copies_and_pickles_are_what_the_engines_own_are(pick, way, files):
    """A copy refers to the same object, and pickling raises as for the engine's object."""
    plain = started(SessionContext, files)
    with WAYS[way]() as make:
        ctx = started(make, files)
        made = copy.copy(pick(ctx))
        assert type(made) is type(pick(ctx))
        assert comparable(made) == comparable(copy.copy(pick(plain)))
        for act in (copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError) as expected:
                act(pick(plain))
            with pytest.raises(TypeError) as actual:
                act(pick(ctx))
            assert str(actual.value) == str(expected.value)


def test_a_copy_is_as_observed_as_its_original(delta, captured_writes):
    """A copy has the session's Delta tables, and its frames have their inputs."""
    ctx = ObservedSessionContext()
    ctx.register_delta("d", delta)
    again = copy.copy(ctx)
    again.sql("INSERT INTO d (a) VALUES (7)").collect()
    assert copy.copy(ctx.table("d")).count() == 4
    copy.copy(again.table("d")).write_delta(delta, mode="append")
    inputs = [[(read.table_id, read.version) for read in e.intent.inputs] for e in captured_writes]
    assert inputs == [[], [(captured_writes.last.table_id, 1)]]


class Wrapping(SessionContext):
    """A user-defined context that can be pickled; unpickling creates a new session."""

    def __reduce__(self):
        return type(self), ()


def test_a_context_that_can_be_pickled_is_observed_when_it_comes_back():
    """An unpickled context is a new session of its class with a proxy over it."""
    back = pickle.loads(pickle.dumps(ObservedSessionContext(Wrapping())))
    assert type(back) is ObservedSessionContext
    assert isinstance(back, Wrapping)
    assert back.sql("SELECT 1 AS z").to_pydict() == {"z": [1]}
    assert type(copy.deepcopy(back)) is ObservedSessionContext


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TERMINAL)
@pytest.mark.one_case_in(3)
def test_a_query_that_is_captured_gives_the_same_rows(name, way, files, tmp_path, capsys):
    """Streams whose rows are counted return the same batches."""
    place = Place(files, tmp_path)
    ctx = started(SessionContext, files, "delta")
    expected = comparable(FRAME_CALLS[name](ctx, place))
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(settings=Settings(capture_queries=True))
    with WAYS[way]() as make:
        ctx = started(make, files, "delta")
        assert comparable(FRAME_CALLS[name](ctx, place)) == expected


# --- wrapped contexts ---------------------------------------------------------------------------------


class Own(SessionContext):
    """A user-defined context."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def sql(self, query, *args, **kwargs):
        self.seen.append(query)
        return super().sql(query, *args, **kwargs)

    def first(self, name, n=1):
        return self.table(name).limit(n)


def test_a_context_takes_the_arguments_of_the_engines_own():
    """The arguments of a context can be passed by position and by keyword."""
    config = SessionConfig().with_batch_size(77).with_information_schema()
    runtime = RuntimeEnvBuilder().with_greedy_memory_pool(10_000_000)
    for ctx in (
        ObservedSessionContext(config, runtime),
        ObservedSessionContext(runtime=runtime, config=config),
    ):
        (shown,) = ctx.sql("SHOW datafusion.execution.batch_size").to_pylist()
        assert shown["value"] == "77"
    with pytest.raises(Exception, match="config_internal") as expected:
        SessionContext("no configuration")
    with pytest.raises(type(expected.value), match="config_internal"):
        ObservedSessionContext("no configuration")


def test_an_existing_context_is_wrapped_once(files):
    """A proxy over an existing context shares its tables, and registrations on either are visible in both."""
    plain = started(SessionContext, files)
    ctx = ObservedSessionContext(plain)
    assert ctx.__wrapped__ is plain
    assert ObservedSessionContext(ctx).__wrapped__ is plain
    ctx.from_pydict({"z": [1]}, "n")
    assert plain.table("n").count() == 1
    assert ctx.session_id() == plain.session_id()
    assert ctx.session_start_time() == plain.session_start_time()
    assert ctx.__datafusion_codec_id__ == plain.__datafusion_codec_id__


def test_a_context_of_a_subclass_is_wrapped(delta, captured_writes):
    """Methods, attributes and overrides of the user-defined class work through the proxy."""
    own = Own()
    ctx = ObservedSessionContext(own)
    ctx.register_delta("d", delta)
    assert isinstance(ctx, Own)
    assert ctx.first("d", n=2).count() == 2
    ctx.sql("INSERT INTO d (a) VALUES (7)").collect()
    assert ctx.seen == ["INSERT INTO d (a) VALUES (7)"]
    assert len(captured_writes) == 1


def test_a_subclass_of_the_observed_context_works(delta, captured_writes):
    """A program may derive its class from the observed context."""

    class Ours(ObservedSessionContext):
        def __init__(self, name):
            super().__init__(SessionConfig().with_batch_size(10))
            self.name = name

        def add(self, number):
            return self.sql(f"INSERT INTO d (a) VALUES ({number})")

    ctx = Ours("mine")
    ctx.register_delta("d", delta)
    assert ctx.add(7).to_pydict() == {"count": [1]}
    assert (ctx.name, len(captured_writes)) == ("mine", 1)


def test_a_subclass_may_extend_any_method():
    """A subclass may override forwarded methods too, and set attributes before `__init__` of the base."""

    class Ours(ObservedSessionContext):
        def register_batch(self, name, batch):
            super().register_batch(f"{name}_of_ours", batch)

    ctx = Ours()
    ctx.register_batch("n", BATCH)
    assert ctx.table_exist("n_of_ours")


def test_a_subclass_may_set_attributes_before_the_base_is_initialized():
    """A subclass may set attributes before it calls `__init__` of the base."""

    class Ours(ObservedSessionContext):
        def __init__(self, name):
            self.name = name
            super().__init__()

    assert Ours("mine").name == "mine"


def test_a_context_derived_from_a_subclass_is_observed(delta):
    """A derived context has the user-defined class and is observed."""
    ctx = ObservedSessionContext(Own())
    ctx.register_delta("d", delta)
    derived = ctx.enable_url_table()
    assert isinstance(derived, Own)
    assert isinstance(derived.table("d"), ObservedDataFrame)


def test_a_context_derived_from_a_subclass_of_the_observed_context_has_that_class():
    """`enable_url_table` on a subclass of the observed context returns that subclass, as in the engine."""

    class Ours(ObservedSessionContext):
        def add(self):
            return "mine"

    assert isinstance(Ours.global_ctx(), Ours)
    assert Ours().enable_url_table().add() == "mine"
