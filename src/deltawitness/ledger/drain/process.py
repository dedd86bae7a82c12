"""A drain in a process of its own, for a program that has not used delta-rs itself.

A drain uses delta-rs, and once a process has used it, its forked children cannot. So while the program
has not used it, a helper process drains: the same interpreter, started for one drain.

The helper forks at its very start and goes on in the child, in a session of its own. It is then no child
of the program, which may wait for children of its own, and no signal of the terminal reaches it. The
process that was started is a child of the program for some 10 ms, and has ended when the start returns. The
helper ends after its drain, also where the program has ended meanwhile, and after `LONGEST_LIFE` seconds
in any case.

What it needs to know, credentials among it, goes through its standard input; nothing is on its command
line. It answers with two lines of JSON: its process id, and a :class:`DrainReply`.
"""

from __future__ import annotations

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
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from deltawitness.processes import interpreter
from deltawitness.run import suppressed
from deltawitness.semconv import Env

__all__ = ["DrainProcess", "DrainReply", "DrainRequest", "HelperError", "answer"]

LONGEST_LIFE = 600
"""Seconds after which a helper ends, whatever it waits for; what it has not drained is drained later."""

START_TIMEOUT = 30.0
"""Seconds that the start of an interpreter may take."""

_CODE = """\
import os
if os.fork():
    os._exit(0)
answers = os.dup(1)
os.dup2(2, 1)
os.write(answers, b"%d\\n" % os.getpid())
import json, site, sys
request = json.loads(sys.stdin.readline())
site.main()
sys.path[:] = request.pop("python_path")
from deltawitness.ledger.drain.process import answer
answer(request, answers)
"""
"""What the helper runs: what modules print while they are imported is no answer."""

_NOT_INHERITED = (
    Env.ACTIVATE,
    Env.EVENTS_FILE,
    Env.RUN_ID,
    Env.JOB,
    Env.TRACEPARENT,
)
"""Variables that make a process observed, or part of a run."""


class HelperError(Exception):
    """A helper process could not drain; the text says why."""


@dataclass(frozen=True, slots=True)
class DrainRequest:
    """What a helper is to drain.

    Attributes:
        root: the cache root.
        storage_options: how it is opened.
        spools: the folder of the spools of all processes.
        home: the spool of the process that asks; None when it has none.
        segments: names of the sealed segments in it, oldest first.
        tail: versions of a table's log to search for the commit of a note without a row.
        maintain: whether to maintain tables that are due.
    """

    root: str
    storage_options: Mapping[str, str] | None = field(repr=False)
    spools: str
    home: str | None
    segments: Sequence[str]
    tail: int
    maintain: bool


@dataclass(frozen=True, slots=True)
class DrainReply:
    """How the drain of a helper ended.

    Attributes:
        damaged: lines that could not be read.
        problems: what went wrong beside the drain, as component and text.
        error: why the segments of the process that asks are not drained; None when they are.
    """

    damaged: int = 0
    problems: Sequence[Sequence[str]] = ()
    error: str | None = None


# --- the process that asks -----------------------------------------------------------------------


class DrainProcess:
    """A helper that has been started.

    No fork may happen while one is made: the child would keep the pipes of the helper open.

    Args:
        request: what it is to drain.

    Raises:
        HelperError: no helper can be started here.
    """

    def __init__(self, request: DrainRequest) -> None:
        python = interpreter()
        if python is None:
            msg = "there is no Python interpreter that could be started"
            raise HelperError(msg)
        try:
            self._start(python, request)
        except (OSError, subprocess.SubprocessError) as error:
            msg = f"the helper process cannot be started: {error}"
            raise HelperError(msg) from error

    def _start(self, python: str, request: DrainRequest) -> None:
        # Neither PYTHONPATH nor a sitecustomize: the helper must not be instrumented by anybody.
        with suppressed():  # it takes part in no run
            starter = subprocess.Popen(  # noqa: S603 - our own code, by this very interpreter
                [python, "-I", "-S", "-c", _CODE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=_environment(),
            )
        if starter.stdin is None or starter.stdout is None:  # only for the type checker
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
            timeout: seconds; None waits for as long as the helper lives.

        Raises:
            HelperError: it died, or takes longer; it goes on then.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._answer:
            lines = self._lines(deadline)
        pid = int(lines[0]) if lines and lines[0].isdigit() else None
        if pid is not None:
            # Its new parent is this process where that is the first one of a container.
            with suppress(OSError):
                os.waitpid(pid, 0)
        if len(lines) < 2:  # noqa: PLR2004 - as the module says
            msg = "the helper process ended before its drain"
            raise HelperError(msg)
        return DrainReply(**json.loads(lines[1]))

    def _lines(self, deadline: float | None) -> list[bytes]:
        """Return the lines that the helper answers with; fewer when it died."""
        descriptor, content = self._answer.fileno(), b""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while content.count(b"\n") < 2:  # noqa: PLR2004 - as the module says
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            if not poll.poll(left):
                msg = "the helper process takes its time"
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
    """Drain as the request asks, write to a file descriptor how it ended, and end the process."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LONGEST_LIFE)
    sys.meta_path.insert(0, _NoPandas())
    reply = drain_request(DrainRequest(**request))
    with suppress(OSError):  # who asked is gone
        os.write(answers, json.dumps(asdict(reply)).encode() + b"\n")
    # Nothing is left to do: the threads of the engine are not waited for.
    os._exit(0)


def drain_request(request: DrainRequest) -> DrainReply:
    """Drain the segments that are named, then the spools of dead processes; never raises."""
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
    from deltawitness.ledger.drain.drain import Drain  # noqa: PLC0415 - heavy, and for the helper only
    from deltawitness.ledger.drain.maintenance import maintain  # noqa: PLC0415 - as above
    from deltawitness.ledger.tables.schema import LedgerRoot  # noqa: PLC0415 - as above

    options = request.storage_options
    root = LedgerRoot(request.root, None if options is None else dict(options))
    drain = Drain(root, tail=request.tail)
    home = None if request.home is None else Path(request.home)
    done = drain.own([home / name for name in request.segments] if home else [])
    done += drain.all_dead(Path(request.spools), home)
    if request.maintain:
        for table in drain.due:
            maintain(root, table)
    return DrainReply(damaged=done.damaged, problems=problems)


class _ProblemCollector(logging.Handler):
    """Collects what is logged, as component and text."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__(logging.WARNING)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        """Collect one record."""
        component = record.args[0] if isinstance(record.args, tuple) and record.args else "drain"
        self._problems.append((str(component), record.getMessage()))


class _NoPandas(MetaPathFinder):
    """Keeps pyarrow from importing pandas, which takes longer than the drain and is not needed."""

    def find_spec(self, fullname: str, *_: object) -> None:
        """Refuse pandas; say nothing of other modules."""
        if fullname == "pandas":
            raise ModuleNotFoundError(name=fullname)
