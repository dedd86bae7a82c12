"""The number of cases of a test by TEST_SIZE, where it is known before the test starts."""

from __future__ import annotations

import os


def cases(all_cases, small):
    """Return the parameters of a test: all at the size of CI and at full size, else a choice.

    Args:
        all_cases: every parameter.
        small: the parameters of `make test`, a part of them.
    """
    assert set(small) <= set(all_cases)
    return list(all_cases if os.environ.get("TEST_SIZE") in {"ci", "long"} else small)


def sized(small, ci, full):
    """Return one of three sizes: that of `make test`, that of CI, or the full one."""
    return {"ci": ci, "long": full}.get(os.environ.get("TEST_SIZE"), small)


def seeds(small, ci, full):
    """Return the seeds of random histories, from 1 on: their number in `make test`, in CI, and at full size."""
    return range(1, sized(small, ci, full) + 1)
