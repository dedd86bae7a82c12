"""Write the tables of results in docs/compatibility.md, from tools/compatibility.json.

`make matrix-tables` runs it with `--collect`, which first adds the results of `make matrix`. The text
outside the markers is written by hand. A test compares the tables with the file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matrix import RESULTS, ROOT, Case, cases

RECORDED = ROOT / "tools/compatibility.json"
PAGE = ROOT / "docs/compatibility.md"
BEGIN, END = "<!-- matrix: begin -->\n", "<!-- matrix: end -->"

GROUPS = {
    "deltalake": "Releases of deltalake",
    "datafusion": "DataFusion with a deltalake that fits",
    "extras": "Extras",
    "resolution": "Lowest and highest versions",
    "python": "Versions of CPython",
}
PACKAGES = ("python", "deltalake", "datafusion", "pyarrow", "opentelemetry-api", "wrapt")
MAX_FAILURES = 5
"""Failed tests that a table names; the rest is counted."""

Recorded = dict[str, dict[str, Any]]


def recorded() -> Recorded:
    """Return the recorded results by the name of their case."""
    found: Recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    return found


def collect(folder: Path, results: Mapping[str, dict[str, Any]]) -> Recorded:
    """Return results with those of a folder in addition, in the order of the cases.

    Results of cases that no longer exist are dropped.

    Args:
        folder: has a JSON file for each case that has run.
        results: the results so far by name; a newer one replaces them.
    """
    newer = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    merged = {**results, **newer}
    return {case.name: merged[case.name] for case in cases() if case.name in merged}


def tables(results: Mapping[str, dict[str, Any]]) -> str:
    """Return a table for each group of cases; a case without a result is shown as not run."""
    parts = []
    for group, heading in GROUPS.items():
        lines = [f"### {heading}", "", f"| case | {' | '.join(PACKAGES)} | tests | result |"]
        lines.append("|---" * (len(PACKAGES) + 3) + "|")
        lines += [_row(case, results.get(case.name)) for case in cases() if case.group == group]
        parts.append("\n".join(lines))
    failures = list(_failures(results))
    if failures:
        parts.append("\n".join(["### Failed tests", "", *failures]))
    return "\n\n".join(parts) + "\n"


def _row(case: Case, result: Mapping[str, Any] | None) -> str:
    if result is None:
        cells = [f"`{case.name}`", *[""] * (len(PACKAGES) + 1), "not run"]
        return f"| {' | '.join(cells)} |"
    versions = [result["versions"].get(package, "") for package in PACKAGES]
    tests = f"{result['passed']} passed"
    tests += "".join(f", {result[kind]} {kind}" for kind in ("failed", "skipped") if result[kind])
    has_run = result["passed"] or result["failed"]
    cells = [f"`{case.name}`", *versions, tests if has_run else "", result["status"]]
    return f"| {' | '.join(cells)} |"


def _failures(results: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    for case in cases():
        failed = results.get(case.name, {}).get("failures", [])
        names = [f"`{_short(name)}`" for name in failed[:MAX_FAILURES]]
        if len(failed) > MAX_FAILURES:
            names.append(f"{len(failed) - MAX_FAILURES} more")
        if names:
            yield f"- `{case.name}`: {', '.join(names)}"


def _short(test: str) -> str:
    """Return the name of a test without its module and parameters."""
    return test.rpartition("::")[2].partition("[")[0]


def page_with(page: str, text: str) -> str:
    """Return a page with other text between the markers.

    Raises:
        ValueError: the page does not have both markers once.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after:
        msg = f"{PAGE.name}: expected the markers {BEGIN.strip()} and {END} once"
        raise ValueError(msg)
    return f"{before}{begin}{text}{end}{after}"


def main() -> None:
    """Write the tables, with `--collect` after adding the results of the last matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collect", action="store_true", help="add the results of build/matrix")
    results = recorded()
    if parser.parse_args().collect:
        results = collect(RESULTS, results)
        RECORDED.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page_with(PAGE.read_text(), tables(results)))


if __name__ == "__main__":
    main()
