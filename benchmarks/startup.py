"""CPU time of an import and `instrument()`, beyond `import deltalake`, each time in a new process.

    python benchmarks/startup.py [ROUNDS]

The variants run in turns. CPU time (user and system) depends little on the load of the machine. Bytecode
must be compiled, as after a first run without `PYTHONDONTWRITEBYTECODE`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 15

PROGRAM = """
import resource

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

import deltalake
before = cpu()
{code}
print(cpu() - before)
"""

VARIANTS = {
    "OpenTelemetry's `BaseInstrumentor`": (
        "from opentelemetry.instrumentation.instrumentor import BaseInstrumentor"
    ),
    "import and `instrument()`": (
        "from deltawitness import DeltaLakeInstrumentor; DeltaLakeInstrumentor().instrument()"
    ),
}


def seconds(code: str) -> float:
    command = [sys.executable, "-c", PROGRAM.format(code=code)]
    done = subprocess.run(  # noqa: S603 - this interpreter, with a program of this file
        command, capture_output=True, text=True, timeout=60, check=True
    )
    return float(done.stdout)


def main(rounds: int) -> None:
    found: dict[str, list[float]] = {title: [] for title in VARIANTS}
    for _ in range(rounds):
        for title, code in VARIANTS.items():
            found[title].append(seconds(code))
    for title, figures in found.items():
        print(f"{title}: median {statistics.median(figures):.3f} s, minimum {min(figures):.3f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else ROUNDS)
