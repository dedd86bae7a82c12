"""Use an installed wheel as a user does: import it, write a table, read the commit, load the entry points.

`make dist` runs it in an environment that has the wheel alone, and in one with its extras:
`python try_wheel.py [--with-cli]`.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

NAME = "deltawitness"


def check_location() -> None:
    """Check that the package is imported from the environment, and not from a source tree."""
    import deltawitness  # noqa: PLC0415 - the import is what is tried

    assert Path(deltawitness.__file__).is_relative_to(sysconfig.get_paths()["purelib"])


def check_write() -> None:
    """Check that a write is observed, and that the commit has the metadata."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    from deltalake import write_deltalake  # noqa: PLC0415 - as above

    from deltawitness import DeltaLakeInstrumentor, info, read_commit_metadata, run  # noqa: PLC0415 - as above

    DeltaLakeInstrumentor().instrument()
    with tempfile.TemporaryDirectory() as folder, run("try") as this_run:
        write_deltalake(folder, pa.table({"x": [1]}))
        assert read_commit_metadata(folder).run_id == this_run.run_id
    DeltaLakeInstrumentor().uninstrument()
    result = info()
    assert result.problems == {}, result.problems
    print(result)


def check_entry_points() -> None:
    """Check that OpenTelemetry finds the instrumentors, and pytest the plugin."""
    found = {
        each.name: each
        for group in ("opentelemetry_instrumentor", "pytest11")
        for each in entry_points(group=group)
        if each.dist is not None and each.dist.name == NAME
    }
    assert set(found) == {"datafusion", "deltalake", NAME}, found
    found["deltalake"].load()


def check_command(*, has_cli: bool) -> None:
    """Check the command: it prints its version, or names the extra that it needs."""
    command = Path(sysconfig.get_path("scripts"), NAME)
    done = subprocess.run(  # noqa: S603 - the installed command
        [command, "--version"], capture_output=True, text=True, timeout=120, check=False
    )
    if has_cli:
        assert (done.returncode, done.stderr) == (0, ""), done
        assert "deltalake" in done.stdout, done
    else:
        assert done.returncode == 2, done  # noqa: PLR2004 - the exit code of a wrong use
        assert "pip install 'deltawitness[cli]'" in done.stderr, done


if __name__ == "__main__":
    check_location()
    check_write()
    check_entry_points()
    check_command(has_cli="--with-cli" in sys.argv)
