"""A program that changes only its import gets contexts and frames with the same interface, observed."""

from __future__ import annotations

import collections.abc
import contextlib
import inspect
import itertools
import warnings

import pytest
import wrapt
from datafusion import CsvReadOptions, DataFrame, SessionContext
from datafusion.catalog import Catalog, Schema, Table

from deltawitness import ObservedDataFrame, ObservedSessionContext
from deltawitness.session.frame_handlers import TERMINAL
from helpers.engine_calls import CALLS, FAILING_CALLS
from helpers.observed_sessions import (
    HANDLED,
    OBSERVED,
    WAYS,
    Place,
    comparable,
    lasting,
    methods_of,
    started,
)


@pytest.fixture
def ctx(files):
    """An observed session with the rows as `t`."""
    return started(ObservedSessionContext, files)


# --- every method is observed, or forwarded for a reason ---------------------------------------------

PASSED_THROUGH = {
    SessionContext: {
        # A proxy wraps a context; a patched class creates the engine's own contexts.
        "__init__", "__repr__", "global_ctx",
        # Other extensions read the engine's own capsules from a context.
        "__datafusion_codec_id__", "__datafusion_logical_extension_codec__",
        "__datafusion_physical_extension_codec__", "__datafusion_query_planner__",
        "__datafusion_task_context_provider__", "logical_extension_codec_ids",
        "physical_extension_codec_ids",
        # Rules and planners get plans inside the engine and register no table.
        "add_physical_optimizer_rule", "remove_optimizer_rule", "set_query_planner",
        # Getters that change no table.
        "catalog_names", "copied_config", "enable_ident_normalization", "parse_capacity_limit",
        "parse_sql_expr", "session_id", "session_start_time", "table_exist", "table_provider",
        "udaf", "udafs", "udf", "udfs", "udwf", "udwfs",
        # Removing a function changes no table.
        "deregister_udaf", "deregister_udf", "deregister_udtf", "deregister_udwf",
        # Stores are found by location and are independent of registered tables.
        "deregister_object_store", "register_object_store",
        # They register other tables than Delta tables under a free name; a taken name is refused.
        "register_arrow", "register_avro", "register_batch", "register_csv", "register_dataset",
        "register_json", "register_listing_table", "register_parquet", "register_record_batches",
        # External catalogs have tables that no session has registered.
        "refresh_catalogs",
        # It runs a physical plan: there is no frame, and the plan has no table names.
        "execute",
    },
    DataFrame: {
        # The engine creates frames; the methods that create them are observed.
        "__init__", "default_str_repr",
        # They use the plan and read no row.
        "col", "column", "execution_plan", "explain", "find_qualified_columns", "parse_sql_expr",
        "schema",
        # It calls the caller's function on this frame; the methods that the function calls are observed.
        "transform",
    },
    Catalog: {
        "__init__", "__repr__", "memory_catalog",
        # Getters that change no table.
        "names", "schema_names",
    },
    Schema: {
        "__init__", "__repr__", "memory_schema",
        # Getters that read no row.
        "names", "table", "table_exist", "table_names",
    },
}  # fmt: skip


@pytest.mark.parametrize("owner", HANDLED)
def test_every_method_of_the_engine_is_observed_or_listed_as_passed_through(owner):
    """A new method of the engine is missing in both lists; a removed one is still in a list."""
    assert methods_of(owner) == {*HANDLED[owner], *PASSED_THROUGH[owner]}
    assert not PASSED_THROUGH[owner] & {*HANDLED[owner]}


# --- the same calls on the engine's object and through the proxy --------------------------------------


@pytest.fixture
def outcomes(files, tmp_path, capsys):
    """The result and the output of a call, over in-memory tables and over Delta tables."""
    folders = (tmp_path / str(number) for number in itertools.count())

    def both(make, call):
        return [outcome(make, call, kind) for kind in ("memory", "delta")]

    def outcome(make, call, kind):
        place = Place(files, next(folders))
        place.out.mkdir()
        ctx = started(make, files, kind)
        return comparable(call(ctx, place)), lasting(capsys.readouterr().out)

    return both


@pytest.mark.slow
@pytest.mark.parametrize(("owner", "name"), [(o, n) for o, calls in CALLS.items() for n in calls])
@pytest.mark.one_case_in(3)
def test_a_call_has_the_result_of_the_engines_own_object(owner, name, outcomes):
    """Each call has the plain engine's result, through a proxy and through patches."""
    call = CALLS[owner][name]
    expected = outcomes(SessionContext, call)
    for way in WAYS.values():
        with way() as make:
            assert outcomes(make, call) == expected


@pytest.mark.parametrize("owner", CALLS)
def test_every_method_is_called_here(owner):
    """Every method has a call in `CALLS`, so that a new method needs one."""
    assert {*CALLS[owner]} == methods_of(owner) - {"__init__"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FAILING_CALLS)
