"""A program of DataFusion's documentation prints the same, observed by another import and by none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "programs" / "documented.py"
IMPORT = "from datafusion import SessionContext\n"
OTHER_IMPORT = "from deltawitness import ObservedSessionContext as SessionContext\n"
ASKED = "\nimport sys\nprint(hasattr(ctx, 'register_delta'), file=sys.stderr)\n"
"""What a program says at its end, elsewhere than on its output: whether its session is observed."""

ZERO_TOUCH = """
import runpy, sys
import deltawitness
for name in sys.argv[2:]:
    getattr(deltawitness, name)().instrument()
ctx = runpy.run_path(sys.argv[1], run_name="__main__")["ctx"]
"""
WAYS = {
    "by another import": ["{changed}"],
    "by none": ["-c", ZERO_TOUCH + ASKED, "{program}", "DataFusionInstrumentor"],
    "by none, with delta-rs": [
        "-c", ZERO_TOUCH + ASKED, "{program}", "DeltaLakeInstrumentor", "DataFusionInstrumentor",
    ],
}  # fmt: skip


def printed(arguments, folder):
    """What a program prints that is run in an empty folder."""
    folder.mkdir()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What the program prints when nothing is observed."""
    output, complaints = printed([PROGRAM], tmp_path_factory.mktemp("plain") / "run")
    assert complaints == ""
    return output


@pytest.mark.parametrize("way", WAYS)
def test_a_documented_program_prints_the_same(way, expected, tmp_path):
    """One line of it is another one, or none is."""
    text = PROGRAM.read_text()
    assert text.count(IMPORT) == 1
    changed = tmp_path / "changed.py"
    changed.write_text(text.replace(IMPORT, OTHER_IMPORT) + ASKED)
    arguments = [each.format(changed=changed, program=PROGRAM) for each in WAYS[way]]
    output, complaints = printed(arguments, tmp_path / "run")
    assert output.splitlines() == expected.splitlines()
    # The program runs one statement twice: it is warned of that, at its own line, and of nothing else.
    warning, line, *left = complaints.splitlines()
    assert re.search(
        r"(documented|changed)\.py:\d+: RepeatedStatementWarning: DML on numbers: ", warning
    )
    assert line == "  print(insert.to_pydict())  # it runs at each terminal call"
    assert left == ["True"]
