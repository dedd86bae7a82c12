"""The MCP server: its tools, answers and errors, over a ledger with two runs."""

from __future__ import annotations

import asyncio
import json
import sys

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, run
from deltawitness.mcp_server import QUESTIONS, mcp_server
from helpers.ledger_parts import one


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table that one run loads, and that another corrects."""
    folder = tmp_path_factory.mktemp("lake")
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(folder / "cache")))
    try:
        with run("load"):
            write_deltalake(folder / "orders", one(17))
        with run("correct"):
            DeltaTable(folder / "orders").delete("x = 17")
    finally:
        DeltaLakeInstrumentor().uninstrument()
    return folder


def ask(server, *calls):
    """Return the results of calls of tools."""
    from mcp import Client  # half a second, which other workers do not need

    async def answers():
        async with Client(server) as client:
            return [await client.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(asyncio.wait_for(answers(), 60))


def server_of(folder, **options):
    return mcp_server(Settings(cache_root=str(folder / "cache")), **options)


@pytest.mark.slow
def test_every_question_is_a_read_only_tool(folder):
    """Names and documentation are those of the functions; nothing that writes or shows rows can be chosen."""
    from mcp import Client

    async def listed():
        async with Client(server_of(folder)) as client:
            return (await client.list_tools()).tools

    tools = asyncio.run(asyncio.wait_for(listed(), 60))
    assert [tool.name for tool in tools] == [question.__name__ for question in QUESTIONS]
    assert all(tool.annotations.read_only_hint for tool in tools)
    assert all(tool.description and "settings:" not in tool.description for tool in tools)
    parameters = {name for tool in tools for name in tool.input_schema["properties"]}
    assert parameters & {"root", "storage_options", "settings", "show_rows", "apply"} == set()
    assert {"name", "names", "limit", "since", "direction"} <= parameters


@pytest.mark.slow
def test_the_ledger_of_an_instrumented_process_is_found(tmp_path, monkeypatch):
    """A server without settings, in a process that has some, answers from the ledger of that process."""
    monkeypatch.chdir(tmp_path)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "cache")))
    try:
        with run("load"):
            write_deltalake(tmp_path / "orders", one(17))
        server = mcp_server()
    finally:
        DeltaLakeInstrumentor().uninstrument()
    (runs,) = ask(server, ("runs", {"limit": 1}))
    assert '"job": "load"' in json.dumps(runs.structured_content)


@pytest.mark.slow
def test_answers_are_those_of_the_functions(folder):
    """Listings have rows, other answers are objects."""
    runs, shown, diff, health = ask(
        server_of(folder),
        ("runs", {"limit": 1}),
        ("show", {"name": "orders@1"}),
        ("diff", {"names": ["orders", 0, 1]}),
        ("doctor", {"tables": ["orders"]}),
    )
    assert len(health.structured_content["tables"]) == 1
    assert [row["job"] for row in runs.structured_content["rows"]] == ["correct"]
    assert shown.structured_content["operation"] == "DELETE"
    assert shown.structured_content["metrics"]["rows_deleted"] == 1
    assert diff.structured_content["rows"]["removed"] == 1


@pytest.mark.slow
def test_no_literal_is_in_an_answer_unless_it_is_wanted(folder):
    """The predicate of the DELETE names a value of a row."""
    calls = [("show", {"name": "orders@1"}), ("diff", {"names": ["orders", 0, 1]})]
    answers = [answer.structured_content for answer in ask(server_of(folder), *calls)]
    assert "x = 17" not in json.dumps(answers)
    assert "predicate" not in json.dumps(answers)
    (shown,) = ask(server_of(folder, show_literals=True), calls[0])
    assert shown.structured_content["predicate"] == "x = 17"


@pytest.mark.slow
def test_no_value_of_a_partition_is_in_an_answer(tmp_path):
    """Paths of files and names of partitions have a question mark instead. Without names, all tables count."""
    rows = pa.table({"x": range(30_000), "p": ["kim"] * 29_997 + ["a b", "c", "d"]})
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "cache")))
    try:
        write_deltalake(tmp_path / "day=1" / "t", rows, partition_by=["p"])
    finally:
        DeltaLakeInstrumentor().uninstrument()
    for file in (tmp_path / "day=1" / "t").glob("p=*/*.parquet"):
        file.unlink()
    hidden, shown = (
        ask(server_of(tmp_path, show_literals=each), ("doctor", {}))[0] for each in (False, True)
    )
    (table,) = hidden.structured_content["tables"]
    assert table["uri"].endswith("/day=1/t")
    found = {each["check"]: each for each in table["findings"]}
    assert found["partition_skew"]["text"].startswith("partition p=? has ")
    assert found["partition_skew"]["evidence"]["partition"] == "p=?"
    assert {file[:4] for file in found["missing_files"]["evidence"]["files"]} == {"p=?/"}
    assert "p=a" not in json.dumps(hidden.structured_content)
    assert "p=kim" in json.dumps(shown.structured_content)


def test_an_error_is_one_line(folder):
    """A name that means nothing, and an invalid value."""
    unknown, invalid = ask(
        server_of(folder),
        ("show", {"name": "nosuch"}),
        ("writes", {"result": "good"}),
    )
    assert unknown.is_error
    assert "nosuch" in unknown.content[0].text
    assert "\n" not in unknown.content[0].text
    assert invalid.is_error


@pytest.mark.slow
def test_the_command_serves_on_standard_input_and_output(folder):
    """A client of the SDK starts the command and gets its answers."""
    from mcp import StdioServerParameters

    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "deltawitness", "mcp", "--root", str(folder / "cache")],
    )
    (answer,) = ask(command, ("writes", {"table": "orders"}))
    assert [row["operation"] for row in answer.structured_content["rows"]] == ["DELETE", "WRITE"]
