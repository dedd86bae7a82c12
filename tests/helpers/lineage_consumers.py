"""Consumers of OpenLineage events in environments of their own: openlineage-java, and Feast's lineage endpoint."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from urllib.parse import quote
from urllib.request import urlopen

from helpers.places import PROGRAMS, REPOSITORY

FOLDER = PROGRAMS / "openlineage"
CACHE = REPOSITORY / ".cache/openlineage"
FEAST = ("feast[openlineage]==0.67.0",)
AS_OF = "2026-11-27"
"""The day as of which requirements are resolved."""

LIMIT_S = 600


def missing_for_java():
    """Return what the Java parser needs and this system does not have; None if nothing is missing."""
    absent = [name for name in ("java", "mvn") if shutil.which(name) is None]
    return f"not on the PATH: {', '.join(absent)}" if absent else None


def java_classpath():
    """Return the class path of openlineage-java, whose jars Maven copies once."""
    jars = CACHE / "jars"
    text = (FOLDER / "pom.xml").read_text("utf-8")
    if not _is_ready(jars, text):
        maven = ["mvn", "--batch-mode", "--quiet", "--file", str(FOLDER / "pom.xml")]
        options = [f"-Dmaven.repo.local={CACHE / 'maven'}", f"-DoutputDirectory={jars}"]
        _run(*maven, *options, "dependency:copy-dependencies")
        _set_ready(jars, text)
    return f"{jars}/*"


def parse_in_java(events):
    """Parse events by openlineage-java; return them as its classes serialize them, and its counts of typed facets.

    Raises:
        subprocess.CalledProcessError: an event could not be parsed.
    """
    done = subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", "-cp", java_classpath(), FOLDER / "ParseEvents.java"],
        input="".join(json.dumps(event) + "\n" for event in events),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LIMIT_S,
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    *parsed, counts = map(json.loads, done.stdout.splitlines())
    return parsed, counts


@contextmanager
def feast_server(folder):
    """Run the lineage endpoint of Feast with an empty database; yield its URL."""
    program = [str(_feast_python()), str(FOLDER / "feast_server.py"), str(folder)]
    quiet = {**os.environ, "FEAST_USAGE": "False", "DO_NOT_TRACK": "1", "HOME": str(folder)}
    log = folder / "feast.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(program, stdout=subprocess.PIPE, stderr=errors, env=quiet) as process,
    ):
        try:
            port = process.stdout.readline().strip().decode()
            assert port, log.read_text("utf-8")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def feast_graph(url, namespace=None):
    """Return the graph that Feast has made, as its user interface gets it."""
    query = "" if namespace is None else f"?namespace={quote(namespace, safe='')}"
    with urlopen(f"{url}/api/v1/lineage/openlineage/graph{query}", timeout=60) as answer:
        return json.load(answer)


def _feast_python():
    folder = CACHE / "feast"
    text = "\n".join([*FEAST, AS_OF, sys.version])
    if not _is_ready(folder, text):
        uv = os.path.join(os.path.dirname(sys.executable), "uv")
        python = str(folder / "bin/python")
        _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
        resolved = ["--exclude-newer", AS_OF, "--python", python]
        _run(uv, "pip", "install", "--quiet", "--compile-bytecode", *resolved, *FEAST)
        _set_ready(folder, text)
    return folder / "bin/python"


def _is_ready(folder, text):
    ready = folder / "ready"
    return ready.is_file() and ready.read_text() == hashlib.sha256(text.encode()).hexdigest()


def _set_ready(folder, text):
    (folder / "ready").write_text(hashlib.sha256(text.encode()).hexdigest())


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
