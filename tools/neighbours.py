"""Run the programs of other libraries, resolve environments with them, and write the page of the results.

Usage: neighbours.py run [NAME ...] | resolve | page

`run` runs each program (or those named) without and with observation, `resolve` asks the package index;
both write tools/neighbours.json. `page` writes the tables of docs/neighbours.md.
"""

from __future__ import annotations

import ast
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers import neighbours as nb  # noqa: E402 - found by the line above

PAGE = ROOT / "docs/neighbours.md"
ENGINES = ("deltalake", "datafusion", "pyarrow")


def results() -> dict[str, Any]:
    """Return the results of earlier runs."""
    return json.loads(nb.RESULTS.read_text()) if nb.RESULTS.exists() else {}


def save(part: str, found: dict[str, Any]) -> None:
    """Add results to those of earlier runs."""
    every = results()
    every.setdefault(part, {}).update(found)
    nb.RESULTS.write_text(json.dumps(every, indent=1, sort_keys=True) + "\n")


def run(names: Sequence[str]) -> bool:
    """Run programs, all if none is named; return whether each was observed completely."""
    chosen = [each for each in nb.NEIGHBOURS if not names or each.name in names]
    is_complete = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = nb.build_wheel(folder / "wheel")
        for neighbour in chosen:
            if neighbour.is_local and not nb.namespace():
                print(f"{neighbour.name}: not run: this system allows no network namespace")
                continue
            found = observe(neighbour, folder / neighbour.name, wheel)
            print(f"{neighbour.name}: {found}", flush=True)
            is_complete &= nb.is_complete(found, neighbour)
            save("programs", {neighbour.name: found})
    return is_complete


def observe(neighbour: nb.Neighbour, folder: Path, wheel: Path) -> dict[str, Any]:
    """Run one program without and with observation, and return the comparison and the versions."""
    folder.mkdir()
    python = Path(sys.executable)
    if neighbour.requires:
        python = nb.make_environment(neighbour, folder / "environment", wheel)
    bare = nb.execute(neighbour, python, folder / "bare", is_observed=False)
    observed = nb.execute(neighbour, python, folder / "observed", is_observed=True)
    if observed.code:
        print(observed.stderr, file=sys.stderr)
    found = nb.compare(bare, observed)
    found["versions"] = nb.versions(neighbour, python)
    found["python"] = platform.python_version()
    return found


def resolve() -> bool:
    """Resolve each set of requirements with the project; return whether the possible ones do."""
    found, is_expected = {}, True
    with tempfile.TemporaryDirectory() as name:
        wheel = nb.build_wheel(Path(name))
        for each in nb.DEFINITIONS["resolution"]:
            versions = nb.resolve(wheel, each["requires"], each["extras"])
            key = ", ".join(each["requires"])
            print(f"{key}: {versions if isinstance(versions, str) else 'resolves'}", flush=True)
            is_resolved = isinstance(versions, dict)
            is_expected &= is_resolved != each.get("is-impossible", False)
            found[key] = {
                "extras": each["extras"],
                "versions": {engine: versions.get(engine) for engine in (*ENGINES, "sqlglot")}
                if is_resolved
                else None,
            }
    save("resolutions", found)
    return is_expected


def programs_table() -> list[str]:
    """Return the table of the programs, as lines of Markdown."""
    found = results()["programs"]
    lines = [
        "| library | the program | engines | commits with metadata | rows of the ledger |",
        "|---|---|---|---|---|",
    ]
    for neighbour in nb.NEIGHBOURS:
        result = found.get(neighbour.name)
        if result is None:
            continue
        versions = result["versions"]
        packages = ", ".join(f"{name} {versions[name]}" for name in neighbour.packages)
        claim = (
            ast.get_docstring(ast.parse((nb.FOLDER / neighbour.file).read_text())) or ""
        ).rstrip(".")
        engines = ", ".join(f"{name} {versions[name]}" for name in ENGINES if versions[name])
        writes = ", ".join(f"{count} {kind}" for kind, count in result["writes"].items())
        lines.append(
            f"| {neighbour.title} ({packages}) | {claim} | {engines} "
            f"| {result['stamped']} of {result['commits']} | {writes} |"
        )
    return lines


def resolutions_table() -> list[str]:
    """Return the table of the resolved environments, as lines of Markdown."""
    found = results()["resolutions"]
    lines = [
        "| in one environment with | extras | resolves | with | note |",
        "|---|---|---|---|---|",
    ]
    for each in nb.DEFINITIONS["resolution"]:
        key = ", ".join(each["requires"])
        versions = found[key]["versions"]
        engines = ", ".join(
            f"{name} {version}" for name, version in (versions or {}).items() if version
        )
        shown = ", ".join(f"`{requirement}`" for requirement in each["requires"])
        lines.append(
            f"| {shown} | {', '.join(each['extras'])} | {'yes' if versions else 'no'} "
            f"| {engines} | {each.get('note', '')} |"
        )
    return lines


def page() -> str:
    """Return the page with its tables made from the results."""
    text = PAGE.read_text()
    for name, table in (("programs", programs_table()), ("resolutions", resolutions_table())):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = before + begin + "\n".join(table) + "\n" + end + rest.split(end, 1)[1]
    return text


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    match arguments:
        case ["run", *names]:
            return 0 if run(names) else 1
        case ["resolve"]:
            return 0 if resolve() else 1
        case ["page"]:
            PAGE.write_text(page())
            return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
