"""A virtual environment with Spark, Delta and LakeSail beside the project, made once in `.cache`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from helpers.places import PROGRAMS, REPOSITORY

REQUIRES = (
    "coverage",
    "delta-spark==4.4.0",
    "grpcio-status",
    "pandas<3",
    "pysail==0.7.2",
    "pyspark[connect]==4.2.0",
)
EXTRAS = "cli"

FAST = {
    "spark.databricks.delta.properties.defaults.checkpointInterval": "100",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.default.parallelism": "1",
    "spark.driver.extraJavaOptions": "'-XX:TieredStopAtLevel=1 -XX:+UseSerialGC'",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "1",
    "spark.ui.showConsoleProgress": "false",
}
"""Settings with which Spark compiles less code for a few rows: the programs take half as long."""

FOLDER = REPOSITORY / ".cache/spark"
JARS = REPOSITORY / ".cache/ivy"
UV = str(Path(sys.executable).with_name("uv"))

COVERED = "import os; os.environ.get('COVERAGE_PROCESS_CONFIG') and __import__('coverage').process_startup()"
"""The line of a `.pth` file by which each process of the environment is measured, as in the development one."""


@cache
def missing() -> str | None:
    """Return what Spark needs and this system does not have; None if nothing is missing."""
    if shutil.which("java") is None:
        return "there is no `java` on the PATH, which Spark needs: install Java 17"
    return None


@cache
def python() -> str:
    """Return the interpreter of the environment, which is made if it does not exist or is not current."""
    text = "\n".join([*REQUIRES, (REPOSITORY / "pyproject.toml").read_text(), sys.version])
    digest = hashlib.sha256(text.encode()).hexdigest()
    ready, found = FOLDER / "ready", FOLDER / "bin/python"
    if not ready.is_file() or ready.read_text() != digest:
        _uv("venv", "--clear", "--python", sys.executable, str(FOLDER))
        project = f"{REPOSITORY}[{EXTRAS}]"
        _uv("pip", "install", "--python", str(found), "--editable", project, *REQUIRES)
        (packages,) = FOLDER.glob("lib/python*/site-packages")
        (packages / "measured.pth").write_text(COVERED + "\n")
        ready.write_text(digest)
    return str(found)


def _uv(*arguments: str) -> None:
    done = subprocess.run([UV, *arguments, "--quiet"], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(done.stderr)


@dataclass(frozen=True)
class SparkProgram:
    """A program of Spark that has ended.

    Attributes:
        folder: the folder with its tables.
        stdout: the standard output.
        stderr: the standard error.
    """

    folder: Path
    stdout: str
    stderr: str


def run_program(path: Path, folder: Path, *arguments: str) -> SparkProgram:
    """Run a program with a folder and further arguments, and with the packages of Maven in the cache.

    Raises:
        subprocess.CalledProcessError: the program failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = _run([python(), str(path), str(folder), *arguments], folder)
    return SparkProgram(folder, done.stdout, done.stderr)


def _arguments() -> str:
    settings = {"spark.jars.ivy": str(JARS), **FAST}
    return " ".join(f"--conf {name}={value}" for name, value in settings.items())


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if "DELTAWITNESS" not in name}
    done = subprocess.run(
        command,
        cwd=folder,
        env={
            **ours,
            "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY / "examples", PROGRAMS))),
            "PYSPARK_SUBMIT_ARGS": f"{_arguments()} pyspark-shell",
            "SPARK_LOCAL_IP": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        timeout=1200,
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    return done
