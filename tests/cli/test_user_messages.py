"""Errors and warnings name the option, variable or path that is wrong, and what to do."""

from __future__ import annotations

import logging
import os
import sys
from datetime import timedelta

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import (
    CachePolicy,
    DeltaCache,
    DeltaLakeInstrumentor,
    Ledger,
    ObservedSessionContext,
    Settings,
    run,
    settings,
)
from deltawitness import instrumentation as instrumentation_module
from deltawitness.cli.program import job_name
from deltawitness.exceptions import ConfigurationError, StatementError
from deltawitness.semconv import Env
from helpers.sizes import cases
from helpers.terminal_commands import run_command


@pytest.fixture
def cache(tmp_path):
    write_deltalake(tmp_path / "t", pa.table({"x": [1]}))
    ctx = ObservedSessionContext()
    ctx.register_delta("t", tmp_path / "t")
    return DeltaCache(ctx, tmp_path / "cache")


def test_a_policy_is_a_cache_policy(cache):
    """The name of a policy in its place is an error that shows the right call."""
    message = r"^policy: expected CachePolicy\('hourly'\), not str$"
    with pytest.raises(ConfigurationError, match=message):
        cache.view("v", "SELECT * FROM t", policy="hourly")
    with pytest.raises(ConfigurationError, match=message):
        cache.prune(policy="hourly")


def test_a_duration_that_is_not_a_timedelta_is_an_error(cache):
    """A number has no unit."""
    with pytest.raises(ConfigurationError, match=r"max_age must be a datetime\.timedelta .* not 5"):
        CachePolicy("p", max_age=5)
    with pytest.raises(ConfigurationError, match="max_age must be greater than zero"):
        CachePolicy("p", max_age=timedelta(0))
    with pytest.raises(ConfigurationError, match=r"older_than must be a datetime\.timedelta"):
        cache.prune(older_than=5)


def test_settings_are_settings(tmp_path):
    """A dictionary in their place is an error wherever they are an argument."""
    message = r"^settings: expected deltawitness\.Settings\(\.\.\.\), not dict$"
    for make in (
        lambda: Ledger(tmp_path, settings={}),
        lambda: DeltaCache(ObservedSessionContext(), tmp_path, settings={}),
        lambda: DeltaLakeInstrumentor().instrument(settings={}),
    ):
        with pytest.raises(ConfigurationError, match=message):
            make()


def test_attributes_are_a_mapping():
    """Text in their place is an error of `run`."""
    with pytest.raises(ConfigurationError, match="attributes must be a mapping"):
        run("job", attributes="abc")


def test_a_missing_source_is_named(cache, tmp_path):
    """The error of a dataset has the path."""
    with pytest.raises(ConfigurationError, match=r"nosuch\.parquet' does not exist"):
        cache.dataset("d", tmp_path / "nosuch.parquet").collect()


def test_the_error_for_explain_analyze_of_a_write_names_explain(cache):
    """EXPLAIN is possible, and EXPLAIN ANALYZE of a DELETE names it."""
    ctx = cache._ctx
    assert ctx.sql("EXPLAIN DELETE FROM t WHERE x = 1").to_pydict()["plan_type"]
    with pytest.raises(StatementError, match=r"use EXPLAIN$"):
        ctx.sql("EXPLAIN ANALYZE DELETE FROM t WHERE x = 1")


def test_an_empty_variable_is_not_set():
    """It applies to every setting."""
    empty = {variable.value: "" for variable in Env}
    assert Settings.from_env(empty) == Settings()


def test_the_root_has_two_names():
    """One of the two variables is enough; different locations are an error that names both."""
    for name in (Env.ROOT, Env.CACHE_ROOT):
        assert Settings.from_env({name.value: "x"}).cache_root == "x"
    both = {Env.ROOT.value: "x", Env.CACHE_ROOT.value: "x"}
    assert Settings.from_env(both).cache_root == "x"
    with pytest.raises(ConfigurationError, match=r"^DELTAWITNESS_ROOT and DELTAWITNESS_CACHE_ROOT"):
        Settings.from_env(both | {Env.ROOT.value: "y"})


def test_the_root_that_the_command_has_chosen_is_no_conflict():
    """`DELTAWITNESS_ROOT` overrides it; a root that the user has given is a conflict as without the command."""
    chosen = {Env.CACHE_ROOT.value: "x", Env.CHOSEN_ROOT.value: "x"}
    assert Settings.from_env(chosen).cache_root == "x"
    assert Settings.from_env(chosen | {Env.ROOT.value: "y"}).cache_root == "y"
    with pytest.raises(ConfigurationError, match="name different locations"):
        Settings.from_env(chosen | {Env.CACHE_ROOT.value: "z", Env.ROOT.value: "y"})


