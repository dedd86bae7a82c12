"""Without the packages of the extras everything else works, and a feature that needs one names the extra."""

from __future__ import annotations

import ast
import json
import logging
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import deltawitness
from deltawitness import datafusion_pairs
from deltawitness.exceptions import DeltaWitnessError, MissingExtraError, UnsupportedEngineError
from deltawitness.extras import is_installed, require
from helpers.places import PROGRAMS, REPOSITORY
from helpers.sizes import cases

DATAFUSION = {
    "DeltaCache": "DeltaCache",
    "Explanation": "Explanation",
    "MetadataSnapshot": "MetadataSnapshot",
    "ObservedDataFrame": "ObservedDataFrame",
    "ObservedSessionContext": "ObservedSessionContext",
    "inventory": "Ledger.inventory()",
    "json": "WriteFormat.JSON",
    "runs": "Ledger.runs()",
    "sessions": "DataFusionInstrumentor",
    "snapshots": "Ledger.snapshots()",
}
"""The subject of the error of each feature that needs DataFusion."""

SQL = {"DeltaCache", "Explanation", "MetadataSnapshot", "ObservedDataFrame"} | {
    "ObservedSessionContext",
    "sessions",
}
"""The features that need sqlglot as well."""

SDK = {"captured": "InMemoryTelemetry", "views": "metric_views()"}

ERRORS = {
    "datafusion": {
        key: f"{subject} needs DataFusion: install deltawitness[datafusion]"
        for key, subject in DATAFUSION.items()
    },
    "sqlglot": {
        key: f"{DATAFUSION[key]} needs sqlglot: install deltawitness[datafusion]" for key in SQL
    },
    "opentelemetry.sdk": {
        key: f"{subject} needs the OpenTelemetry SDK: install deltawitness[otel]"
        for key, subject in SDK.items()
    },
    "typer,rich": {},
}

MODULES = {
    "datafusion": ("deltawitness.cache.", "deltawitness.session."),
    "sqlglot": (),
    "opentelemetry.sdk": ("deltawitness.telemetry.run_span_export",),
    "typer,rich": ("deltawitness.cli", "deltawitness.report.", "deltawitness.ui."),
}
"""The modules that may import each package when they are imported."""


def run_without(packages, folder):
    """Return the results of the program that runs without some packages."""
    environment = {**os.environ, "OTEL_SDK_DISABLED": "false"}
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "without_packages.py"), str(folder), packages],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PARTS = [*ERRORS, ",".join(ERRORS)]


@pytest.mark.slow
@pytest.mark.parametrize("packages", cases(PARTS, PARTS[-1:]))
def test_everything_else_works_without_the_packages_of_an_extra(packages, tmp_path):
    """Writes, pipelines, the ledger and reconcile work; what cannot names its extra in one line."""
    result = run_without(packages, tmp_path)
    parts = [packages] if packages in ERRORS else list(ERRORS)
    errors = {}
    for part in reversed(parts):
        errors |= ERRORS[part]
    assert result["errors"] == errors
    assert result["written"] == {"COPY": 1, "DELETE": 1, "MERGE": 1, "WRITE": 2}
    assert result["runs"] == [{"job": "nightly", "status": "ok"}]
    assert (result["missing"], result["problems"], result["metadata"]) == (0, 0, "merge")
    allowed = tuple(prefix for part in parts for prefix in MODULES[part])
    assert [name for name in result["modules"] if not name.startswith(allowed or ("-",))] == []


COMMAND = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("datafusion", "sqlglot"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
from deltawitness.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["verify", "0"], 2, "deltawitness verify needs DataFusion: install deltawitness[datafusion]"),
        (["cache", "verify", "x"], 2, "deltawitness cache verify needs DataFusion: install deltawitness[datafusion]"),
        (["cache", "ls"], 0, "answers"),
        (["cache", "why", "answers"], 0, "answers"),
        (["cache", "prune", "--older-than", "7d"], 0, ""),
    ],
)  # fmt: skip
@pytest.mark.one_case_in(2)
def test_commands_without_datafusion(arguments, code, text, tmp_path):
    """A command works without DataFusion, or names the extra and exits with 2."""
    ctx = deltawitness.ObservedSessionContext()
    deltawitness.DeltaCache(ctx, tmp_path).view("answers", "SELECT 42 AS answer")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "DELTAWITNESS_ROOT": str(tmp_path)},
    )
    output = done.stderr if code else done.stdout
    assert (done.returncode, text in output, output.count("\n") == 1 or not code) == (
        code,
        True,
        True,
    )


def test_a_missing_package_is_an_import_error(monkeypatch):
    """The error is an `ImportError` with the name of the package, and an error of this library."""
    monkeypatch.setitem(sys.modules, "sqlglot", None)
    assert is_installed("datafusion")
    with pytest.raises(
        ImportError, match=r"^It needs sqlglot: install deltawitness\[datafusion\]$"
    ) as raised:
        require("It", "datafusion", "sqlglot")
    assert isinstance(raised.value, MissingExtraError)
    assert isinstance(raised.value, DeltaWitnessError)
    assert raised.value.name == "sqlglot"


