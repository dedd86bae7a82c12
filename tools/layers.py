"""Print the layers of the package as the table of docs/how-it-works.md, from the import contract.

Run it after a change of the contract: `python tools/layers.py`. A test compares its output with the page.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/deltawitness"


def summary(name: str) -> str:
    """Return the first sentence of a module's docstring."""
    path = PACKAGE / name
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    return text.split("\n\n")[0].replace("\n", " ")


def table() -> str:
    """Return the table, the highest layer first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    rows = [
        f"| {number if not index else ''} | `{name}` | {summary(name)} |"
        for number, layer in enumerate(layers, 1)
        for index, name in enumerate(layer.split(" | "))
    ]
    return "\n".join(["| layer | module | content |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(table())
