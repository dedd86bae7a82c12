"""Binary search for the first bad version, over versions of which some cannot be tested."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from deltawitness.answers.bisect_values import BisectState, TestedVersion

__all__ = ["Search"]


@dataclass
class Search:
    """A search over versions.

    Attributes:
        versions: the versions, in order.
        test: tests one of them.
        keeps_rows: whether a version has the same rows and columns as the one before it.
        tested: the results so far, by version.
    """

    versions: Sequence[int]
    test: Callable[[int], TestedVersion]
    keeps_rows: Callable[[int], bool]
    tested: dict[int, TestedVersion] = field(default_factory=dict)

    def run(self, checks: int) -> tuple[BisectState, int | None, int | None]:
        """Return the state, the first bad version, and the last good one before it.

        Args:
            checks: number of versions that are tested beyond the search, evenly spaced, to find out
                whether the versions are good before and bad after.
        """
        newest = next(
            (each for each in reversed(self.versions) if self._result(each) is not None), None
        )
        if newest is None:
            return BisectState.NEVER, None, None
        if self._result(newest):
            self._narrow(newest)
        self._check(checks)
        bad = self._first_bad()
        while bad is not None:
            self._narrow(bad)
            earlier = self._first_bad()
            if earlier == bad:
                break
            bad = earlier
        if bad is None:
            return BisectState.NEVER, None, None
        good = self._last_good_before(bad)
        return self.state_after(bad, good), bad, good

    def is_monotone(self, bad: int | None) -> bool | None:
        """Return whether no tested version contradicts a first bad version; None if some are not tested."""
        results = {each: self.tested[each].is_bad for each in self.versions if each in self.tested}
        if bad is not None and any(
            each > bad and is_bad is False for each, is_bad in results.items()
        ):
            return False
        return True if len(results) == len(self.versions) else None

    def _result(self, version: int) -> bool | None:
        if version not in self.tested:
            self.tested[version] = self.test(version)
        return self.tested[version].is_bad

    def _narrow(self, bad: int) -> None:
        """Test versions before a bad one until no version between good and bad can be tested."""
        while True:
            good = self._last_good_before(bad)
            start = 0 if good is None else bisect_left(self.versions, good) + 1
            between = self.versions[start : bisect_left(self.versions, bad)]
            found = self._test_one(between)
            if found is None:
                found = self._infer(between, bad, good)
            if found is None:
                return
            if self._result(found):
                bad = found

    def _infer(self, between: Sequence[int], bad: int, good: int | None) -> int | None:
        """Return a version that cannot be tested but has the rows of the bad or the good one; else None."""
        if not between:
            return None
        if between[-1] == bad - 1 and self.keeps_rows(bad):
            self.tested[bad - 1] = TestedVersion(bad - 1, True, f"it has the rows of {bad}")  # noqa: FBT003 - attributes in order
            return bad - 1
        if good is not None and between[0] == good + 1 and self.keeps_rows(good + 1):
            self.tested[good + 1] = TestedVersion(good + 1, False, f"it has the rows of {good}")  # noqa: FBT003 - as above
            return good + 1
        return None

    def _test_one(self, between: Sequence[int]) -> int | None:
        """Test the version in the middle, else others until one can be tested; later ones come first."""
        wanted = [each for each in between if each not in self.tested]
        while wanted:
            middle = wanted[len(wanted) // 2]
            if self._result(middle) is not None:
                return middle
            # Old versions are those whose files were deleted.
            later = [each for each in wanted if each > middle]
            while later:
                chosen = later[len(later) // 2]
                if self._result(chosen) is not None:
                    return chosen
                later = [each for each in later if each > chosen]
            wanted = [each for each in between if each not in self.tested]
        return None

    def _check(self, checks: int) -> None:
        rest = [each for each in self.versions if each not in self.tested]
        count = min(checks, len(rest))
        for number in range(count):
            self._result(rest[number * len(rest) // count])

    def _first_bad(self) -> int | None:
        return min((each for each, found in self.tested.items() if found.is_bad), default=None)

    def _last_good_before(self, bad: int) -> int | None:
        found = [
            each for each, result in self.tested.items() if each < bad and result.is_bad is False
        ]
        return max(found, default=None)

    @staticmethod
    def state_after(bad: int, good: int | None) -> BisectState:
        """Return the state for the first bad version and the last good one before it."""
        if good is None:
            return BisectState.FOUND if bad == 0 else BisectState.ALWAYS
        return BisectState.FOUND if bad == good + 1 else BisectState.RANGE
