"""A server of the Model Context Protocol: the questions of :mod:`deltawitness.answers` as read-only tools.

It only reads the ledger and the logs of tables. An answer has no rows of tables, no credentials and, unless
they are wanted, no SQL predicates, because a client usually sends what it gets to a model elsewhere.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from deltawitness.answers.columns import column_lineage
from deltawitness.answers.cost import cost
from deltawitness.answers.diff.question import diff
from deltawitness.answers.doctor import doctor
from deltawitness.answers.json_values import json_value
from deltawitness.answers.questions import errors, impact, lineage, runs, show, writes
from deltawitness.answers.run_time import time
from deltawitness.answers.trends.overdue import overdue
from deltawitness.answers.trends.regressions import regressions
from deltawitness.exceptions import DeltaWitnessError
from deltawitness.extras import require
from deltawitness.ledger.tables.locations import chosen_settings
from deltawitness.redaction import message_for_ledger
from deltawitness.report.format import storage_reason
from deltawitness.semconv import WITNESS_VERSION
from deltawitness.settings import LedgerMessages, Settings

if TYPE_CHECKING:
    from mcp.server import MCPServer

__all__ = ["mcp_server"]

QUESTIONS: tuple[Callable[..., Any], ...] = (
    *(show, runs, writes, errors, lineage, column_lineage, impact, diff, time, cost, doctor),
    *(overdue, regressions),
)
"""Functions that only read. Each becomes a tool with its name, its documentation and its parameters."""

LIMIT = 50
"""Rows of a listing, unless the client names another number."""

_HIDDEN = {"root", "storage_options", "settings", "show_rows", "apply"}
"""Parameters that the server sets, or that would show rows or write."""

_LITERALS = {"predicate", "parameters"}
"""Attributes of answers that can have SQL literals of the program."""

_PARTITION = re.compile(r"([^\s/='\"]+)=[^/'\"]*")
"""The name and the value of a partition column in the path of a data file."""

_PARTITIONS_OF_FILE = re.compile(rf"(?:{_PARTITION.pattern}/)+(?=[^\s/'\"]+\.parquet)")

_INSTRUCTIONS = """\
Answers questions about the Delta tables of a lakehouse: which run wrote a version, from what, why a result is
different, what failed and whether it landed, and what is late or worse than before. Tables are named by name,
id, path or URI, with @VERSION for one version; runs by their id or a prefix of it. Start with `runs`, `writes`
or `errors`, then `show`, `lineage`, `impact` and `diff`; `overdue` and `regressions` find what needs attention.
Nothing is ever written."""


def mcp_server(settings: Settings | None = None, *, show_literals: bool = False) -> MCPServer:
    """Return a server whose tools answer questions from a ledger and the logs of its tables.

    Args:
        settings: the settings with the location of the ledger; as for :func:`show`.
        show_literals: whether answers have predicates and other parameters of operations, in which the
            literals of the program's SQL are.

    Raises:
        MissingExtraError: the MCP SDK is not installed.
        ConfigurationError: a setting in the environment is invalid.

    >>> server = mcp_server()
    >>> server.name
    'deltawitness'
    """
    require("mcp_server()", "mcp")
    from mcp.server import MCPServer  # noqa: PLC0415 - optional
    from mcp_types import ToolAnnotations  # noqa: PLC0415 - optional

    chosen = chosen_settings(None, None, settings)
    server = MCPServer("deltawitness", version=WITNESS_VERSION, instructions=_INSTRUCTIONS)
    for question in QUESTIONS:
        server.add_tool(
            _tool_of(question, chosen, frozenset() if show_literals else _LITERALS),
            description=_description(question),
            annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
        )
    return server


def _tool_of(
    question: Callable[..., Any], settings: Settings, hidden: frozenset[str] | set[str]
) -> Callable[..., dict[str, Any]]:
    """Return the function of a tool: without the parameters that the server sets; it returns a JSON object."""
    parameters = list(_parameters(question))
    names = next(
        (each.name for each in parameters if typing.get_origin(each.annotation) is list), None
    )

    @functools.wraps(question)
    def answer(**arguments: Any) -> dict[str, Any]:
        from mcp.server.mcpserver.exceptions import ToolError  # noqa: PLC0415 - optional

        positional = arguments.pop(names, ()) if names else ()
        try:
            found = question(*positional, **arguments, settings=settings)
        except (DeltaWitnessError, ValueError) as error:
            raise ToolError(str(error)) from None
        except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
            text = message_for_ledger(storage_reason(str(error)), LedgerMessages.SAFE)
            raise ToolError(text or type(error).__name__) from None
        value = _without(json_value(found), hidden)
        if hidden:
            value = _without_partition_values(value)
        return value if isinstance(value, dict) else {"rows": value}

    answer.__signature__ = inspect.Signature(parameters, return_annotation=dict[str, Any])  # type: ignore[attr-defined]  # read by inspect
    answer.__annotations__ = {
        **{each.name: each.annotation for each in parameters},
        "return": dict[str, Any],
    }
    del answer.__wrapped__
    return answer


def _parameters(question: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a tool; `*names` becomes a list, and the limit of a listing gets a number."""
    types = typing.get_type_hints(question)
    for each in inspect.signature(question).parameters.values():
        if each.name in _HIDDEN:
            continue
        annotation, default = types[each.name], each.default
        if each.kind is each.VAR_POSITIONAL:
            has_numbers = int in typing.get_args(annotation)
            annotation = list[str | int] if has_numbers else list[str]
            default = each.empty if has_numbers else []  # no name of a table means all tables
        if each.name == "limit" and default is None:
            default = LIMIT
        kind = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter(each.name, kind, annotation=annotation, default=default)


def _description(question: Callable[..., Any]) -> str:
    """Return the summary of a function and the explanations of the parameters of its tool."""
    text = inspect.getdoc(question) or ""
    summary, _, rest = text.partition("\n\nArgs:\n")
    arguments, _, _ = rest.partition("\n\n")
    kept: list[str] = []
    is_hidden = False
    for line in arguments.splitlines():
        name, colon, _ = line.strip().partition(":")
        if colon and not line.startswith("        "):
            is_hidden = name.lstrip("*") in _HIDDEN
        if not is_hidden:
            kept.append(line)
    return f"{summary}\n\n" + "\n".join(kept)


def _without(value: Any, names: frozenset[str] | set[str]) -> Any:
    """Return a value of JSON without some attributes, at any depth."""
    if isinstance(value, Mapping):
        return {name: _without(each, names) for name, each in value.items() if name not in names}
    return [_without(each, names) for each in value] if isinstance(value, list) else value


def _without_partition_values(value: Any) -> Any:
    """Return a value of JSON without values of partition columns: those are values of rows."""
    if isinstance(value, str):
        return _PARTITIONS_OF_FILE.sub(lambda path: _masked(path[0]), value)
    if isinstance(value, list):
        return [_without_partition_values(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    shown = {name: _without_partition_values(each) for name, each in value.items()}
    evidence = shown.get("evidence")
    if isinstance(evidence, dict) and isinstance(name := evidence.get("partition"), str):
        shown["text"] = str(shown["text"]).replace(name, _masked(name))
        evidence["partition"] = _masked(name)
    return shown


def _masked(partition: str) -> str:
    """Return the path of a partition with a question mark for each value."""
    return _PARTITION.sub(r"\1=?", partition)
