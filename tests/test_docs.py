"""README and docs say what is: their code runs, their tables are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pytest
import typer
from sybil import Document, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from deltawitness import Settings
from deltawitness.cli.app import app
from deltawitness.ledger.tables.schema import COUNT_MEANINGS, TABLES
from deltawitness.semconv import CommitKey, Env

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def evaluate_console(example):
    """Commands of ours are shown to exist; what installs or makes is run by its own target."""
    for line in example.parsed.splitlines():
        words = line.removeprefix("$ ").split("#")[0].split()
        if words[0] == "deltawitness":
            name = words[1:3] if words[1] in {"cache", "ledger"} else words[1:2]
            done = subprocess.run(
                [sys.executable, "-m", "deltawitness", *name, "--help"],
                capture_output=True,
                text=True,
                check=True,
            )
            for option in (word for word in words[2:] if word.startswith("--") and word != "--"):
                assert option in done.stdout
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        else:
            assert words[:2] == ["pip", "install"]


def evaluate_sql(example):
    """Run each statement on the page's session; the frame of the last one is kept for its table."""
    for statement in filter(str.strip, example.parsed.split(";\n")):
        frame = example.namespace["ctx"].sql(statement.rstrip().removesuffix(";"))
        frame.collect()
        example.namespace["last_frame"] = frame


def evaluate_table(example):
    """The table on the page is what the last statement returns."""
    shown = repr(example.namespace["last_frame"]).removeprefix("DataFrame()\n")
    assert shown.strip() == example.parsed.strip()


sybil = Sybil(
    [
        PythonCodeBlockParser(),
        CodeBlockParser("console", evaluate_console),
        CodeBlockParser("sql", evaluate_sql),
        CodeBlockParser("table", evaluate_table),
    ]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.slow
def test_every_block_of_a_page_runs(page, tmp_path, monkeypatch):
    """In order, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    document = Document.parse(str(page), *sybil.parsers)
    for example in document.examples():
        example.evaluate()


def test_links_between_pages_lead_somewhere():
    """No page points to one that is not there."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def configuration_table():
    """The table of docs/configuration.md, made from the code."""
    defaults = {setting.metadata["variable"]: setting.default for setting in fields(Settings)}
    documented = dict(
        re.findall(
            r'    [A-Z_]+ = "([A-Z_]+)"\n    """(.*?)"""',
            (ROOT / "src/deltawitness/semconv.py").read_text(),
            re.DOTALL,
        )
    )
    lines = ["| variable | default | what |", "|---|---|---|"]
    for variable in Env:
        default = defaults.get(variable)
        shown = "" if default is None else f"`{str(default).lower()}`"
        lines.append(f"| `{variable}` | {shown} | {documented[variable]} |")
    return "\n".join(lines)


def test_the_table_of_variables_is_that_of_the_code():
    """Every variable, with its default and its meaning."""
    assert configuration_table() in (ROOT / "docs/configuration.md").read_text()


def collector_table():
    """The variables of the Collector's configurations, read off them."""
    files = ("config.yaml", "agent-tier.yaml", "gateway-tier.yaml")
    found = {}
    for name in files:
        text = (ROOT / "collector" / name).read_text()
        for variable, default in re.findall(r"\$\{env:(DELTAWITNESS_[A-Z_]+):-([^}]*)\}", text):
            defaults = found.setdefault(variable, {})
            assert defaults.setdefault(name, default) == default, variable
    lines = ["| variable | default | in |", "|---|---|---|"]
    for variable, defaults in sorted(found.items()):
        told = ", ".join(f"`{default}`" for default in dict.fromkeys(defaults.values()) if default)
        lines.append(f"| `{variable}` | {told} | {', '.join(f'`{name}`' for name in defaults)} |")
    return "\n".join(lines)


def test_the_table_of_the_collectors_variables_is_that_of_its_configurations():
    """Every variable, with its default; one variable has one default in a file."""
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
    """And no other."""
    page = (ROOT / "docs/observability.md").read_text().split("## Spans")[0]
    named = set(re.findall(r"`([a-z_]+)`", page.split("|---|---|")[1]))
    assert {str(key) for key in CommitKey} <= named


def kind_of(column):
    """The type of a column, as Delta's readers call it."""
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
    """The tables of docs/ledger.md, made from the code."""
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
    """Every column of every table, with its type and its comment."""
    assert between("tables") == ledger_tables()


def counts_table():
    """The table of counts of docs/ledger.md, made from the code."""
    lines = ["| count | what it means |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in COUNT_MEANINGS.items()]
    return "\n".join(lines)


def test_the_meaning_of_each_count_is_that_of_the_code():
    """Every column that counts is there once, with what it means."""
    assert between("counts") == counts_table()
    columns = {column.name for table in TABLES[:2] for column in table.schema}
    assert COUNT_MEANINGS.keys() <= columns


def between(name):
    """What stands on docs/ledger.md between two markers."""
    page = (ROOT / "docs/ledger.md").read_text()
    return page.split(f"<!-- {name}: begin -->\n")[1].split(f"\n<!-- {name}: end -->")[0]


def commands(group=None, path="deltawitness"):
    """Every command of the command line, by its whole name."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def argument_of(parameter):
    """An argument as a synopsis has it."""
    name = parameter.name.upper().removesuffix("S") + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def commands_table():
    """The table of commands of docs/ledger.md, made from the code."""
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
    """Every command, with its arguments and its options."""
    assert between("commands") == commands_table()


@pytest.mark.parametrize("name", [name for name, _ in commands()])
@pytest.mark.slow
def test_every_command_explains_itself(name):
    """With each option that the page names."""
    words = name.split()[1:]
    told = subprocess.run(
        [sys.executable, "-m", "deltawitness", *words, "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    row = next(line for line in between("commands").splitlines() if f"`{name}" in line)
    for option in re.findall(r"`(--[a-z-]+)`", row):
        assert option in told


@pytest.mark.slow
def test_the_transcript_is_what_the_console_shows():
    """A run killed in the middle, and the ledger made whole again."""
    told = subprocess.run(
        [sys.executable, ROOT / "examples/ledger_transcript.py"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert between("transcript") == f"```text\n{told}```"
