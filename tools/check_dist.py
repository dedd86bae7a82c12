"""Check the distributions in dist/: contents, metadata and the long description. `make dist` runs it.

Exits 1 with a line for each problem.
"""

from __future__ import annotations

import argparse
import configparser
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parent.parent
NAME = "deltawitness"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = (
    *("py.typed", "activation/site/sitecustomize.py", "pytest_plugin.py", "cli/app.py"),
    *("html_report/report.css", "html_report/report.js"),
    *("collector/config.yaml", "collector/compose.yaml", "collector/dashboards/delta-writes.json"),
)
REQUIRED_SOURCES = (
    *("CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"),
    *("src/deltawitness/py.typed", "tests/conftest.py", "docs/index.md"),
)
GENERATED = re.compile(
    r"(?:^|/)(?:__pycache__|\.[\w-]+_cache|\.venv|\.DS_Store)(?:/|$)|\.py[cod]$|~$"
)


def wheel_problems(path: Path) -> Iterator[str]:
    """Yield the problems of a wheel."""
    with zipfile.ZipFile(path) as wheel:
        contents = {name: wheel.read(name) for name in wheel.namelist()}
    info = f"{NAME}-{PROJECT['version']}.dist-info"
    for name in contents:
        if PurePosixPath(name).parts[0] not in {NAME, info}:
            yield f"{name}: neither in the package nor in {info}"
    needed = [f"{NAME}/{name}" for name in REQUIRED]
    needed += [f"{info}/{name}" for name in ("METADATA", "entry_points.txt", "licenses/LICENSE")]
    yield from (f"{name} is missing" for name in needed if name not in contents)
    yield from file_problems(contents)
    package = (ROOT / "src" / NAME).rglob("*.py")
    for source in package:
        name = source.relative_to(ROOT / "src").as_posix()
        if contents.get(name) != source.read_bytes():
            yield f"{name} differs from the source, or is missing"
    yield from metadata_problems(contents.get(f"{info}/METADATA", b"").decode())
    yield from entry_point_problems(contents.get(f"{info}/entry_points.txt", b"").decode())


def sdist_problems(path: Path) -> Iterator[str]:
    """Yield the problems of a source distribution: it has files of the repository and no other."""
    with tarfile.open(path) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        contents = {
            member.name.partition("/")[2]: archive.extractfile(member).read()  # type: ignore[union-attr]  # a file
            for member in files
        }
    yield from (f"{name} is missing" for name in REQUIRED_SOURCES if name not in contents)
    yield from (f"{name} is for CI alone" for name in contents if name.startswith(".ci/"))
    tracked = tracked_files()
    if tracked:
        others = contents.keys() - tracked - {"PKG-INFO"}
        yield from (f"{name} is no file of the repository" for name in sorted(others))
    yield from file_problems(contents)
    yield from metadata_problems(contents.get("PKG-INFO", b"").decode())


def tracked_files() -> set[str]:
    """Return the paths of the repository's files; empty outside a repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(  # noqa: S603 - a fixed command
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    return set(done.stdout.split("\0")) - {""}


def file_problems(contents: Mapping[str, bytes]) -> Iterator[str]:
    """Yield files that a machine made, and files that name folders of this machine."""
    places = [str(ROOT).encode(), str(Path.home()).encode() + b"/"]
    for name, content in contents.items():
        if GENERATED.search(name):
            yield f"{name} is a generated file"
        if any(place in content for place in places if len(place) > len(b"/root/")):
            yield f"{name} names a folder of this machine"


def metadata_problems(text: str) -> Iterator[str]:
    """Yield the differences between the metadata and pyproject.toml, and links that no index resolves."""
    metadata = Parser().parsestr(text)
    for field, expected in {
        "Name": NAME,
        "Version": PROJECT["version"],
        "Summary": PROJECT["description"],
        "Requires-Python": PROJECT["requires-python"],
        "License-Expression": PROJECT["license"],
        "License-File": "LICENSE",
        "Description-Content-Type": "text/markdown",
    }.items():
        if metadata[field] != expected:
            yield f"metadata: {field} is {metadata[field]!r}, expected {expected!r}"
    extras = set(PROJECT["optional-dependencies"])
    if set(metadata.get_all("Provides-Extra") or ()) != extras:
        yield f"metadata: the extras are not {', '.join(sorted(extras))}"
    for requirement in metadata.get_all("Requires-Dist") or ():
        if "@" in requirement:
            yield f"metadata: {requirement} names a location, which an index refuses"
    yield from description_problems(description_of(metadata))


def description_of(metadata: Message) -> str:
    """Return the long description of a distribution."""
    return str(metadata.get_payload()) or str(metadata["Description"] or "")


def description_problems(description: str) -> Iterator[str]:
    """Yield the problems of a long description: empty, or with links to files that an index does not have."""
    if f"# {NAME}" not in description:
        yield "description: has no heading with the name"
    for target in re.findall(r"\]\(([^)\s]+)", re.sub(r"(?s)```.*?```", "", description)):
        if not target.startswith(("https://", "http://", "mailto:", "#")):
            yield f"description: the link to {target} works in the repository only"


def entry_point_problems(text: str) -> Iterator[str]:
    """Yield the entry points of pyproject.toml that a wheel does not have."""
    found = configparser.ConfigParser(delimiters=("=",))
    found.optionxform = str  # type: ignore[assignment, method-assign]  # names are case-sensitive
    found.read_string(text)
    groups = {"console_scripts": PROJECT["scripts"], **PROJECT["entry-points"]}
    for group, entries in groups.items():
        shown = dict(found[group]) if found.has_section(group) else {}
        if shown != entries:
            yield f"entry points: {group} is {shown}, expected {entries}"


def sbom_problems(path: Path) -> Iterator[str]:
    """Yield the problems of a bill of materials: not of this version, without components, or with paths."""
    text = path.read_text()
    bill = json.loads(text)
    main = bill.get("metadata", {}).get("component", {})
    if (bill.get("bomFormat"), main.get("version")) != ("CycloneDX", PROJECT["version"]):
        yield f"no CycloneDX document of version {PROJECT['version']}"
    names = {component["name"] for component in bill.get("components", ())}
    for requirement in PROJECT["dependencies"]:
        name = re.match(r"[\w.-]+", requirement)[0]  # type: ignore[index]  # a requirement has a name
        if name not in names:
            yield f"{name} is missing"
    if "file://" in text or str(ROOT) in text:
        yield "names a folder of this machine"


def problems(folder: Path) -> Iterator[str]:
    """Yield each problem of the distributions in a folder, after the name of the file."""
    stem = f"{NAME}-{PROJECT['version']}"
    wheel, sdist = folder / f"{stem}-py3-none-any.whl", folder / f"{stem}.tar.gz"
    checks = {wheel: wheel_problems, sdist: sdist_problems}
    for path, check in checks.items():
        if not path.is_file():
            yield f"{path.name}: not built"
            continue
        yield from (f"{path.name}: {problem}" for problem in check(path))


def main() -> int:
    """Check a folder of distributions, or with `--sbom FILE` a bill of materials; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "dist")
    parser.add_argument("--sbom", type=Path, help="check this bill of materials alone")
    arguments = parser.parse_args()
    check = problems(arguments.folder) if arguments.sbom is None else sbom_problems(arguments.sbom)
    found = list(check)
    print("\n".join(found) or "complete")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
