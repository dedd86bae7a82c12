"""Drain in a helper process, for programs that have not used delta-rs themselves.

A drain uses delta-rs, and after a process has used it, its forked children cannot. So until the
program has used delta-rs, a helper process drains: the same interpreter, started for one drain.

The helper forks at its very start and continues in the child, in its own session. It is then no
child of the program, which may wait for its children, and terminal signals do not reach it. The
process that was started is a child of the program for some 10 ms and has ended when the start
returns. The helper ends after its drain, even if the program has ended meanwhile, and after
`LONGEST_LIFE` seconds in any case. No helper is needed, and none is started, on Windows: nothing forks.

The request, which may contain credentials, goes through its standard input; nothing is on its
command line. It answers with two lines of JSON: its process id, and a :class:`DrainReply`.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from deltawitness.processes import interpreter
from deltawitness.run import suppressed
from deltawitness.semconv import Env

__all__ = ["DrainProcess", "DrainReply", "DrainRequest", "HelperError", "answer"]

LONGEST_LIFE = 600
"""Seconds after which a helper ends; what it has not drained is drained later."""

START_TIMEOUT = 30.0
"""Seconds that the start of an interpreter may take."""

_CODE = """\
import os
if os.fork():
    os._exit(0)
answers = os.dup(1)
os.dup2(2, 1)
os.write(answers, b"%d\\n" % os.getpid())
import gc, json, site, sys
gc.disable()
request = json.loads(sys.stdin.readline())
site.main()
sys.path[:] = request.pop("python_path")
from deltawitness.ledger.drain.process import answer
answer(request, answers)
"""
"""The program of the helper. Its standard output is redirected first, so that output of imported
modules does not mix with its answers."""

_NOT_INHERITED = (
    Env.ACTIVATE,
    Env.EVENTS_FILE,
    Env.RUN_ID,
    Env.JOB,
    Env.REQUIRE,
    Env.TRACEPARENT,
)
"""Environment variables that would make the helper observed, or part of a run."""


class HelperError(Exception):
    """A helper process could not drain; the text says why."""


@dataclass(frozen=True, slots=True)
class DrainRequest:
    """The request to a helper process.

    Attributes:
        root: the cache root.
        storage_options: as for `DeltaTable`.
        spools: the folder of all spools.
        home: the spool of the requesting process; None when it has none.
        segments: names of its sealed segments, oldest first.
        tail: number of versions of a table's log to search for the commit of a provisional record.
        maintain: whether to maintain tables that are due.
        shard: the shard of the requesting process; None for the main tables.
        is_alone: whether the requesting process holds the lock of the drains on this host, so that the
            helper drains for the other processes, too.
    """

    root: str
    storage_options: Mapping[str, str] | None = field(repr=False)
    spools: str
    home: str | None
    segments: Sequence[str]
    tail: int
    maintain: bool
    shard: str | None = None
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class DrainReply:
    """The result of a helper's drain.

    Attributes:
        damaged: number of records that could not be read.
        problems: other errors, as component and text.
        error: why the segments of the requesting process are not drained; None when they are.
    """

    damaged: int = 0
    problems: Sequence[Sequence[str]] = ()
    error: str | None = None


# --- the requesting process ----------------------------------------------------------------------


class DrainProcess:
    """A helper process that has been started.

    The caller must prevent forks while it is created: a forked child would hold the helper's pipes
    open.

    Args:
        request: what to drain.

    Raises:
        HelperError: no helper can be started.
    """

    def __init__(self, request: DrainRequest) -> None:
        if sys.platform == "win32":
            msg = "a helper process needs os.fork, which Windows does not have"
            raise HelperError(msg)
        python = interpreter()
        if python is None:
            msg = "no Python interpreter found to start a helper process"
            raise HelperError(msg)
        try:
            self._start(python, request)
        except (OSError, subprocess.SubprocessError) as error:
            msg = f"the helper process cannot be started: {error}"
            raise HelperError(msg) from error

    def _start(self, python: str, request: DrainRequest) -> None:
        # Isolated from PYTHONPATH and sitecustomize, which could instrument the helper.
        with suppressed():  # not part of any run
            starter = subprocess.Popen(  # noqa: S603 - our own code and interpreter
                [python, "-I", "-S", "-c", _CODE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=_environment(),
            )
        if starter.stdin is None or starter.stdout is None:  # for the type checker
            raise AssertionError
        self._answer = starter.stdout
        python_path = [path for path in sys.path if isinstance(path, str) and path]
        text = json.dumps({**asdict(request), "python_path": python_path})
        try:
            with starter.stdin as stdin:
                stdin.write(text.encode() + b"\n")
            starter.wait(START_TIMEOUT)
        except BaseException:
            starter.kill()
            starter.wait()
            self._answer.close()
            raise

    def wait(self, timeout: float | None = None) -> DrainReply:
        """Wait until the helper has drained.

        Args:
            timeout: seconds; None waits until the helper ends.

        Raises:
            HelperError: it died, or the timeout passed; in that case it continues.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._answer:
            lines = self._lines(deadline)
        pid = int(lines[0]) if lines and lines[0].isdigit() else None
        if pid is not None:
            # As PID 1 of a container, this process is the parent of the orphaned helper.
            with suppress(OSError):
                os.waitpid(pid, 0)
        if len(lines) < 2:  # noqa: PLR2004 - see the module's docstring
            msg = "the helper process ended before its drain"
            raise HelperError(msg)
        return DrainReply(**json.loads(lines[1]))

    def _lines(self, deadline: float | None) -> list[bytes]:
        """Return the lines of the helper's answer; fewer than two if it died."""
        if sys.platform == "win32":
            raise AssertionError
        descriptor, content = self._answer.fileno(), b""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while content.count(b"\n") < 2:  # noqa: PLR2004 - see the module's docstring
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            if not poll.poll(left):
                msg = "the helper process has not finished within the timeout"
                raise HelperError(msg)
            more = os.read(descriptor, 1 << 16)
            if not more:
                break
            content += more
        return content.split(b"\n")[:-1]


