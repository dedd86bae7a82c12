"""Expectations at the commit: rules for the rows of a write, checked before the write commits."""

from deltawitness.expectations.audit import (
    Audit,
    AuditedExpectation,
    SourceRowsError,
    TableBefore,
    combine,
    error_of,
)
from deltawitness.expectations.block import (
    CHECKED,
    Expectation,
    ExpectationBlock,
    expect,
    expectations_for,
    has_expectations,
    no_expectations,
    set_checked,
)
from deltawitness.expectations.file import load_expectations
from deltawitness.expectations.file_checks import statistics_of
from deltawitness.expectations.rules import Within, within
from deltawitness.expectations.schema_check import delta_types

__all__ = [
    "CHECKED",
    "Audit",
    "AuditedExpectation",
    "Expectation",
    "ExpectationBlock",
    "SourceRowsError",
    "TableBefore",
    "Within",
    "combine",
    "delta_types",
    "error_of",
    "expect",
    "expectations_for",
    "has_expectations",
    "load_expectations",
    "no_expectations",
    "set_checked",
    "statistics_of",
    "within",
]
