"""The ledger of a program in an environment with pandas."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from helpers.ledger_commands import json_of, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("programs_with_pandas")]


def test_the_drain_at_the_end_of_a_program_can_import_pandas(tmp_path):
    """A program that makes no Arrow table imports pandas only when its rows are drained, as it ends."""
    write_deltalake(tmp_path / "t", pa.table({"x": [1, 2]}))
    program = "import deltalake; deltalake.DeltaTable('t').delete('x = 1')"
    done = run(tmp_path, program, options=("--quiet",))
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json_of("writes", "--root", tmp_path / ".deltawitness")
    assert row["operation"] == "DELETE"