def test_an_error_of_the_engine_is_raised_unchanged(name, way, files):
    """An error of the engine keeps its class and its text."""
    with pytest.raises(Exception) as expected:
        FAILING_CALLS[name](started(SessionContext, files))
    with WAYS[way]() as make, pytest.raises(Exception) as actual:
        FAILING_CALLS[name](started(make, files))
    assert actual.type is expected.type
    assert lasting(str(actual.value)) == lasting(str(expected.value))


@pytest.mark.parametrize("owner", OBSERVED)
def test_a_method_reads_as_the_engines_own(owner):
    """An observed method has the engine's name, signature and documentation."""
    for name in HANDLED[owner]:
        ours, theirs = getattr(OBSERVED[owner], name), getattr(owner, name)
        assert (ours.__name__, ours.__doc__) == (theirs.__name__, theirs.__doc__)
        assert inspect.signature(ours) == inspect.signature(theirs)


# --- observed objects and their results ----------------------------------------------------------------


def test_an_observed_object_is_one_of_the_engines(ctx):
    """`isinstance` is true for the engine's class and for no other class."""
    assert isinstance(ctx, SessionContext)
    assert isinstance(ctx.table("t"), DataFrame)
    assert isinstance(ctx.catalog(), Catalog)
    assert isinstance(ctx.catalog().schema(), Schema)
    assert not isinstance(ctx, DataFrame)
    assert issubclass(type(ctx.table("t")), ObservedDataFrame)


@pytest.mark.skipif(not hasattr(wrapt, "BaseObjectProxy"), reason="a proxy of wrapt 1 has __iter__")
@pytest.mark.parametrize("protocol", ["Iterable", "Reversible", "Sized"])
def test_an_observed_object_claims_no_protocol_that_the_engines_own_does_not(protocol, ctx):
    """A proxy has no protocol method that the wrapped object lacks."""
    asked = getattr(collections.abc, protocol)
    frame = ctx.table("t")
    assert isinstance(ctx, asked) == isinstance(ctx.__wrapped__, asked)
    assert isinstance(frame, asked) == isinstance(frame.__wrapped__, asked)


@pytest.mark.parametrize(
    ("owner", "name"), [(o, n) for o in OBSERVED for n in HANDLED[o] if n not in TERMINAL]
)
def test_frames_returned_by_an_observed_object_are_observed(owner, name, files, tmp_path, capsys):
    """Observed classes that a method of a proxy returns are proxies too, at any depth."""

    def classes(result):
        if isinstance(result, list | tuple):
            return [classes(each) for each in result]
        # A view is a table with a reference to its frame.
        return Table if isinstance(result, Table) else type(result)

    def results(make, out):
        out.mkdir()
        return classes(CALLS[owner][name](started(make, files), Place(files, out)))

    def observed(kind):
        return list(map(observed, kind)) if isinstance(kind, list) else OBSERVED.get(kind, kind)

    expected = observed(results(SessionContext, tmp_path / "plain"))
    assert results(ObservedSessionContext, tmp_path / "observed") == expected


@pytest.mark.parametrize("owner", OBSERVED)
def test_the_class_has_every_member_of_the_engines_class(owner):
    """Methods can be called on the proxy class, patched in tests, and called through `super()`."""
    assert methods_of(owner) <= {*dir(OBSERVED[owner])}


def test_a_frame_is_given_to_the_callers_function_observed(ctx):
    """`transform` passes the observed frame and the arguments, and returns the function's result."""
    given = []
    result = ctx.table("t").transform(lambda frame, *more: given.append((frame, more)), 1, 2)
    assert result is None
    assert isinstance(given[0][0], ObservedDataFrame)
    assert given[0][1] == (1, 2)


def test_attributes_are_those_of_the_engines_object(ctx):
    """Attributes are read, set and deleted on the wrapped object; two proxies over one object are equal."""
    frame = ctx.table("t")
    frame.note = "mine"
    assert frame.__wrapped__.note == "mine"
    del frame.note
    assert not hasattr(frame.__wrapped__, "note")
    assert (ctx.ctx, frame.df) == (ctx.__wrapped__.ctx, frame.__wrapped__.df)
    assert ctx == ObservedSessionContext(ctx) == ctx.__wrapped__
    assert hash(frame) == hash(frame.__wrapped__)
    assert frame != ctx.table("t")


WARNED = {
    "union_distinct": lambda ctx: ctx.table("t").union_distinct(ctx.table("o")),
    "join": lambda ctx: ctx.table("t").join(ctx.table("o"), join_keys=(["a"], ["a"])),
    "read_csv": lambda ctx: ctx.read_csv("/none.csv", has_header=False, options=CsvReadOptions()),
    "register_table_provider": lambda ctx: ctx.register_table_provider("n", ctx.table("o")),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", WARNED)
def test_a_warning_of_the_engine_names_the_line_of_the_program(name, way, files):
    """A deprecation warning of the engine points at the program's line, else Python hides it."""
    with WAYS[way]() as make, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with contextlib.suppress(Exception):  # there is no such file
            WARNED[name](started(make, files))
    assert [warning.filename for warning in seen] == [__file__]
