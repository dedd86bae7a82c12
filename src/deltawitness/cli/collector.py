"""`deltawitness collector init`: write the files for a Collector, Prometheus and Grafana to a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from deltawitness.cli.console import (
    MISUSED,
    CommandError,
    JsonOption,
    exit_on_error,
    print_json,
)
from deltawitness.collector_files import CollectorFileExistsError, write_collector_files

__all__ = ["collector_init_command"]


def collector_init_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to write to; it is created if needed.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace files that differ.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Write the configurations of a Collector, Prometheus alerts and a Grafana dashboard to a folder.

    `compose.yaml` starts all of it in containers. The command exits 1 if a file exists with other content
    or cannot be written, and writes nothing in the first case. It exits 2 if the command line is invalid.

    Examples:
    deltawitness collector init monitoring

    deltawitness collector init monitoring --force --json
    """
    with exit_on_error(str(folder)):
        if folder.exists() and not folder.is_dir():
            msg = f"{folder} is no folder: pass a folder that exists or is to be created"
            raise CommandError(msg, MISUSED)
        try:
            result = write_collector_files(folder, force=force)
        except OSError as error:
            msg = f"{error.filename or folder} cannot be written: {error.strerror or error}"
            raise CommandError(msg) from None
        except CollectorFileExistsError as error:
            raise CommandError(str(error)) from None
    if as_json:
        print_json(asdict(result))
        return
    print(f"{result.folder}: {len(result.written)} written, {len(result.unchanged)} unchanged")
    for name in result.written:
        print(f"  {name}")
    print("next: docker compose up, or otelcol-contrib --config config.yaml (README.md)")
