"""README and docs agree with the code: their examples run, and their tables match it."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest
import typer
from sybil import Document, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from typer.testing import CliRunner

import deltawitness
from deltawitness import Settings
from deltawitness.cli.app import app
from deltawitness.ledger.tables.schema import COUNT_MEANINGS, TABLES
from deltawitness.run_origin import SYSTEMS, System
from deltawitness.semconv import CommitKey, Env
from helpers.places import REPOSITORY
from helpers.terminal_commands import in_one_pipe, in_pipe

FORMER_NAMES = {"Pruned", "Verified"}
"""Aliases that no page documents."""

ROOT = REPOSITORY
PAGES = sorted([ROOT / "README.md", ROOT / "collector/README.md", *(ROOT / "docs").rglob("*.md")])
COMPARED = {"tables", "counts", "commands", "transcript", "workers"}
"""Parts of a page between two markers that a separate test compares with the code."""
PUBLIC_MODULES = [
    "deltawitness.exceptions",
    "deltawitness.integrations.dask",
    "deltawitness.integrations.hamilton",
    "deltawitness.integrations.ray",
    "deltawitness.integrations.spark",
    "deltawitness.pytest_plugin",
    "deltawitness.semconv",
    "deltawitness.testing",
]


def execute(command):
    """Run a command in the working directory, with this interpreter for `python`."""
    program, *arguments = [
        sys.executable if word == "python" else word for word in shlex.split(command)
    ]
    if program == "deltawitness":
        return in_pipe(Path.cwd(), *arguments, COLUMNS="200")
    return subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


def evaluate_console(example):
    """Run each `deltawitness` or `python` command, and check the exit code in its comment.

    For `make` and `pip install`, check that the target or the extra exists.
    """
    output = []
    for line in example.parsed.splitlines():
        if not line.startswith("$ "):
            output.append(line)
            continue
        command, _, comment = line.removeprefix("$ ").partition("  #")
        words = command.split()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        elif words[:2] == ["pip", "install"]:
            assert_extras_exist(command)
        else:
            expected = re.search(r"exit code (\d+)", comment)
            done = execute(command)
            assert done.returncode == int(expected[1] if expected else 0), (
                line,
                done.stdout,
                done.stderr,
            )
    assert output == [], "the output of a command is in a separate block"


def assert_extras_exist(command):
    """Check that each extra of deltawitness in a command exists."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for named in re.findall(r"deltawitness\[([^\]]+)\]", command):
        assert set(named.split(",")) <= extras.keys()


def assert_commands_exist(text):
    """Check that each `deltawitness` command of a block that is not run exists, with the options in it."""
    for line in re.findall(r"^\$ deltawitness (.*)$", text, re.MULTILINE):
        words = line.split(" -- ")[0].split()
        name = words[:2] if words[0] in {"cache", "ledger", "release"} else words[:1]
        text_of_help = help_of(*name)
        for option in (word for word in words if word.startswith("--")):
            assert option in text_of_help


@cache
def help_of(*command):
    """Return the help of a command."""
    shown = CliRunner().invoke(app, [*command, "--help"])
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def evaluate_file(example):
    """Write the program of the block to `app.py`, for the commands after it."""
    Path("app.py").write_text(example.parsed)


def evaluate_sql(example):
    """Run each statement in the page's session; the frame of the last one is for the table after it."""
    for statement in filter(str.strip, example.parsed.split(";\n")):
        frame = example.namespace["ctx"].sql(statement.rstrip().removesuffix(";"))
        frame.collect()
        example.namespace["last_frame"] = frame


def evaluate_table(example):
    """Check that the table on the page is the result of the last statement."""
    shown = repr(example.namespace["last_frame"]).removeprefix("DataFrame()\n")
    assert shown.strip() == example.parsed.strip()


def evaluate_text(example):
    """Check that the text on the page is the output of the last Python block."""
    assert example.namespace["printed"].strip() == example.parsed.strip()


sybil = Sybil(
    [
        PythonCodeBlockParser(),
        CodeBlockParser('python title="app.py"', evaluate_file),
        CodeBlockParser("console", evaluate_console),
        CodeBlockParser("sql", evaluate_sql),
        CodeBlockParser("table", evaluate_table),
        CodeBlockParser("text", evaluate_text),
    ]
)


def reason_not_to_run(text, start):
    """Return why the block at `start` is not run, as its marker says; None if it has no marker."""
    marker = re.search(r"<!-- (?:not run: (.+?)|(\w+): begin) -->\n\Z", text[:start], re.DOTALL)
    if marker is None:
        return None
    if marker[1] is None and marker[2] not in COMPARED:
        return None
    return marker[1] or "compared"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.slow
