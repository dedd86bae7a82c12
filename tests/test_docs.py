"""README and docs say what is: their code runs, their tables are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from sybil import Document, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from deltawitness import Settings
from deltawitness.semconv import CommitKey, Env

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def evaluate_console(example):
    """Commands of ours are shown to exist; what installs or makes is run by its own target."""
    for line in example.parsed.splitlines():
        words = line.removeprefix("$ ").split("#")[0].split()
        if words[0] == "deltawitness":
            done = subprocess.run(
                [sys.executable, "-m", "deltawitness", words[1], "--help"],
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


def test_the_table_of_commit_keys_names_every_key():
    """And no other."""
    page = (ROOT / "docs/signals.md").read_text().split("## Spans")[0]
    named = set(re.findall(r"`([a-z_]+)`", page.split("|---|---|")[1]))
    assert {str(key) for key in CommitKey} <= named
