"""The package has one version, exports its public names, and is fast to import."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points

import pytest

import deltawitness
from deltawitness.semconv import WITNESS_VERSION
from helpers.places import REPOSITORY

ROOT = REPOSITORY


def test_the_version_is_one():
    """The project file, the code and every commit have the same version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == WITNESS_VERSION == deltawitness.__version__


def test_the_public_names_are_sorted_and_all_there():
    """Each public name can be imported."""
    assert sorted(deltawitness.__all__) == deltawitness.__all__ == dir(deltawitness)
    assert [name for name in deltawitness.__all__ if not hasattr(deltawitness, name)] == []


def test_a_missing_name_is_an_attribute_error():
    """An unknown name raises `AttributeError`, as in any module."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        deltawitness.nothing  # noqa: B018 - the look-up is tested


def test_importing_the_package_imports_no_engine():
    """The import loads no engine and no OpenTelemetry SDK."""
    heavy = ["pyarrow", "deltalake", "datafusion", "sqlglot", "opentelemetry.sdk", "typer", "rich"]
    program = f"import sys, deltawitness; print([n for n in {heavy} if n in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_the_entry_points_are_there():
    """`opentelemetry-instrument` and pytest find the package by its entry points."""
    (instrumentor,) = entry_points(group="opentelemetry_instrumentor", name="deltalake")
    assert instrumentor.load() is deltawitness.DeltaLakeInstrumentor
    (plugin,) = entry_points(group="pytest11", name="deltawitness")
    assert plugin.value == "deltawitness.pytest_plugin"
