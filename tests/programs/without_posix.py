"""Import and use the library as on Windows: without the modules and functions that only POSIX systems have.

Every module is imported twice: first as on this system, for the libraries below it, which stay. `msvcrt.locking` is replaced
by a function with its semantics: exclusive, never waiting.

Arguments: the folder to work in.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import os
import pkgutil
import signal
import sys
import types
from pathlib import Path

import datafusion
import deltalake
import pyarrow as pa
import typer.testing

ONLY_POSIX = {
    os: ("fork", "forkpty", "register_at_fork", "getuid", "geteuid", "getpgrp", "tcgetpgrp", "killpg",
         "pread", "pwrite", "set_blocking", "posix_spawn", "posix_spawnp", "O_NOCTTY", "O_CLOEXEC"),
    signal: ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGKILL", "SIGCHLD", "alarm",
             "pthread_sigmask", "SIG_BLOCK", "SIG_SETMASK"),
}  # fmt: skip


def locking(descriptor, mode, size):
    """Lock as `msvcrt.locking(descriptor, LK_NBLCK, 1)`."""
    assert (mode, size, os.lseek(descriptor, 0, os.SEEK_CUR)) == (2, 1, 0)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PermissionError(errno.EACCES, "Permission denied") from error


def hide():
    """Remove what Windows does not have."""
    for owner, names in ONLY_POSIX.items():
        for name in names:
            vars(owner).pop(name, None)
    for name in ("fcntl", "grp", "pwd", "resource", "termios"):
        sys.modules[name] = None
    sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
    os.O_BINARY = 0
    sys.platform = "win32"


def import_everything():
    """Import each module of the package; return how many there are."""
    package = importlib.import_module("deltawitness")
    names = [
        module.name
        for module in pkgutil.walk_packages(package.__path__, "deltawitness.")
        if not module.name.endswith((".__main__", ".site.sitecustomize", ".bench.worker"))
    ]
    for name in names:
        importlib.import_module(name)
    return len(names)


def forget():
    """Remove the modules of the package, so that the next import runs them again."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "deltawitness"]:
        del sys.modules[name]


def use(folder):
    """Write in a run with a ledger and a cache, and list the writes."""
    from deltawitness import (
        DataFusionInstrumentor,
        DeltaCache,
        DeltaLakeInstrumentor,
        Ledger,
        Settings,
        flush,
        run,
    )
    from deltawitness.cli.app import app

    root = str(folder / "root")
    settings = Settings(ledger=True, cache_root=root, drain_interval=0.05)
    DeltaLakeInstrumentor().instrument(settings=settings)
    DataFusionInstrumentor().instrument(settings=settings)
    with run("windows"):
        deltalake.write_deltalake(folder / "t", pa.table({"x": [1, 2]}))
        ctx = datafusion.SessionContext()
        ctx.register_table("t", deltalake.DeltaTable(folder / "t"))
        ctx.sql("INSERT INTO t VALUES (3)").collect()
        cached = DeltaCache(ctx, root).view("s", "SELECT sum(x) AS s FROM t")
        assert cached.to_pylist() == [{"s": 6}]
    assert flush(30)
    DataFusionInstrumentor().uninstrument()
    DeltaLakeInstrumentor().uninstrument()
    listed = typer.testing.CliRunner().invoke(app, ["writes", "--root", root])
    assert listed.exit_code == 0, listed.output
    print(listed.output)
    return Ledger(root).inventory().count()


if __name__ == "__main__":
    import_everything()
    forget()
    hide()
    print(import_everything() > 200, use(Path(sys.argv[1])))
