"""The programs of DataFusion's documentation print the same output with proxies, with patches and plain."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from helpers.places import PROGRAMS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("programs_with_pandas")]

PROGRAM = PROGRAMS / "documented.py"
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
    """The output of a program that runs in an empty directory."""
    folder.mkdir()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The output of the program without observation."""
    output, complaints = printed([PROGRAM], tmp_path_factory.mktemp("plain") / "run")
    assert complaints == ""
    return output


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.one_case_in(2)
def test_a_documented_program_prints_the_same(way, expected, tmp_path):
    """The output is the same with one changed import line, and with patched classes."""
    text = PROGRAM.read_text()
    assert text.count(IMPORT) == 1
    changed = tmp_path / "changed.py"
    changed.write_text(text.replace(IMPORT, OTHER_IMPORT) + ASKED)
    arguments = [each.format(changed=changed, program=PROGRAM) for each in WAYS[way]]
    output, complaints = printed(arguments, tmp_path / "run")
    assert output.splitlines() == expected.splitlines()
    # The program runs one statement twice: the only warning is about that, at the program's line.
    warning, line, *left = complaints.splitlines()
    assert re.search(
        r"(documented|changed)\.py:\d+: RepeatedStatementWarning: DML on numbers: ", warning
    )
    assert line == "  print(insert.to_pydict())  # it runs at each terminal call"
    assert left == ["True"]