def test_every_block_of_a_page_runs(page, tmp_path, monkeypatch):
    """The blocks run in order in an empty folder; a block that is not run has a marker with the reason."""
    monkeypatch.chdir(tmp_path)
    for variable in Env:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(Env.DETECT_ENVIRONMENT, "false")  # the tests run in a Git repository
    document = Document.parse(str(page), *sybil.parsers)
    starts = [
        match.start() for match in re.finditer(r"^ *```(?=[^\n`])", document.text, re.MULTILINE)
    ]
    examples = list(document.examples())
    run = {example.start for example in examples}
    unrun = [start for start in starts if start not in run]
    lines = [
        document.text.count("\n", 0, start) + 1
        for start in unrun
        if reason_not_to_run(document.text, start) is None
    ]
    assert lines == [], f"{page.name}: blocks that are neither run nor marked with a reason"
    for example in examples:
        if reason_not_to_run(document.text, example.start) is not None:
            assert_commands_exist(example.region.parsed)
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            example.evaluate()
        if example.region.parsed and printed.getvalue():
            example.namespace["printed"] = printed.getvalue()


def test_no_fence_is_left_open_or_without_a_language():
    """Every block has a language; one without would be neither run nor marked."""
    for page in PAGES:
        fences = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
        assert len(fences) % 2 == 0, page
        assert all(fences[::2]), page


def anchors_of(page):
    """Return the anchors that the site generates for the headings of a page."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    return {
        re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
        for heading in headings
    }


def test_links_between_pages_lead_somewhere():
    """Every link goes to an existing page and heading."""
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", page.read_text()):
            aim = page.parent / target if target else page
            assert aim.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors_of(aim), f"{page.name}: {target}#{anchor}"


def documented():
    """Return the names that the pages of the API reference document."""
    pages = (ROOT / "docs/api").glob("*.md")
    return {
        name
        for page in pages
        for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)
    }


def test_every_public_name_is_on_a_page_of_the_api():
    """Each name is documented by its import path; one that a module of the same name hides, by the module's."""
    wanted = {
        f"deltawitness.{name}.{name}"
        if find_spec(f"deltawitness.{name}")
        else f"deltawitness.{name}"
        for name in set(deltawitness.__all__) - FORMER_NAMES
    }
    assert documented() == wanted | set(PUBLIC_MODULES)


def test_every_module_that_is_public_is_in_the_list():
    """Each integration is in the list, and each public name of the listed modules has a docstring."""
    integrations = (ROOT / "src/deltawitness/integrations").glob("[!_]*.py")
    assert {f"deltawitness.integrations.{path.stem}" for path in integrations} <= set(
        PUBLIC_MODULES
    )
    for name in PUBLIC_MODULES:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            assert getattr(module, public).__doc__, f"{name}.{public}"


def test_every_page_is_in_the_navigation():
    """The navigation has every page of docs and no other."""
    site = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    named = set(re.findall(r"'([\w/-]+\.md)'", repr(site["nav"])))
    docs = ROOT / "docs"
    assert named == {str(page.relative_to(docs)) for page in docs.rglob("*.md")}


def test_no_page_names_a_private_module():
    """Examples import from public modules only; how-it-works.md may name others."""
    public = {"deltawitness", "deltawitness.integrations", *PUBLIC_MODULES}
    for page in PAGES:
        if page.name == "how-it-works.md" or page.parent.name == "api":
            continue
        for name in re.findall(r"from (deltawitness[\w.]*) import", page.read_text()):
            assert name in public, f"{page.name}: {name}"