@pytest.mark.slow
def test_every_required_package_has_an_extra(monkeypatch):
    """Each name that `require` is called with: the error names the extra that installs it."""
    calls = [
        node
        for path in Path(deltawitness.__file__).parent.rglob("*.py")
        if "require(" in (text := path.read_text("utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "require"
    ]
    packages = {name.value for call in calls for name in call.args[1:]}
    assert {"typer", "rich", "datafusion", "mcp"} <= packages
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=r"^It needs .*: install deltawitness\["):
            require("It", package)


@pytest.mark.parametrize(
    ("package", "level"), [("datafusion", logging.DEBUG), ("sqlglot", logging.WARNING)]
)
def test_opentelemetry_instrument_works_without_the_extra(monkeypatch, caplog, package, level):
    """A raised error would make the command print a traceback at the start of each program."""
    monkeypatch.setitem(sys.modules, package, None)
    instrumentor = deltawitness.DataFusionInstrumentor()
    with caplog.at_level(logging.DEBUG, "deltawitness"):
        instrumentor.instrument(skip_dep_check=True)
    assert not instrumentor.is_instrumented_by_opentelemetry
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (level, None)
    assert record.getMessage().endswith("install deltawitness[datafusion]")
    with pytest.raises(MissingExtraError, match=r"^DataFusionInstrumentor needs "):
        instrumentor.instrument()


def test_a_package_inside_a_missing_one_is_not_installed():
    """The outer package need not be there."""
    assert not is_installed("no_such_package.inside")


# --- pairs of engines ------------------------------------------------------------------------------


def installed(monkeypatch, **versions):
    """Set the versions that are read as installed."""
    versions.setdefault("sqlglot", datafusion_pairs._installed("sqlglot"))
    monkeypatch.setattr(datafusion_pairs, "_installed", versions.__getitem__)


@pytest.mark.parametrize(
    ("datafusion", "deltalake"),
    [("55.0.0", "1.6.6"), ("55.1", "1.6.9"), ("54.0.0", "1.6.1"), ("54.0.0", "1.6.2"), ("55.0.0rc1", "1.6.6")],
)  # fmt: skip
def test_a_session_of_a_tested_pair_can_be_made(monkeypatch, datafusion, deltalake):
    installed(monkeypatch, datafusion=datafusion, deltalake=deltalake)
    datafusion_pairs.check_engines()


@pytest.mark.parametrize(
    ("datafusion", "deltalake"),
    [
        ("54.0.0", "1.6.6"),
        ("54.0.0", "1.6.3"),  # ends the process with a segmentation fault
        ("55.0.0", "1.6.3"),
        ("55.0.0", "1.7.0"),
        ("54.1.0", "1.6.2"),  # a setting that this deltalake does not know
        ("53.0.0", "1.6.0"),
        ("56.0.0", "1.7.0"),
        ("(unknown version)", "1.6.6"),
    ],
)
def test_a_session_of_another_pair_raises(monkeypatch, datafusion, deltalake):
    """The error has both versions and the pairs that are supported."""
    installed(monkeypatch, datafusion=datafusion, deltalake=deltalake)
    with pytest.raises(UnsupportedEngineError) as raised:
        deltawitness.ObservedSessionContext()
    assert str(raised.value) == (
        f"datafusion {datafusion} with deltalake {deltalake} is not supported: deltawitness[datafusion]"
        " needs datafusion >= 55, < 56 with deltalake >= 1.6.6, < 1.7,"
        " or datafusion >= 54, < 54.1 with deltalake >= 1.6.1, < 1.6.3"
    )


@pytest.mark.parametrize(
    ("datafusion", "deltalake"),
    [("55.0.0", ">= 1.6.6, < 1.7"), ("54.0.0", ">= 1.6.1, < 1.6.3"), ("53.0.0", ">= 1.6.6, < 1.7")],
)
def test_the_instrumentor_requires_the_pair_of_the_installed_datafusion(
    monkeypatch, datafusion, deltalake
):
    """OpenTelemetry checks these requirements and logs the one that is not met."""
    installed(monkeypatch, datafusion=datafusion, deltalake="1.6.6")
    requirements = deltawitness.DataFusionInstrumentor().instrumentation_dependencies()
    assert f"deltalake {deltalake}" in requirements


@pytest.mark.parametrize("options", [{}, {"skip_dep_check": True}], ids=["program", "command"])
def test_the_instrumentor_leaves_sessions_of_another_pair_alone(monkeypatch, caplog, options):
    """`opentelemetry-instrument` skips the check of versions; a patched session could not be created."""
    installed(monkeypatch, datafusion="54.0.0", deltalake="1.6.6")
    instrumentor = deltawitness.DataFusionInstrumentor()
    instrumentor.instrument(**options)
    assert not instrumentor.is_instrumented_by_opentelemetry
    (record,) = caplog.records
    assert "only instruments" in record.getMessage()


def test_the_extra_admits_every_pair():
    """The extra `datafusion` has the versions of all pairs and no other, and the sqlglot of the instrumentor."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    engine = "datafusion>=54,!=54.1.*,<56"
    for version in ("53.9", "54.0.0", "54.0.9", "54.1.0", "55.0.0", "55.9.0", "56.0.0"):
        is_in_a_pair = datafusion_pairs._pair_of(version) is not None
        assert Requirement(engine).specifier.contains(version) == is_in_a_pair, version
    tokenizer = datafusion_pairs.required_engines()[-1].replace(" ", "")
    assert project["optional-dependencies"]["datafusion"] == [engine, tokenizer]