GIVEN_AND_SET = {
    # Variables of the command, variables that the program's command line sets, the ledger of the writes.
    "nothing is given": ({}, {Env.ROOT: "q"}, "q"),
    "a root is given": ({Env.ROOT: "r"}, {Env.ROOT: "q"}, "q"),
    "a root is given, and nothing is set": ({Env.ROOT: "r"}, {}, "r"),
    "the older name is given": ({Env.CACHE_ROOT: "r"}, {Env.CACHE_ROOT: "q"}, "q"),
    "two different ones": ({Env.CACHE_ROOT: "r"}, {Env.ROOT: "q"}, None),
}


SMALL = ["a root is given", "the older name is given", "two different ones"]


@pytest.mark.parametrize("kind", cases(GIVEN_AND_SET, SMALL))
@pytest.mark.slow
def test_a_program_under_the_command_may_choose_its_root(kind, tmp_path):
    """The command makes no conflict of two variables that the program has not without the command."""
    given, chosen, where = GIVEN_AND_SET[kind]
    assignments = [f"{name.value}={value}" for name, value in chosen.items()]
    text = "import pyarrow; from deltalake import write_deltalake\n"
    text += "write_deltalake('t', pyarrow.table({'x': [1]}))"
    command = ["run", "--quiet", "--", "env", *assignments, sys.executable, "-c", text]
    done = run_command(
        *command,
        folder=tmp_path,
        environment={**os.environ, **{name.value: value for name, value in given.items()}},
    )
    assert done.returncode == (2 if where is None else 0), done.stderr
    ledgers = {path.parent.name for path in tmp_path.rglob("cache_ledgers")}
    assert ledgers == (set() if where is None else {where})


def test_unknown_variables_are_named_once(monkeypatch, caplog):
    """The warning has a similar name, if there is one; variables of the Collector cause no warning."""
    monkeypatch.setattr(settings, "_named", set())
    monkeypatch.delenv(Env.ACTIVATE, raising=False)
    monkeypatch.setenv("DELTAWITNESS_QUEUE_SIZ", "1")
    monkeypatch.setenv("DELTAWITNESS_COLLECTOR_LOG_LEVEL", "info")
    for _ in range(2):
        Settings.from_env()
    (record,) = [known for known in caplog.records if known.levelno == logging.WARNING]
    assert record.getMessage() == (
        "unknown environment variable DELTAWITNESS_QUEUE_SIZ is ignored:"
        " did you mean DELTAWITNESS_QUEUE_SIZE?"
    )


def test_unknown_keywords_of_instrument_are_named_once(monkeypatch, caplog):
    """Other instrumentors' keywords are no error."""
    monkeypatch.setattr(instrumentation_module, "_named", set())
    for _ in range(2):
        instrumentor = DeltaLakeInstrumentor()
        instrumentor.instrument(setings=Settings())
        instrumentor.uninstrument()
    warnings = [
        record.getMessage() for record in caplog.records if "keyword" in record.getMessage()
    ]
    assert warnings == ["instrument(): unknown keyword 'setings' is ignored"]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "-m", "pk.job", "x"], "pk.job"),
        (["/usr/bin/python3.11", "-Im", "pk.job"], "pk.job"),
        (["python", "-W", "error", "-X", "dev", "jobs/load.py"], "load"),
        (["python", "-c", "secret = 'text of the program'"], "python"),
        (["bash", "-c", "python load.py"], "bash"),
        (["./load.sh", "--fast"], "load"),
        (["env", "TOKEN=secret", "python", "-m", "pk.job"], "pk.job"),
        (["/usr/bin/env", "A=1", "B=2", "./load.sh"], "load"),
        (["env", "-u", "A", "TOKEN=secret", "python", "-m", "pk.job"], "env"),
        (["env", "TOKEN=secret"], "env"),
        (["nohup", "env", "A=1", "opentelemetry-instrument", "python", "load.py"], "load"),
        (["nice", "-n", "5", "python", "load.py"], "nice"),
        (["python", "-", "secret"], "python"),
        (["python.exe", "-B", "load.py", "secret"], "load"),
        (["bash", "-euo", "pipefail", "load.sh", "secret"], "load"),
        (["bash", "-s", "secret"], "bash"),
        (["bash"], "bash"),
        (["./tool", "https://user:secret@host"], "tool"),
        (["/opt/tool.sh", "-t", "secret"], "tool"),
        (["dbt", "run"], "dbt"),
    ],
)
def test_a_job_is_named_after_its_module_or_script(command, name):
    """The name never contains the text of a `-c` program, an argument, or a variable that `env` sets."""
    assert job_name(command) == name
