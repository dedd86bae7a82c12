"""Import the scripts of the folder `tools`, which is no package."""

from __future__ import annotations

import importlib.util
import sys

from helpers.places import REPOSITORY


def load_tool(name):
    """Return a script of `tools` as a module."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", REPOSITORY / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
