"""Import the scripts of the folders `tools` and `examples`, which are no packages."""

from __future__ import annotations

import importlib.util
import sys

from helpers.places import REPOSITORY


def load_tool(name):
    """Return a script of `tools` as a module."""
    return _load("tools", name)


def load_example(name):
    """Return a script of `examples` as a module."""
    return _load("examples", name)


def _load(folder, name):
    path = REPOSITORY / folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
