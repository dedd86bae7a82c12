"""Folders that tests use."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent.parent
REPOSITORY = TESTS.parent
PROGRAMS = TESTS / "programs"
FOREIGN_TABLES = REPOSITORY.parent / "shared" / "foreign-tables"
"""Delta tables of other writers. They are not part of the repository; tests that need them are skipped."""
