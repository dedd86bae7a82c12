"""Merge repeated sections of the newest release in CHANGELOG.md, in the order of Keep a Changelog.

`make changelog` runs it after towncrier, which inserts the fragments above the entries that were written
by hand: both have a section "Added". A second run changes nothing.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ORDER = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
CHANGELOG = Path(__file__).parent.parent / "CHANGELOG.md"


def merged(changelog: str) -> str:
    """Return the text of a changelog whose newest release has each section once.

    Raises:
        ValueError: there is no release below the heading "Unreleased", or a section has another name.
    """
    release = re.search(r"^## (?!Unreleased$).*$", changelog, re.MULTILINE)
    if release is None:
        msg = "CHANGELOG.md has no release: run `make changelog VERSION=...`"
        raise ValueError(msg)
    following = re.search(r"^## ", changelog[release.end() :], re.MULTILINE)
    end = len(changelog) if following is None else release.end() + following.start()
    body = _merged_sections(changelog[release.end() : end])
    rest = "" if following is None else "\n\n" + changelog[end:]
    return changelog[: release.end()] + body + (rest or "\n")


def _merged_sections(text: str) -> str:
    introduction, *parts = re.split(r"^### (.+)$", text, flags=re.MULTILINE)
    sections: dict[str, list[str]] = {}
    for name, entries in zip(parts[::2], parts[1::2], strict=True):
        if name not in ORDER:
            msg = f"CHANGELOG.md: section {name!r} is none of {', '.join(ORDER)}"
            raise ValueError(msg)
        sections.setdefault(name, []).append(entries.strip("\n"))
    blocks = [f"### {name}\n\n" + "\n".join(sections[name]) for name in ORDER if name in sections]
    shown = introduction.strip("\n")
    return "".join(f"\n\n{block}" for block in ([shown] if shown else []) + blocks)


if __name__ == "__main__":
    try:
        CHANGELOG.write_text(merged(CHANGELOG.read_text()))
    except ValueError as error:
        sys.exit(str(error))
