"""The first bad version of a table, and of the inputs that show the cause."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console

from deltawitness.answers.bisect_values import BisectInput, BisectResult, BisectState
from deltawitness.answers.diff.table_values import DiffOperation
from deltawitness.answers.shown_commit import ShownCommit
from deltawitness.plurals import count_of
from deltawitness.report.format import operation, timestamp
from deltawitness.report.tables import print_line

__all__ = ["print_bisect", "print_commit_line"]


def print_bisect(console: Console, found: BisectResult) -> None:
    """Print the result, and below it those of the inputs that show the cause."""
    _print_result(console, found, "")
    causes = found.causes
    if causes != (found,):
        print_line(console, f"cause: {', '.join(str(each.table) for each in causes)}")
    for each in causes:
        if each.comparable_runs is not None:
            print_line(console, f"what differs: deltawitness diff {' '.join(each.comparable_runs)}")


def _print_result(console: Console, found: BisectResult, indent: str) -> None:
    print_line(console, f"{indent}{_headline(found)}")
    indent += "  "
    for candidate in found.candidates:
        print_line(console, indent + _candidate_text(candidate))
    if found.commit is not None and not found.candidates:
        print_commit_line(console, found.commit, indent)
    for line in _notes(found):
        print_line(console, f"{indent}note: {line}")
    for each in found.inputs:
        print_line(console, f"{indent}input {_input_text(each)}")
        if each.cause is not None:
            _print_result(console, each.cause, f"{indent}  ")


def _candidate_text(candidate: DiffOperation) -> str:
    what = operation(candidate.operation, candidate.mode) or "unknown operation"
    run = f"run {candidate.run_id}" if candidate.run_id else "no run"
    return "  ".join((f"{candidate.version}: {what}", timestamp(candidate.time), run))


def _headline(found: BisectResult) -> str:
    tested = (
        f"{len(found.tested) - len(found.skipped)} of {count_of(found.versions, 'version')} tested"
    )
    name = found.table.name
    match found.state:
        case BisectState.NEVER:
            return f"{name}: no tested version is bad ({tested})"
        case BisectState.ALWAYS:
            return f"{found.table} is already bad, and no older version can be tested ({tested})"
        case BisectState.RANGE:
            first = f"the first bad version of {name} is one of"
            return f"{first} {(found.last_good or 0) + 1} to {found.table.version} ({tested})"
    before = "" if found.last_good is None else f"{name}@{found.last_good} is good; "
    return f"{found.table} is the first bad version ({before}{tested})"


def print_commit_line(console: Console, commit: ShownCommit, indent: str) -> None:
    """Print what a commit was, and its run, in a line or two."""
    parts = [
        operation(commit.operation, commit.mode) or "unknown operation",
        timestamp(commit.time),
        f"job {commit.job}" if commit.job else "",
        f"run {commit.run_id}" if commit.run_id else "no run",
        f"code {commit.code_version}" if commit.code_version else "",
    ]
    print_line(console, indent + "  ".join(part for part in parts if part))
    if commit.message:
        print_line(console, f"{indent}message: {commit.message}")
    if commit.call_site is not None:
        site = commit.call_site
        print_line(console, f"{indent}call site: {site.file}:{site.line}")


def _notes(found: BisectResult) -> list[str]:
    notes = []
    for reason, same in groupby(found.skipped, key=lambda each: each.reason):
        versions = [each.version for each in same]
        first, last = versions[0], versions[-1]
        span = str(first) if first == last else f"{first} to {last}"
        what = "version" if first == last else "versions"
        notes.append(f"{what} {span} cannot be tested: {reason}")
    if found.is_monotone is False:
        again = ", ".join(map(str, found.good_again))
        notes.append(f"later versions are good again: {again}; there may be several changes to bad")
    elif found.is_monotone is None and found.state is not BisectState.NEVER:
        notes.append("not every version was tested: --checks tests more of them")
    return notes


def _input_text(each: BisectInput) -> str:
    known = ("inferred, " if each.is_inferred else "") + (
        "not known before"
        if each.previous is None
        else f"before {each.previous}"
        if each.is_changed
        else "not changed"
    )
    state = {True: "bad", False: "good", None: "cannot be tested"}[each.is_bad]
    reason = f": {each.reason}" if each.reason else ""
    return f"{each.table} ({known}): {state}{reason}"
