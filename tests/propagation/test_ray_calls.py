"""Functions that take the run of their caller as an argument, as Ray's workers call them."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import subprocess
import sys

import pytest

from deltawitness import cache_context, run
from deltawitness.propagation.ray_cluster import ARGUMENT, with_argument
from deltawitness.propagation.submitter import submitter_values
from deltawitness.run import current_cache_context, current_run


def here(first, *rest, key=0, **more):
    """Return the run, the policy and the arguments."""
    return current_run().run_id, current_cache_context().policy, (first, rest, key, more)


def items(first):
    """Yield the run twice."""
    yield current_run().run_id
    yield current_run().run_id


async def coroutine(first):
    """Return the run, after a step of the event loop."""
    await asyncio.sleep(0)
    return current_run().run_id


async def async_items(first):
    """Yield the run, after a step of the event loop."""
    await asyncio.sleep(0)
    yield current_run().run_id


async def collected(iterator):
    return [item async for item in iterator]


@pytest.fixture
def sent():
    """The values of a run that has ended, and its id."""
    with run("nightly") as context, cache_context(policy="p", scope="view", message="m"):
        return context.run_id, {ARGUMENT: submitter_values()}


def test_a_function_runs_in_the_run_of_its_caller(sent):
    """It gets its own arguments unchanged, and the caller's context ends with it."""
    run_id, argument = sent
    call = with_argument(here)
    assert call(1, 2, key=3, other=4, **argument) == (run_id, "p", (1, (2,), 3, {"other": 4}))
    assert current_run().run_id != run_id
    assert call(1)[0] == current_run().run_id


def test_each_kind_of_function_stays_of_its_kind(sent):
    """Ray treats generators and coroutines differently."""
    run_id, argument = sent
    assert inspect.isgeneratorfunction(with_argument(items))
    assert list(with_argument(items)(1, **argument)) == [run_id, run_id]
    assert inspect.iscoroutinefunction(with_argument(coroutine))
    assert asyncio.run(with_argument(coroutine)(1, **argument)) == run_id
    assert inspect.isasyncgenfunction(with_argument(async_items))
    assert asyncio.run(collected(with_argument(async_items)(1, **argument))) == [run_id]


def test_a_generator_is_in_the_run_only_while_it_makes_an_item(sent):
    """Its caller may close it in another context."""
    run_id, argument = sent
    made = with_argument(items)(1, **argument)
    assert next(made) == run_id
    assert current_run().run_id != run_id
    contextvars.Context().run(made.close)
    assert list(with_argument(items)(1)) == [current_run().run_id] * 2


def echo(first):
    """Yield what is sent or raised, and return the last value."""
    sent = first
    for _ in range(3):
        try:
            sent = yield sent
        except KeyError as error:
            sent = error
    return sent


async def async_echo(first):
    """Yield what is sent or raised."""
    sent = first
    for _ in range(3):
        try:
            sent = yield sent
        except KeyError as error:
            sent = error


def test_a_generator_gets_what_its_caller_sends_and_raises(sent):
    """Ray Data sends values to its generators."""
    _, argument = sent
    made, error = with_argument(echo)(1, **argument), KeyError(2)
    assert (next(made), made.send(2), made.throw(error)) == (1, 2, error)
    with pytest.raises(StopIteration) as ended:
        made.send(4)
    assert ended.value.value == 4
    with pytest.raises(ZeroDivisionError):
        with_argument(items)(1, **argument).throw(ZeroDivisionError)


def test_an_asynchronous_generator_gets_what_its_caller_sends_and_raises(sent):
    """It is closed as well."""
    _, argument = sent
    error = KeyError(2)

    async def drive():
        made = with_argument(async_echo)(1, **argument)
        seen = [await anext(made), await made.asend(2), await made.athrow(error)]
        await made.aclose()
        return seen

    assert asyncio.run(drive()) == [1, 2, error]


def test_the_signature_has_the_argument_before_the_variable_keywords():
    """Ray checks the arguments of a call against the signature."""
    call = with_argument(here)
    assert list(inspect.signature(call).parameters) == ["first", "rest", "key", ARGUMENT, "more"]
    assert (call.__name__, call.__doc__) == (here.__name__, here.__doc__)
    assert inspect.unwrap(call) is call


WITHOUT = """\
import pickle, sys
sys.modules["deltawitness"] = None
function = pickle.loads(bytes.fromhex(sys.argv[1]))
print(function(1, _deltawitness={"run": {}}))
"""


@pytest.mark.slow
def test_a_worker_without_the_package_calls_the_function():
    """The function is pickled by value, and ignores the argument."""
    cloudpickle = pytest.importorskip("cloudpickle")

    def plus_one(number):
        return number + 1

    pickled = cloudpickle.dumps(with_argument(plus_one)).hex()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, pickled], capture_output=True, text=True, check=True
    )
    assert done.stdout == "2\n"


def test_values_that_a_later_release_adds_are_ignored(sent):
    """A worker may have an older release than the caller."""
    run_id, argument = sent
    values = {**argument[ARGUMENT], "later": 1}
    values["run"] = {**values["run"], "later": 1, "origin": {"system": "airflow", "later": 1}}
    assert with_argument(here)(1, **{ARGUMENT: values})[:2] == (run_id, "p")


@pytest.mark.internal_errors
def test_values_that_cannot_be_read_are_ignored():
    """The function runs outside of the caller's run."""
    call = with_argument(here)
    assert call(1, **{ARGUMENT: {"run": 1}})[2] == (1, (), 0, {})