def texts_of_the_code():
    """Yield every text in the package, with three dots for each placeholder."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "..."
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%s", "...", node.value)


@pytest.mark.slow
def test_each_message_of_the_troubleshooting_page_is_one_of_the_code():
    """Each message is in the code word for word, with three dots for a part that varies."""
    page = (ROOT / "docs/troubleshooting.md").read_text()
    ours, _, _ = page.partition("## Messages of the engines")
    shown = re.findall(r"^\| `([^`]+)` (\(logged by OpenTelemetry\) )?", ours, re.MULTILINE)
    messages = [message for message, is_foreign in shown if not is_foreign]
    code = "\n".join(re.sub(r"\s*\.\.\.\s*", " ... ", text) for text in texts_of_the_code())
    assert len(messages) > 40
    for message in messages:
        pieces = [piece.strip() for piece in message.split("...")]
        pattern = r"[^\n]*".join(re.escape(piece) for piece in pieces if piece)
        assert re.search(pattern, code), message


def configuration_table():
    """Return the table of docs/configuration.md, generated from the code."""
    defaults = {setting.metadata["variable"]: setting.default for setting in fields(Settings)}
    documented = dict(
        re.findall(
            r'    [A-Z_]+ = "([A-Z_]+)"(?:  # [^\n]*)?\n    """(.*?)"""',
            (ROOT / "src/deltawitness/semconv.py").read_text(),
            re.DOTALL,
        )
    )
    lines = ["| variable | default | what |", "|---|---|---|"]
    for variable in Env:
        default = defaults.get(variable)
        shown = "" if default in (None, ()) else f"`{str(default).lower()}`"
        lines.append(f"| `{variable}` | {shown} | {documented[variable]} |")
    return "\n".join(lines)


def test_the_table_of_variables_is_that_of_the_code():
    """The page has every variable with its default and meaning."""
    assert configuration_table() in (ROOT / "docs/configuration.md").read_text()


def collector_table():
    """Return the table of variables, generated from the Collector's configurations."""
    files = ("config.yaml", "agent-tier.yaml", "gateway-tier.yaml")
    found = {}
    for name in files:
        text = (ROOT / "collector" / name).read_text()
        for variable, default in re.findall(r"\$\{env:(DELTAWITNESS_[A-Z_]+):-([^}]*)\}", text):
            defaults = found.setdefault(variable, {})
            assert defaults.setdefault(name, default) == default, variable
    lines = ["| variable | default | in |", "|---|---|---|"]
    for variable, defaults in sorted(found.items()):
        shown = ", ".join(f"`{default}`" for default in dict.fromkeys(defaults.values()) if default)
        lines.append(f"| `{variable}` | {shown} | {', '.join(f'`{name}`' for name in defaults)} |")
    return "\n".join(lines)


def test_the_table_of_the_collectors_variables_is_that_of_its_configurations():
    """The page has every variable with its default; a variable has the same default within a file."""
    assert collector_table() in (ROOT / "docs/configuration.md").read_text()


def test_the_table_of_attributes_names_every_attribute():
    """An attribute that is added to the code is added to the page."""
    source = (ROOT / "src/deltawitness/semconv.py").read_text()
    ours = source.split("# --- span and log attributes")[1].split("# --- instruments")[0]
    named = set(re.findall(r'Final = "([a-z_]+(?:\.[a-z_]+)+)"\n', ours))
    page = (ROOT / "docs/observability.md").read_text()
    table = page.split("## Attributes")[1].split("## Metrics")[0]
    assert len(named) > 40
    assert named - set(re.findall(r"`([a-z_.]+)`", table)) == set()


def test_the_table_of_commit_keys_names_every_key():
    """A commit key that is added to the code is added to the page."""
    page = (ROOT / "docs/observability.md").read_text().split("## Spans")[0]
    named = set(re.findall(r"`([a-z_]+)`", page.split("|---|---|")[1]))
    assert {str(key) for key in CommitKey} <= named


def kind_of(column):
    """Return Delta's name of a column's type."""
    if pa.types.is_list(column):
        return f"array<{kind_of(column.value_type)}>"
    if pa.types.is_struct(column):
        return f"struct<{', '.join(f'{member.name}: {kind_of(member.type)}' for member in column)}>"
    names = {
        pa.date32(): "date",
        pa.timestamp("us", tz="UTC"): "timestamp",
        pa.string(): "string",
        pa.int64(): "long",
        pa.float64(): "double",
        pa.bool_(): "boolean",
    }
    return names[column]