def _environment() -> dict[str, str]:
    left_out = {variable.value for variable in _NOT_INHERITED}
    return {name: value for name, value in os.environ.items() if name not in left_out}


# --- the helper ----------------------------------------------------------------------------------


def answer(request: dict[str, Any], answers: int) -> None:
    """Run the helper: drain as requested, write the reply to a file descriptor, end the process.

    Args:
        request: the members of a :class:`DrainRequest`.
        answers: the file descriptor.
    """
    if sys.platform == "win32":
        raise AssertionError
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LONGEST_LIFE)
    sys.meta_path.insert(0, _NoPandas())
    for name in ("drain", "maintenance"):  # heavy
        import_module(f"deltawitness.ledger.drain.{name}")
    gc.freeze()  # the modules live to the end of the process
    gc.enable()
    reply = drain_request(DrainRequest(**request))
    with suppress(OSError):  # the requesting process is gone
        os.write(answers, json.dumps(asdict(reply)).encode() + b"\n")
    # Do not wait for the engine's threads.
    os._exit(0)


def drain_request(request: DrainRequest) -> DrainReply:
    """Drain the requested segments, then the spools of dead processes; never raises."""
    problems: list[tuple[str, str]] = []
    log, handler = logging.getLogger("deltawitness"), _ProblemCollector(problems)
    log.addHandler(handler)
    try:
        return _result_of(request, problems)
    except BaseException as error:  # noqa: BLE001 - an engine that panics raises no Exception
        return DrainReply(problems=problems, error=f"{type(error).__qualname__}: {error}")
    finally:
        log.removeHandler(handler)


def _result_of(request: DrainRequest, problems: list[tuple[str, str]]) -> DrainReply:
    from deltawitness.ledger.drain.drain import Drain  # noqa: PLC0415 - heavy
    from deltawitness.ledger.drain.maintenance import maintain  # noqa: PLC0415 - as above
    from deltawitness.ledger.tables.schema import LedgerRoot  # noqa: PLC0415 - as above

    options = request.storage_options
    root = LedgerRoot(request.root, None if options is None else dict(options), request.shard)
    drain = Drain(root, tail=request.tail)
    home = None if request.home is None else Path(request.home)
    own = [home / name for name in request.segments] if home else []
    folder = Path(request.spools)
    done = (
        drain.drain_for_host(own, folder, home) if request.is_alone else drain.drain_segments(own)
    )
    done += drain.drain_abandoned(folder, home)
    if request.maintain:
        for table in drain.due:
            maintain(root.of_shard(None), table)
    return DrainReply(damaged=done.damaged, problems=problems)


class _ProblemCollector(logging.Handler):
    """A log handler that collects warnings and errors as component and text."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__(logging.WARNING)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        """Collect one log record."""
        component = record.args[0] if isinstance(record.args, tuple) and record.args else "drain"
        self._problems.append((str(component), record.getMessage()))


class _NoPandas(MetaPathFinder):
    """An import hook that hides pandas from pyarrow: importing it takes longer than the drain."""

    def find_spec(self, fullname: str, *_: object) -> None:
        """Raise for pandas; ignore other modules."""
        if fullname == "pandas":
            raise ModuleNotFoundError(name=fullname)
