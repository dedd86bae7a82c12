"""Use an installed wheel as a user does: write a table, read its commit and the ledger, run the command.

`make dist` and the compatibility matrix run it in environments with and without the extras. What an extra
adds must work where its packages are installed; elsewhere an error must name the extra.
"""

from __future__ import annotations

import subprocess
import sysconfig
import tempfile
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

NAME = "deltawitness"


def check_location() -> None:
    """Check that the package is imported from the environment, and not from a source tree."""
    import deltawitness  # noqa: PLC0415 - the import is what is tried

    assert Path(deltawitness.__file__).is_relative_to(sysconfig.get_paths()["purelib"])


def check_write() -> None:
    """Check that a write is observed: its commit has the metadata, and the ledger a row."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    from deltalake import write_deltalake  # noqa: PLC0415 - as above

    from deltawitness import (  # noqa: PLC0415 - as above
        DeltaLakeInstrumentor,
        Ledger,
        Settings,
        read_commit_metadata,
        run,
    )

    with tempfile.TemporaryDirectory() as folder:
        DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=f"{folder}/cache"))
        with run("try") as this_run:
            write_deltalake(f"{folder}/t", pa.table({"x": [1]}))
        DeltaLakeInstrumentor().uninstrument()
        assert read_commit_metadata(f"{folder}/t").run_id == this_run.run_id
        verification = Ledger(f"{folder}/cache").verify()
    assert verification.is_good
    assert set(verification.rows.values()) == {1}, verification


def check_sessions() -> None:
    """Check a statement that writes; without DataFusion the error names the extra."""
    import deltawitness  # noqa: PLC0415 - as above
    from deltawitness.exceptions import DeltaWitnessError  # noqa: PLC0415 - as above

    if not find_spec("datafusion"):
        try:
            deltawitness.ObservedSessionContext()
        except DeltaWitnessError as error:
            assert "deltawitness[datafusion]" in str(error), error  # noqa: PT017 - no test library here
            return
        msg = "a session without DataFusion raised nothing"
        raise AssertionError(msg)
    with tempfile.TemporaryDirectory() as folder:
        ctx = deltawitness.ObservedSessionContext()
        ctx.sql("SELECT 1 AS x").write_delta(folder)
        ctx.register_delta("t", folder)
        ctx.sql("INSERT INTO t VALUES (2)").collect()
        assert ctx.table("t").count() == 2  # noqa: PLR2004 - the rows written


def check_hamilton() -> None:
    """Check that the adapter can be imported where Apache Hamilton is installed."""
    if find_spec("hamilton"):
        from deltawitness.integrations.hamilton import DeltaWitnessAdapter  # noqa: PLC0415 - as above

        DeltaWitnessAdapter("try")


def check_openlineage() -> None:
    """Check that the sink can be made and opens a client; without the client the error names the extra."""
    from deltawitness import OpenLineageSink  # noqa: PLC0415 - as above
    from deltawitness.exceptions import DeltaWitnessError  # noqa: PLC0415 - as above
    from deltawitness.openlineage.sink import open_client  # noqa: PLC0415 - as above

    if find_spec("openlineage"):
        OpenLineageSink()
        open_client("http://127.0.0.1:9")
        return
    try:
        OpenLineageSink()
    except DeltaWitnessError as error:
        assert "deltawitness[openlineage]" in str(error), error  # noqa: PT017 - no test library here
        return
    msg = "a sink without the OpenLineage client raised nothing"
    raise AssertionError(msg)


def check_info() -> None:
    """Check that the description of the installation has every part, and print it."""
    from deltawitness import info  # noqa: PLC0415 - as above

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


def check_command() -> None:
    """Check the command: it prints its version; without its packages it names the extra."""
    command = Path(sysconfig.get_path("scripts"), NAME)
    done = subprocess.run(  # noqa: S603 - the installed command
        [command, "--version"], capture_output=True, text=True, timeout=120, check=False
    )
    if find_spec("typer") and find_spec("rich"):
        assert (done.returncode, done.stderr) == (0, ""), done
        assert "deltalake" in done.stdout, done
    else:
        assert done.returncode == 2, done  # noqa: PLR2004 - the exit code of a wrong use
        assert "pip install 'deltawitness[cli]'" in done.stderr, done


if __name__ == "__main__":
    check_location()
    check_write()
    check_sessions()
    check_hamilton()
    check_openlineage()
    check_entry_points()
    check_command()
    check_info()