def ledger_tables():
    """Return the tables of docs/ledger.md, generated from the code."""
    parts = []
    for table in TABLES:
        lines = [f"### `{table.name}`", "", f"{table.description}.", ""]
        lines += ["| column | type | what |", "|---|---|---|"]
        lines += [
            f"| `{column.name}` | {kind_of(column.type)} | {column.metadata[b'comment'].decode()} |"
            for column in table.schema
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def test_the_columns_of_the_ledger_are_those_of_the_code():
    """The page has every column of every table with its type and comment."""
    assert between("tables") == ledger_tables()


def counts_table():
    """Return the table of counts of docs/ledger.md, generated from the code."""
    lines = ["| count | what it means |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in COUNT_MEANINGS.items()]
    return "\n".join(lines)


def test_the_meaning_of_each_count_is_that_of_the_code():
    """The page has the meaning of each count, and each count is a column."""
    assert between("counts") == counts_table()
    columns = {column.name for table in TABLES[:2] for column in table.schema}
    assert COUNT_MEANINGS.keys() <= columns


def between(name, page="ledger"):
    """Return the text between two markers of a page."""
    page = (ROOT / f"docs/{page}.md").read_text()
    return page.split(f"<!-- {name}: begin -->\n")[1].split(f"\n<!-- {name}: end -->")[0]


def commands(group=None, path="deltawitness"):
    """Yield every command of the command line with its full name."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def argument_of(parameter):
    """Return an argument in the form of a synopsis."""
    name = parameter.name.upper().removesuffix("S") + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def commands_table():
    """Return the table of commands of docs/ledger.md, generated from the code."""
    lines = ["| command | what | options |", "|---|---|---|"]
    for name, command in commands():
        arguments = [
            argument_of(parameter)
            for parameter in command.params
            if parameter.param_type_name == "argument"
        ]
        options = [
            f"`{parameter.opts[0]}`"
            for parameter in command.params
            if parameter.param_type_name == "option"
        ]
        what = command.help.partition("\n")[0]
        lines.append(f"| `{' '.join([name, *arguments])}` | {what} | {', '.join(options)} |")
    return "\n".join(lines)


def test_the_commands_on_the_page_are_those_of_the_command_line():
    """The page has every command with its arguments and options."""
    assert between("commands") == commands_table()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_explains_itself(name):
    """The help of a command has each option that the page names."""
    help_text = help_of(*name.split()[1:])
    row = next(line for line in between("commands").splitlines() if f"`{name}" in line)
    for option in re.findall(r"`(--[a-z-]+)`", row):
        assert option in help_text


@pytest.fixture
def example(monkeypatch):
    """Return a function that returns the transcript of an example; its commands start quickly."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    console = importlib.import_module("ledger_transcript")
    execute_program = console.execute

    def execute_quickly(command, folder, environment):
        ours = console.PROGRAMS["deltawitness"]
        if command[: len(ours)] == ours:
            return in_one_pipe(folder, command[len(ours) :], environment)
        return execute_program(command, folder, environment)

    monkeypatch.setattr(console, "execute", execute_quickly)
    yield lambda name: importlib.import_module(name).transcript()
    for path in (ROOT / "examples").glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_the_transcript_is_what_the_console_shows(example):
    """The transcript is the output of the example, which repairs the ledger of a killed run."""
    assert between("transcript") == f"```text\n{example('ledger_transcript')}```"


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_the_answers_are_what_the_console_shows(example, size):
    """The transcript is the output of the example, which asks about the writes of a program."""
    if not size(1, 1, 0):
        pytest.skip("runs many commands: TEST_SIZE=ci")
    shown = between("transcript", "answers")
    assert shown == f"```text\n{example('answers_transcript')}```"


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_the_walk_through_is_what_the_console_shows(example, size):
    """The transcript is the output of the example, which finds, explains and undoes a bad batch."""
    if not size(1, 1, 0):
        pytest.skip("runs thirty commands: TEST_SIZE=ci")
    shown = between("transcript", "walkthrough")
    assert shown == f"```text\n{example('walkthrough')}```"


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_the_tour_is_what_the_console_shows(example, size):
    """The transcript is the output of the example, in which a job fails and its run is undone."""
    if not size(1, 1, 0):
        pytest.skip("runs many commands: TEST_SIZE=ci")
    assert between("transcript", "tour") == f"```text\n{example('tour')}```"


def test_the_layers_on_the_page_are_those_of_the_contract():
    """`python tools/layers.py` prints the table again after a change."""
    command = [sys.executable, "tools/layers.py"]
    printed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert printed.stdout in (ROOT / "docs/how-it-works.md").read_text()


def systems_table():
    """Return the table of schedulers and CI systems of docs/runs.md, generated from the code."""
    columns = [each.name for each in fields(System)]
    lines = [f"| {' | '.join(['system', *columns[1:]])} |".replace("_", " ")]
    lines.append("|" + "---|" * len(columns))
    for system in SYSTEMS:
        names = [getattr(system, column) for column in columns[1:]]
        cells = [", ".join(f"`{name}`" for name in each) for each in names]
        lines.append(f"| {' | '.join([system.name, *cells])} |")
    return "\n".join(lines)


def test_the_table_of_systems_is_that_of_the_code():
    """The page has the environment variables of each scheduler and CI system."""
    assert between("systems", "runs") == systems_table()
